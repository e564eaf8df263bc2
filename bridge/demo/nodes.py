"""The demo's nodes as real processes: initialised and driven through the same command line that a hospital uses."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from bridge.settings import load_settings

READY_WITHIN_SECONDS = 120.0  # a cold start of four nodes on two cores takes about fifteen, on two busy ones a minute
STOP_WITHIN_SECONDS = 90.0  # a node finishes what it has in hand; well above its own drain bound, also of tests
COMMAND_WITHIN_SECONDS = 120.0
MLLP_WITHIN_SECONDS = 15.0
CALL_WITHIN_SECONDS = 15.0
POLL_SECONDS = 0.1
LOWEST_PORT = 10_000  # services that are installed with a machine listen below


class DemoFailed(Exception):
    """A step could not be carried out; the text says which and why."""


def free_ports(count: int) -> list[int]:
    """Return ``count`` TCP ports of the loopback interface that nothing listens on now.

    They are below those that the kernel gives to outgoing connections, so that none of these holds one while the
    process that listens on it is being started again.
    """
    highest = max(_outgoing_ports_from(), LOWEST_PORT + 1_000)
    sockets: list[socket.socket] = []
    ports: list[int] = []
    try:
        while len(ports) < count:
            port = LOWEST_PORT + secrets.randbelow(highest - LOWEST_PORT)
            tried = socket.socket()
            sockets.append(tried)
            with suppress(OSError):
                tried.bind(("127.0.0.1", port))
                ports.append(port)
        return ports
    finally:
        for each in sockets:
            each.close()


def _outgoing_ports_from() -> int:
    """Return the first port that the kernel gives to outgoing connections (Linux), IANA's where it does not say."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    except (OSError, ValueError):
        return 49_152


def yiqiao(*arguments: str | Path, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run one ``yiqiao`` command in a process of its own.

    Raises ``DemoFailed`` when the exit code is not ``expect`` (None: any).
    """
    command = [sys.executable, "-m", "bridge.cli", *map(str, arguments)]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_WITHIN_SECONDS, check=False)
    if expect is not None and outcome.returncode != expect:
        said = (outcome.stderr or outcome.stdout).strip()
        raise DemoFailed(f"yiqiao {arguments[0]}: exit code {outcome.returncode}, expected {expect}: {said[-2000:]}")
    return outcome


@dataclass
class DemoNode:
    """One institution of the demo: its home folder, its ports and, once started, its process."""

    home: Path
    org: str
    name: str
    role: str
    http_port: int
    mllp_port: int
    process: subprocess.Popen[bytes] | None = None
    token: str = ""
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def endpoint(self) -> str:
        """The node's base URL."""
        return f"http://127.0.0.1:{self.http_port}"

    def start(self) -> None:
        """Start ``yiqiao serve`` for this home; its log goes to serve.log."""
        with (self.home / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bridge.cli", "serve", "--home", str(self.home)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until the node is ready, for MLLP too; raise ``DemoFailed`` when it dies or takes too long."""
        listens = load_settings(self.home).mllp.enabled  # in a process of its own, which may come later
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                raise DemoFailed(f"{self.name} stopped while starting; see {self.home / 'serve.log'}")
            if self._ready(listens=listens):
                return
            time.sleep(POLL_SECONDS)
        raise DemoFailed(
            f"{self.name} was not ready within {READY_WITHIN_SECONDS:.0f} s; see {self.home / 'serve.log'}"
        )

    def _ready(self, *, listens: bool) -> bool:
        try:
            ready = bool(self.session.get(f"{self.endpoint}/readyz", timeout=2).status_code == requests.codes.ok)
            if ready and listens:
                self._dial_mllp().close()
        except OSError:  # requests' errors are such, too
            return False
        return ready

    def _dial_mllp(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.mllp_port), timeout=MLLP_WITHIN_SECONDS)

    def stop(self) -> int | None:
        """Ask the node to finish and wait for it; kill its process group if it does not. Return its exit code."""
        self.session.close()
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            return self.process.wait()

    def kill(self) -> None:
        """Kill every process of the node where it stands, as a power cut would."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def group_is_gone(self) -> bool:
        """Whether no process of this node is left."""
        if self.process is None:
            return True
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def get(self, path: str) -> requests.Response:
        """GET a path as a client with a token; raises ``DemoFailed`` unless the answer is 200."""
        answer = self.session.get(f"{self.endpoint}/{path}", headers=self._headers(), timeout=CALL_WITHIN_SECONDS)
        if answer.status_code != requests.codes.ok:
            raise DemoFailed(f"{self.name} answered {answer.status_code} to GET /{path.split('?')[0]}")
        return answer

    def fhir(self, path: str) -> dict[str, Any]:
        """Return a FHIR resource of this node."""
        document: dict[str, Any] = self.get(f"fhir/{path}").json()
        return document

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Accept": "application/fhir+json"}

    def search_by_post(self, resource_type: str, **parameters: str) -> dict[str, Any]:
        """Search with the parameters in the body, so that no identifier stands in a URL."""
        answer = self.session.post(
            f"{self.endpoint}/fhir/{resource_type}/_search",
            data=parameters,
            headers=self._headers(),
            timeout=CALL_WITHIN_SECONDS,
        )
        if answer.status_code != requests.codes.ok:
            raise DemoFailed(f"{self.name} answered {answer.status_code} to a FHIR search of {resource_type}")
        document: dict[str, Any] = answer.json()
        return document

    def send_mllp(self, message: bytes) -> bytes:
        """Send one HL7 v2 message over a TCP connection of its own and return the acknowledgement."""
        with closing(self._dial_mllp()) as connection:
            connection.sendall(b"\x0b" + message + b"\x1c\x0d")
            answer = b""
            while not answer.endswith(b"\x1c\x0d"):
                chunk = connection.recv(65536)
                if not chunk:
                    raise DemoFailed(f"{self.name} closed the MLLP connection without an acknowledgement")
                answer += chunk
        return answer[1:-2]

    def command(self, name: str, *arguments: str | Path, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run ``yiqiao NAME --home HOME ...`` for this node."""
        return yiqiao(name, *arguments, "--home", self.home, expect=expect)

    def command_json(self, name: str, *arguments: str | Path) -> dict[str, Any]:
        """Run a command with ``--json`` and return what it printed."""
        document: dict[str, Any] = json.loads(self.command(name, *arguments, "--json").stdout)
        return document
