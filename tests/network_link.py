"""A network link between processes under test: bytes pass both ways until it is cut.

Bytes are passed on as they are, so TLS and signatures stay between the ends. A cut link refuses and drops connections,
as a network does whose other side is known to be away.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

CHUNK_BYTES = 64 * 1024


class Link:
    """Listens on a loopback port of its own and passes connections on to ``target`` (a port of this machine)."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listening.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._cut = self._closed = False
        threading.Thread(target=self._accept, name=f"link {self.port}", daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Drop every connection, and each new one at once."""
        with self._lock:
            self._cut = True
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        with self._lock:
            self._cut = False

    def close(self) -> None:
        self._closed = True
        self.cut()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            with self._lock:
                if self._cut:
                    near.close()
                    far.close()
                    continue
                self._open |= {near, far}
            running = threading.Semaphore(1)  # taken by the direction that ends first; the other one closes both
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, sink, running), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, running: threading.Semaphore) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                sink.sendall(chunk)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        if not running.acquire(blocking=False):
            with self._lock:
                self._open -= {source, sink}
            source.close()
            sink.close()
