"""The MLLP listener: frames in, acknowledgements out, nothing else (HL7 v2 Transport Specification, MLLP release 1).

What a message means is ``IngestService``'s business; it answers only for what is durably in the inbox, so an
acknowledgement never runs ahead of the disk. Here are the bounds: size of a frame, time for a frame, idle time, number
of connections. Whoever exceeds one gets a refusal where the message's header can still be read, and a closed connection
with a line in the log, which never holds content.

Everything runs on one thread. The messages that arrive in one turn of the loop, on however many connections, are
committed together; while the disk works the next ones gather in the kernel. So one commit serves one sender or a
hundred, and no message waits for a thread to be woken.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from bridge.log import get_logger
from bridge.mllp_connection import LARGE_BYTES, Connection, Reply
from bridge.mllp_follow_up import FollowUps
from bridge.settings import MllpSettings
from fhir_adapters.errors import AdapterError
from fhir_adapters.hl7v2.acknowledgement import acknowledge
from fhir_adapters.hl7v2.framing import FramingFault
from fhir_adapters.hl7v2.header import read_header

HANDSHAKE_SECONDS = 10.0  # a TLS handshake that takes longer is given up
LOOK_SECONDS = 0.05  # how late a time that is over is noticed
BACKLOG = 256
CONTROL_ID_BYTES = 10  # 20 hex characters, the most that MSH-10 holds before version 2.7

COMMIT_MESSAGES = 256
"""Most messages of one commit: bounds how long the first of them waits for the last."""

Tell = Callable[[Reply | None], None]


class Receiver(Protocol):
    """The inbox's door: a message is looked at by itself, and kept together with others."""

    def judge(self, source: str, raw: bytes) -> Any:
        """Look at one message; what comes back is for ``keep``."""

    def keep(self, judged: Sequence[Any]) -> Sequence[Reply]:
        """Keep messages in one commit, in order; return their replies."""


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
        receiver: Receiver,
        refuse: Refuser = refusal,
        *,
        follow_ups: FollowUps | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._receiver = receiver
        self._refuse = refuse
        self._follow_ups = follow_ups
        self._tls = tls
        self._connections: set[Connection] = set()
        self._pending: list[tuple[Any, Tell]] = []
        self._server: asyncio.Server | None = None
        self._looking: asyncio.Task[None] | None = None
        self._log = get_logger("mllp")
        self.loop: asyncio.AbstractEventLoop | None = None
        self.stopping = False

    async def start(self) -> int:
        """Listen; return the port (of interest when the settings say 0)."""
        self.loop = asyncio.get_running_loop()
        settings = self._settings
        self._server = await self.loop.create_server(
            self._connection,
            settings.host,
            settings.port,
            backlog=BACKLOG,
            ssl=self._tls,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if self._tls else None,
        )
        self._looking = asyncio.create_task(self._look())
        port: int = self._server.sockets[0].getsockname()[1]
        self._log.info("listening", host=settings.host, port=port, tls=bool(self._tls))
        return port

    async def stop(self, drain_seconds: float) -> None:
        """Stop accepting, let the frames in hand finish within ``drain_seconds``, close."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
        ends = [connection.finish() for connection in list(self._connections)]
        if ends:
            await asyncio.wait(ends, timeout=drain_seconds)
        for connection in list(self._connections):
            connection.abort()
        if self._follow_ups is not None:
            self._follow_ups.close()
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
        if self._server is not None:
            await self._server.wait_closed()
        await asyncio.sleep(0)  # what was aborted is told so

    async def run(self, drain_seconds: float) -> None:
        """Serve until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await self.start()
        await stop.wait()
        await self.stop(drain_seconds)

    def _connection(self) -> Connection:
        settings = self._settings
        return Connection(
            self,
            max_bytes=settings.max_frame_bytes,
            idle_seconds=settings.idle_seconds,
            frame_seconds=settings.frame_seconds,
        )

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = asyncio.get_running_loop().time()
            for connection in list(self._connections):
                connection.look(now)

    # What connections ask for

    def admit(self, connection: Connection) -> bool:
        """Take a new connection, unless the listener stops or has as many as it may."""
        if self.stopping or len(self._connections) >= self._settings.max_connections:
            self._log.warning("connection refused", reason="stopping" if self.stopping else "mllp.max_connections")
            return False
        self._connections.add(connection)
        return True

    def gone(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    def refuse(self, fault: FramingFault) -> bytes | None:
        """Return the content of the answer to what is no frame, if there is one."""
        self._log.warning("frame refused", code=fault.code, reason=fault.text)
        return self._refuse(fault)

    def take(self, content: bytes, tell: Tell) -> None:
        """Hand a message to the inbox; ``tell`` is called with its reply, None when it could not be taken in."""
        assert self.loop is not None
        if len(content) > LARGE_BYTES:
            judging = self.loop.run_in_executor(None, self._receiver.judge, self._settings.source, content)
            judging.add_done_callback(lambda done: self._gather(done.result, tell))
        else:
            self._gather(lambda: self._receiver.judge(self._settings.source, content), tell)

    async def processed(self, reply: Reply) -> bytes | None:
        """Wait until a message has been processed; return the content of the answer to that, if one is wanted."""
        return await self._follow_ups.of(reply) if self._follow_ups is not None else None

    # One commit for all that arrived in a turn of the loop

    def _gather(self, judge: Callable[[], Any], tell: Tell) -> None:
        assert self.loop is not None
        try:
            judged = judge()
        except Exception as error:  # noqa: BLE001 - the sender must hear of it, and the listener must live
            self._not_taken(error, [tell])
            return
        if not self._pending:
            self.loop.call_soon(self._commit)
        self._pending.append((judged, tell))

    def _commit(self) -> None:
        """Keep what has gathered, and answer."""
        assert self.loop is not None
        ready, self._pending = self._pending[:COMMIT_MESSAGES], self._pending[COMMIT_MESSAGES:]
        if self._pending:
            self.loop.call_soon(self._commit)
        try:
            replies = self._receiver.keep([judged for judged, _ in ready])
        except Exception as error:  # noqa: BLE001 - as above
            self._not_taken(error, [tell for _, tell in ready])
            return
        for (_, tell), reply in zip(ready, replies, strict=True):
            tell(reply)

    def _not_taken(self, error: BaseException, tells: Sequence[Tell]) -> None:
        """No acknowledgement: the sender repeats the message on a new connection."""
        self._log.error("message not taken in", error=type(error).__name__, cause=getattr(error, "cause", ""))
        for tell in tells:
            tell(None)
