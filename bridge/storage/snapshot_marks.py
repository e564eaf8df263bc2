"""What was last read of tables that keep no time of change: a blind mark of every record, to tell what is new.

``revision`` counts the contents that a record has had. It goes into the delivery's control id, so that a record that
returns to an earlier content is a new message, while the same reading twice (after a crash) is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Column, Connection, Integer, LargeBinary, String, Table, delete, insert, select
from sqlmodel import Field, SQLModel

SELECT_CHUNK = 400
"""Records a query names at once: below SQLite's limit of bound variables on every build."""


class SnapshotMark(SQLModel, table=True):
    """One record of one query of a source; key and content are blind (keyed), so they tell nothing."""

    __tablename__ = "snapshot_mark"

    source: str = Field(sa_column=Column(String(64), primary_key=True))
    query: str = Field(sa_column=Column(String(128), primary_key=True))
    record: bytes = Field(sa_column=Column(LargeBinary(32), primary_key=True))
    content: bytes = Field(sa_column=Column(LargeBinary(32), nullable=False))
    revision: int = Field(sa_column=Column(Integer, nullable=False))


_MARK: Table = SnapshotMark.__table__  # type: ignore[attr-defined]


def read_marks(
    connection: Connection, source: str, query: str, records: Sequence[bytes]
) -> dict[bytes, tuple[bytes, int]]:
    """Return (content, revision) of the records that are known, by record."""
    found: dict[bytes, tuple[bytes, int]] = {}
    for start in range(0, len(records), SELECT_CHUNK):
        rows = connection.execute(
            select(_MARK.c.record, _MARK.c.content, _MARK.c.revision).where(
                _MARK.c.source == source,
                _MARK.c.query == query,
                _MARK.c.record.in_(records[start : start + SELECT_CHUNK]),
            )
        )
        found.update({row.record: (row.content, row.revision) for row in rows})
    return found


def write_marks(connection: Connection, source: str, query: str, marks: Mapping[bytes, tuple[bytes, int]]) -> None:
    """Keep (content, revision) of records."""
    for chunk in _chunks(list(marks), SELECT_CHUNK):
        connection.execute(
            delete(_MARK).where(_MARK.c.source == source, _MARK.c.query == query, _MARK.c.record.in_(chunk))
        )
        connection.execute(
            insert(_MARK),
            [
                {"source": source, "query": query, "record": record, "content": marks[record][0],
                 "revision": marks[record][1]}
                for record in chunk
            ],
        )  # fmt: skip


def _chunks(items: Sequence[bytes], size: int) -> Iterable[Sequence[bytes]]:
    return (items[start : start + size] for start in range(0, len(items), size))
