"""One sender's MLLP connection: bytes to frames, frames to the inbox in their order, answers back in it.

A protocol of callbacks and not a coroutine, for at a thousand messages a second the difference is half of the
listener's time. The server (``bridge.mllp``) looks at every connection often, for the bounds in time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from bridge.log import get_logger
from fhir_adapters.hl7v2.framing import Frame, FrameDecoder, FramingFault, frame

FRAMES_AT_ONCE = 64
"""Messages of one connection under way together: enough to share a commit, little to hold in memory."""

FOLLOWED_AT_ONCE = 1000
"""Messages of one connection whose processing is waited for; beyond, no more are taken from it."""

WRITE_SECONDS = 30.0
"""A sender that does not take its acknowledgements for this long is dropped."""

LARGE_BYTES = 64 * 1024
"""Messages beyond this are looked at on a thread of their own: splitting a megabyte takes as long as a commit. The
others of their connection wait, for order is order."""

LINGER_SECONDS = 1.0
"""How long an ending connection waits for messages that are being processed."""

#: after these faults the stream may still be in step with its frames; after the others the connection is closed
RECOVERABLE_FAULTS = frozenset({"missing-end-block", "bad-end-block"})


class Reply(Protocol):
    """What came of a received message.

    ``ack`` is the acknowledgement's content, without framing, and ``wanted`` whether the sender asked for it;
    ``id`` is the message's number, None when it was not kept; ``follow_up``: it also wants to hear of its processing.
    """

    @property
    def ack(self) -> bytes: ...  # noqa: D102
    @property
    def wanted(self) -> bool: ...  # noqa: D102
    @property
    def id(self) -> int | None: ...  # noqa: D102
    @property
    def follow_up(self) -> bool: ...  # noqa: D102


class Listener(Protocol):
    """What a connection needs of its server."""

    def admit(self, connection: Connection) -> bool:
        """Take a new connection, or say that it must go."""

    def gone(self, connection: Connection) -> None:
        """Forget a connection."""

    def take(self, content: bytes, tell: Callable[[Reply | None], None]) -> None:
        """Hand a message to the inbox; ``tell`` is called with its reply, None when it could not be taken in."""

    def refuse(self, fault: FramingFault) -> bytes | None:
        """Return the content of the answer to what is no frame, if there is one."""

    async def processed(self, reply: Reply) -> bytes | None:
        """Wait until a message has been processed; return the content of the answer to that, if one is wanted."""


@dataclass(slots=True)
class _Slot:
    """A frame or fault that is to be answered in its turn; ``answer`` is None until it is known."""

    found: Frame | FramingFault
    answer: _Answer | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    content: bytes | None
    last: bool = False
    """Whether the connection can no longer be trusted to be in step, and ends after this."""


class Connection(asyncio.Protocol):
    """One sender. ``frame_seconds`` is the time for a whole frame, ``idle_seconds`` that between two."""

    def __init__(self, listener: Listener, *, max_bytes: int, idle_seconds: float, frame_seconds: float) -> None:
        self._listener = listener
        self._decoder = FrameDecoder(max_bytes)
        self._idle_seconds, self._frame_seconds = idle_seconds, frame_seconds
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Frame | FramingFault] = deque()
        self._slots: deque[_Slot] = deque()
        self._following: set[asyncio.Task[None]] = set()
        self._ending = False
        self._ending_after_frame = False
        self._alone = False
        self._heard = self._loop.time()
        self._frame_began: float | None = None
        self._stuck_since: float | None = None
        self._log = get_logger("mllp")
        self.closed: asyncio.Future[None] = self._loop.create_future()

    # Events of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or end at once when the listener takes no more connections."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._listener.admit(self):
            self._ending = True
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Find frames and hand them on."""
        if self._ending:
            return
        self._heard = self._loop.time()
        found = self._decoder.feed(data)
        if found:
            self._frame_began = None  # what follows is a new frame, with its own time
            self._waiting += found
            self._pump()
        if not self._decoder.pending:
            self._frame_began = None
        elif self._frame_began is None:
            self._frame_began = self._heard

    def eof_received(self) -> bool:
        """The sender has no more to say, and may still listen for its answers."""
        self._end_of_input()
        # TLS knows no half-closed connection
        return self._transport is not None and self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody listens any more."""
        if error is not None:
            self._log.info("connection lost", reason=type(error).__name__)
        self._ending = True
        self._waiting.clear()
        for task in list(self._following):
            task.cancel()
        self._listener.gone(self)
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        """The sender does not take its answers."""
        self._stuck_since = self._loop.time()

    def resume_writing(self) -> None:
        """It takes them again."""
        self._stuck_since = None

    # The listener's side

    def look(self, now: float) -> None:
        """End the connection when one of its times is over."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._stuck_since is not None and now - self._stuck_since > WRITE_SECONDS:
            self._log.warning("connection closed", reason="acknowledgements are not taken")
            self._transport.abort()
        elif self._ending or self._slots or self._waiting:
            return
        elif self._frame_began is not None and now - self._frame_began > self._frame_seconds:
            self._log.warning("connection closed", reason="mllp.frame_seconds")
            self._end_of_input()
        elif self._frame_began is None and now - self._heard > self._idle_seconds:
            self._log.warning("connection closed", reason="mllp.idle_seconds")
            self._end()

    def finish(self) -> asyncio.Future[None]:
        """End: at once when nothing is in hand, otherwise after the frame that has begun is answered."""
        if not self._decoder.pending:
            self._end()
        else:
            self._heard = self._loop.time()
            self._ending_after_frame = True
        return self.closed

    def abort(self) -> None:
        """End without waiting for anything."""
        if self._transport is not None:
            self._transport.abort()

    # Between the two

    def _pump(self) -> None:
        """Hand waiting frames on in their order, as many as may be under way at once; a large one goes alone."""
        while self._waiting and not self._alone and self._has_room():
            slot = _Slot(self._waiting.popleft())
            self._slots.append(slot)
            if isinstance(slot.found, FramingFault):
                fault = slot.found
                slot.answer = _Answer(self._listener.refuse(fault), last=fault.code not in RECOVERABLE_FAULTS)
            else:
                self._alone = len(slot.found.content) > LARGE_BYTES
                self._listener.take(slot.found.content, partial(self._told, slot))
        if self._slots and self._slots[0].answer is not None:
            self._flush()
        self._listen(not self._waiting)

    def _has_room(self) -> bool:
        return len(self._slots) < FRAMES_AT_ONCE and len(self._following) < FOLLOWED_AT_ONCE

    def _listen(self, wanted: bool) -> None:
        """Read on, or let the sender wait while enough of its messages are under way."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if wanted and not transport.is_reading():
            transport.resume_reading()
        elif not wanted and transport.is_reading():
            transport.pause_reading()

    def _told(self, slot: _Slot, reply: Reply | None) -> None:
        """Note what came of a message, and answer all whose turn it is."""
        slot.answer = self._answer_of(reply)
        self._alone = False
        if reply is not None and reply.follow_up and not self.closed.done():
            task = self._loop.create_task(self._follow(reply))
            self._following.add(task)
            task.add_done_callback(self._followed)
        if self._slots and self._slots[0] is slot:
            self._flush()

    @staticmethod
    def _answer_of(reply: Reply | None) -> _Answer:
        if reply is None:
            return _Answer(None, last=True)  # not taken in: the sender repeats it on a new connection
        if reply.wanted:
            return _Answer(reply.ack)
        # not kept, and the sender wants to hear of nothing: only a lost connection tells it
        return _Answer(None, last=reply.id is None)

    def _flush(self) -> None:
        answers: list[bytes] = []
        while self._slots and (answer := self._slots[0].answer) is not None:
            self._slots.popleft()
            if answer.content is not None:
                answers.append(frame(answer.content))
            if answer.last:
                self._waiting.clear()
                self._slots.clear()
                self._ending = True
        self._heard = self._loop.time()
        transport = self._transport
        if answers and transport is not None and not transport.is_closing():
            transport.write(b"".join(answers))
        if self._waiting:
            self._pump()
        elif self._ending_after_frame and not self._decoder.pending:
            self._end()
        elif self._ending:
            self._close_when_done()
        else:
            self._listen(True)

    def _end_of_input(self) -> None:
        """Refuse a frame that was begun, answer what is in hand, and close."""
        left = self._decoder.close()
        self._frame_began = None
        if left and not self._ending:
            self._waiting += left
            self._pump()
        self._end()

    def _end(self) -> None:
        self._ending = True
        self._close_when_done()

    def _close_when_done(self) -> None:
        """Close once everything in hand is answered; what is being processed gets a moment."""
        if self._slots or self._waiting or self._transport is None:
            return
        if self._following:
            self._loop.call_later(LINGER_SECONDS, self._transport.close)
        else:
            self._transport.close()

    async def _follow(self, reply: Reply) -> None:
        content = await self._listener.processed(reply)
        if content is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(content))

    def _followed(self, task: asyncio.Task[Any]) -> None:
        self._following.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("an application acknowledgement failed", error=type(error).__name__)
        if self._ending:
            self._close_when_done()
        else:
            self._pump()
