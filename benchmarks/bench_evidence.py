"""The institution's log, its receipts and their verification, each beside its limit in the same run.

Appending is held against raw SM3 of the very entries, proofs and receipts against bare SM2 verification (from tables,
what receipts are verified with). ``YIQIAO_BENCH_ENTRIES`` is how far the log is grown (default 100,000; 10000000 for
the full run of about a quarter of an hour): every entry goes the node's whole way from the outbox through sealing into
the log and its tiles. For each power of ten it says the cost and bytes of an entry, what they are of those of the first
10,000 (1.00 is flat), and the most memory that the process has held so far.
"""

from __future__ import annotations

import os
import random
import resource
import sys
import time
from collections import Counter
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


def run(seconds: float = 5.0) -> list[Comparison]:
    """Measure; growth last, for it is the longest."""
    with site() as made:
        comparisons = [_appending(made, seconds), *_receipts(made, seconds)]
    with site() as made:
        return comparisons + _growth(made, int(os.environ.get(ENTRIES_VARIABLE, DEFAULT_ENTRIES)))


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
    for number in range(RECEIPTS):
        ref = made.stage(1, SMALLEST + number)[0]
        made.publish()
        different.append((ref, made.receipt(ref)))
    refs = made.stage(RECEIPTS, SMALLEST + RECEIPTS)
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


def _growth(made: Site, largest: int) -> list[Comparison]:
    """Grow one log to ``largest`` entries and compare what the last tenfold cost per entry with the first 10,000."""
    sizes = [SMALLEST]
    while sizes[-1] * 10 <= largest:
        sizes.append(sizes[-1] * 10)
    rates: list[Rate] = []
    notes: list[str] = []
    before, first_bytes = 0, 0.0
    for size in sizes:
        rate = _grow_to(made, before, size)
        rates.append(rate)
        each = _bytes_each(made, size)
        first_bytes = first_bytes or each
        ratios = f"x{rates[0].median / rate.median:.2f} time, x{each / first_bytes:.2f} bytes"
        notes.append(f"{_describe(made, size, rate)}; {ratios}; {_peak_mib()} MiB at most")
        print(f"    {notes[-1]}", file=sys.stderr, flush=True)
        before = size
    comparison = Comparison(
        f"log entries from outbox to tiles, growing from {sizes[-1] // 10:,} to {sizes[-1]:,}",
        rates[-1],
        f"the first {SMALLEST:,} of the same log",
        rates[0],
        target=0.5,
        note="; ".join(notes),
    )
    return [comparison]


def _grow_to(made: Site, before: int, size: int) -> Rate:
    """Drain entries until the log has ``size``; return entries per second (staging them is not timed)."""
    steps: list[float] = []
    spent, step = 0.0, SMALLEST  # one size: what is staged leaves a write-ahead log that a drain then checkpoints
    for first in range(before, size, step):
        made.stage(min(step, size - first), first)
        began = time.perf_counter()
        while made.anchoring.drain(BATCH):
            pass
        took = time.perf_counter() - began
        spent += took
        steps.append(min(step, size - first) / took)
    return Rate((size - before) / spent, min(steps), max(steps))


def _describe(made: Site, size: int, rate: Rate) -> str:
    """Say what a log of ``size`` costs: time and bytes per entry, reads and time per proof."""
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
        f"{size:,}: {1e6 / rate.median:.0f} µs and {_bytes_each(made, size):.0f} bytes an entry "
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
