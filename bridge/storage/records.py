"""The record store: FHIR resources as immutable versions, sealed, searchable without being readable.

What is stored, hashed and served is the same byte string: the canonical JSON of the resource with ``meta.versionId``,
``meta.lastUpdated`` and ``meta.source`` as this node set them. A version is written together with its place in the
outbox and in the search index, in the caller's transaction. Writing what is already there writes nothing: versions
differ in more than ``meta.versionId`` and ``meta.lastUpdated``.

Two writers of one resource cannot fork it: (type, id, version) is the primary key, the loser gets ``VersionConflict``
and repeats its transaction (``bridge.storage.database.transact``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, Row, bindparam, func, insert, select, tuple_, update

from anchor.gm import sm3
from bridge.errors import Gone, NotFound
from bridge.storage.database import read_transaction
from bridge.storage.keyring import KeyRing
from bridge.storage.mentions import says_as_much
from bridge.storage.outbox import Outbox
from bridge.storage.record_search import run_search
from bridge.storage.record_tables import CURRENT, RESOURCE, VERSION, opened, select_versions
from bridge.storage.record_versions import (
    Lineage,
    PreparedWrite,
    PutResult,
    RecordWrite,
    SearchPage,
    StoredVersion,
    associated_data,
    instant,
    prepared,
    version_content,
)
from bridge.storage.search_index import IndexEntry, index_entry, write_index
from bridge.storage.search_query import SearchQuery

__all__ = ["Lineage", "PutResult", "RecordStore", "RecordWrite", "SearchPage", "StoredVersion"]

MILLISECONDS = 1000

SELECT_CHUNK = 400
"""Resources a query names at once: below SQLite's limit of bound variables on every build."""

WALK_ROWS = 500
"""Versions read at a time by ``walk``: a megabyte or so."""

_UPDATE_CURRENT = (
    update(RESOURCE)
    .where(RESOURCE.c.type == bindparam("of_type"), RESOURCE.c.id == bindparam("of_id"))
    .values({name: bindparam(name) for name in ("version", "updated", "subject", "content_key", "deleted", "terms")})
)
_READ = (
    select_versions()
    .join(RESOURCE, CURRENT)
    .where(RESOURCE.c.type == bindparam("of_type"), RESOURCE.c.id == bindparam("of_id"))
)
_VREAD = select_versions().where(
    VERSION.c.type == bindparam("of_type"),
    VERSION.c.id == bindparam("of_id"),
    VERSION.c.version == bindparam("of_version"),
)


@dataclass(frozen=True, slots=True)
class _Change:
    """One version about to be written, over the ``resource`` row it replaces (None for a new resource)."""

    write: PreparedWrite
    version: StoredVersion
    updated: int
    content_key: bytes
    before: Row[Any] | None


class RecordStore:
    """Writes and reads resource versions. Methods that take a connection leave its transaction to the caller."""

    def __init__(self, engine: Engine, keyring: KeyRing, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._keyring = keyring
        self._clock = clock
        self._outbox = Outbox()

    def put(
        self, connection: Connection, resource: dict[str, Any] | bytes, lineage: Lineage, subject: str
    ) -> PutResult:
        """Store one resource: ``put_many`` of one."""
        return self.put_many(connection, [RecordWrite(resource, lineage, subject)])[0]

    def put_many(self, connection: Connection, writes: Sequence[RecordWrite]) -> list[PutResult]:
        """Store resources in order, with a handful of statements for all of them; results in the order given.

        A resource has its ``id``; its ``meta.versionId`` and ``meta.lastUpdated`` are replaced, ``meta.source`` is set
        when absent. Raises ``InvalidRequest`` for what is no resource, ``anchor.errors.CanonicalError`` for what has no
        canonical form, ``KeyDestroyed``; a ``VersionConflict`` (another writer was first) comes at the latest from the
        transaction's end.
        """
        results: dict[int, PutResult] = {}
        waiting, repeated = _without_repeats([prepared(write) for write in writes])
        while waiting:  # a resource named twice is written in two rounds, the second on top of the first
            turn: dict[tuple[str, str], tuple[int, PreparedWrite]] = {}
            later = []
            for number, write in waiting:
                if turn.setdefault((write.type, write.id), (number, write))[0] != number:
                    later.append((number, write))
            ordered = [turn[place] for place in sorted(turn)]  # one lock order for all writers
            stored = self._write(connection, [write for _, write in ordered], deleted=False)
            results.update(zip((number for number, _ in ordered), stored, strict=True))
            waiting = later
        for number, first in repeated.items():
            results[number] = replace(results[first], changed=False, stored=None)
        return [results[number] for number in range(len(writes))]

    def delete(self, connection: Connection, type: str, id: str, lineage: Lineage) -> PutResult:
        """Store a deletion as a version of its own; earlier versions stay. Deleting twice is nothing.

        Raises ``NotFound`` when there is no such resource.
        """
        current = self._current(connection, [(type, id)]).get((type, id))
        if current is None:
            raise NotFound
        if current.deleted:
            return PutResult(type, id, current.version, False, None)
        tombstone = prepared(RecordWrite({"resourceType": type, "id": id}, lineage, current.subject))
        return self._write(connection, [tombstone], deleted=True)[0]

    def read(self, type: str, id: str) -> StoredVersion:
        """Return the current version; raises ``NotFound``, or ``Gone`` when it was deleted."""
        found = self._one(_READ, {"of_type": type, "of_id": id})
        if found.deleted:
            raise Gone
        return found

    def vread(self, type: str, id: str, version: int) -> StoredVersion:
        """Return one version; raises ``NotFound``. The version that deletes comes back with ``deleted`` set."""
        return self._one(_VREAD, {"of_type": type, "of_id": id, "of_version": version})

    def history(self, type: str, id: str, count: int = 20, offset: int = 0) -> SearchPage:
        """Return versions newest first, with the number of all; raises ``NotFound``."""
        of_it = (VERSION.c.type == type, VERSION.c.id == id)
        with read_transaction(self._engine) as connection:
            total = connection.execute(select(func.count()).select_from(VERSION).where(*of_it)).scalar_one()
            if not total:
                raise NotFound
            rows = connection.execute(
                select_versions().where(*of_it).order_by(VERSION.c.version.desc()).limit(count).offset(offset)
            )
            return SearchPage(tuple(opened(self._keyring, row) for row in rows), total=int(total))

    def search(self, query: SearchQuery) -> SearchPage:
        """Return one page of the current versions that a query asks for."""
        with read_transaction(self._engine) as connection:
            return run_search(connection, self._keyring, query)

    def of_subject(self, subject: str, types: Iterable[str] = ()) -> Iterator[StoredVersion]:
        """Give the current versions sealed for a subject, by type and id; ``types`` narrows it."""
        statement = (
            select_versions()
            .join(RESOURCE, CURRENT)
            .where(RESOURCE.c.subject == subject, RESOURCE.c.deleted.is_(False))
            .order_by(RESOURCE.c.type, RESOURCE.c.id)
        )
        wanted = sorted(set(types))
        if wanted:
            statement = statement.where(RESOURCE.c.type.in_(wanted))
        with read_transaction(self._engine) as connection:
            rows = connection.execute(statement).all()
        for row in rows:
            yield opened(self._keyring, row)

    def walk(self, connection: Connection) -> Iterator[Row[Any]]:
        """Give every stored version in key order, still sealed; ``open_row`` opens one. Memory stays bounded."""
        place = tuple_(VERSION.c.type, VERSION.c.id, VERSION.c.version)
        statement = select_versions().order_by(VERSION.c.type, VERSION.c.id, VERSION.c.version).limit(WALK_ROWS)
        rows = connection.execute(statement).all()
        while rows:
            yield from rows
            last = rows[-1]
            rows = connection.execute(statement.where(place > (last.type, last.id, last.version))).all()

    def open_row(self, row: Row[Any]) -> StoredVersion:
        """Open a row of ``walk``; raises ``KeyDestroyed`` or ``SealBroken``."""
        return opened(self._keyring, row)

    def count(self, type: str = "") -> int:
        """Return how many resources are there, of one type or of all, without the deleted ones."""
        statement = select(func.count()).select_from(RESOURCE).where(RESOURCE.c.deleted.is_(False))
        if type:
            statement = statement.where(RESOURCE.c.type == type)
        with read_transaction(self._engine) as connection:
            return int(connection.execute(statement).scalar_one())

    def _one(self, statement: Any, values: dict[str, Any]) -> StoredVersion:
        with read_transaction(self._engine) as connection:
            row = connection.execute(statement, values).first()
        if row is None:
            raise NotFound
        return opened(self._keyring, row)

    def _current(self, connection: Connection, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Row[Any]]:
        wanted = set(places)
        found: dict[tuple[str, str], Row[Any]] = {}
        for start in range(0, len(places), SELECT_CHUNK):
            chunk = places[start : start + SELECT_CHUNK]
            rows = connection.execute(
                select(RESOURCE).where(
                    RESOURCE.c.type.in_(sorted({type for type, _ in chunk})), RESOURCE.c.id.in_([id for _, id in chunk])
                )
            )
            found.update({(row.type, row.id): row for row in rows if (row.type, row.id) in wanted})
        return found

    def _write(self, connection: Connection, writes: Sequence[PreparedWrite], deleted: bool) -> list[PutResult]:
        """Write resources that are all different."""
        current = self._current(connection, [(write.type, write.id) for write in writes])
        results: list[PutResult] = []
        changes: list[_Change] = []
        for write in writes:
            before = current.get((write.type, write.id))
            mark = self._keyring.blind("resource.content", write.neutral)
            if before is not None and (
                (before.content_key == mark and bool(before.deleted) == deleted)
                or (write.mention and not before.deleted and not self._may_replace(connection, write, before))
            ):
                results.append(PutResult(write.type, write.id, before.version, False, None))
                continue
            change = self._change(write, before, mark, deleted)
            changes.append(change)
            results.append(PutResult(write.type, write.id, change.version.version, True, change.version))
        if changes:
            self._insert(connection, changes)
        return results

    def _may_replace(self, connection: Connection, write: PreparedWrite, before: Row[Any]) -> bool:
        """Whether a mention says at least as much as the stored version."""
        place = {"of_type": write.type, "of_id": write.id, "of_version": before.version}
        row = connection.execute(_VREAD, place).one()
        return says_as_much(write.resource, opened(self._keyring, row).resource())

    def _change(self, write: PreparedWrite, before: Row[Any] | None, mark: bytes, deleted: bool) -> _Change:
        number = 1 if before is None else before.version + 1
        # a clock set back must not make a later version look older
        updated = max(int(self._clock() * MILLISECONDS), 0 if before is None else before.updated)
        content = version_content(write, number, updated)
        version = StoredVersion(
            write.type, write.id, number, instant(updated), content, sm3(content), write.subject, deleted, write.lineage
        )
        return _Change(write, version, updated, mark, before)

    def _insert(self, connection: Connection, changes: Sequence[_Change]) -> None:
        keys = self._keyring.data_keys(connection, (change.version.subject for change in changes))
        versions: list[dict[str, Any]] = []
        created: list[dict[str, Any]] = []
        replaced: list[dict[str, Any]] = []
        outbox: list[dict[str, Any]] = []
        index: list[tuple[IndexEntry, bytes | None]] = []
        for change in changes:
            version = change.version
            entry = index_entry(self._keyring, change.write.resource, version.deleted)
            index.append((entry, None if change.before is None else change.before.terms))
            place: dict[str, Any] = {"type": version.type, "id": version.id, "version": version.version}
            shared: dict[str, Any] = {"updated": change.updated, "subject": version.subject, "deleted": version.deleted}
            traced = {
                "digest": version.digest,
                "source_digest": version.lineage.source_digest,
                "adapter": version.lineage.adapter,
            }
            sealed = keys[version.subject].seal(
                version.content, associated_data(version.type, version.id, version.version)
            )
            versions.append({**place, **shared, **traced, "sealed": sealed, "source": version.lineage.source})
            row = {**place, **shared, "content_key": change.content_key, "terms": entry.terms}
            if change.before is None:
                created.append(row)
            else:
                replaced.append({**row, "of_type": row.pop("type"), "of_id": row.pop("id")})
            outbox.append({"ref": version.ref, "subject": version.subject, **traced, "stored": change.updated})
        connection.execute(insert(VERSION), versions)
        if created:
            connection.execute(insert(RESOURCE), created)
        if replaced:
            connection.execute(_UPDATE_CURRENT, replaced)
        write_index(connection, index)
        self._outbox.add(connection, outbox)


def _without_repeats(writes: Sequence[PreparedWrite]) -> tuple[list[tuple[int, PreparedWrite]], dict[int, int]]:
    """Part the writes that repeat the last one of their resource from the others.

    Messages stored together name the same departments and doctors over and over. Returns the others, numbered, and for
    each repeat the number of the write it repeats.
    """
    others: list[tuple[int, PreparedWrite]] = []
    repeated: dict[int, int] = {}
    last: dict[tuple[str, str], tuple[int, PreparedWrite]] = {}
    for number, write in enumerate(writes):
        before = last.get((write.type, write.id))
        if before is not None and before[1].neutral == write.neutral:
            repeated[number] = before[0]
        else:
            last[write.type, write.id] = (number, write)
            others.append((number, write))
    return others, repeated
