"""Links between nodes with the delay and width of real lines, by Toxiproxy.

go install github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0 puts its program, named ``server``, below ~/go/bin.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from bridge.demo.nodes import free_ports

READY_SECONDS = 10.0


def find_toxiproxy() -> str | None:
    """Return the path of Toxiproxy's program, None when it is not installed."""
    go = Path.home() / "go" / "bin" / "server"
    return shutil.which("toxiproxy-server") or (str(go) if go.is_file() else None)


class Toxiproxy:
    """A running Toxiproxy and its HTTP interface."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._session = requests.Session()
        self._session.trust_env = False

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            return self._session.get(f"{self._url}/version", timeout=1).ok
        except requests.RequestException:
            return False

    def link(self, name: str, address: str, *, delay_ms: int, kilobytes: int | None = None) -> str:
        """Open a link to an address and return where it listens.

        ``delay_ms``: in each direction; ``kilobytes`` per second each way, unlimited unless given.
        """
        listen = f"127.0.0.1:{free_ports(1)[0]}"
        self._post("/proxies", {"name": name, "listen": listen, "upstream": address, "enabled": True})
        for stream in ("upstream", "downstream"):
            self._toxic(name, stream, "latency", {"latency": delay_ms, "jitter": delay_ms // 10})
            if kilobytes is not None:
                self._toxic(name, stream, "bandwidth", {"rate": kilobytes})
        return listen

    def close(self) -> None:
        """Close the connection to its interface."""
        self._session.close()

    def _toxic(self, name: str, stream: str, type: str, attributes: dict[str, int]) -> None:
        self._post(f"/proxies/{name}/toxics", {"type": type, "stream": stream, "attributes": attributes})

    def _post(self, path: str, body: dict[str, Any]) -> None:
        self._session.post(f"{self._url}{path}", json=body, timeout=5).raise_for_status()


@contextmanager
def toxiproxy(program: str) -> Iterator[Toxiproxy]:
    """Run Toxiproxy on a free port of loopback."""
    port = free_ports(1)[0]
    process = subprocess.Popen(
        [program, "-host", "127.0.0.1", "-port", str(port)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    found = Toxiproxy(port)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not found.ready():
            if time.monotonic() > deadline:
                raise AssertionError("Toxiproxy did not start")
            time.sleep(0.05)
        yield found
    finally:
        found.close()
        process.kill()
        process.wait()
