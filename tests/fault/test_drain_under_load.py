"""`yiqiao serve` with several workers, under load: every patient's order is kept, and SIGTERM loses nothing."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import threading
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import pytest

from bridge.demo.nodes import DemoNode, free_ports, yiqiao
from bridge.settings import load_settings
from bridge.wiring import build_node

ORG = "12990000MB0000019C"
CONNECTIONS = 4
WORKERS = 3
PATIENTS = 6
LOAD_SECONDS = 3.0
EXIT_SECONDS = 25.0
DRAINED_SECONDS = 90.0


def message(number: int, patient: int) -> bytes:
    """Every message of a patient says another name, so that each must leave a version, in order."""
    return "\r".join(
        [
            f"MSH|^~\\&|HIS|SITE|YIQIAO|SITE|20260301083000||ADT^A08|D{number}|P|2.5|||||CHN|UNICODE UTF-8",
            "EVN|A08|20260301083000",
            f"PID|1||{patient}^^^SITE^MR||N{number}||19850712|F",
            f"PV1|1|I|W1^{number}^01||||||||||||||||V{patient}",
            "",
        ]
    ).encode()


class Sender(threading.Thread):
    """Sends numbered messages of patients of its own, one after another, until told to stop or cut off."""

    def __init__(self, port: int, index: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.index, self.stop_event = port, index, stop
        self.acknowledged: list[int] = []

    def run(self) -> None:
        number = self.index
        try:
            with closing(socket.create_connection(("127.0.0.1", self.port), timeout=20)) as connection:
                while not self.stop_event.is_set():
                    patient = self.index + CONNECTIONS * (number // CONNECTIONS % PATIENTS)
                    connection.sendall(b"\x0b" + message(number, patient) + b"\x1c\r")
                    answer = b""
                    while not answer.endswith(b"\x1c\r"):
                        chunk = connection.recv(4096)
                        if not chunk:
                            return
                        answer += chunk
                    if f"MSA|AA|D{number}\r".encode() in answer:
                        self.acknowledged.append(number)
                    number += CONNECTIONS
        except OSError:
            return


def made(tmp_path: Path) -> DemoNode:
    http_port, mllp_port = free_ports(2)
    node = DemoNode(tmp_path / "node", ORG, "Drain", "authority", http_port, mllp_port)
    yiqiao(
        "init", node.home, "--org", ORG, "--name", node.name, "--role", "authority", "--role", "hospital",
        "--environment", "test", "--http-port", str(http_port), "--mllp-port", str(mllp_port),
    )  # fmt: skip
    with (node.home / "config.toml").open("a", encoding="utf-8") as config:
        config.write(f"\n[worker]\nprocesses = {WORKERS}\nidle_seconds = 0.05\nbatch = 20\n")
    return node


def states(node: DemoNode) -> dict[str, str]:
    """State of every message by its control id."""
    with closing(sqlite3.connect(node.home / "node.sqlite3", timeout=30)) as database:
        return dict(database.execute("SELECT control_id, state FROM inbox").fetchall())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigterm_under_load_loses_nothing_and_every_patient_keeps_its_order(tmp_path: Path) -> None:
    node = made(tmp_path)
    stop = threading.Event()
    senders = [Sender(node.mllp_port, index, stop) for index in range(CONNECTIONS)]
    try:
        node.start()
        node.wait_ready()
        for sender in senders:
            sender.start()
        time.sleep(LOAD_SECONDS)
        assert node.process is not None
        node.process.send_signal(signal.SIGTERM)  # the senders go on sending
        assert node.process.wait(EXIT_SECONDS) == 0
        stop.set()
        for sender in senders:
            sender.join(10)
        acknowledged = {f"D{number}" for sender in senders for number in sender.acknowledged}
        kept = states(node)
        assert len(acknowledged) > 50
        assert acknowledged <= set(kept), "an acknowledged message is neither processed nor in the inbox"
        assert set(kept.values()) <= {"stored", "received"}
        log = (node.home / "serve.log").read_text()
        assert all(json.loads(line).get("drained") is not False for line in log.splitlines() if '"drained"' in line)

        node.start()
        node.wait_ready()
        deadline = time.monotonic() + DRAINED_SECONDS
        while set(states(node).values()) != {"stored"} and time.monotonic() < deadline:
            time.sleep(0.2)
    finally:
        stop.set()
        node.stop()
    assert set(states(node).values()) == {"stored"}
    check_order(node, set(states(node)))


def check_order(node: DemoNode, kept: set[str]) -> None:
    """Each patient has one version for each of its messages, in the order in which they were sent."""
    told: dict[str, list[int]] = defaultdict(list)
    with (
        build_node(load_settings(node.home)) as opened,
        closing(sqlite3.connect(node.home / "node.sqlite3")) as database,
    ):
        for (identity,) in database.execute("SELECT id FROM resource WHERE type = 'Patient'").fetchall():
            for each in reversed(opened.records.history("Patient", identity, count=100_000).entries):
                told[identity].append(int(each.resource()["name"][0]["family"].removeprefix("N")))
    assert len(told) == CONNECTIONS * PATIENTS
    assert all(numbers == sorted(numbers) for numbers in told.values()), "a patient's messages changed places"
    assert {f"D{number}" for numbers in told.values() for number in numbers} == kept
    assert sum(len(numbers) for numbers in told.values()) == len(kept), "a message took effect twice"
    with closing(sqlite3.connect(node.home / "node.sqlite3")) as database:
        workers = database.execute("SELECT count(*) FROM inbox WHERE crashes > 0").fetchone()[0]
    assert workers == 0, "a worker that was asked to stop left messages behind as lost"
