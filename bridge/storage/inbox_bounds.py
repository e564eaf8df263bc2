"""How much the inbox may hold before it takes no more, and when it takes again.

What waits is bounded in messages and bytes, and the disk keeps some room for what the node must still write. The bound
is a refusal, never a loss: a sender is told to try again, what is already here stays, and redeliveries are answered as
ever. Taking resumes by itself once the backlog has shrunk by a tenth, so that it does not flicker.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from bridge.errors import Overloaded
from bridge.log import get_logger
from bridge.storage.inbox_desk import backlog
from bridge.storage.inbox_tables import Backlog

COUNT_SECONDS = 5.0
"""How often the backlog is counted; in between this process adds what it took itself."""

RECOUNT_SECONDS = 0.5
"""How soon it is counted again when it seems full."""

ROOM_SECONDS = 0.5
"""How often the disk's free room is asked for."""

COUNT_SHARE = 50
"""Counting takes at most one part in this many of the time: a long count waits longer for the next one."""

RESUME_SHARE = 0.9
"""Part of a bound to which the backlog must shrink before messages are taken again."""


@dataclass(frozen=True, slots=True)
class InboxBounds:
    """What the inbox may hold: waiting messages, their bytes, and the bytes to be left free on ``directory``'s disk.

    ``directory`` None: the disk is another machine's (a database server), and nothing is known about it.
    """

    max_messages: int = 2_000_000
    max_bytes: int = 8 * 1024**3
    min_free_bytes: int = 512 * 1024**2
    directory: Path | None = None


class IntakeGate:
    """Says whether messages are taken now. One for each process; used by one thread at a time."""

    def __init__(self, bounds: InboxBounds, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._bounds = bounds
        self._monotonic = monotonic
        self._counted = float("-inf")
        self._pause = COUNT_SECONDS
        self._seen = Backlog(0, 0, None)
        self._taken_messages = 0
        self._taken_bytes = 0
        self._reason = ""
        self._measured = float("-inf")
        self._free = 0
        self._log = get_logger("inbox")

    def refusal(self, connection: Connection, messages: int, size: int) -> Overloaded | None:
        """Return None when so many messages with so many bytes may be taken, and count them as taken; else why not."""
        if self._due(messages, size):
            self._count(connection)
        reason = self._judged(messages, size)
        if bool(reason) != bool(self._reason):
            note = self._log.warning if reason else self._log.info
            note("the inbox takes no more" if reason else "the inbox takes messages again", reason=reason)
        self._reason = reason
        if reason:
            return Overloaded(f"the node takes no more messages at the moment ({reason}); send again later")
        self._taken_messages += messages
        self._taken_bytes += size
        return None

    def judge(self, waiting: Backlog) -> str:
        """Return which bound a backlog has reached, "" for none, for a report."""
        bounds = self._bounds
        if waiting.messages >= bounds.max_messages:
            return "inbox.max_messages is reached"
        if waiting.bytes >= bounds.max_bytes:
            return "inbox.max_bytes is reached"
        return "" if self._room(bounds.min_free_bytes) else "less than inbox.min_free_bytes is free on the disk"

    def _due(self, messages: int, size: int) -> bool:
        since = self._monotonic() - self._counted
        return since >= self._pause or (bool(self._judged(messages, size)) and since >= RECOUNT_SECONDS)

    def _count(self, connection: Connection) -> None:
        began = self._monotonic()
        self._seen = backlog(connection)
        self._taken_messages = self._taken_bytes = 0
        self._counted = self._monotonic()
        self._pause = max(COUNT_SECONDS, COUNT_SHARE * (self._counted - began))

    def _judged(self, messages: int, size: int) -> str:
        """Return why ``messages`` more with ``size`` bytes are not taken, "" when they are."""
        bounds = self._bounds
        share = RESUME_SHARE if self._reason else 1.0
        if self._seen.messages + self._taken_messages + messages > bounds.max_messages * share:
            return "inbox.max_messages is reached"
        if self._seen.bytes + self._taken_bytes + size > bounds.max_bytes * share:
            return "inbox.max_bytes is reached"
        needed = bounds.min_free_bytes / share
        return "" if self._room(needed) else "less than inbox.min_free_bytes is free on the disk"

    def _room(self, needed: float) -> bool:
        """Whether the disk has so many bytes free, as it was a moment ago."""
        directory = self._bounds.directory
        if directory is None or not needed:
            return True
        now = self._monotonic()
        if now - self._measured >= ROOM_SECONDS:
            self._measured = now
            try:
                self._free = shutil.disk_usage(directory).free
            except OSError:
                return True  # the database will say what is wrong with it
        return self._free >= needed
