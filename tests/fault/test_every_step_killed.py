"""kill -9 of the node's own listener and worker at every step of receive, persist, acknowledge, convert and store.

300 kills here on SQLite and 60 on PostgreSQL, YIQIAO_TEST_STEP_KILLS=1000 on demand. Counted at the end: acknowledged
messages lost, and effects doubled; both are to be none. The steps are wrapped around the programs by
``tests.dying_child``; whole nodes are killed at random moments in ``test_node_survives_kill``.
"""

from __future__ import annotations

import json
import os
import queue
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Row

from bridge.settings import Settings
from bridge.storage.database import open_database, read_transaction
from tests.dying_child import LISTENER_STEPS, WORKER_STEPS
from tests.node_home import make_home
from tests.stores import new_postgres

REPOSITORY = Path(__file__).parents[2]
KILLS = int(os.environ.get("YIQIAO_TEST_STEP_KILLS", "300"))
CONNECTIONS = 3
BACKLOG = 300  # waiting messages at which the senders pause: enough to be killed over, little to work off at the end
STEP_SECONDS = 10.0  # a step that is not reached in this time is given up, and the child killed where it is
DRAINED_SECONDS = 120.0
FAST = """
[worker]
idle_seconds = 0.01
batch = 20

[anchoring]
period_seconds = 30.0
"""


def admission(number: int) -> bytes:
    return (
        f"MSH|^~\\&|HIS|SITE|YIQIAO|SITE|20260301083000||ADT^A01|K{number}|P|2.5|||||CHN|UNICODE UTF-8\r"
        "EVN|A01|20260301083000\r"
        f"PID|1||K{number:06d}^^^SITE^MR||测试^甲||19850712|F\r"
        f"PV1|1|I|W{number % 7}^{number % 30}^01^SITE||||||||||||||||V{number:06d}\r"
    ).encode()


class Sender(threading.Thread):
    """Sends messages one after another, each until it is acknowledged, as an interface engine does."""

    def __init__(self, port: int, first: int, stop: threading.Event, flow: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.number, self.stop_event, self.flow = port, first, stop, flow
        self.acknowledged: list[int] = []

    def run(self) -> None:
        while not self.stop_event.is_set():
            with (
                suppress(OSError),
                closing(socket.create_connection(("127.0.0.1", self.port), timeout=5)) as connection,
            ):
                self.send_on(connection)
            time.sleep(0.01)

    def send_on(self, connection: socket.socket) -> None:
        while not self.stop_event.is_set():
            if not self.flow.wait(0.2):
                continue
            connection.sendall(b"\x0b" + admission(self.number) + b"\x1c\r")
            answer = b""
            while not answer.endswith(b"\x1c\r"):
                if not (chunk := connection.recv(4096)):
                    return
                answer += chunk
            if f"MSA|AA|K{self.number}\r".encode() in answer:
                self.acknowledged.append(self.number)
                self.number += CONNECTIONS
                time.sleep(0.01)


class Zygote:
    """Starts children that die, and hears of their death."""

    def __init__(self, settings: Settings) -> None:
        self.log = (settings.home / "children.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.dying_child", str(settings.home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            cwd=REPOSITORY,
        )
        self.news: queue.Queue[dict[str, Any]] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(b'{"'):
                self.news.put(json.loads(line))

    def start(self, child: str, step: str = "", passes: int = 0) -> int:
        """Start a child; return its process number."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"child": child, "step": step, "pass": passes}).encode() + b"\n")
        self.process.stdin.flush()
        started = self.news.get(timeout=20)
        assert started["child"] == child, started
        assert "started" in started, started
        return int(started["started"])

    def wait_for_end(self, pid: int) -> bool:
        """Wait until a child has died at its step; False when it had to be killed where it was."""
        try:
            ended = self.news.get(timeout=STEP_SECONDS)
            reached = True
        except queue.Empty:
            os.kill(pid, 9)
            ended, reached = self.news.get(timeout=20), False
        assert (ended["ended"], ended["status"]) == (pid, -9), f"a child ended by itself: {ended}"
        return reached

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()


def kill_often(
    zygote: Zygote,
    chance: random.Random,
    other: str,
    child: str,
    steps: tuple[str, ...],
    kills: int,
    between: Callable[[], None],
) -> Counter[str]:
    """Kill one kind of child at all of its steps in turn, the other kind running undisturbed beside it."""
    beside = zygote.start(other)
    reached: Counter[str] = Counter()
    for number in range(kills):
        step = steps[number % len(steps)]
        pid = zygote.start(child, step, chance.randint(1, 12 if "statement" in step else 4))
        reached[step] += zygote.wait_for_end(pid)
        between()
    os.kill(beside, 9)
    zygote.wait_for_end(beside)
    return reached


@pytest.fixture(params=[pytest.param("sqlite"), pytest.param("postgresql", marks=pytest.mark.service)])
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        yield "sqlite:///node.sqlite3"
    else:
        with new_postgres() as url:
            yield url


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_step_may_be_the_last(tmp_path: Path, database: str, request: pytest.FixtureRequest) -> None:
    kills = KILLS if database.startswith("sqlite") else max(KILLS // 5, len(LISTENER_STEPS + WORKER_STEPS))
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    settings = make_home(tmp_path / "home", mllp_port=port, database=database)
    with (settings.home / "config.toml").open("a", encoding="utf-8") as config:
        config.write(FAST)
    engine = open_database(settings.database_url)
    request.addfinalizer(engine.dispose)
    chance, stop, flow = random.Random(20261124), threading.Event(), threading.Event()
    zygote = Zygote(settings)
    senders = [Sender(port, first, stop, flow) for first in range(CONNECTIONS)]
    began = time.monotonic()
    flow.set()

    def throttle() -> None:
        [(waiting,)] = rows(engine, "SELECT count(*) FROM inbox WHERE state = 'received'")
        (flow.clear if waiting > BACKLOG else flow.set)()

    try:
        for sender in senders:
            sender.start()
        listener = kill_often(zygote, chance, "worker-1", "mllp", LISTENER_STEPS, kills // 2, throttle)
        worker = kill_often(zygote, chance, "mllp", "worker-1", WORKER_STEPS, kills - kills // 2, throttle)
        zygote.start("mllp")
        zygote.start("worker-1")
        flow.set()
        time.sleep(0.5)
        stop.set()
        for sender in senders:
            sender.join(10)
        acknowledged = sorted(number for sender in senders for number in sender.acknowledged)
        wait_until_drained(engine)
    finally:
        stop.set()
        zygote.close()
    assert all(listener[step] for step in LISTENER_STEPS), f"a step was never reached: {listener}"
    assert all(worker[step] for step in WORKER_STEPS), f"a step was never reached: {worker}"
    assert len(acknowledged) > kills
    lost, doubled = count(engine, acknowledged)
    reached = sum(listener.values()) + sum(worker.values())
    print(
        f"\n{database.partition(':')[0]}: {kills} kills in {time.monotonic() - began:.0f} s, {reached} at a named step;"
        f" {len(acknowledged)} acknowledged, {lost} lost, {doubled} doubled"
    )
    assert (lost, doubled) == (0, 0)


def rows(engine: Engine, statement: str) -> Sequence[Row[Any]]:
    """The rows of a query of our own."""
    with read_transaction(engine) as connection:
        return connection.exec_driver_sql(statement).all()


def wait_until_drained(engine: Engine) -> None:
    deadline = time.monotonic() + DRAINED_SECONDS
    while time.monotonic() < deadline:
        states = {row[0]: row[1] for row in rows(engine, "SELECT state, count(*) FROM inbox GROUP BY state")}
        if set(states) == {"stored"}:
            return
        assert set(states) <= {"stored", "received"}, states
        time.sleep(0.1)
    pytest.fail(f"messages still wait: {states}")


def count(engine: Engine, acknowledged: list[int]) -> tuple[int, int]:
    """Return how many acknowledged messages are not there, and how many took effect more than once."""
    controls = [row[0] for row in rows(engine, "SELECT control_id FROM inbox WHERE state = 'stored'")]
    effects = "SELECT type, id FROM resource_version WHERE type IN ('Patient', 'Encounter', 'Provenance')"
    versions = Counter((kind, identity) for kind, identity in rows(engine, effects))
    [(stored,)] = rows(engine, "SELECT count(*) FROM resource_version")
    [(waiting, distinct)] = rows(engine, "SELECT count(*), count(DISTINCT ref) FROM outbox")
    [(logged,)] = rows(engine, "SELECT count(*) FROM evidence_entry")
    kinds = Counter(kind for kind, _ in versions)
    assert kinds["Patient"] == kinds["Encounter"] == kinds["Provenance"] == len(set(controls))
    assert waiting == distinct, "a version is in the outbox twice"
    assert waiting + logged == stored, "a version is not once in the outbox or the log"
    lost = len({f"K{number}" for number in acknowledged} - set(controls))
    doubled = len(controls) - len(set(controls)) + sum(number > 1 for number in versions.values())
    return lost, doubled
