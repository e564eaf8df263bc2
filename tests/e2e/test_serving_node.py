"""`yiqiao serve` as it runs in a hospital: real processes, real sockets, stopped and killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
import requests

from bridge.settings import Settings
from bridge.tokens import create_token
from tests.node_home import adt, make_home

READY_SECONDS = 120.0
STOP_SECONDS = 60.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Serving:
    """One `yiqiao serve` at a time of one home."""

    def __init__(self, settings: Settings, token: str) -> None:
        self.settings = settings
        self.base = f"http://127.0.0.1:{settings.http.port}"
        self.headers = {"Authorization": f"Bearer {token}"}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = settings.home / "serve.log"

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bridge.cli", "serve", "--home", str(self.settings.home)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if self._answers("/readyz") and self._listens(self.settings.mllp.port):
                return self.process
            time.sleep(0.1)
        raise AssertionError(f"the node did not become ready: {self.log.read_text()[-3000:]}")

    def _answers(self, path: str) -> bool:
        try:
            return requests.get(self.base + path, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def _listens(self, port: int) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    def get(self, path: str) -> requests.Response:
        return requests.get(self.base + path, headers=self.headers, timeout=10)

    def send(self, message: bytes) -> bytes:
        address = ("127.0.0.1", self.settings.mllp.port)
        with closing(socket.create_connection(address, timeout=10)) as connection:
            connection.sendall(b"\x0b" + message + b"\x1c\r")
            answer = b""
            while not answer.endswith(b"\x1c\r"):
                chunk = connection.recv(65536)
                assert chunk, "closed without an acknowledgement"
                answer += chunk
        return answer

    def patients(self) -> list[str]:
        entries = self.get("/fhir/Patient?_count=200").json().get("entry", [])
        return sorted(entry["resource"]["identifier"][0]["value"] for entry in entries)

    def wait_for(self, patients: list[str]) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.patients() == patients:
                return
            time.sleep(0.2)
        assert self.patients() == patients

    def is_gone(self) -> bool:
        """Whether no process of the node's session is left."""
        assert self.process is not None
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.05)
        return False

    def end(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    http, mllp = free_ports(2)
    settings = make_home(tmp_path_factory.mktemp("serve") / "home", http_port=http, mllp_port=mllp)
    file = settings.path(settings.security.tokens)
    _, token = create_token(file, name="test", role="operator", now=int(time.time()))
    node = Serving(settings, token)
    node.start()
    yield node
    node.end()


def test_a_message_over_mllp_becomes_fhir_over_http(serving: Serving) -> None:
    assert b"MSA|AA|E1" in serving.send(adt("E1", "E1"))
    serving.wait_for(["E1"])
    assert serving.get("/fhir/Patient").headers["Content-Type"] == "application/fhir+json"


def test_a_second_serve_of_the_home_is_refused(serving: Serving) -> None:
    command = [sys.executable, "-m", "bridge.cli", "serve", "--home", str(serving.settings.home)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 1
    assert "already running" in answer.stderr


def test_records_are_anchored_without_being_asked(serving: Serving) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if "yiqiao_outbox_pending 0.0" in serving.get("/metrics").text and "yiqiao_ledger_height 0.0" not in (
            serving.get("/metrics").text
        ):
            return
        time.sleep(0.5)
    raise AssertionError("the outbox was not drained: " + serving.log.read_text()[-2000:])


def test_kill_9_leaves_nothing_behind_and_loses_nothing(serving: Serving) -> None:
    process = serving.process
    assert process is not None
    for number in range(20):
        assert b"MSA|AA|" in serving.send(adt(f"K{number}", f"K{number:02}"))
    process.kill()
    process.wait()
    assert serving.is_gone()
    serving.start()
    serving.wait_for(sorted(["E1", *(f"K{number:02}" for number in range(20))]))
    assert b"MSA|AA|K3" in serving.send(adt("K3", "K03"))
    counts = serving.get("/messages?limit=1").json()["counts"]
    assert counts == {"dead": 0, "failed": 0, "received": 0, "stored": 21}


def test_a_rotated_key_is_taken_up_while_serving(serving: Serving) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bridge.cli", "keys", "rotate", "sign", "--home", str(serving.settings.home)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "not running" not in done.stderr
    deadline = time.monotonic() + 90
    while "reloading" not in serving.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    while not (serving._answers("/readyz") and serving._listens(serving.settings.mllp.port)):
        assert time.monotonic() < deadline, serving.log.read_text()[-3000:]
        time.sleep(0.1)
    assert b"MSA|AA|R1" in serving.send(adt("R1", "R1"))
    serving.wait_for(sorted(["E1", "R1", *(f"K{number:02}" for number in range(20))]))
    assert serving.process is not None
    assert serving.process.poll() is None
    assert "child died" not in serving.log.read_text().rsplit("reloading", 1)[1]


def test_sigterm_stops_everything_with_exit_code_0(serving: Serving) -> None:
    process = serving.process
    assert process is not None
    process.terminate()
    assert process.wait(STOP_SECONDS) == 0
    assert serving.is_gone()
    with pytest.raises(requests.ConnectionError):
        serving.get("/healthz")


def test_the_log_is_json_without_content(serving: Serving) -> None:
    text = serving.log.read_text()
    lines = [line for line in text.splitlines() if line.startswith("{")]
    events = [json.loads(line) for line in lines]
    assert {"starting", "listening", "stopped"} <= {event["event"] for event in events}
    assert "测试" not in text
    assert "19800101" not in text
