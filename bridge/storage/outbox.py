"""Records that are stored and not yet in the institution's log.

A row is written in the transaction that stores the record version and removed in the one that appends its log entry, so
that every version is logged exactly once. Rows leave in the order of their ids, so that
one record's versions are in order.

An id is given out once and never again. The record version and its log entry both keep it: that is how one is found
from the other, so that every index of the log grows at its end only, whatever the references look like (ADR 0024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Connection, Integer, LargeBinary, String, Table, delete, func, select
from sqlmodel import Field, SQLModel

from bridge.storage.bulk import insert_rows

DELETE_CHUNK = 500
"""Ids a DELETE names at once: below SQLite's limit of bound variables on every build."""


class OutboxRow(SQLModel, table=True):
    """One stored record version that waits to be logged; ``stored`` is Unix milliseconds."""

    __tablename__ = "outbox"
    __table_args__ = {"sqlite_autoincrement": True}

    id: int | None = Field(
        default=None,
        sa_column=Column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    )
    ref: str = Field(sa_column=Column(String(300), nullable=False))
    subject: str = Field(sa_column=Column(String(200), nullable=False))
    digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    source_digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    adapter: str = Field(sa_column=Column(String(100), nullable=False))
    stored: int = Field(sa_column=Column(BigInteger, nullable=False))


OUTBOX: Table = OutboxRow.__table__  # type: ignore[attr-defined]

_TAKE_FROM_SEQUENCE = "SELECT nextval(pg_get_serial_sequence('outbox', 'id')) FROM generate_series(1, %s)"
_LAST_OF_SQLITE = "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'"


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """A record version to log: ``ref`` is "Type/id/_history/version", ``subject`` whose data key seals it.

    ``id`` is None for what goes into the log without having been in the outbox.
    """

    id: int | None
    ref: str
    subject: str
    digest: bytes
    source_digest: bytes
    adapter: str
    stored: int


class Outbox:
    """Fills, reads and empties the outbox inside transactions that the caller owns."""

    def take_ids(self, connection: Connection, count: int) -> Sequence[int]:
        """Return ``count`` ids, rising, for rows that this writing transaction adds."""
        if connection.dialect.name == "postgresql":
            return list(connection.exec_driver_sql(_TAKE_FROM_SEQUENCE, (count,)).scalars())
        # the transaction is SQLite's only writer, and what it adds moves this number on
        last = int(connection.exec_driver_sql(_LAST_OF_SQLITE).scalar() or 0)
        return range(last + 1, last + 1 + count)

    def add(self, connection: Connection, rows: Sequence[tuple[int, str, str, bytes, bytes, str, int]]) -> None:
        """Append rows of id, ref, subject, digest, source_digest, adapter, stored (Unix milliseconds)."""
        insert_rows(connection, OUTBOX, ("id", "ref", "subject", "digest", "source_digest", "adapter", "stored"), rows)

    def pending(self, connection: Connection, limit: int) -> list[PendingEntry]:
        """Return up to ``limit`` rows in id order; on PostgreSQL they stay locked until the transaction ends.

        Two workers draining at once on PostgreSQL: the second waits here and then sees only what the first left.
        """
        rows = connection.execute(select(OUTBOX).order_by(OUTBOX.c.id).limit(limit).with_for_update())
        return [
            PendingEntry(row.id, row.ref, row.subject, row.digest, row.source_digest, row.adapter, row.stored)
            for row in rows
        ]

    def remove(self, connection: Connection, ids: Sequence[int]) -> None:
        """Remove rows that the same transaction has logged."""
        for start in range(0, len(ids), DELETE_CHUNK):
            connection.execute(delete(OUTBOX).where(OUTBOX.c.id.in_(ids[start : start + DELETE_CHUNK])))

    def count(self, connection: Connection) -> int:
        """Return how many record versions wait."""
        return int(connection.execute(select(func.count()).select_from(OUTBOX)).scalar_one())

    def oldest(self, connection: Connection) -> int | None:
        """Return when the longest waiting version was stored (Unix milliseconds), or None when none waits."""
        row = connection.execute(select(OUTBOX.c.stored).order_by(OUTBOX.c.id).limit(1)).first()
        return None if row is None else int(row.stored)
