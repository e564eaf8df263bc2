"""A ledger that hangs, is not there, or comes back: ingest goes on as if nothing were, and anchoring catches up.

A real node with its real worker and database; the ledger is a TCP server that accepts and never answers, a closed port,
or a served ledger.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from werkzeug.serving import make_server

from anchor.contracts import members
from bridge.demo.nodes import free_ports
from bridge.home import HomePlan, create_home
from bridge.jobs import Job, Worker, jobs_of
from bridge.node_keys import load_signer
from bridge.routes.ledger import ledger_blueprint
from bridge.settings import Settings, load_settings
from bridge.wiring import Node, build_node, prepare_database
from tests.evidence_world import org_id
from tests.node_consortium import wait_for
from tests.node_home import adt

AUTHORITY, HOSPITAL = org_id(71), org_id(72)
QUICK = """
[anchoring]
period_seconds = 0.2
[witness]
period_seconds = 0.2
[worker]
idle_seconds = 0.02
"""
MESSAGES = 20
ACKNOWLEDGED_SECONDS = 2.0
"""What one acknowledgement may take here: a hundred times what it does, a fifth of what the ledger is waited for."""


def home_of(directory: Path, org: str, role: str, port: int, genesis: Path | None = None) -> Settings:
    plan = HomePlan(
        org=org, name=f"测试{role}", roles=(role,), endpoint=f"http://127.0.0.1:{port}", environment="test",
        http_host="127.0.0.1", http_port=port, mllp_port=2575, mllp=False, chain="hanging",
        database="sqlite:///node.sqlite3", genesis=genesis, ledger_url=f"http://127.0.0.1:{port}" if genesis else "",
    )  # fmt: skip
    settings = create_home(directory, plan)
    prepare_database(settings)
    with (directory / "config.toml").open("a", encoding="utf-8") as config:
        config.write(QUICK)
    return load_settings(directory)


class Hospital:
    """A hospital's home whose ledger's host is at ``port``, and that host's own home."""

    def __init__(self, directory: Path) -> None:
        (self.port,) = free_ports(1)
        self.authority = home_of(directory / "authority", AUTHORITY, "authority", self.port)
        self.settings = home_of(directory / "hospital", HOSPITAL, "hospital", self.port,
                                self.authority.path("genesis.json"))  # fmt: skip
        signer = load_signer(self.settings)
        card = members.card(
            chain="hanging", org=HOSPITAL, name="测试医院", roles=["hospital"], endpoint="http://127.0.0.1:9",
            signing=signer.sign, encryption=signer.decrypt, since=int(time.time()) - 10,
        )  # fmt: skip
        action = {"kind": "admit", "member": members.admission(card)}
        with build_node(self.authority) as host:
            host.submitter.submit("membership.propose", {"proposal": secrets.token_hex(16), "action": action})

    @contextmanager
    def ledger(self) -> Iterator[Any]:
        """Serve the ledger where the hospital looks for it."""
        with build_node(self.authority) as host:
            app = Flask(__name__)
            app.register_blueprint(ledger_blueprint(SimpleNamespace(chain=host.chain)))
            server = make_server("127.0.0.1", self.port, app, threaded=True)
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield host.chain
            finally:
                server.shutdown()
                thread.join()
                server.server_close()


@contextmanager
def hanging(port: int) -> Iterator[list[socket.socket]]:
    """Accept every connection and never answer; gives the connections."""
    held: list[socket.socket] = []
    with closing(socket.create_server(("127.0.0.1", port))) as listening:
        listening.settimeout(0.05)
        stop = threading.Event()

        def accept() -> None:
            while not stop.is_set():
                try:
                    held.append(listening.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield held
        finally:
            stop.set()
            thread.join()
            for each in held:
                each.close()


@contextmanager
def closed(port: int) -> Iterator[list[socket.socket]]:
    """Nobody listens there."""
    yield []


@contextmanager
def working(node: Node) -> Iterator[None]:
    """Run the node's worker, jobs and all, in a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=Worker(node, "w1", stop).run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    monkeypatch.setenv("YIQIAO_LEDGER__TIMEOUT_SECONDS", "10")
    made = Hospital(tmp_path)
    made.settings = load_settings(made.settings.home)
    return made


def stored(node: Node) -> int:
    return int(node.inbox.counts().get("stored", 0))


@pytest.mark.parametrize("away", [hanging, closed], ids=["accepts and never answers", "nobody listens"])
def test_ingest_does_not_wait_for_the_ledger(hospital: Hospital, away: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with away(hospital.port) as held, build_node(hospital.settings) as node, working(node):
        if away is hanging:
            wait_for(lambda: held, "a job that waits for the ledger")
        slowest = 0.0
        for number in range(MESSAGES):
            began = time.monotonic()
            answer = node.ingest.receive("his", adt(f"M{number}", f"P{number}"))
            slowest = max(slowest, time.monotonic() - began)
            assert answer.accepted
        began = time.monotonic()
        wait_for(lambda: stored(node) == MESSAGES, "storing all of them", seconds=10)
        assert slowest < ACKNOWLEDGED_SECONDS
        for each in held:  # the waiting jobs give up now, so that the test need not wait their time
            each.close()


def test_anchoring_catches_up_after_an_outage(hospital: Hospital, capfd: pytest.CaptureFixture[str]) -> None:
    with build_node(hospital.settings) as node, working(node):
        for number in range(MESSAGES):
            node.ingest.receive("his", adt(f"M{number}", f"P{number}"))
        wait_for(lambda: stored(node) == MESSAGES, "storing during the outage")
        wait_for(lambda: node.anchoring.status().unpublished >= MESSAGES, "logging during the outage")
        assert node.anchoring.status().published is None
        assert node.evidence_status.read().lag > 0
        with hospital.ledger() as chain:
            wait_for(lambda: node.anchoring.status().waiting_since is None, "publishing all of it")
            (log,) = chain.state_with_prefix("log/").values()
            with node.engine.connect() as connection:
                (size,) = connection.exec_driver_sql("SELECT size FROM evidence_log").one()
            assert (log["org"], log["size"]) == (HOSPITAL, size)
            wait_for(lambda: node.witness.last() is not None, "cosigning again")
            node.evidence_status._head = None
            found = node.evidence_status.read()
            assert (found.lag, found.unpublished, found.ledger_ok) == (0.0, 0, True)


def test_of_many_workers_one_runs_the_job(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four workers over one database want to anchor at once, again and again: one does, and nothing is logged twice."""
    running, most, done = 0, 0, 0
    lock = threading.Lock()
    nodes = [build_node(hospital.settings) for _ in range(4)]

    def counted(node: Node) -> Job:
        (job,) = (each for each in jobs_of(node) if each.name == "anchor")

        def run() -> Any:
            nonlocal running, most, done
            with lock:
                running, done = running + 1, done + 1
                most = max(most, running)
            try:
                time.sleep(0.05)
                return job.run()
            finally:
                with lock:
                    running -= 1

        return Job(job.name, job.period_seconds, run)

    with hospital.ledger() as chain:
        try:
            for number in range(MESSAGES):
                nodes[0].ingest.receive("his", adt(f"M{number}", f"P{number}"))
            while nodes[0].ingest.process(100):
                pass
            workers = [Worker(node, f"w{n}", threading.Event()) for n, node in enumerate(nodes)]

            def repeat(worker: Worker, job: Job) -> None:
                for _ in range(5):
                    worker.run_job(job)

            threads = [
                threading.Thread(target=repeat, args=(worker, counted(node)))
                for worker, node in zip(workers, nodes, strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            with nodes[0].engine.connect() as connection:
                refs = [row[0] for row in connection.exec_driver_sql("SELECT ref FROM evidence_entry")]
            (log,) = chain.state_with_prefix("log/").values()
        finally:
            for node in nodes:
                node.close()
    assert most == 1
    assert done < 20, "most tries found it running"
    assert len(refs) == len(set(refs)) == log["size"] >= MESSAGES
    assert json.dumps(log)
