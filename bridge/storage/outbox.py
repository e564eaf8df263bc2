"""Records that are stored and not yet in the institution's log.

A row is written in the transaction that stores the record version and removed in the one that appends its log entry, so
that every version is logged exactly once. Rows leave in the order of their ids, so that
one record's versions are in order.
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


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """A record version to log: ``ref`` is "Type/id/_history/version", ``subject`` whose data key seals it."""

    id: int
    ref: str
    subject: str
    digest: bytes
    source_digest: bytes
    adapter: str
    stored: int


class Outbox:
    """Reads and empties the outbox inside transactions that the caller owns."""

    def add(self, connection: Connection, rows: Sequence[tuple[str, str, bytes, bytes, str, int]]) -> None:
        """Append rows of ref, subject, digest, source_digest, adapter, stored (Unix milliseconds)."""
        insert_rows(connection, OUTBOX, ("ref", "subject", "digest", "source_digest", "adapter", "stored"), rows)

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
