"""kill -9 of a whole node, again and again, during ingest and anchoring: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import os
import random
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from bridge.demo.nodes import DemoNode, free_ports, yiqiao

KILLS = int(os.environ.get("YIQIAO_TEST_KILLS", "20"))
CONNECTIONS = 4
PAUSE_SECONDS = 0.02  # keeps the amount small; the kills fall into busy moments all the same
ORG = "12990000MB0000019C"
DRAINED_WITHIN_SECONDS = 90.0
FAST_JOBS = """
[anchoring]
period_seconds = 0.2
batch = 100

[witness]
period_seconds = 0.2

[worker]
idle_seconds = 0.05
"""


def admission(number: int) -> bytes:
    return "\r".join(
        [
            f"MSH|^~\\&|HIS|SITE|YIQIAO|SITE|20260301083000+0800||ADT^A01|K{number}|P|2.5.1|||||CHN|UNICODE UTF-8",
            "EVN|A01|20260301083000+0800",
            f"PID|1||K{number:06d}^^^SITE^MR||测试^甲||19850712|F",
            f"PV1|1|I|W{number % 7}^{number % 30}^01^SITE||||||||||||||||V{number:06d}",
            "",
        ]
    ).encode()


class Sender(threading.Thread):
    """Sends messages one after another over MLLP, each until it is acknowledged, as an interface engine does."""

    def __init__(self, port: int, first: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.number, self.stop_event = port, first, stop
        self.acknowledged: list[int] = []

    def run(self) -> None:
        while not self.stop_event.is_set():
            try:
                with closing(socket.create_connection(("127.0.0.1", self.port), timeout=5)) as connection:
                    self.send_on(connection)
            except OSError:
                time.sleep(0.05)

    def send_on(self, connection: socket.socket) -> None:
        while not self.stop_event.is_set():
            connection.sendall(b"\x0b" + admission(self.number) + b"\x1c\x0d")
            answer = b""
            while not answer.endswith(b"\x1c\r"):
                if not (chunk := connection.recv(4096)):
                    return
                answer += chunk
            if f"MSA|AA|K{self.number}".encode() in answer:
                self.acknowledged.append(self.number)
                self.number += CONNECTIONS
                time.sleep(PAUSE_SECONDS)


def kill_all(node: DemoNode) -> None:
    """Kill every process of the node at once, as a power cut would."""
    assert node.process is not None
    os.killpg(node.process.pid, signal.SIGKILL)
    node.process.wait()
    deadline = time.monotonic() + 10
    while not node.group_is_gone() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert node.group_is_gone(), "a child outlived its node"


def wait_until_drained(node: DemoNode, count: int) -> None:
    deadline = time.monotonic() + DRAINED_WITHIN_SECONDS
    while time.monotonic() < deadline:
        with closing(sqlite3.connect(node.home / "node.sqlite3", timeout=30)) as database:
            waiting = database.execute("SELECT count(*) FROM inbox WHERE state = 'received'").fetchone()[0]
            patients = database.execute("SELECT count(*) FROM resource WHERE type = 'Patient'").fetchone()[0]
            unlogged = database.execute("SELECT count(*) FROM outbox").fetchone()[0]
        if not waiting and not unlogged and patients >= count:
            return
        time.sleep(0.2)
    pytest.fail(f"{waiting} messages and {unlogged} outbox rows still wait; {patients} of {count} patients")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_and_nothing_doubled(tmp_path: Path):
    http_port, mllp_port = free_ports(2)
    node = DemoNode(tmp_path / "node", ORG, "Fault", "authority", http_port, mllp_port)
    yiqiao(
        "init", node.home, "--org", ORG, "--name", node.name, "--role", "authority", "--role", "hospital",
        "--environment", "test", "--http-port", str(http_port), "--mllp-port", str(mllp_port),
    )  # fmt: skip
    with (node.home / "config.toml").open("a", encoding="utf-8") as config:
        config.write(FAST_JOBS)
    chance = random.Random(20)
    stop = threading.Event()
    senders = [Sender(mllp_port, first, stop) for first in range(CONNECTIONS)]
    for sender in senders:
        sender.start()
    try:
        for _ in range(KILLS):
            node.start()
            node.wait_ready()
            time.sleep(chance.uniform(0.05, 1.2))
            kill_all(node)
        node.start()
        node.wait_ready()
        time.sleep(0.5)
        stop.set()
        for sender in senders:
            sender.join(10)
        acknowledged = sorted(number for sender in senders for number in sender.acknowledged)
        assert len(acknowledged) > KILLS
        wait_until_drained(node, len(acknowledged))
    finally:
        stop.set()
        node.stop()
    assert_all_there_once(node, acknowledged)
    report = node.command("fsck", "--json", expect=None)
    assert report.returncode == 0, report.stdout
    print(f"{KILLS} kills, {len(acknowledged)} messages acknowledged, 0 lost, 0 doubled")


def assert_all_there_once(node: DemoNode, acknowledged: list[int]) -> None:
    with closing(sqlite3.connect(node.home / "node.sqlite3")) as database:
        controls = [row[0] for row in database.execute("SELECT control_id FROM inbox WHERE state = 'stored'")]
        versions = Counter(
            (kind, identity)
            for kind, identity in database.execute(
                "SELECT type, id FROM resource_version WHERE type IN ('Patient', 'Encounter', 'Provenance')"
            )
        )
        kinds = Counter(kind for kind, _ in versions)
        logged = Counter(row[0] for row in database.execute("SELECT ref FROM evidence_entry"))
        stored = {
            f"{kind}/{identity}/_history/{version}"
            for kind, identity, version in database.execute("SELECT type, id, version FROM resource_version")
        }
    lost = {f"K{number}" for number in acknowledged} - set(controls)
    assert not lost, f"{len(lost)} acknowledged messages lost"
    assert len(controls) == len(set(controls)), "a message was kept twice"
    assert kinds["Patient"] == kinds["Encounter"] == kinds["Provenance"] == len(controls)
    assert set(versions.values()) == {1}, "a message took effect twice"
    assert set(logged.values()) == {1}, "a version was logged twice"
    assert stored <= set(logged), "a version was not logged"
