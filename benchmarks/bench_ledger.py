"""Ledger transactions per second on the embedded engine, beside OpenSSL's bare SM2 verification on the same core.

The stream is what members do: grant, request, permit, release, receive, by two hospitals, each signed and in sequence,
submitted in the order in which they must be accepted. Every one is parsed, judged by the state machine, verified,
logged, hashed into the state tree and durably committed (SQLite, WAL, ``synchronous=FULL``), and its submitter gets its
answer. OpenSSL does nothing but verify signatures (``openssl speed sm2``). This process and OpenSSL's are bound to one
core, and they are measured in turn, round by round.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anchor import genesis, transaction
from anchor.chain.embedded import EmbeddedChain
from anchor.contracts.org_id import check_character
from anchor.gm import PrivateKey, sm3
from benchmarks.bench_signatures import openssl_speed
from benchmarks.measure import ROUNDS, Comparison, Rate

CHAIN = "bench"
START = 1_790_000_000
LIFE_SECONDS = 600
PER_SECOND = 5_000
"""Transactions prepared for a second of measurement: about what one core commits."""
SUBMISSION = 256
"""Transactions of one submission, as the HTTP interface takes them."""
WARM_UP = 1_000
"""Transactions committed before the clock runs: caches and verification tables are there, as in a running node."""


def _org(number: int) -> str:
    body = f"12990000MB{number:07d}"
    return body + check_character(body)


AUTHORITY, HOLDER, REQUESTER = _org(1), _org(2), _org(3)
ROLES = {AUTHORITY: "authority", HOLDER: "hospital", REQUESTER: "hospital"}


def run(seconds: float = 5.0) -> list[Comparison]:
    """Measure the engine and OpenSSL in turn; the target is to be the faster one."""
    keys = {org: PrivateKey.generate() for org in ROLES}
    per_round = max(SUBMISSION, int(seconds / ROUNDS * PER_SECOND))
    envelopes = list(_stream(keys, WARM_UP + ROUNDS * per_round))
    ours: list[float] = []
    theirs: list[Rate] = []
    with _one_core(), tempfile.TemporaryDirectory() as directory:
        chain = _open(Path(directory) / "ledger.sqlite3", keys)
        try:
            _commit(chain, envelopes[:WARM_UP])
            for start in range(WARM_UP, len(envelopes), per_round):
                ours.append(_commit(chain, envelopes[start : start + per_round]))
                speed = openssl_speed(1)
                if speed is not None:
                    theirs.append(speed[1])
            size = (Path(directory) / "ledger.sqlite3").stat().st_size
            committed = chain.health().log_size
        finally:
            chain.close()
    return [
        Comparison(
            "ledger transactions committed on the embedded engine, one core",
            _rate(ours),
            "openssl speed sm2, verification alone, the same core",
            _rate([each.median for each in theirs]) if theirs else None,
            target=1.0 if theirs else None,
            note=f"{committed:,} transactions, {size // committed:,} bytes each in the ledger's file",
        )
    ]


def _commit(chain: EmbeddedChain, envelopes: list[bytes]) -> float:
    """Submit envelopes, one submission after the other; return transactions per second."""
    started = time.perf_counter()
    for start in range(0, len(envelopes), SUBMISSION):
        for answer in chain.submit(envelopes[start : start + SUBMISSION]):
            if not answer.ok:
                raise AssertionError(f"a transaction was refused: {answer.code} {answer.message}")
    return len(envelopes) / (time.perf_counter() - started)


def _stream(keys: dict[str, PrivateKey], count: int) -> Iterator[bytes]:
    """Yield ``count`` envelopes: one exchange after the other, five transactions each."""
    sequence = dict.fromkeys(keys, 0)

    def signed(sender: str, type: str, **body: Any) -> bytes:
        sequence[sender] += 1
        return transaction.build(
            chain=CHAIN,
            type=type,
            sender=sender,
            key=keys[sender],
            seq=sequence[sender],
            expires=START + LIFE_SECONDS,
            body=body,
        )

    for number in range(-(-count // 5)):
        identifier, digest = sm3(b"id %d" % number).hex()[:32], sm3(b"digest %d" % number).hex()
        exchange = [
            signed(
                HOLDER, "consent.grant", grant=identifier, grantees=[REQUESTER], purposes=["TREAT"],
                until=START + LIFE_SECONDS, commitment=digest, **{"from": START},
            ),
            signed(REQUESTER, "access.request", request=identifier, holder=HOLDER, purpose="TREAT", commitment=digest),
            signed(HOLDER, "access.permit", request=identifier, grant=identifier),
            signed(
                HOLDER, "access.release", request=identifier, grant=identifier, disclosed=digest, count=12,
                commitment=digest,
            ),
            signed(REQUESTER, "access.receive", request=identifier, disclosed=digest, status="verified"),
        ]  # fmt: skip
        yield from exchange[: count - 5 * number]


def _open(path: Path, keys: dict[str, PrivateKey]) -> EmbeddedChain:
    members = [
        genesis.member_record(
            org=org,
            name=f"Member {org}",
            roles=[role],
            endpoint="http://127.0.0.1:1",
            signing=keys[org],
            encryption=PrivateKey.generate(),
            time=START,
        )
        for org, role in ROLES.items()
    ]
    content = genesis.build(chain=CHAIN, time=START, threshold=1, members=members)
    return EmbeddedChain(
        path, genesis=content, host_key=keys[AUTHORITY], host_org=AUTHORITY, clock=lambda: float(START)
    )


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Bind this process, and what it starts, to one core where the system can; undo it afterwards."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _rate(rounds: list[float]) -> Rate:
    return Rate(statistics.median(rounds), min(rounds), max(rounds))
