"""What a node keeps of its own log: entries, tiles, the log's head and its published checkpoints.

Entries are sealed under the data key of the patient they speak of, salt included: destroying that key leaves the
leaf in the tree, opaque and still provable, and nothing else. Tiles hold hashes only. Every table is keyed by the
log's origin line, so that yearly shards lie side by side. Every index of the tables that grow with the log is added to
at its end, so that an entry costs the same in a log of any size: the entry of a record version is found by the id that
the version had in the outbox, not by its reference (ADR 0024).

Tables are read and written through a SQLAlchemy ``Connection`` whose transaction the caller owns: the rule that
draining the outbox is one transaction lives in ``bridge.services.anchoring``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    LargeBinary,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
)
from sqlalchemy import update as sql_update
from sqlmodel import Field, SQLModel

from bridge.storage.record_tables import VERSION, near
from bridge.storage.record_versions import version_place

PAGE_ROWS = 1000
"""Rows read at a time when a whole table is walked: bounds memory to about half a megabyte of sealed entries."""

PLACES_AT_ONCE = 400
"""Record versions a query names at once: below SQLite's limit of bound variables on every build."""


class EvidenceLog(SQLModel, table=True):
    """One institution log of this node: how many entries it has, and the root over them when it last grew."""

    __tablename__ = "evidence_log"

    origin: str = Field(sa_column=Column(String(200), primary_key=True))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    root: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class EvidenceEntry(SQLModel, table=True):
    """One entry of an institution log, sealed; ``leaf`` is its RFC 6962 leaf hash, ``logged`` Unix seconds.

    ``outbox_id`` is the id its record version had in the outbox: a version has one, and no entry is logged twice.
    None for the entry that opens a shard.
    """

    __tablename__ = "evidence_entry"
    __table_args__ = (Index("ix_evidence_entry_outbox_id", "outbox_id", unique=True),)

    origin: str = Field(sa_column=Column(String(200), primary_key=True))
    position: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    ref: str = Field(sa_column=Column(String(300), nullable=False))
    subject: str = Field(sa_column=Column(String(200), nullable=False))
    leaf: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    logged: int = Field(sa_column=Column(BigInteger, nullable=False))
    outbox_id: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))


class EvidenceTile(SQLModel, table=True):
    """One tile of a log's tree: up to 256 concatenated 32-byte hashes."""

    __tablename__ = "evidence_tile"

    origin: str = Field(sa_column=Column(String(200), primary_key=True))
    level: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    position: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    hashes: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class EvidenceCheckpoint(SQLModel, table=True):
    """One published checkpoint of an institution log and the transaction that carries it; times are Unix seconds."""

    __tablename__ = "evidence_checkpoint"
    __table_args__ = (Index("ix_evidence_checkpoint_size", "origin", "size"),)

    origin: str = Field(sa_column=Column(String(200), primary_key=True))
    number: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    root: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    note: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    tx_id: str = Field(sa_column=Column(String(64), nullable=False))
    height: int = Field(sa_column=Column(BigInteger, nullable=False))
    ledger_index: int = Field(sa_column=Column(BigInteger, nullable=False))
    block_time: int = Field(sa_column=Column(BigInteger, nullable=False))


def _table(model: type[SQLModel]) -> Table:
    table: Table = model.__table__  # type: ignore[attr-defined]
    return table


LOG, ENTRY, TILE = _table(EvidenceLog), _table(EvidenceEntry), _table(EvidenceTile)
CHECKPOINT = _table(EvidenceCheckpoint)


@dataclass(frozen=True, slots=True)
class LogHead:
    """How far a log of this node has grown."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class SealedEntry:
    """One stored entry; ``sealed`` opens with the key ring under ``subject`` and ``entry_aad(origin, position)``."""

    origin: str
    position: int
    ref: str
    subject: str
    leaf: bytes
    sealed: bytes
    logged: int
    outbox_id: int | None


@dataclass(frozen=True, slots=True)
class PublishedCheckpoint:
    """One checkpoint of a log of this node, as the ledger accepted it."""

    origin: str
    number: int
    size: int
    root: bytes
    note: bytes
    tx_id: str
    height: int
    ledger_index: int
    block_time: int


def entry_aad(origin: str, position: int) -> bytes:
    """Return the associated data an entry is sealed with, so that a sealed entry opens in its own place only."""
    return f"yiqiao/entry/v1\n{origin}\n{position}".encode()


# Built once: building a statement costs more than running it, and a proof reads several tiles.
_AT_PLACE = (
    TILE.c.origin == bindparam("at_origin"),
    TILE.c.level == bindparam("at_level"),
    TILE.c.position == bindparam("at_position"),
)
_READ_TILE = select(TILE.c.hashes).where(*_AT_PLACE)
_REPLACE_TILE = sql_update(TILE).where(*_AT_PLACE).values(hashes=bindparam("hashes"))
_ENTRIES_OF_VERSIONS = select(ENTRY).join(VERSION, VERSION.c.outbox_id == ENTRY.c.outbox_id)


class DatabaseTiles:
    """The tiles of one log in the node's database: an ``anchor.tiles.TileStore`` inside the caller's transaction."""

    def __init__(self, conn: Connection, origin: str) -> None:
        self._conn = conn
        self._origin = origin

    def read(self, level: int, index: int) -> bytes | None:
        """Return a tile's concatenated hashes, or None."""
        found = self._conn.execute(_READ_TILE, self._place(level, index)).scalar_one_or_none()
        return None if found is None else _octets(found)

    def write(self, level: int, index: int, data: bytes) -> None:
        """Store a tile, replacing the shorter one before it."""
        place = self._place(level, index)
        if self._conn.execute(_REPLACE_TILE, {**place, "hashes": data}).rowcount == 0:
            values = {"origin": self._origin, "level": level, "position": index, "hashes": data}
            self._conn.execute(insert(TILE), values)

    def _place(self, level: int, index: int) -> dict[str, Any]:
        return {"at_origin": self._origin, "at_level": level, "at_position": index}


def log_heads(conn: Connection) -> list[LogHead]:
    """Return the heads of all logs of this node, by origin."""
    rows = conn.execute(select(LOG).order_by(LOG.c.origin)).all()
    return [LogHead(row.origin, row.size, _octets(row.root)) for row in rows]


def log_head(conn: Connection, origin: str) -> LogHead | None:
    """Return the head of one log, or None before its first entry."""
    row = conn.execute(select(LOG).where(LOG.c.origin == origin)).one_or_none()
    return None if row is None else LogHead(row.origin, row.size, _octets(row.root))


def set_log_head(conn: Connection, head: LogHead, *, previous_size: int) -> bool:
    """Advance a log's head from ``previous_size``; False when another writer has moved it meanwhile."""
    if previous_size == 0 and log_head(conn, head.origin) is None:
        conn.execute(insert(LOG).values(origin=head.origin, size=head.size, root=head.root))
        return True
    where = (LOG.c.origin == head.origin, LOG.c.size == previous_size)
    changed = conn.execute(sql_update(LOG).where(*where).values(size=head.size, root=head.root))
    return changed.rowcount == 1


def add_entries(conn: Connection, entries: Sequence[SealedEntry]) -> None:
    """Store entries; a position or an outbox id that is there already fails the whole transaction."""
    names = SealedEntry.__slots__
    if entries:
        conn.execute(insert(ENTRY), [{name: getattr(entry, name) for name in names} for entry in entries])


def find_entry(conn: Connection, ref: str) -> SealedEntry | None:
    """Return the entry logged for a record version such as "Observation/123/_history/2", or None."""
    return find_entries(conn, [ref]).get(ref)


def find_entries(conn: Connection, refs: Sequence[str]) -> dict[str, SealedEntry]:
    """Return the entries logged for record versions, by ref; those that are not logged are left out."""
    found: dict[str, SealedEntry] = {}
    places = {place: ref for ref in refs if (place := version_place(ref)) is not None}
    wanted = list(places)
    for start in range(0, len(wanted), PLACES_AT_ONCE):
        condition, values = near(wanted[start : start + PLACES_AT_ONCE])
        for row in conn.execute(_ENTRIES_OF_VERSIONS.where(condition), values):
            found[row.ref] = _sealed(row)
    return {ref: found[ref] for ref in places.values() if ref in found}  # an altered id leads to another's entry


def logged_at(conn: Connection, origin: str, position: int) -> int | None:
    """Return when the entry at a position was logged (Unix seconds), or None when there is none."""
    place = (ENTRY.c.origin == origin, ENTRY.c.position == position)
    found = conn.execute(select(ENTRY.c.logged).where(*place)).scalar_one_or_none()
    return None if found is None else int(found)


def entries_from(conn: Connection, origin: str, start: int = 0) -> Iterator[SealedEntry]:
    """Yield a log's entries in order from position ``start``, a page at a time."""
    while True:
        where = (ENTRY.c.origin == origin, ENTRY.c.position >= start)
        rows = conn.execute(select(ENTRY).where(*where).order_by(ENTRY.c.position).limit(PAGE_ROWS)).all()
        yield from (_sealed(row) for row in rows)
        if len(rows) < PAGE_ROWS:
            return
        start = rows[-1].position + 1


def logged_refs(conn: Connection, outbox_ids: Sequence[int]) -> dict[int, str]:
    """Return the ref of the entry for each of some ids of the outbox that has one already."""
    rows = conn.execute(select(ENTRY.c.outbox_id, ENTRY.c.ref).where(ENTRY.c.outbox_id.in_(list(outbox_ids))))
    return {row.outbox_id: row.ref for row in rows}


def _octets(value: Any) -> bytes:
    """Return a column's bytes; SQLite lets a tamperer put text there, which then is bytes that fit nothing."""
    return value.encode() if isinstance(value, str) else bytes(value)


def _sealed(row: Any) -> SealedEntry:
    values: dict[str, Any] = {name: getattr(row, name) for name in SealedEntry.__slots__}
    return SealedEntry(**values | {"leaf": _octets(values["leaf"]), "sealed": _octets(values["sealed"])})


def add_checkpoint(conn: Connection, published: PublishedCheckpoint) -> None:
    """Record a checkpoint the ledger accepted; recording the same one again changes nothing."""
    key = (CHECKPOINT.c.origin == published.origin, CHECKPOINT.c.number == published.number)
    conn.execute(delete(CHECKPOINT).where(*key))
    names = PublishedCheckpoint.__slots__
    conn.execute(insert(CHECKPOINT).values({name: getattr(published, name) for name in names}))


def last_checkpoint(conn: Connection, origin: str) -> PublishedCheckpoint | None:
    """Return the newest published checkpoint of a log, or None."""
    query = select(CHECKPOINT).where(CHECKPOINT.c.origin == origin).order_by(CHECKPOINT.c.number.desc()).limit(1)
    row = conn.execute(query).one_or_none()
    return None if row is None else _published(row)


def checkpoint_covering(conn: Connection, origin: str, position: int) -> PublishedCheckpoint | None:
    """Return the earliest published checkpoint whose tree holds the entry at ``position``, or None."""
    where = (CHECKPOINT.c.origin == origin, CHECKPOINT.c.size > position)
    row = conn.execute(select(CHECKPOINT).where(*where).order_by(CHECKPOINT.c.size).limit(1)).one_or_none()
    return None if row is None else _published(row)


def checkpoints_covering(conn: Connection, entries: Iterable[SealedEntry]) -> dict[str, PublishedCheckpoint]:
    """Return the earliest published checkpoint of each entry, by ref; entries that none covers are left out."""
    found: dict[str, PublishedCheckpoint] = {}
    newest: PublishedCheckpoint | None = None
    for entry in sorted(entries, key=lambda entry: (entry.origin, entry.position)):
        # the earliest one that covers an entry is also that of the entries after it, as far as it reaches
        if newest is None or newest.origin != entry.origin or newest.size <= entry.position:
            newest = checkpoint_covering(conn, entry.origin, entry.position)
        if newest is not None:
            found[entry.ref] = newest
    return found


def checkpoints(conn: Connection, origin: str) -> list[PublishedCheckpoint]:
    """Return every published checkpoint of a log, in order of its number."""
    query = select(CHECKPOINT).where(CHECKPOINT.c.origin == origin).order_by(CHECKPOINT.c.number)
    return [_published(row) for row in conn.execute(query)]


def _published(row: Any) -> PublishedCheckpoint:
    values: dict[str, Any] = {name: getattr(row, name) for name in PublishedCheckpoint.__slots__}
    return PublishedCheckpoint(**values | {"root": _octets(values["root"]), "note": _octets(values["note"])})
