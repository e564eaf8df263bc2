"""Lines between nodes that a test can cut: both ends stay connected and nothing arrives, as when a network is split."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from tests.network_namespaces import enter

CHUNK = 65_536


class Link:
    """Passes on what comes to ``address`` (host:port) to a target, unless it is cut.

    ``namespace``: the network namespace that the target is in, this process's own unless given.
    """

    def __init__(self, target: str, namespace: str = "") -> None:
        self._namespace = namespace
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._open = threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._run(self._accept)

    def cut(self) -> None:
        """Let nothing through; what is sent meanwhile arrives after ``mend``, if the connection lives so long."""
        self._open.clear()

    def mend(self) -> None:
        """Let everything through again."""
        self._open.set()

    def close(self) -> None:
        """End every connection and thread."""
        self._closing = True
        self._open.set()
        for each in [self._listener, *self._sockets]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def _run(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        if self._namespace:
            enter(self._namespace)  # this thread alone; the listener stays where it was opened
        while not self._closing:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._open.wait()
            try:
                far = socket.create_connection(self._target, timeout=10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._sockets += [near, far]
            self._run(self._pass, near, far)
            self._run(self._pass, far, near)

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(CHUNK):
                self._open.wait()
                sink.sendall(content)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
