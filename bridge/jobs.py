"""The worker process: inbox processing in a loop, and the scheduled jobs, each under a lease.

Every worker of a node schedules every job; the lease lets one of them run it, and another takes over when that one
dies. A job that fails is logged and tried again at its next turn; it never stops the others.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR
from apscheduler.schedulers.background import BackgroundScheduler

from anchor.errors import AnchorError
from bridge.errors import BridgeError
from bridge.log import get_logger, where
from bridge.wiring import Node
from fhir_adapters.errors import AdapterError

LEASE_SECONDS = 60.0  # how long the job of a killed worker waits for another
RENEW_SECONDS = 15.0  # a quarter of the lease: three renewals may fail before it is lost
CONVERSION_NICENESS = 5
"""Acknowledging senders and answering readers goes before converting what is already safe. Only the converting thread
steps back: one that was put aside while it held the database would hold up those who shall go first."""

FAILURE_PAUSE_SECONDS = 2.0  # before the inbox is tried again after the database failed
EXPECTED_ERRORS = (BridgeError, AnchorError, AdapterError)


@dataclass(frozen=True, slots=True)
class Job:
    """A scheduled job: ``run`` returns what it did, for the log (None or falsy: nothing worth a line)."""

    name: str
    period_seconds: float
    run: Callable[[], Any]


def jobs_of(node: Node) -> list[Job]:
    """Return the scheduled jobs of a node, as its settings and roles ask for."""
    settings = node.settings
    jobs = [
        Job("anchor", settings.anchoring.period_seconds, lambda: _anchor(node)),
        Job("purge", settings.retention.purge_period_seconds, node.purge),
    ]
    if settings.witness.enabled:
        jobs.append(Job("witness", settings.witness.period_seconds, lambda: _witness(node)))
    if node.cosignatures is not None:
        jobs.append(Job("cosignatures", settings.witness.period_seconds, node.cosignatures.run))
    if node.timestamps.configured:
        jobs.append(Job("timestamp", settings.timestamp.period_seconds, node.timestamps.run))
    if node.certificates.exists or (node.tls.exists and settings.exchange.authority):
        jobs.append(Job("certificates", settings.peer_tls.refresh_seconds, node.refresh_revoked))
    if settings.exchange.authority:
        jobs.append(Job("register", settings.exchange.register_seconds, node.exchange_parts.register))
        jobs.append(Job("settle", settings.exchange.settle_seconds, node.exchange_parts.settle))
        if settings.exchange.ledger_cache_seconds > 0:
            jobs.append(Job("facts", max(1.0, settings.exchange.ledger_cache_seconds / 5), node.facts.refresh))
        jobs.append(Job("collect", settings.exchange.collect_seconds, lambda: len(node.exchange.collect())))
    jobs += [Job(f"poll:{poller.source}", poller.period_seconds, poller.run) for poller in node.pollers]
    return jobs


def _anchor(node: Node) -> int:
    """Log and publish; return how much there was to do."""
    run = node.anchoring.run()
    return run.logged + len(run.published)


def _witness(node: Node) -> bool:
    """Look at the ledger and cosign; a contradiction is for a person to see, at once."""
    run = node.witness.run()
    if run.alarm:
        get_logger("worker").error("the ledger contradicts itself", outcome=run.outcome, size=run.size, why=run.detail)
    return bool(run.outcome == "cosigned")


class Worker:
    """Runs until ``stop`` is set; ``holder`` names this process in leases."""

    def __init__(self, node: Node, holder: str, stop: threading.Event) -> None:
        self._node = node
        self._holder = holder
        self._stop = stop
        self._log = get_logger("worker")

    def run(self) -> None:
        """Process the inbox and run the jobs; return when stopped and nothing is in hand."""
        scheduler = BackgroundScheduler(timezone="UTC")
        scheduler.add_listener(self._unexpected, EVENT_JOB_ERROR)
        for job in jobs_of(self._node):
            scheduler.add_job(
                self.run_job, "interval", args=[job], id=job.name, seconds=job.period_seconds,
                max_instances=1, coalesce=True, misfire_grace_time=None, jitter=job.period_seconds / 10,
            )  # fmt: skip
        with ThreadPoolExecutor(1, thread_name_prefix="commit") as committer:
            committer.submit(os.getpid).result()  # the thread exists from here on, at the priority of now
            self._node.ingest.commit_with(committer)
            scheduler.start()
            os.nice(CONVERSION_NICENESS)  # Linux: of this thread alone
            try:
                self._process_inbox()
            finally:
                scheduler.shutdown(wait=True)

    def run_job(self, job: Job) -> bool:
        """Run a job if its lease is free; True when it ran to its end."""
        name = f"job:{job.name}"
        try:
            if self._stop.is_set() or not self._node.leases.acquire(name, self._holder, LEASE_SECONDS):
                return False
            began = time.monotonic()
            try:
                with _Renewal(self._node.leases, name, self._holder):
                    result = job.run()
            finally:
                self._node.leases.release(name, self._holder)
        except EXPECTED_ERRORS as error:
            self._log.warning("job failed", job=job.name, error=type(error).__name__, detail=str(error))
            return False
        if result:
            self._log.info("job done", job=job.name, seconds=round(time.monotonic() - began, 3))
        return True

    def _process_inbox(self) -> None:
        worker = self._node.settings.worker
        while not self._stop.is_set():
            try:
                done = self._node.ingest.process(worker.batch, self._stop.is_set)
            except EXPECTED_ERRORS as error:
                self._log.error("inbox processing failed", error=type(error).__name__, detail=str(error))
                self._stop.wait(FAILURE_PAUSE_SECONDS)
                continue
            if not done:
                self._stop.wait(worker.idle_seconds)

    def _unexpected(self, event: Any) -> None:
        """Log an error that no job should raise: its type only, for its text is not ours."""
        self._log.error(
            "job raised an unexpected error",
            job=event.job_id,
            error=type(event.exception).__name__,
            at=where(event.exception),
        )


class _Renewal:
    """Keeps a lease alive from a thread of its own while the job runs."""

    def __init__(self, leases: Any, name: str, holder: str) -> None:
        self._leases, self._name, self._holder = leases, name, holder
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease {name}", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._done.wait(RENEW_SECONDS):
            try:
                self._leases.renew(self._name, self._holder, LEASE_SECONDS)
            except BridgeError as error:
                get_logger("worker").warning("lease not renewed", lease=self._name, error=type(error).__name__)
