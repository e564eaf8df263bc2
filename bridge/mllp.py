"""The MLLP listener: frames in, acknowledgements out, nothing else (HL7 v2 Transport Specification, MLLP release 1).

What a message means is ``IngestService``'s business; its future is done only after the message is durably in the
inbox, so an acknowledgement never runs ahead of the disk. Here are the bounds: size of a frame, time for a frame,
idle time, number of connections. Whoever exceeds one gets a refusal where the message's header can still be read,
and a closed connection with a line in the log, which never holds content.

Messages of one connection are handed on in their order and answered in it. A sender who does not wait for each answer
has up to ``FRAMES_AT_ONCE`` messages under way, which share a commit.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, Protocol

from anchor.errors import AnchorError
from bridge.errors import BridgeError
from bridge.log import get_logger
from bridge.mllp_follow_up import FollowUps
from bridge.settings import MllpSettings
from fhir_adapters.errors import AdapterError
from fhir_adapters.hl7v2.acknowledgement import acknowledge
from fhir_adapters.hl7v2.framing import Frame, FrameDecoder, FramingFault, frame
from fhir_adapters.hl7v2.header import read_header

READ_BYTES = 64 * 1024
WRITE_SECONDS = 30.0  # a sender that does not take its acknowledgement for this long is dropped
HANDSHAKE_SECONDS = 10.0  # a TLS handshake that takes longer is given up
FOLLOW_UP_DRAIN_SECONDS = 1.0  # how long an ending connection waits for messages that are being processed
BACKLOG = 256
CONTROL_ID_BYTES = 10  # 20 hex characters, the most that MSH-10 holds before version 2.7

FRAMES_AT_ONCE = 64
"""Messages of one connection under way together: enough to share a commit, little to hold in memory."""

FOLLOWED_AT_ONCE = 1000
"""Messages of one connection whose processing is waited for; beyond, no more are taken from it."""

LARGE_BYTES = 64 * 1024
"""Messages beyond this are looked at on a thread of their own: splitting a megabyte takes as long as a commit."""

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


class Receiver(Protocol):
    """Hands one message of a source to the inbox; the future is its ``Reply`` once the message is on the disk."""

    def __call__(self, source: str, raw: bytes) -> Future[Any]: ...  # noqa: D102


#: builds the refusal of what is not a frame; None when there is nothing to answer
Refuser = Callable[[FramingFault], bytes | None]


def refusal(fault: FramingFault) -> bytes | None:
    """Return the AR for a block that cannot be taken, addressed by its header if that can be read; None for garbage."""
    if not fault.content:
        return None
    try:
        header = read_header(fault.content)
    except AdapterError:
        header = None  # an answer in the standard delimiters, without a control id to refer to
    return acknowledge(
        header, "AR", fault.text, time=datetime.now(UTC).astimezone(), control_id=secrets.token_hex(CONTROL_ID_BYTES)
    )


class MllpServer:
    """Listens on one address.

    ``run`` serves until SIGTERM; ``start`` and ``stop`` are for embedding in a running loop. ``tls`` makes every
    connection a TLS one.
    """

    def __init__(
        self,
        settings: MllpSettings,
        receive: Receiver,
        refuse: Refuser = refusal,
        *,
        follow_ups: FollowUps | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._receive = receive
        self._refuse = refuse
        self._follow_ups = follow_ups
        self._tls = tls
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._log = get_logger("mllp")
        self.loop: asyncio.AbstractEventLoop | None = None
        self.stopping = False

    async def start(self) -> int:
        """Listen; return the port (of interest when the settings say 0)."""
        self.loop = asyncio.get_running_loop()
        timing = {"ssl_handshake_timeout": HANDSHAKE_SECONDS} if self._tls else {}
        self._server = await asyncio.start_server(
            self._connected,
            self._settings.host,
            self._settings.port,
            limit=READ_BYTES,
            backlog=BACKLOG,
            ssl=self._tls,
            **timing,
        )
        port: int = self._server.sockets[0].getsockname()[1]
        self._log.info("listening", host=self._settings.host, port=port, tls=bool(self._tls))
        return port

    async def stop(self, drain_seconds: float) -> None:
        """Stop accepting, let the frames in hand finish within ``drain_seconds``, close."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
        tasks = [connection.finish() for connection in list(self._connections)]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=drain_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._follow_ups is not None:
            self._follow_ups.close()
        if self._server is not None:
            await self._server.wait_closed()

    async def run(self, drain_seconds: float) -> None:
        """Serve until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await self.start()
        await stop.wait()
        await self.stop(drain_seconds)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.stopping or len(self._connections) >= self._settings.max_connections:
            self._log.warning("connection refused", reason="stopping" if self.stopping else "mllp.max_connections")
            writer.close()
            return
        connection = _Connection(self, reader, writer)
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    @property
    def settings(self) -> MllpSettings:
        """The bounds in force."""
        return self._settings

    @property
    def follow_ups(self) -> FollowUps | None:
        """Where what became of a message is heard, if anywhere."""
        return self._follow_ups

    async def begin(self, found: Frame | FramingFault) -> Future[Any] | bytes | None:
        """Hand a frame to the inbox, or refuse a fault: a future ``Reply``, a refusal's content, or None."""
        if isinstance(found, FramingFault):
            self._log.warning("frame refused", code=found.code, reason=found.text)
            return self._refuse(found)
        try:
            if len(found.content) > LARGE_BYTES:
                return await asyncio.to_thread(self._receive, self._settings.source, found.content)
            return self._receive(self._settings.source, found.content)
        except (BridgeError, AnchorError, AdapterError) as error:
            self._not_taken(error)
            return None

    async def finish(self, reply: Future[Any]) -> Reply | None:
        """Return the reply once the message is on the disk; None when it could not be taken in."""
        try:
            taken: Reply = await asyncio.wrap_future(reply)
        except (BridgeError, AnchorError, AdapterError) as error:
            self._not_taken(error)
            return None
        return taken

    def _not_taken(self, error: Exception) -> None:
        """No acknowledgement: the sender repeats the message on a new connection."""
        self._log.error("message not taken in", error=type(error).__name__, cause=getattr(error, "cause", ""))


class _Connection:
    """One sender's connection: read, answer in order, close."""

    def __init__(self, server: MllpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server, self._reader, self._writer = server, reader, writer
        self._decoder = FrameDecoder(server.settings.max_frame_bytes)
        self._frame_deadline: float | None = None
        self._waiting = False
        self._task: asyncio.Task[None] | None = None
        self._following: set[asyncio.Task[None]] = set()
        self._log = get_logger("mllp")

    def finish(self) -> asyncio.Task[None]:
        """Ask the connection to end: at once when it is between frames, otherwise after the one in hand."""
        assert self._task is not None
        if self._waiting and not self._decoder.pending:
            self._task.cancel()
        return self._task

    async def serve(self) -> None:
        """Serve until the sender closes, a bound is exceeded or the server stops."""
        self._task = asyncio.current_task()
        try:
            while not (self._server.stopping and not self._decoder.pending) and await self._step():
                pass
        except asyncio.CancelledError:
            if not self._server.stopping:
                raise
        except (ConnectionError, TimeoutError, ssl.SSLError) as error:
            self._log.info("connection lost", reason=type(error).__name__)
        finally:
            await self._end_following()
            self._writer.close()

    async def _step(self) -> bool:
        """Read once and answer what became complete; False when the connection is to be closed."""
        try:
            data = await self._read()
        except TimeoutError:
            reason = "mllp.frame_seconds" if self._decoder.pending else "mllp.idle_seconds"
            self._log.warning("connection closed", reason=reason)
            await self._answer(self._decoder.close())
            return False
        found = self._decoder.feed(data) if data else self._decoder.close()
        in_step = await self._answer(found)
        self._note_frame_start()
        return bool(data) and in_step

    async def _read(self) -> bytes:
        """Read what is there, within the idle time, or within what is left of the frame's time once a frame began."""
        now = asyncio.get_running_loop().time()
        left = self._server.settings.idle_seconds if self._frame_deadline is None else self._frame_deadline - now
        self._waiting = True
        try:
            async with asyncio.timeout(max(left, 0)):
                return await self._reader.read(READ_BYTES)
        finally:
            self._waiting = False

    def _note_frame_start(self) -> None:
        if not self._decoder.pending:
            self._frame_deadline = None
        elif self._frame_deadline is None:
            self._frame_deadline = asyncio.get_running_loop().time() + self._server.settings.frame_seconds

    async def _answer(self, found: Sequence[Frame | FramingFault]) -> bool:
        """Take in and answer in order; False when the connection can no longer be trusted to be in step."""
        for start in range(0, len(found), FRAMES_AT_ONCE):
            portion = found[start : start + FRAMES_AT_ONCE]
            begun = [await self._server.begin(each) for each in portion]
            for each, started in zip(portion, begun, strict=True):
                self._frame_deadline = None  # what follows is a new frame, with its own time
                if not await self._answer_one(each, started):
                    return False
        return True

    async def _answer_one(self, found: Frame | FramingFault, started: Future[Any] | bytes | None) -> bool:
        if isinstance(found, FramingFault):
            if isinstance(started, bytes):
                await self._send(started)
            return found.code in RECOVERABLE_FAULTS
        reply = await self._server.finish(started) if isinstance(started, Future) else None
        if reply is None:
            return False
        if reply.wanted:
            await self._send(reply.ack)
        elif reply.id is None:
            return False  # not kept, and the sender wants to hear of nothing: only a lost connection tells it
        if reply.follow_up and self._server.follow_ups is not None:
            await self._follow(reply, self._server.follow_ups)
        return True

    async def _follow(self, reply: Reply, follow_ups: FollowUps) -> None:
        """Answer when the message has been processed; the next ones are taken meanwhile, up to a number."""

        async def tell() -> None:
            answer = await follow_ups.of(reply)
            if answer is not None:
                await self._send(answer)

        while len(self._following) >= FOLLOWED_AT_ONCE:
            await asyncio.wait(self._following, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(tell())
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _end_following(self) -> None:
        """Give messages that are being processed a moment: a sender may have closed its half only."""
        if self._following:
            await asyncio.wait(self._following, timeout=FOLLOW_UP_DRAIN_SECONDS)
        for task in list(self._following):
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)

    async def _send(self, content: bytes) -> None:
        self._writer.write(frame(content))
        async with asyncio.timeout(WRITE_SECONDS):
            await self._writer.drain()
