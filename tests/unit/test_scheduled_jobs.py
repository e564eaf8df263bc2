"""Scheduled jobs: one worker runs a job at a time, another takes over, and a failing job stops nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anchor.errors import ChainUnavailable
from bridge.errors import DatabaseUnavailable
from bridge.jobs import Job, Worker, jobs_of
from bridge.storage.database import migrate, open_database
from bridge.storage.leases import JobLeases
from bridge.wiring import build_node
from tests.node_home import make_home


@dataclass
class Ingest:
    """Counts calls; fails the first ``failures`` of them."""

    failures: int = 0
    calls: int = 0
    called: threading.Event = field(default_factory=threading.Event)

    def commit_with(self, committer: Any) -> None:
        pass

    def process(self, limit: int, stopping: Any = None) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise DatabaseUnavailable
        self.called.set()
        return 0


@pytest.fixture
def leases(tmp_path: Path) -> Iterator[JobLeases]:
    engine = open_database(f"sqlite:///{tmp_path}/leases.sqlite3")
    migrate(engine)
    yield JobLeases(engine)
    engine.dispose()


def worker(
    leases: JobLeases, name: str, ingest: Any = None, stop: threading.Event | None = None, idle_seconds: float = 0.01
) -> Worker:
    settings = SimpleNamespace(
        worker=SimpleNamespace(batch=10, idle_seconds=idle_seconds),
        anchoring=SimpleNamespace(period_seconds=60),
        witness=SimpleNamespace(enabled=False),
        retention=SimpleNamespace(purge_period_seconds=60),
        exchange=SimpleNamespace(authority=""),
    )
    node = SimpleNamespace(
        settings=settings,
        leases=leases,
        ingest=ingest,
        pollers=(),
        purge=lambda: 0,
        cosignatures=None,
        timestamps=SimpleNamespace(configured=False),
        certificates=SimpleNamespace(exists=False),
        tls=SimpleNamespace(exists=False),
    )
    return Worker(node, name, stop or threading.Event())  # type: ignore[arg-type]


def test_a_second_worker_does_not_run_a_job_that_is_running(leases: JobLeases) -> None:
    running, finish, ran = threading.Event(), threading.Event(), []

    def slow() -> int:
        ran.append("first")
        running.set()
        assert finish.wait(60)
        return 1

    first = threading.Thread(target=worker(leases, "w1").run_job, args=(Job("anchor", 1, slow),))
    first.start()
    assert running.wait(60)
    assert not worker(leases, "w2").run_job(Job("anchor", 1, lambda: ran.append("second")))
    finish.set()
    first.join()
    assert ran == ["first"]
    assert worker(leases, "w2").run_job(Job("anchor", 1, lambda: ran.append("second")))


@pytest.mark.parametrize("error", [ChainUnavailable("away"), DatabaseUnavailable()], ids=["ledger", "database"])
def test_a_failed_job_gives_its_lease_back_and_runs_again(
    leases: JobLeases, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    made = worker(leases, "w1")
    assert not made.run_job(Job("anchor", 1, fail))
    assert leases.holder("job:anchor") is None
    assert made.run_job(Job("anchor", 1, lambda: 0))


def test_the_inbox_is_worked_on_after_the_database_failed(
    leases: JobLeases, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bridge.jobs.FAILURE_PAUSE_SECONDS", 0.01)
    ingest, stop = Ingest(failures=2), threading.Event()
    thread = threading.Thread(target=worker(leases, "w1", ingest, stop).run)
    thread.start()
    assert ingest.called.wait(60)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_stopping_ends_an_idle_worker_at_once(leases: JobLeases) -> None:
    ingest, stop = Ingest(), threading.Event()
    thread = threading.Thread(target=worker(leases, "w1", ingest, stop, idle_seconds=600).run)
    thread.start()
    assert ingest.called.wait(60)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_stopping_worker_begins_no_job(leases: JobLeases) -> None:
    stop = threading.Event()
    stop.set()
    assert not worker(leases, "w1", stop=stop).run_job(Job("anchor", 1, lambda: 1))


def test_every_job_of_a_real_node_runs(tmp_path: Path) -> None:
    with build_node(make_home(tmp_path / "home")) as node:
        jobs = {job.name: job for job in jobs_of(node)}
        assert set(jobs) == {"anchor", "witness", "purge", "register", "settle", "collect", "facts"}
        made = Worker(node, "w1", threading.Event())
        assert all(made.run_job(job) for job in jobs.values())
