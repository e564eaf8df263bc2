"""MLLP messages acknowledged durably per second by a real node process."""

from __future__ import annotations

import socket
import sqlite3
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

from benchmarks.measure import Comparison, Rate
from benchmarks.messages import admission
from bridge.demo.nodes import DemoNode, free_ports, yiqiao

CONNECTIONS = (1, 4, 16)
TARGET_PER_SECOND = 1_000
AUTHORITY_ORG = "12990000MB0000019C"


def send_many(port: int, numbers: range) -> int:
    """Send the messages one after another on one connection, each after the last one's acknowledgement."""
    acknowledged = 0
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as connection:
        stream = connection.makefile("rb")
        for number in numbers:
            connection.sendall(b"\x0b" + admission(number) + b"\x1c\x0d")
            answer = b""
            while not answer.endswith(b"\x1c\r"):
                answer += stream.read1(4096)
            acknowledged += b"MSA|AA|" in answer
    return acknowledged


def measured(port: int, connections: int, messages: int, first: int) -> float:
    """Return acknowledged messages per second over ``connections`` parallel connections."""
    share = messages // connections
    counts = [0] * connections

    def work(index: int) -> None:
        start = first + index * share
        counts[index] = send_many(port, range(start, start + share))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(connections)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    if sum(counts) != share * connections:
        raise RuntimeError(f"only {sum(counts)} of {share * connections} messages were acknowledged with AA")
    return sum(counts) / elapsed


def fsync_rate(folder: Path, seconds: float = 1.0) -> Rate:
    """Return one-row durable SQLite commits per second on the same disk: the limit of one connection."""
    with closing(sqlite3.connect(folder / "limit.sqlite3", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE row (body BLOB)")
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            database.execute("INSERT INTO row VALUES (zeroblob(1024))")
            done += 1
        value = done / (time.perf_counter() - started)
    return Rate(value, value, value)


def run(seconds: float = 5.0) -> list[Comparison]:
    """Start a node, feed it over 1, 4 and 16 connections and compare with bare durable commits on the same disk."""
    comparisons = []
    with tempfile.TemporaryDirectory(prefix="yiqiao-bench-") as folder:
        http_port, mllp_port = free_ports(2)
        node = DemoNode(Path(folder) / "node", AUTHORITY_ORG, "Bench", "authority", http_port, mllp_port)
        yiqiao(
            "init",
            node.home,
            "--org",
            node.org,
            "--name",
            node.name,
            "--role",
            "authority",
            "--role",
            "hospital",
            "--http-port",
            http_port,
            "--mllp-port",
            mllp_port,
        )
        limit = fsync_rate(Path(folder))
        node.start()
        try:
            node.wait_ready()
            measured(mllp_port, 4, 200, 1)
            first = 1_000
            for connections in CONNECTIONS:
                messages = max(connections, int(seconds * 200) // connections * connections)
                rounds = []
                for _ in range(3):
                    rounds.append(measured(mllp_port, connections, messages, first))
                    first += messages
                rounds.sort()
                comparisons.append(
                    Comparison(
                        f"MLLP messages acknowledged durably, {connections} connection(s)",
                        Rate(rounds[1], rounds[0], rounds[2]),
                        "bare one-row SQLite commits, synchronous=FULL, one writer",
                        limit,
                        absolute_target=TARGET_PER_SECOND if connections == max(CONNECTIONS) else None,
                    )
                )
        finally:
            node.stop()
    return comparisons
