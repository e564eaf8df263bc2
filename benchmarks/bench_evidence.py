"""The institution's log, its receipts and their verification, each beside its limit in the same run.

Appending is held against raw SM3 of the very entries, proofs and receipts against bare SM2 verification (from tables,
what receipts are verified with). ``YIQIAO_BENCH_ENTRIES`` is how far the log is grown (default 100,000; 10000000 for
the full run of about ten minutes): every entry goes the node's whole way from the outbox through sealing into the log,
its tiles and the database's file. For each power of ten it says the cost and bytes of an entry, what they are of those
of the first 10,000 (1.00 is flat), and the most memory that the process has held so far. Time is the median over steps
of 10,000; that of the first 10,000 is the median over several logs.
"""

from __future__ import annotations

import os
import random
import resource
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import cycle

from anchor.gm import PrivateKey
from anchor.merkle import leaf_hash
from anchor.tiles import TileLog
from anchor.verify import ReceiptVerifier, verify_receipt
from benchmarks.bench_hashing import entry, fresh_salts, openssl_sm3
from benchmarks.evidence_site import Site, site
from benchmarks.measure import Comparison, Rate, rates_in_turn
from bridge.storage.database import read_transaction, transact
from bridge.storage.evidence import DatabaseTiles, log_heads

BATCH = 1_000
"""Entries of one transaction, the anchoring job's default."""
SMALLEST = 10_000
ENTRIES_VARIABLE = "YIQIAO_BENCH_ENTRIES"
DEFAULT_ENTRIES = 100_000
RECEIPTS = 64
"""Receipts verified in one call, each with a publication and a ledger checkpoint of its own."""
SIGNATURES = 4
"""SM2 signatures in such a receipt: transaction, institution's checkpoint, two cosignatures."""
PROOFS = 64
FRESH = 5
"""Logs whose first 10,000 entries are measured: one is over in half a second, which any noise spoils."""


def run(seconds: float = 5.0) -> list[Comparison]:
    """Measure; growth last, for it is the longest."""
    with site() as made:
        comparisons = [_appending(made, seconds), *_receipts(made, seconds)]
    return comparisons + _growth(int(os.environ.get(ENTRIES_VARIABLE, DEFAULT_ENTRIES)))


def _appending(made: Site, seconds: float) -> Comparison:
    """Hash entries and append them to a log in the node's database, a thousand a transaction."""
    entries = [entry(number, b"%032d" % number, salt) for number, salt in enumerate(fresh_salts(BATCH))]
    openssl, name = openssl_sm3()
    size = 0

    def ours() -> None:
        nonlocal size
        leaves = [leaf_hash(each) for each in entries]
        size = transact(made.engine, lambda conn: TileLog(DatabaseTiles(conn, "bench"), size).append(leaves))

    def theirs() -> None:
        for each in entries:
            openssl(each)

    rates = rates_in_turn({"ours": (ours, BATCH), "theirs": (theirs, BATCH)}, seconds)
    return Comparison(
        "log entries hashed and appended to the tiles in the node's database, durably, 1,000 a transaction",
        rates["ours"],
        f"SM3 of OpenSSL ({name}) over the same entries, one hash each",
        rates["theirs"],
        target=0.25,
        note=f"an entry of {len(entries[0])} bytes takes two hashes (leaf, its share of the tree); log of {size:,}",
    )


def _receipts(made: Site, seconds: float) -> list[Comparison]:
    """Make proofs and receipts, and verify the latter, beside bare verification."""
    key = PrivateKey.generate()
    public = key.public_key
    public.precompute()
    signed = [(message, key.sign(message)) for message in (b"%0600d" % number for number in range(RECEIPTS))]
    made.stage(SMALLEST)
    made.publish()
    different = []
    for _ in range(RECEIPTS):
        [ref] = made.store(1)
        made.publish()
        different.append((ref, made.receipt(ref)))
    refs = made.store(RECEIPTS)
    made.publish()
    together = [made.receipt(ref) for ref in refs]
    trust = made.trust()
    turns, places = cycle(refs), random.Random(1)

    def bare() -> None:
        for message, signature in signed:
            public.verify(message, signature)

    def prove() -> None:
        with read_transaction(made.engine) as conn:
            head = log_heads(conn)[0]
            log = TileLog(DatabaseTiles(conn, head.origin), head.size)
            for _ in range(PROOFS):
                log.inclusion_proof(places.randrange(head.size))

    def make() -> None:
        made.receipt(next(turns))

    def verify_each() -> None:
        for _, receipt in different:
            verify_receipt(receipt, trust)

    def verify_together() -> None:
        verifier = ReceiptVerifier(trust)
        for receipt in together:
            verifier.verify(receipt)

    rates = rates_in_turn(
        {
            "bare": (bare, RECEIPTS),
            "proofs": (prove, PROOFS),
            "made": (make, 1),
            "each": (verify_each, RECEIPTS),
            "signatures": (verify_each, RECEIPTS * SIGNATURES),
            "together": (verify_together, RECEIPTS),
        },
        seconds,
    )
    peer, limit = "bare SM2 verification from tables", rates["bare"]
    size = f"a receipt of {len(different[0][1]):,} bytes"
    return [
        Comparison("inclusion proofs generated, a log of 10,000 in the node's database", rates["proofs"], peer, limit),
        Comparison("receipts made", rates["made"], peer, limit),
        Comparison("receipts verified, each with its own publication and checkpoint", rates["each"], peer, limit,
                   note=f"{size}, {SIGNATURES} SM2 signatures"),
        Comparison("SM2 signatures verified inside these receipts", rates["signatures"], peer, limit, target=0.4),
        Comparison("receipts of one release verified", rates["together"], peer, limit, target=0.5,
                   note="they share their publication and checkpoint, which are checked once"),
    ]  # fmt: skip


def _growth(largest: int) -> list[Comparison]:
    """Grow one log to ``largest`` entries and compare what the last tenfold cost per entry with the first 10,000."""
    first_steps: list[_Step] = []
    for _ in range(FRESH):
        with site() as fresh:
            first_steps += _grow(fresh, 0, SMALLEST)
    with site() as made:
        return [_grown(made, first_steps, largest)]


def _grown(made: Site, first_steps: list[_Step], largest: int) -> Comparison:
    rates: list[Rate] = []
    notes: list[str] = []
    size, first_bytes = 0, 0.0
    while not rates or size * 10 <= largest:
        before, size = size, size * 10 or SMALLEST
        steps = _grow(made, before, size) + ([] if rates else first_steps)
        each = _bytes_each(made, size)
        first_bytes = first_bytes or each
        rates.append(_rate(steps))
        ratios = f"x{rates[0].median / rates[-1].median:.2f} time, x{each / first_bytes:.2f} bytes"
        notes.append(f"{_describe(made, size, steps)}; {ratios}; {_peak_mib()} MiB at most")
        print(f"    {notes[-1]}", file=sys.stderr, flush=True)
    return Comparison(
        f"log entries from outbox to tiles, growing from {size // 10:,} to {size:,}",
        rates[-1],
        f"the first {SMALLEST:,} of such a log",
        rates[0],
        target=0.8,
        note="; ".join(notes),
    )


@dataclass(frozen=True)
class _Step:
    """What the entries of one step took: seconds by the clock, and of the processor."""

    entries: int
    seconds: float
    processor: float


def _grow(made: Site, before: int, size: int) -> list[_Step]:
    """Drain entries until the log has ``size``, and bring them into the database's file; staging is not timed."""
    steps: list[_Step] = []
    for _ in range(before, size, SMALLEST):
        made.stage(SMALLEST)
        made.settle()
        began, processor = time.perf_counter(), time.process_time()
        while made.anchoring.drain(BATCH):
            pass
        made.settle()
        steps.append(_Step(SMALLEST, time.perf_counter() - began, time.process_time() - processor))
    return steps


def _rate(steps: list[_Step]) -> Rate:
    rates = [step.entries / step.seconds for step in steps]
    return Rate(statistics.median(rates), min(rates), max(rates))


def _describe(made: Site, size: int, steps: list[_Step]) -> str:
    """Say what a log of ``size`` costs: time and bytes per entry, reads and time per proof."""
    spent = statistics.median(step.processor / step.entries for step in steps)
    with made.engine.connect() as plain:
        tiles = plain.exec_driver_sql("SELECT sum(length(hashes)) FROM evidence_tile").scalar_one()
    reads: Counter[int] = Counter()
    chosen = random.Random(size)
    with read_transaction(made.engine) as conn:
        head = log_heads(conn)[0]
        began = time.perf_counter()
        for _ in range(PROOFS):
            store = _CountingTiles(conn, head.origin)
            TileLog(store, head.size).inclusion_proof(chosen.randrange(head.size))
            reads[store.reads] += 1
        each = (time.perf_counter() - began) / PROOFS
    return (
        f"{size:,}: {1e6 / _rate(steps).median:.0f} µs ({1e6 * spent:.0f} of the processor) and "
        f"{_bytes_each(made, size):.0f} bytes an entry "
        f"({tiles / size:.1f} in tiles), a proof {each * 1e6:.0f} µs with at most {max(reads)} tile reads"
    )


def _bytes_each(made: Site, size: int) -> float:
    """Return the bytes of the node's database for each of its log's entries."""
    with made.engine.connect() as plain:
        pages, page = (plain.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size"))
    return float(pages * page / size)


def _peak_mib() -> int:
    """Return the most memory this process has held (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class _CountingTiles(DatabaseTiles):
    """Counts the tiles read."""

    reads = 0

    def read(self, level: int, index: int) -> bytes | None:
        self.reads += 1
        return super().read(level, index)
