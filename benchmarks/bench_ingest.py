"""From the inbox to stored, searchable, sealed FHIR by real processes of a node, on SQLite and on PostgreSQL.

PostgreSQL is measured where YIQIAO_TEST_POSTGRES names a server (tests/start-postgres.sh). The durable acknowledgements
that come before are ``bench_mllp``'s.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import requests
from sqlalchemy import Engine, make_url

import fhir_adapters
from benchmarks.measure import Comparison, Rate
from benchmarks.messages import admission, laboratory_report
from bridge.demo.nodes import DemoNode, free_ports, yiqiao
from bridge.settings import load_settings
from bridge.storage.database import open_database, read_transaction
from bridge.wiring import open_node
from fhir_adapters import SourceProfile

ORG = "12990000MB0000019C"
POSTGRES = os.environ.get("YIQIAO_TEST_POSTGRES", "")
TOKEN_NAME, TOKEN_ROLE = "bench", "reader"

KINDS: tuple[tuple[str, Callable[[int], bytes], float | None], ...] = (
    # the rate that Medplum's agent is run at in production is 300 to 400 messages a second
    ("ADT^A01", admission, 400.0),
    ("ORU^R01 with 30 OBX", lambda number: laboratory_report(30, number), None),
)
WORKERS = (1, 2)
ROUNDS = 3
EXPECTED_PER_SECOND = {"ADT^A01": 400, "ORU^R01 with 30 OBX": 80}
"""How many messages are laid ready for each second of measuring."""

PROBES_PER_SECOND = 20
"""Messages whose way is timed; ``LOAD_PER_SECOND`` more arrive beside them in the second measurement."""

LOAD_PER_SECOND = 50
POLL_SECONDS = 0.002
READABLE_WITHIN_SECONDS = 30.0
STARTED_WITHIN_SECONDS = STOPPED_WITHIN_SECONDS = 120.0


@contextmanager
def databases() -> Iterator[dict[str, Callable[[], str]]]:
    """Give what makes an empty database of each kind, by name: each call a new URL. They are dropped in the end."""
    made: list[str] = []

    def postgres() -> str:
        name = f"yiqiao_bench_{secrets.token_hex(4)}"
        _administer(f"CREATE DATABASE {name}")
        made.append(name)
        return make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)

    kinds: dict[str, Callable[[], str]] = {"SQLite": lambda: "sqlite:///node.sqlite3"}
    if POSTGRES:
        kinds["PostgreSQL"] = postgres
    else:
        print("PostgreSQL is left out: YIQIAO_TEST_POSTGRES names no server")
    try:
        yield kinds
    finally:
        for name in made:
            _administer(f"DROP DATABASE {name} WITH (FORCE)")


def _administer(statement: str) -> None:
    engine = open_database(POSTGRES).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def new_node(folder: Path, database: str) -> DemoNode:
    """Make a home of its own, as a hospital would."""
    http_port, mllp_port = free_ports(2)
    home = Path(tempfile.mkdtemp(prefix="node-", dir=folder))
    home.rmdir()
    node = DemoNode(home, ORG, "Bench", "authority", http_port, mllp_port)
    yiqiao(
        "init", home, "--org", ORG, "--name", "Bench", "--role", "authority", "--role", "hospital",
        "--environment", "test", "--http-port", str(http_port), "--mllp-port", str(mllp_port), "--database", database,
    )  # fmt: skip
    return node


def lay_ready(home: Path, make: Callable[[int], bytes], numbers: range) -> None:
    """Put messages into the inbox of a node that does not run."""
    with open_node(home) as node:
        for start in range(numbers.start, numbers.stop, 256):
            part = range(start, min(start + 256, numbers.stop))
            answers = node.ingest.keep([node.ingest.judge("mllp", make(number)) for number in part])
            if not all(answer.accepted for answer in answers):
                raise RuntimeError("a message was not taken")


def _scalar(engine: Engine, statement: str) -> int:
    with read_transaction(engine) as connection:
        return int(connection.exec_driver_sql(statement).scalar_one())


def _processor_seconds(pids: Iterable[int]) -> float:
    """Return what processes have used of the processors so far (proc_pid_stat(5): utime and stime)."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def stored_per_second(
    node: DemoNode, engine: Engine, make: Callable[[int], bytes], numbers: range, workers: int
) -> tuple[float, float]:
    """Return how many waiting messages a second a node's worker processes store, from their first on, and how many
    in a second of processor time, which others on the machine change less."""
    lay_ready(node.home, make, numbers)
    waiting = "SELECT count(*) FROM inbox WHERE state = 'received'"
    messages = _scalar(engine, waiting)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "bridge.child", f"worker-{number}", str(node.home)], stderr=subprocess.DEVNULL
        )
        for number in range(1, workers + 1)
    ]
    try:
        deadline = time.monotonic() + STARTED_WITHIN_SECONDS
        while (begun := _scalar(engine, waiting)) == messages:
            if time.monotonic() > deadline:
                raise RuntimeError("the workers did not begin")
            time.sleep(POLL_SECONDS)
        started, used = time.perf_counter(), _processor_seconds(each.pid for each in processes)
        while _scalar(engine, waiting):
            time.sleep(POLL_SECONDS * 10)
        elapsed = time.perf_counter() - started
        used = _processor_seconds(each.pid for each in processes) - used
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(STOPPED_WITHIN_SECONDS)
    if _scalar(engine, "SELECT count(*) FROM inbox WHERE state = 'failed'"):
        raise RuntimeError("not every message was stored")
    return begun / elapsed, begun / used


def stores(folder: Path, seconds: float) -> list[Comparison]:
    """Store what waits, by kind of message, database and number of workers."""
    found = []
    with databases() as kinds:
        for database, url in kinds.items():
            node = new_node(folder, url())
            engine = open_database(load_settings(node.home).database_url)
            first = 1
            for kind, make, target in KINDS:
                messages = max(200, int(seconds * EXPECTED_PER_SECOND[kind]))
                for workers in WORKERS:
                    rates, of_processor = [], []
                    for _ in range(ROUNDS):
                        numbers = range(first, first + messages)
                        rate, by_processor = stored_per_second(node, engine, make, numbers, workers)
                        rates.append(rate)
                        of_processor.append(by_processor)
                        first += messages
                    rates.sort()
                    found.append(
                        Comparison(
                            f"{kind} stored as FHIR, {database}, {workers} worker process(es)",
                            Rate(rates[ROUNDS // 2], rates[0], rates[-1]),
                            "",
                            None,
                            absolute_target=target if workers == max(WORKERS) else None,
                            note=f"{statistics.median(of_processor):,.0f} in a second of processor time",
                        )
                    )
            engine.dispose()
    return found


class _Line:
    """One MLLP connection; a node that has just started gets a moment to listen."""

    def __init__(self, port: int) -> None:
        deadline = time.monotonic() + STARTED_WITHIN_SECONDS
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
                return
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def send(self, message: bytes) -> None:
        """Send a message and wait until it is acknowledged."""
        self._socket.sendall(b"\x0b" + message + b"\x1c\r")
        answer = b""
        while not answer.endswith(b"\x1c\r"):
            answer += self._socket.recv(4096)
        if b"MSA|AA|" not in answer:
            raise RuntimeError("a message was not acknowledged with AA")

    def close(self) -> None:
        self._socket.close()


def load(port: int, stop: threading.Event) -> None:
    """Send at a fixed rate until told to stop."""
    number, due = 5_000_000, time.perf_counter()
    with closing(_Line(port)) as line:
        while not stop.is_set():
            line.send(admission(number))
            number, due = number + 1, due + 1 / LOAD_PER_SECOND
            time.sleep(max(0.0, due - time.perf_counter()))


def readable_after(node: DemoNode, token: str, profile: SourceProfile, first: int, probes: int) -> list[float]:
    """Return for each message the seconds from its acknowledgement until HTTP answers its Patient."""
    waited = []
    with closing(_Line(node.mllp_port)) as line, requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        for number in range(first, first + probes):
            message = admission(number)
            entries = fhir_adapters.convert(message, profile=profile).bundle["entry"]
            [patient] = [each["resource"]["id"] for each in entries if each["resource"]["resourceType"] == "Patient"]
            line.send(message)
            acknowledged = time.perf_counter()
            while session.get(f"{node.endpoint}/fhir/Patient/{patient}", timeout=10).status_code != requests.codes.ok:
                if time.perf_counter() - acknowledged > READABLE_WITHIN_SECONDS:
                    raise RuntimeError("a message did not become readable")
                time.sleep(POLL_SECONDS)
            waited.append(time.perf_counter() - acknowledged)
            time.sleep(max(0.0, 1 / PROBES_PER_SECOND - waited[-1]))
    return waited


def latencies(folder: Path, seconds: float) -> list[Comparison]:
    """Time the way from acknowledgement to readable FHIR at a served node, alone and under load."""
    node = new_node(folder, "sqlite:///node.sqlite3")
    made = json.loads(
        yiqiao("token", "create", "--home", node.home, "--name", TOKEN_NAME, "--role", TOKEN_ROLE, "--json").stdout
    )
    with open_node(node.home) as opened:
        profile = opened.profiles["mllp"]  # resource ids are this node's own
    found = []
    node.start()
    try:
        node.wait_ready()
        readable_after(node, made["token"], profile, 1, 10)
        for beside, first in ((0, 1_000), (LOAD_PER_SECOND, 2_000_000)):
            stop = threading.Event()
            sender = threading.Thread(target=load, args=(node.mllp_port, stop))
            if beside:
                sender.start()
            started = time.perf_counter()
            waited = readable_after(node, made["token"], profile, first, max(100, int(seconds * PROBES_PER_SECOND)))
            rate = len(waited) / (time.perf_counter() - started)
            stop.set()
            if beside:
                sender.join()
            found.append(
                Comparison(
                    f"ADT^A01 from acknowledgement to readable FHIR, {beside} other messages a second",
                    Rate(rate, rate, rate),
                    "",
                    None,
                    milliseconds={
                        "p50": statistics.median(waited) * 1000,
                        "p99": statistics.quantiles(waited, n=100)[98] * 1000,
                    },
                )
            )
    finally:
        node.stop()
    return found


def back_load(folder: Path, seconds: float) -> list[Comparison]:
    """Take a file in with ``yiqiao ingest``, into the inbox alone and all the way."""
    found = []
    for what, options, per_second in (
        ("into the inbox", ["--no-process"], 3_000),
        ("stored as FHIR", [], EXPECTED_PER_SECOND["ADT^A01"]),
    ):
        node = new_node(folder, "sqlite:///node.sqlite3")
        messages = int(seconds * per_second)
        file = folder / "adt.hl7"
        file.write_bytes(b"".join(admission(number) for number in range(1, messages + 1)))
        started = time.perf_counter()
        yiqiao("ingest", file, "--home", node.home, *options)
        value = messages / (time.perf_counter() - started)
        found.append(Comparison(f"ADT^A01 back-loaded from a file {what}", Rate(value, value, value), "", None))
    return found


def run(seconds: float = 5.0) -> list[Comparison]:
    """Measure latency, storing and back-load; ``seconds`` is about how long each single measurement takes."""
    with tempfile.TemporaryDirectory(prefix="yiqiao-bench-") as name:
        folder = Path(name)
        return latencies(folder, seconds) + stores(folder, seconds) + back_load(folder, seconds)
