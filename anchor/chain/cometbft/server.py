"""The ABCI socket server: CometBFT's four connections, answered by one thread.

Messages are protobuf with their length before them as an unsigned varint, and responses keep the order of their
connection's requests. One thread is the application's lock: nothing is ever computed on two connections at once. Each
connection in turn is served for a bounded time, so that a flood of CheckTx does not hold up consensus.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol

from anchor.chain.cometbft.messages import RequestFlush, ResponseException, ResponseFlush, read_request, write_response
from anchor.errors import AnchorError, ChainCorrupt, FormatError
from anchor.protobuf import MAX_VARINT_BYTES, Message, read_varint

MAX_MESSAGE_BYTES = 100 * 1024 * 1024
"""Bytes: CometBFT's own bound (libs/protoio, abci maxMsgSize)."""
TURN_SECONDS = 0.02
"""How long one connection is served before the others get their turn."""
MAX_SOCKET_PATH_BYTES = 103
"""Bytes of a UNIX socket's path that every system takes (``sun_path``: 108 on Linux, 104 elsewhere, NUL included)."""
_CHUNK = 1 << 18
_FLUSH_ABOVE = 1 << 20


class Handler(Protocol):
    """What answers the requests (``anchor.chain.cometbft.application.Application``)."""

    def handle(self, request: Message) -> Message:
        """Answer one request; an ``AnchorError`` ends the replica."""


class AbciServer:
    """Serves one application on a UNIX socket until stopped or until the application cannot go on.

    A socket that a killed replica left at ``path`` is replaced; on Linux the path may be of any length. Whoever may
    open the socket can make the replica do anything: its directory is the owner's alone.
    """

    def __init__(self, path: str | Path, application: Handler) -> None:
        self._application = application
        self._path = Path(path)
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._selector = selectors.DefaultSelector()
        self._connections: list[_Connection] = []
        self._stopping = False
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        try:
            _bind(self._listener, self._path)
            self._path.chmod(0o600)
            self._listener.listen(8)
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ, None)
            self._selector.register(self._woken, selectors.EVENT_READ, None)
        except BaseException:
            self.close()
            raise

    def run(self) -> None:
        """Serve until ``stop``; raises the ``AnchorError`` that the application ended with, told to CometBFT before."""
        while not self._stopping:
            waiting = any(connection.has_request() for connection in self._connections)
            for key, _ in self._selector.select(0 if waiting else None):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data is None:
                    continue  # woken to stop
                elif not key.data.receive():
                    self._drop(key.data)
            for connection in list(self._connections):
                self._serve(connection)

    def stop(self) -> None:
        """Make ``run`` return; safe from a signal handler and from another thread."""
        self._stopping = True
        with suppress(OSError):
            self._wake.send(b"\0")

    def close(self) -> None:
        """Close every connection and remove the socket."""
        for connection in list(self._connections):
            self._drop(connection)
        self._selector.close()
        self._listener.close()
        self._wake.close()
        self._woken.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> AbciServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            connected, _ = self._listener.accept()
            connection = _Connection(connected)
            self._connections.append(connection)
            self._selector.register(connected, selectors.EVENT_READ, connection)

    def _drop(self, connection: _Connection) -> None:
        self._connections.remove(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _serve(self, connection: _Connection) -> None:
        """Answer what a connection has asked, for one turn at most."""
        until = time.monotonic() + TURN_SECONDS
        try:
            for content in connection.requests():
                request = read_request(content)
                answer = ResponseFlush() if isinstance(request, RequestFlush) else self._application.handle(request)
                connection.answer(write_response(answer), flush=isinstance(request, RequestFlush))
                if time.monotonic() > until:
                    return
        except OSError:
            self._drop(connection)
        except FormatError as error:
            self._give_up(connection, ChainCorrupt(f"CometBFT sent what cannot be read: {error}"))
        except AnchorError as error:
            self._give_up(connection, error)

    def _give_up(self, connection: _Connection, error: AnchorError) -> None:
        with suppress(OSError):
            connection.answer(write_response(ResponseException(str(error))), flush=True)
        raise error


def _bind(listener: socket.socket, path: Path) -> None:
    """Bind to a path: the kernel bounds its text and not its place, so a long one is named from its folder on."""
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        listener.bind(str(path))
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


class _Connection:
    """One of CometBFT's connections: bytes received and not yet understood, answers not yet sent."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._received = bytearray()
        self._position = 0
        self._answers: list[bytes] = []
        self._waiting = 0

    def receive(self) -> bool:
        """Take what has arrived; False when the other side is gone."""
        try:
            content = self.socket.recv(_CHUNK)
        except OSError:
            return False
        self._received += content
        return bool(content)

    def has_request(self) -> bool:
        """Whether a whole request has arrived."""
        frame = self._frame()
        return frame is not None and frame[1] <= len(self._received)

    def requests(self) -> Iterator[bytes]:
        """Yield the whole requests that have arrived; raises ``FormatError`` for a length that cannot be."""
        try:
            while (frame := self._frame()) is not None and frame[1] <= len(self._received):
                start, end = frame
                self._position = end
                yield bytes(self._received[start:end])
        finally:
            del self._received[: self._position]
            self._position = 0

    def answer(self, content: bytes, *, flush: bool) -> None:
        """Keep an answer, and send all of them when asked to or when they are many; raises ``OSError``."""
        self._answers.append(content)
        self._waiting += len(content)
        if flush or self._waiting > _FLUSH_ABOVE:
            self.socket.sendall(b"".join(self._answers))
            self._answers.clear()
            self._waiting = 0

    def _frame(self) -> tuple[int, int] | None:
        """Return where the next request begins and ends, None while its length has not arrived."""
        available = len(self._received) - self._position
        head = self._received[self._position : self._position + MAX_VARINT_BYTES]
        if not available or (available < MAX_VARINT_BYTES and all(byte & 0x80 for byte in head)):
            return None
        length, start = read_varint(self._received, self._position)
        if length > MAX_MESSAGE_BYTES:
            raise FormatError(f"a message is at most {MAX_MESSAGE_BYTES} bytes")
        return start, start + length
