"""fsck of a node: everything stored is recomputed, and each thing that differs is named.

What is compared with what:

(1) every log entry opens under its key and is the leaf its row and its tile name;
(2) every record version opens, its bytes have the digest its row names, and its log entry names the same;
(3) every version is logged or waits to be, or its patient was erased, and the current version of a record is its
    newest; a data key that is gone was destroyed by a recorded erasure;
(4) leaves -> tiles -> root -> every published checkpoint, each with this node's signature (``anchor.fsck``);
(5) the ledger holds exactly these checkpoints, and none that this node has lost;
(6) the ledger's newest checkpoint extends what this node has cosigned; where the ledger's file is here, all of it is
    replayed from genesis.

Someone who alters a row and everything that follows from it inside the node still fails at (5), because the ledger is
not the node's; someone who rewrites the ledger's file as well fails at (6), because what the members cosigned is not
the host's.

The node's database is read as it was at one moment, so that work going on meanwhile is no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, select, tuple_

from anchor import merkle
from anchor.chain.client import ChainClient
from anchor.chain.embedded_replay import check_ledger
from anchor.errors import AnchorError, CanonicalError, ChainError, FormatError
from anchor.fsck import Difference, LogCheck
from anchor.gm import sm3
from anchor.receipt import LogEntry
from bridge.errors import KeyDestroyed, SealBroken
from bridge.services.anchoring import SHARD_ADAPTER
from bridge.services.integrity_ledger import check_published
from bridge.services.witnessing import WitnessService
from bridge.storage import evidence
from bridge.storage.database import read_transaction
from bridge.storage.erasure import Erasure, find_erasure
from bridge.storage.evidence import ENTRY, DatabaseTiles, LogHead, SealedEntry
from bridge.storage.keyring import KeyRing
from bridge.storage.outbox import OutboxRow
from bridge.storage.record_tables import RESOURCE, VERSION, opened, select_versions

__all__ = ["Difference", "IntegrityReport", "IntegrityService", "Progress"]

MAX_DIFFERENCES = 10_000
"""Differences named: past it a list helps nobody, and memory stays bounded."""
PAGE = 400
"""Rows compared at a time: below SQLite's limit of bound variables (three a row) on every build."""

Progress = Callable[[str, int, int], None]
"""Called with the stage ("log", "records", "ledger"), how much of it is done, and how much there is."""

_OUTBOX = OutboxRow.__table__  # type: ignore[attr-defined]
_PLACE = tuple_(VERSION.c.type, VERSION.c.id, VERSION.c.version)


@dataclass(slots=True)
class IntegrityReport:
    """What was checked (counts by name) and every difference; ``erased`` counts versions whose key was destroyed."""

    differences: list[Difference] = field(default_factory=list)
    entries: int = 0
    records: int = 0
    erased: int = 0
    checkpoints: int = 0
    blocks: int = 0
    truncated: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def add(self, differences: Iterator[Difference] | Sequence[Difference]) -> None:
        """Keep differences, up to ``MAX_DIFFERENCES``."""
        for difference in differences:  # to the end, even past the bound: taking them is what moves a log check on
            if len(self.differences) < MAX_DIFFERENCES:
                self.differences.append(difference)
            else:
                self.truncated = True

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, with stable names."""
        counts = {name: getattr(self, name) for name in ("entries", "records", "erased", "checkpoints", "blocks")}
        named = [{"kind": d.kind, "place": d.place, "expectation": d.expectation} for d in self.differences]
        return {"ok": self.ok, "checked": counts, "differences": named, "truncated": self.truncated}


class IntegrityService:
    """Checks one node's store against itself and against the ledger."""

    def __init__(
        self,
        engine: Engine,
        keyring: KeyRing,
        chain: ChainClient,
        org: str,
        *,
        witness: WitnessService | None = None,
        ledger_path: Path | str | None = None,
        genesis: bytes | None = None,
    ) -> None:
        """``ledger_path`` and ``genesis``: the ledger's file, where this node hosts it."""
        self._engine = engine
        self._keyring = keyring
        self._chain = chain
        self._org = org
        self._witness = witness
        self._ledger_path = ledger_path
        self._genesis = genesis
        self._erased: dict[str, bool] = {}

    def check(self, progress: Progress | None = None) -> IntegrityReport:
        """Recompute everything and return what differs; raises only when the node's database cannot be read."""
        report = IntegrityReport()
        told = progress or _silent
        self._erased = {}
        with read_transaction(self._engine) as conn:
            if conn.dialect.name == "postgresql":
                conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            for head in evidence.log_heads(conn):
                try:
                    self._check_log(conn, head, report, told)
                except (TypeError, ValueError):  # SQLite stores a value of any type in any column
                    report.add([Difference("log-altered", head.origin, "columns of the types they were written with")])
            report.add(self._headless(conn))
            self._check_unlogged(conn, report, told)
            report.add(self._not_current(conn))
        try:
            published, differences = check_published(self._engine, self._chain, self._org)
            report.checkpoints = published
            report.add(differences)
            report.add(self._check_witnessed())
        except ChainError as error:
            report.add([Difference("ledger-unreachable", type(error).__name__, "an answer from the ledger")])
        except AnchorError as error:
            report.add([Difference("ledger-altered", type(error).__name__, str(error))])
        except (KeyError, TypeError, ValueError) as error:  # an altered value of the state has any shape at all
            report.add([Difference("ledger-altered", type(error).__name__, "answers of the ledger that can be read")])
        self._check_hosted(report, told)
        return report

    def _check_log(self, conn: Connection, head: LogHead, report: IntegrityReport, progress: Progress) -> None:
        """Comparisons (1), (2) and (4) of one log."""
        published = evidence.checkpoints(conn, head.origin)
        roots = {each.size: (each.root, f"checkpoint {each.number}") for each in published}
        if head.size not in roots:
            roots[head.size] = (head.root, "head")
        elif roots[head.size][0] != head.root:
            report.add([Difference("root-differs", f"{head.origin} head", "the root of its published checkpoint")])
        log = LogCheck(head.origin, DatabaseTiles(conn, head.origin), roots)
        page: list[SealedEntry] = []
        for stored in evidence.entries_from(conn, head.origin):
            page.append(stored)
            if len(page) == PAGE:
                self._check_page(conn, log, page, report)
                page = []
                progress("log", min(log.size, head.size), head.size)
        self._check_page(conn, log, page, report)
        report.add(self._fill_to(log, max([head.size, *roots]), head.origin))
        report.add(log.finish())
        if published and published[-1].size > head.size:
            place = f"{head.origin} from entry {head.size}"
            report.add([Difference("tail-cut", place, f"the {published[-1].size} entries of its last checkpoint")])
        if log.size > max([head.size, *roots]):
            report.add([Difference("root-differs", f"{head.origin} head", f"a head over {log.size} entries")])
        progress("log", head.size, head.size)

    def _check_page(self, conn: Connection, log: LogCheck, page: list[SealedEntry], report: IntegrityReport) -> None:
        refs = [place for stored in page if (place := _record_place(stored.ref)) is not None]
        rows: dict[tuple[str, str, int], Row[Any]] = {}
        if refs:
            found = conn.execute(select_versions().where(_PLACE.in_(refs)))
            rows = {(row.type, row.id, row.version): row for row in found}
        for stored in page:
            report.add(self._fill_to(log, stored.position, stored.origin))
            entry, leaf, differences = self._open_entry(conn, log, stored)
            report.add(differences)
            if not log.stopped:
                report.add(log.take(leaf))
            report.entries += 1
            place = _record_place(stored.ref)
            if place is not None:
                report.add(self._check_record(stored.ref, rows.get(place), entry, report))
            elif entry is not None and entry.adapter == SHARD_ADAPTER:
                report.add(self._check_opening(conn, entry))

    def _open_entry(
        self, conn: Connection, log: LogCheck, stored: SealedEntry
    ) -> tuple[LogEntry | None, bytes, list[Difference]]:
        """Open an entry; return it (None: erased or altered), the leaf to go on with, and what differs.

        Entry, row and tile each say what the leaf is; the one that two others contradict is the one that is named.
        """
        place = f"{stored.origin} entry {stored.position} ({stored.ref})"
        in_tile = log.stored_leaf(stored.position)
        try:
            aad = evidence.entry_aad(stored.origin, stored.position)
            content = self._keyring.open(conn, stored.subject, stored.sealed, aad)
            entry = LogEntry.parse(content)
        except KeyDestroyed:
            if in_tile in (None, stored.leaf):
                return None, stored.leaf, self._check_erased(conn, stored.subject, place)
            return None, stored.leaf, [Difference("leaf-altered", place, "row and tile of an erased entry agree")]
        except (SealBroken, FormatError):
            return None, in_tile or stored.leaf, [Difference("entry-altered", place, "an entry that opens")]
        leaf = merkle.leaf_hash(content)
        if entry.ref != stored.ref or entry.org != self._org:
            return entry, leaf, [Difference("entry-altered", place, f"the entry of {stored.ref}")]
        if leaf == stored.leaf:
            return entry, leaf, []  # a tile that says otherwise is named when it is compared
        if leaf == in_tile:
            return entry, leaf, [Difference("leaf-altered", place, f"leaf hash {leaf.hex()}")]
        return entry, stored.leaf, [Difference("entry-altered", place, "the entry that was logged")]

    def _check_erased(self, conn: Connection, subject: str, place: str) -> list[Difference]:
        """Name a data key that is gone without its erasure being recorded: by a row, and by the AuditEvent it names."""
        if subject not in self._erased:
            erasure = find_erasure(conn, subject)
            self._erased[subject] = erasure is not None and self._tells_of(conn, erasure)
        if self._erased[subject]:
            return []
        return [Difference("key-missing", place, f"the data key of {subject}, or the recorded event of its erasure")]

    def _tells_of(self, conn: Connection, erasure: Erasure) -> bool:
        """Whether the AuditEvent of an erasure is there and speaks of that subject; its digest is checked elsewhere."""
        where = (VERSION.c.type == "AuditEvent", VERSION.c.id == erasure.event, VERSION.c.version == 1)
        row = conn.execute(select_versions().where(*where)).first()
        if row is None:
            return False
        try:
            event = opened(self._keyring, row).resource()
        except (KeyDestroyed, SealBroken, CanonicalError):
            return False
        named = [each.get("what", {}).get("reference") for each in event.get("entity", ())]
        return event.get("action") == "D" and erasure.subject in named

    def _check_record(
        self, ref: str, row: Row[Any] | None, entry: LogEntry | None, report: IntegrityReport
    ) -> Iterator[Difference]:
        """Comparison (2) of one logged version."""
        if row is None:
            yield Difference("record-missing", ref, "the stored version that was logged")
            return
        report.records += 1
        try:
            version = opened(self._keyring, row)
        except KeyDestroyed:
            report.erased += 1
            return
        except SealBroken:
            yield Difference("record-altered", ref, "sealed bytes that open in their own place")
            return
        digest = sm3(version.content)
        if entry is not None and digest != entry.digest:
            yield Difference("record-altered", ref, f"content with the logged digest {entry.digest.hex()}")
        elif digest != version.digest:
            yield Difference("record-altered", ref, f"a digest column of {digest.hex()}")
        if entry is not None and version.lineage.source_digest != entry.source:
            yield Difference("record-altered", ref, "the logged digest of its source")

    def _check_opening(self, conn: Connection, entry: LogEntry) -> Iterator[Difference]:
        """Check that a shard's first entry holds the checkpoint it names of the shard before."""
        _, shard, number = entry.ref.split("/")
        for head in evidence.log_heads(conn):
            if head.origin.rpartition("/")[2] == shard:
                notes = [each.note for each in evidence.checkpoints(conn, head.origin) if str(each.number) == number]
                if [sm3(note) for note in notes] == [entry.digest]:
                    return
        yield Difference("checkpoint-altered", entry.ref, "the checkpoint that the next shard begins with")

    @staticmethod
    def _fill_to(log: LogCheck, position: int, origin: str) -> Iterator[Difference]:
        """Name the entries that are missing before ``position``; go on with the leaves that the tiles still hold."""
        while log.size < position and not log.stopped:
            missing = log.size
            yield Difference("entry-missing", f"{origin} entry {missing}", "an entry at every position")
            leaf = log.stored_leaf(missing)
            if leaf is None:
                place = f"{origin} from entry {missing}"
                yield Difference("tail-cut", place, f"{position} entries and their tiles")
                log.stop()
                return
            yield from log.take(leaf)

    def _headless(self, conn: Connection) -> Iterator[Difference]:
        """Name logs that have entries or checkpoints and no head row."""
        known = {head.origin for head in evidence.log_heads(conn)}
        for table in (ENTRY, evidence.CHECKPOINT):
            for origin in conn.execute(select(table.c.origin).distinct()).scalars():
                if origin not in known:
                    known.add(origin)
                    yield Difference("root-differs", f"{origin} head", "a head of the log")

    def _check_unlogged(self, conn: Connection, report: IntegrityReport, progress: Progress) -> None:
        """Comparison (3): versions without an entry must wait in the outbox, unaltered."""
        place = _PLACE
        total = int(conn.execute(select(func.count()).select_from(VERSION)).scalar_one())
        statement = select_versions().order_by(VERSION.c.type, VERSION.c.id, VERSION.c.version).limit(PAGE)
        rows, done = conn.execute(statement).all(), 0
        while rows:
            refs = [f"{row.type}/{row.id}/_history/{row.version}" for row in rows]
            logged = evidence.logged_refs(conn, refs)
            waiting = {each.ref: each.digest for each in conn.execute(select(_OUTBOX).where(_OUTBOX.c.ref.in_(refs)))}
            for ref, row in zip(refs, rows, strict=True):
                if ref in waiting:
                    report.add(self._check_waiting(ref, row, waiting[ref], report))
                elif ref not in logged and row.wrapped is None:
                    report.erased += 1
                    report.add(self._check_erased(conn, row.subject, ref))
                elif ref not in logged:
                    report.add([Difference("entry-missing", ref, "a log entry, or a place in the outbox")])
            done += len(rows)
            progress("records", done, total)
            last = rows[-1]
            rows = conn.execute(statement.where(place > (last.type, last.id, last.version))).all()

    def _check_waiting(self, ref: str, row: Row[Any], digest: bytes, report: IntegrityReport) -> Iterator[Difference]:
        report.records += 1
        try:
            content = opened(self._keyring, row).content
        except KeyDestroyed:  # an erasure takes what waits out of the outbox
            yield Difference("key-missing", ref, f"the data key of {row.subject}: this version waits to be logged")
            return
        except SealBroken:
            yield Difference("record-altered", ref, "sealed bytes that open in their own place")
            return
        if not sm3(content) == digest == row.digest:
            yield Difference("record-altered", ref, f"content with the digest {digest.hex()} of the outbox")

    @staticmethod
    def _not_current(conn: Connection) -> Iterator[Difference]:
        """Name resources whose current version is not their newest: an older one was put in its place."""
        newest = (
            select(VERSION.c.type, VERSION.c.id, func.max(VERSION.c.version).label("newest"))
            .group_by(VERSION.c.type, VERSION.c.id)
            .subquery()
        )
        same = (RESOURCE.c.type == newest.c.type) & (RESOURCE.c.id == newest.c.id)
        joined = newest.join(RESOURCE, same, isouter=True)
        differs = RESOURCE.c.version.is_(None) | (RESOURCE.c.version != newest.c.newest)
        for row in conn.execute(select(newest.c.type, newest.c.id, newest.c.newest).select_from(joined).where(differs)):
            yield Difference("current-differs", f"{row.type}/{row.id}", f"version {row.newest} as the current one")

    def _check_witnessed(self) -> Iterator[Difference]:
        """Comparison (6), against what this node has cosigned."""
        if self._witness is None:
            return
        run = self._witness.inspect()
        if run.alarm:
            kinds = {"conflict": "ledger-forked", "shrunk": "ledger-rolled-back", "invalid": "ledger-altered"}
            yield Difference(kinds[run.outcome], f"ledger at {run.size} entries", run.detail)
        for conflict in self._witness.status().conflicts:
            detail = f"one history of the ledger; {conflict.kind} shown by {conflict.source}"
            yield Difference("ledger-forked", conflict.origin, detail)

    def _check_hosted(self, report: IntegrityReport, progress: Progress) -> None:
        """Comparison (6), of the ledger's own file."""
        if self._ledger_path is None or self._genesis is None:
            return

        def count(done: int, total: int) -> None:
            report.blocks = done
            progress("ledger", done, total)

        try:
            found = check_ledger(self._ledger_path, self._genesis, count)
        except AnchorError as error:
            report.add([Difference("ledger-altered", "file", str(error))])
            return
        report.add([Difference("ledger-altered", each.where, f"what follows from its transactions; it {each.what}")
                    for each in found])  # fmt: skip


def _record_place(ref: str) -> tuple[str, str, int] | None:
    """Return type, id and version of a record version's reference, or None for another kind of entry."""
    parts = ref.split("/")
    if len(parts) != 4 or parts[2] != "_history" or not parts[3].isdecimal():
        return None
    return parts[0], parts[1], int(parts[3])


def _silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
