"""Application acknowledgements over MLLP: told when a message has been processed, to a sender who asked (MSH-16).

Enhanced mode (HL7 v2.5, 2.9.3): the commit acknowledgement went out when the message was on the disk; workers in other
processes convert it, and what became of it is asked from the inbox here, for all waiting messages at once. An answer
whose connection is gone is not lost: the sender gets it with the next delivery of the same message, or asks over HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from anchor.errors import AnchorError
from bridge.errors import BridgeError
from bridge.log import get_logger

POLL_SECONDS = 0.1
"""How late an application acknowledgement may be after the message was processed."""

FAILURE_SECONDS = 2.0
"""Pause before the database is asked again after it failed."""


class Processing(Protocol):
    """A reply whose message is being processed; ``id`` is its number in the inbox."""

    @property
    def id(self) -> int | None: ...  # noqa: D102


Completed = Callable[[Sequence[Any]], Mapping[int, bytes | None]]
"""Gives the application acknowledgements of messages that have been processed by now, by number."""


class FollowUps:
    """Waits for messages to be processed. Belongs to one event loop."""

    def __init__(self, completed: Completed) -> None:
        self._completed = completed
        self._waiting: dict[asyncio.Future[bytes | None], Processing] = {}
        self._task: asyncio.Task[None] | None = None
        self._log = get_logger("mllp")

    async def of(self, reply: Processing) -> bytes | None:
        """Return the application acknowledgement of a message once it has been processed; None when none is wanted."""
        told: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting[told] = reply
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
        try:
            return await told
        finally:
            self._waiting.pop(told, None)

    def close(self) -> None:
        """Stop asking; those who still wait are cancelled."""
        if self._task is not None:
            self._task.cancel()
        for told in list(self._waiting):
            told.cancel()

    async def _poll(self) -> None:
        while self._waiting:
            await asyncio.sleep(POLL_SECONDS)
            waiting = dict(self._waiting)
            try:
                done = await asyncio.to_thread(self._completed, list(waiting.values()))
            except (BridgeError, AnchorError) as error:
                self._log.warning("cannot tell what became of messages", error=type(error).__name__)
                await asyncio.sleep(FAILURE_SECONDS)
                continue
            for told, reply in waiting.items():
                if reply.id is not None and reply.id in done and not told.done():
                    told.set_result(done[reply.id])
