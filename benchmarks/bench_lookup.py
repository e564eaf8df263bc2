"""A lookup between institutions: pseudonym, locate, request, permit, release, receive, verified and stored.

Authority, holder and requester are processes of their own on loopback with the settings of a new home (plain HTTP,
SQLite, embedded ledger, two HTTP workers). Lookups are made beside the requester's process, as ``yiqiao lookup`` makes
them, each of a patient whom the requester has not met. Beside it, in turn: (a) the cryptographic operations of one
lookup at all three nodes, recorded and done again bare on one core; (b) the same records by plain FHIR from the same
holder, which checks the token and writes its AuditEvents as for every reader.

Where the time goes is said twice: as the requester sees it while the others are processes, and with all three in one
process, where each instant can be given to what is done in it. Both are recorded apart from what is measured, for
recording makes it slower.

What was counted of a lookup of 16 records before questions were asked together (``docs/adr/0023``): 29 HTTP requests,
60 writing transactions, 44 SM2 signatures made and 44 verified, 8,160 SM3. And then: 9 requests, 31 writing
transactions, 20 signatures made and 21 verified, 1,709 SM3. Now: 8 requests, 14 writing transactions, 19 signatures
made and 15 verified, about 1,600 SM3. Its bare cryptography became less too.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from benchmarks.exchange_site import REQUESTER_ORG, ExchangeSite, PlainReader, look_up, site
from benchmarks.lookup_spans import Recording, divide, recording
from benchmarks.measure import ROUNDS, Comparison, Rate
from bridge.services.lookup import HolderOutcome
from bridge.wiring import Node

AT_ONCE = 4
WARM_UP = 12
"""Lookups before anything is counted or timed: connections, caches, the members' key tables."""
RECORDED = 5
"""Lookups whose time is divided."""
ALONE_PER_SECOND, AT_ONCE_PER_SECOND = 20, 30
"""Patients made ready for a second of measuring: several times the lookups that a two-core machine makes in it."""
TARGET = 0.333
"""A lookup may take three times as long as its bare cryptography."""


@dataclass
class Timed:
    """Lookups or fetches of several rounds: seconds each, and each round's rate a second."""

    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def rate(self) -> Rate:
        """Return the rate over the rounds."""
        return Rate(statistics.median(self.rates), min(self.rates), max(self.rates))

    def milliseconds(self) -> dict[str, float]:
        """Return p50 and p95 of the single ones."""
        cuts = statistics.quantiles(self.seconds, n=20, method="inclusive") if len(self.seconds) > 1 else None
        p95 = cuts[18] if cuts else self.seconds[0]
        return {"p50": statistics.median(self.seconds) * 1000, "p95": p95 * 1000}


@dataclass(frozen=True)
class Inside:
    """What was recorded of a lookup with all nodes in one process: its cryptography, and its time by label."""

    cryptography: Recording
    shares: dict[str, float]
    seconds: float


def run(seconds: float = 5.0) -> list[Comparison]:
    """Measure; ``seconds`` is spent on lookups one by one, on several at once and on each of the two peers."""
    patients = 2 * (WARM_UP + RECORDED) + int(seconds * (ALONE_PER_SECOND + AT_ONCE_PER_SECOND)) + ROUNDS * AT_ONCE
    numbers = _numbers(patients)
    with site(patients) as made:
        inside = _inside(made, numbers)
        with made.served() as node:
            return _measured(made, node, numbers, inside, seconds)


def _numbers(patients: int) -> Iterator[int]:
    yield from range(1, patients + 1)
    raise RuntimeError("this machine is faster than was planned for: make more patients ready for a second")


def _inside(made: ExchangeSite, numbers: Iterator[int]) -> Inside:
    with made.served_here() as opened:
        node = opened[REQUESTER_ORG]
        for _ in range(WARM_UP):
            look_up(node, next(numbers))
        with recording(serving=True) as one:
            look_up(node, next(numbers))
        shares, took = _divided(node, numbers, RECORDED - 1, serving=True)
    return Inside(one, shares, took)


def _divided(node: Node, numbers: Iterator[int], count: int, *, serving: bool) -> tuple[dict[str, float], float]:
    """Return the mean seconds of some lookups by what they went into, and in all."""
    shares: dict[str, float] = {}
    total = 0.0
    for _ in range(count):
        with recording(serving=serving, hashes=False) as recorded:
            began = time.perf_counter()
            look_up(node, next(numbers))
            ended = time.perf_counter()
        for label, value in divide(recorded.spans, began, ended).items():
            shares[label] = shares.get(label, 0.0) + value / count
        total += ended - began
    return dict(sorted(shares.items(), key=lambda item: -item[1])), total / count


def _measured(
    made: ExchangeSite, node: Node, numbers: Iterator[int], inside: Inside, seconds: float
) -> list[Comparison]:
    outcomes = [look_up(node, next(numbers)) for _ in range(WARM_UP)]
    shares, took = _divided(node, numbers, RECORDED, serving=False)
    alone, several, bare, plain = Timed(), Timed(), Timed(), Timed()
    reader = PlainReader(made.holder, outcomes[0])
    reader.fetch(outcomes[0])
    turn = seconds / ROUNDS
    for _ in range(ROUNDS):  # in turn, so that the machine's noise meets all of them alike
        _while(alone, turn, lambda: outcomes.append(look_up(node, next(numbers))))
        _while(bare, turn, inside.cryptography.replay)
        _while(plain, turn, lambda: reader.fetch(outcomes[-1]))
        _at_once(several, turn, node, numbers)
    reader.close()
    operations = ", ".join(f"{count:,} {label}" for label, count in inside.cryptography.counts().items() if count)
    what = f"lookups of a patient's {_records(outcomes)} records at one holder, received, verified and stored"
    beside = "the same records by plain FHIR searches and reads at the same holder, one by one"
    return [
        Comparison(
            f"{what}, one at a time", alone.rate(),
            f"its cryptography at all three nodes, bare: {operations}", bare.rate(), target=TARGET,
            milliseconds=alone.milliseconds(),
            note=f"as the requester sees it: {_told(shares, took)}\n    "
            f"all nodes in one process: {_told(inside.shares, inside.seconds)}\n    "
            f"{inside.cryptography.requests} HTTP requests, {inside.cryptography.commits} writing transactions",
        ),
        Comparison(f"{what}, {AT_ONCE} at once", several.rate(), beside, plain.rate(),
                   milliseconds=several.milliseconds()),
        Comparison(f"{what}, one at a time", alone.rate(), beside, plain.rate(),
                   note=", ".join(f"plain {name} {value:,.0f} ms" for name, value in plain.milliseconds().items())),
    ]  # fmt: skip


def _while(timed: Timed, seconds: float, work: Callable[[], object]) -> None:
    """Do ``work`` one by one for so long, at least once, and note it as a round."""
    count, started = 0, time.perf_counter()
    now = started
    while now < started + seconds or not count:
        work()
        ended = time.perf_counter()
        timed.seconds.append(ended - now)
        now, count = ended, count + 1
    timed.rates.append(count / (now - started))


def _at_once(timed: Timed, seconds: float, node: Node, numbers: Iterator[int]) -> None:
    """Look up in several threads for so long, at least once in each, and note all of it as one round."""
    lock, started = threading.Lock(), time.perf_counter()

    def work() -> list[float]:
        took: list[float] = []
        while not took or time.perf_counter() < started + seconds:
            with lock:
                number = next(numbers)
            began = time.perf_counter()
            look_up(node, number)
            took.append(time.perf_counter() - began)
        return took

    with ThreadPoolExecutor(AT_ONCE) as threads:
        done = [each for future in [threads.submit(work) for _ in range(AT_ONCE)] for each in future.result()]
    timed.seconds += done
    timed.rates.append(len(done) / (time.perf_counter() - started))


def _records(outcomes: list[HolderOutcome]) -> int:
    return round(statistics.median(len(each.records) for each in outcomes))


def _told(shares: dict[str, float], seconds: float) -> str:
    parts = ", ".join(f"{label} {share * 1000:,.0f}" for label, share in shares.items())
    return f"{parts}; {seconds * 1000:,.0f} ms in all"
