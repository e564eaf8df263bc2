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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Row, bindparam, func, select, tuple_

from bridge.errors import Gone, NotFound, VersionConflict
from bridge.storage.bulk import execute_rows, insert_rows
from bridge.storage.database import read_transaction
from bridge.storage.keyring import NODE, KeyRing
from bridge.storage.outbox import Outbox
from bridge.storage.record_plan import CurrentState, Place, Planner, WritePlan
from bridge.storage.record_search import run_search
from bridge.storage.record_tables import CURRENT, RESOURCE, VERSION, near, opened, select_versions
from bridge.storage.record_versions import (
    Lineage,
    PreparedWrite,
    PutResult,
    RecordWrite,
    SearchPage,
    StoredVersion,
    prepared,
)
from bridge.storage.search_index import write_index
from bridge.storage.search_query import SearchQuery

__all__ = ["Lineage", "PutResult", "RecordStore", "RecordWrite", "SearchPage", "StoredVersion"]

MILLISECONDS = 1000

SHARED_KEPT = 4096
SHARED_BYTES = 4096
"""Prepared resources of no patient that are kept, and the largest of them: a department takes 500 bytes. In all below
50 MB, mostly some five."""

SELECT_CHUNK = 400
"""Resources a query names at once: below SQLite's limit of bound variables on every build."""

WALK_ROWS = 500
"""Versions read at a time by ``walk``: a megabyte or so."""

_UPDATE_CURRENT = (
    "UPDATE resource SET version = ?, updated = ?, subject = ?, content_key = ?, deleted = ?, terms = ?, arrival = ? "
    "WHERE type = ? AND id = ? AND version = ?"
)
_UPDATE_ARRIVAL = "UPDATE resource SET arrival = ? WHERE type = ? AND id = ? AND version = ?"
_VERSION_COLUMNS = (
    *("type", "id", "version", "updated", "subject", "sealed"),
    *("digest", "deleted", "source", "source_digest", "adapter", "outbox_id"),
)
_CURRENT_COLUMNS = ("type", "id", "version", "updated", "subject", "content_key", "deleted", "terms", "arrival")
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


class RecordStore:
    """Writes and reads resource versions. Methods that take a connection leave its transaction to the caller."""

    def __init__(self, engine: Engine, keyring: KeyRing, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._keyring = keyring
        self._clock = clock
        self._outbox = Outbox()
        self._shared: dict[tuple[str, bytes], PreparedWrite] = {}

    def put(
        self, connection: Connection, resource: dict[str, Any] | bytes, lineage: Lineage, subject: str
    ) -> PutResult:
        """Store one resource: ``put_many`` of one."""
        return self.put_many(connection, [RecordWrite(resource, lineage, subject)])[0]

    def put_many(
        self, connection: Connection, writes: Sequence[RecordWrite], *, fresh: bool = False
    ) -> list[PutResult]:
        """Store resources in order, with a handful of statements for all of them; results in the order given.

        ``fresh``: their ids were made just now, so nothing can be stored under them.

        A resource has its ``id``; its ``meta.versionId`` and ``meta.lastUpdated`` are replaced, ``meta.source`` is set
        when absent. Raises ``InvalidRequest`` for what is no resource, ``anchor.errors.CanonicalError`` for what has no
        canonical form, ``KeyDestroyed``; a ``VersionConflict`` (another writer was first) comes at the latest from the
        transaction's end.
        """
        return self.apply(
            connection, self._planned(connection, [self.prepare(write) for write in writes], lock=True, fresh=fresh)
        )

    def prepare(self, write: RecordWrite) -> PreparedWrite:
        """Check one resource to be stored, without the database; raises as ``put_many``.

        Departments, beds and staff come with every message: what was prepared of them is used again.
        """
        if write.subject != NODE or isinstance(write.resource, bytes):
            return prepared(write, self._keyring)
        try:
            key = (write.lineage.source, orjson.dumps(write.resource))
        except orjson.JSONEncodeError:  # numbers that keep their lexemes
            return prepared(write, self._keyring)
        known = self._shared.get(key)
        if known is None:
            known = prepared(write, self._keyring)
            if len(key[1]) > SHARED_BYTES:
                return known
            if len(self._shared) >= SHARED_KEPT:
                self._shared.clear()
            self._shared[key] = known
        return replace(known, given=write)

    def plan(self, writes: Sequence[PreparedWrite]) -> WritePlan:
        """Work out what writes lead to, in a transaction of its own that only reads; raises ``KeyDestroyed``."""
        with read_transaction(self._engine) as connection:
            return self._planned(connection, writes)

    def apply(self, connection: Connection, plan: WritePlan) -> list[PutResult]:
        """Write what was planned, and nothing else; return the results of its writes.

        Raises ``VersionConflict`` when something it builds on has changed: roll back and plan again.
        """
        if plan.changes:
            self._keyring.store_new(connection, plan.new_keys)
            self._keyring.confirm(connection, plan.subjects - plan.new_keys.keys())
            self._insert(connection, plan)
        if execute_rows(connection, _UPDATE_ARRIVAL, plan.arrivals) != len(plan.arrivals):
            raise VersionConflict
        return plan.results

    def delete(self, connection: Connection, type: str, id: str, lineage: Lineage) -> PutResult:
        """Store a deletion as a version of its own; earlier versions stay. Deleting twice is nothing.

        Raises ``NotFound`` when there is no such resource.
        """
        current = self._current(connection, [(type, id)]).get((type, id))
        if current is None:
            raise NotFound
        if current.deleted:
            return PutResult(type, id, current.version, False, None)
        tombstone = self.prepare(RecordWrite({"resourceType": type, "id": id}, lineage, current.subject))
        return self.apply(connection, self._planned(connection, [tombstone], deleted=True, lock=True))[0]

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
        """Give the current versions sealed for a subject, by type and id; ``types`` narrows it.

        Some hundred are read at a time, so the memory needed does not grow with the record.
        """
        place = tuple_(RESOURCE.c.type, RESOURCE.c.id)
        statement = (
            select_versions()
            .join(RESOURCE, CURRENT)
            .where(RESOURCE.c.subject == subject, RESOURCE.c.deleted.is_(False))
            .order_by(RESOURCE.c.type, RESOURCE.c.id)
            .limit(WALK_ROWS)
        )
        wanted = sorted(set(types))
        if wanted:
            statement = statement.where(RESOURCE.c.type.in_(wanted))
        following = statement
        while True:
            with read_transaction(self._engine) as connection:
                rows = connection.execute(following).all()
            for row in rows:
                yield opened(self._keyring, row)
            if len(rows) < WALK_ROWS:
                return
            following = statement.where(place > (rows[-1].type, rows[-1].id))

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

    def _current(
        self, connection: Connection, places: Sequence[tuple[str, str]], lock: bool = False
    ) -> dict[tuple[str, str], Row[Any]]:
        """Return the ``resource`` rows there are; with ``lock`` none of them changes before the transaction ends."""
        wanted = set(places)
        found: dict[tuple[str, str], Row[Any]] = {}
        for start in range(0, len(places), SELECT_CHUNK):
            chunk = places[start : start + SELECT_CHUNK]
            statement = select(RESOURCE).where(
                RESOURCE.c.type.in_(sorted({type for type, _ in chunk})), RESOURCE.c.id.in_([id for _, id in chunk])
            )
            if lock:
                statement = statement.order_by(RESOURCE.c.type, RESOURCE.c.id).with_for_update()
            rows = connection.execute(statement)
            found.update({(row.type, row.id): row for row in rows if (row.type, row.id) in wanted})
        return found

    def _planned(
        self,
        connection: Connection,
        writes: Sequence[PreparedWrite],
        *,
        deleted: bool = False,
        lock: bool = False,
        fresh: bool = False,
    ) -> WritePlan:
        rows = {} if fresh else self._current(connection, [(write.type, write.id) for write in writes], lock)
        current = {place: _state(row) for place, row in rows.items()}
        subjects = frozenset(write.subject for write in writes)
        keys, new = self._keyring.keys_for(connection, subjects)
        contents = self._contents(connection, _questioned(writes, current))
        planner = Planner(self._keyring, keys, current, contents, int(self._clock() * MILLISECONDS))
        plan = planner.plan(writes, deleted)
        plan.subjects = frozenset(version.subject for version, _ in plan.versions)
        plan.new_keys = {subject: key for subject, key in new.items() if subject in plan.subjects}
        return plan

    def _contents(self, connection: Connection, wanted: Sequence[tuple[Place, int]]) -> dict[tuple[Place, int], bytes]:
        """Return the content of stored versions that writes have to be compared with, or are put on top of."""
        found: dict[tuple[Place, int], bytes] = {}
        for start in range(0, len(wanted), SELECT_CHUNK):
            chunk = wanted[start : start + SELECT_CHUNK]
            asked = set(chunk)
            condition, values = near((type, id, version) for (type, id), version in chunk)
            for row in connection.execute(select_versions().where(condition), values):
                place = ((row.type, row.id), row.version)
                if place in asked:
                    found[place] = opened(self._keyring, row).content
        return found

    def _insert(self, connection: Connection, plan: WritePlan) -> None:
        created: list[tuple[Any, ...]] = []
        replaced: list[tuple[Any, ...]] = []
        for change in plan.changes:
            after = change.after
            values = (after.version, after.updated, change.subject, after.content_key, after.deleted, after.terms)
            if change.before is None:
                created.append((*change.place, *values, after.arrival))
            else:
                replaced.append((*values, after.arrival, *change.place, change.before.version))
        versions: list[tuple[Any, ...]] = []
        outbox: list[tuple[int, str, str, bytes, bytes, str, int]] = []
        ids = self._outbox.take_ids(connection, len(plan.versions))
        for id, (version, sealed) in zip(ids, plan.versions, strict=True):
            updated, lineage = plan.updated[version.ref], version.lineage
            traced = (lineage.source_digest, lineage.adapter)
            place = (version.type, version.id, version.version)
            versions.append(
                (*place, updated, version.subject, sealed, version.digest, version.deleted, lineage.source, *traced, id)
            )
            outbox.append((id, version.ref, version.subject, version.digest, *traced, updated))
        insert_rows(connection, VERSION, _VERSION_COLUMNS, versions)
        insert_rows(connection, RESOURCE, _CURRENT_COLUMNS, created)
        if execute_rows(connection, _UPDATE_CURRENT, replaced) != len(replaced):
            raise VersionConflict
        write_index(
            connection, [(each.index, None if each.before is None else each.before.terms) for each in plan.changes]
        )
        self._outbox.add(connection, outbox)


def _state(row: Row[Any]) -> CurrentState:
    return CurrentState(row.version, row.updated, row.content_key, bool(row.deleted), row.terms, row.arrival)


def _questioned(writes: Sequence[PreparedWrite], current: Mapping[Place, CurrentState]) -> list[tuple[Place, int]]:
    """Return the stored versions that a mention among the writes differs from, or that a write builds on."""
    asked: dict[tuple[Place, int], None] = {}
    for write in writes:
        state = current.get((write.type, write.id)) if write.mention or write.builds_on_stored else None
        if state is not None and not state.deleted and state.content_key != write.content_key:
            asked[(write.type, write.id), state.version] = None
    return list(asked)
