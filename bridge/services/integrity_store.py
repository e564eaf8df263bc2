"""fsck, as far as it is about the node's own database: logs, records, the outbox, and what was erased.

Comparisons (1) to (4) of ``bridge.services.integrity``. It is done in pages, and how far it has come is kept after each
(``bridge.services.integrity_report``), so that a check of a large store can be left and taken up again. What was
checked before an interruption is not looked at a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Row, func, select, tuple_

from anchor import merkle
from anchor.errors import CanonicalError, FormatError
from anchor.fsck import Difference, LogCheck
from anchor.gm import sm3
from anchor.receipt import LogEntry
from bridge.errors import KeyDestroyed, SealBroken
from bridge.services.anchoring import SHARD_ADAPTER
from bridge.services.integrity_report import CheckProgress, IntegrityReport
from bridge.storage import evidence
from bridge.storage.erasure import Erasure, find_erasure
from bridge.storage.evidence import ENTRY, DatabaseTiles, LogHead, SealedEntry
from bridge.storage.keyring import KeyRing
from bridge.storage.outbox import OutboxRow
from bridge.storage.record_tables import RESOURCE, VERSION, near, opened, select_versions
from bridge.storage.record_versions import version_place

PAGE = 400
"""Rows compared at a time: below SQLite's limit of bound variables on every build."""

Progress = Callable[[str, int, int], None]
"""Called with the stage ("log", "records", "ledger"), how much of it is done, and how much there is."""

_OUTBOX = OutboxRow.__table__  # type: ignore[attr-defined]
_PLACE = tuple_(VERSION.c.type, VERSION.c.id, VERSION.c.version)


class StoreCheck:
    """One sitting over the node's database, seen as it is at one moment (``conn`` holds the transaction)."""

    def __init__(self, conn: Connection, keyring: KeyRing, org: str, state: CheckProgress, told: Progress) -> None:
        self._conn, self._keyring, self._org = conn, keyring, org
        self._state, self._told = state, told
        self._erased: dict[str, bool] = {}

    def run(self) -> None:
        """Take every stage that is not done yet."""
        done: list[str] = self._state.position.setdefault("logs", [])
        for head in evidence.log_heads(self._conn):
            if head.origin in done:
                continue
            try:
                self._check_log(self._conn, head, self._state.report, self._told)
            except (TypeError, ValueError):  # SQLite stores a value of any type in any column
                expected = "columns of the types they were written with"
                self._state.report.add([Difference("log-altered", head.origin, expected)])
            done.append(head.origin)
            self._state.position.pop("log", None)
            self._state.save(now=True)
        if "headless" not in self._state.position:
            self._state.report.add(self._headless(self._conn))
            self._state.position["headless"] = True
        self._check_unlogged(self._conn, self._state.report, self._told)
        self._state.report.add(self._not_current(self._conn))

    def _check_log(self, conn: Connection, head: LogHead, report: IntegrityReport, progress: Progress) -> None:
        """Comparisons (1), (2) and (4) of one log."""
        published = evidence.checkpoints(conn, head.origin)
        roots = {each.size: (each.root, f"checkpoint {each.number}") for each in published}
        if head.size not in roots:
            roots[head.size] = (head.root, "head")
        elif roots[head.size][0] != head.root:
            report.add([Difference("root-differs", f"{head.origin} head", "the root of its published checkpoint")])
        log = LogCheck(head.origin, DatabaseTiles(conn, head.origin), roots)
        before = self._state.position.get("log")
        if before is not None and before["origin"] != head.origin:
            before = None
        if before is not None:
            log.restore(before["check"])
        page: list[SealedEntry] = []
        for stored in evidence.entries_from(conn, head.origin, 0 if before is None else int(before["next"])):
            page.append(stored)
            if len(page) == PAGE:
                self._check_page(conn, log, page, report)
                self._state.position["log"] = {
                    "origin": head.origin,
                    "next": stored.position + 1,
                    "check": log.state(),
                }
                self._state.save()
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
        places = [place for stored in page if (place := version_place(stored.ref)) is not None]
        rows: dict[tuple[str, str, int], Row[Any]] = {}
        if places:
            condition, values = near(places)
            found = conn.execute(select_versions().where(condition), values)
            rows = {(row.type, row.id, row.version): row for row in found}
        for stored in page:
            report.add(self._fill_to(log, stored.position, stored.origin))
            entry, leaf, differences = self._open_entry(conn, log, stored)
            report.add(differences)
            if not log.stopped:
                report.add(log.take(leaf))
            report.entries += 1
            place = version_place(stored.ref)
            if place is not None:
                report.add(self._check_record(stored, rows.get(place), entry, report))
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
        self, stored: SealedEntry, row: Row[Any] | None, entry: LogEntry | None, report: IntegrityReport
    ) -> Iterator[Difference]:
        """Comparison (2) of one logged version."""
        ref = stored.ref
        if row is not None and row.outbox_id != stored.outbox_id:
            place = f"{stored.origin} entry {stored.position} ({ref})"
            yield Difference("entry-altered", place, f"id {row.outbox_id}, which the version had in the outbox")
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
        place, after = _PLACE, self._state.position.get("records")
        total = int(conn.execute(select(func.count()).select_from(VERSION)).scalar_one())
        statement = select_versions().order_by(VERSION.c.type, VERSION.c.id, VERSION.c.version).limit(PAGE)
        first = statement if after is None else statement.where(place > tuple(after["place"]))
        rows, done = conn.execute(first).all(), 0 if after is None else int(after["done"])
        while rows:
            refs = [f"{row.type}/{row.id}/_history/{row.version}" for row in rows]
            ids = [row.outbox_id for row in rows]
            logged = evidence.logged_refs(conn, ids)
            waiting = {each.ref: each.digest for each in conn.execute(select(_OUTBOX).where(_OUTBOX.c.id.in_(ids)))}
            for ref, row in zip(refs, rows, strict=True):
                if ref in waiting:
                    report.add(self._check_waiting(ref, row, waiting[ref], report))
                elif logged.get(row.outbox_id) == ref:
                    continue
                elif row.wrapped is None:
                    report.erased += 1
                    report.add(self._check_erased(conn, row.subject, ref))
                else:
                    report.add([Difference("entry-missing", ref, "a log entry, or a place in the outbox")])
            done += len(rows)
            progress("records", done, total)
            last = (rows[-1].type, rows[-1].id, rows[-1].version)
            self._state.position["records"] = {"place": list(last), "done": done}
            self._state.save()
            rows = conn.execute(statement.where(place > last)).all()

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
