"""Reads tables that keep no time of change: whole, in the order of their key, in portions, now and then.

Of every record a blind mark of its content is kept; a record whose content differs from its mark goes to the inbox. A
table that is large, or whose changes matter within minutes, needs a watermark instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Engine

from bridge.services.poll_places import Place, kept_place, place_of
from bridge.services.row_delivery import Blind, Record, RowDelivery, records_of
from bridge.services.source_connection import SourceConnection
from bridge.services.view_queries import MappedQuery, Row, ViewQuery
from bridge.settings import SourceSettings
from bridge.stopping import Stopping, never
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.snapshot_marks import read_marks, write_marks
from bridge.storage.watermarks import Watermark, read_watermark, write_watermark

_MARK_CHARACTERS = 16


class SnapshotReading:
    """The readings of one source's tables."""

    def __init__(
        self,
        settings: SourceSettings,
        engine: Engine,
        source: SourceConnection,
        delivery: RowDelivery,
        blind: Blind,
        clock: Callable[[], float],
        stopping: Stopping = never,
    ) -> None:
        self._name = settings.name
        self._batch = settings.batch
        self._engine = engine
        self._source = source
        self._delivery = delivery
        self._blind = blind
        self._clock = clock
        self._stopping = stopping

    def run(self, query: ViewQuery, queries: int) -> tuple[int, int]:
        """Go on with a reading, or begin one when it is time; return the rows read and the records that were new.

        Raises ``IngestError`` or ``StorageError``; the next run goes on where this one stopped.
        """
        mark = self._mark(query)
        now = int(self._clock())
        if mark is not None and mark.caught_up and now - mark.moved < self._period(query):
            return 0, 0
        place = None if mark is None or mark.caught_up else place_of(mark)
        began = now if place is None else (mark.moved if mark is not None else now)
        rows = delivered = 0
        for _ in range(queries):
            batch = self._read(query, place)
            done = len(batch) < self._batch
            if batch:
                whole = batch if done else _without_last_record(query, batch)
                rows += len(whole)
                delivered += self._deliver(query, whole)
                place = Place("", query.place(whole[-1]).key)
            self._keep(query, place, began, done)
            if done or self._stopping():
                break
        return rows, delivered

    def _period(self, query: ViewQuery) -> float:
        return query.every if isinstance(query, MappedQuery) else 0.0

    def _mark(self, query: ViewQuery) -> Watermark | None:
        with read_transaction(self._engine) as connection:
            return read_watermark(connection, self._name, query.name)

    def _keep(self, query: ViewQuery, place: Place | None, began: int, done: bool) -> None:
        with write_transaction(self._engine) as connection:
            write_watermark(connection, self._name, query.name, kept_place(place or Place(""), began, done))

    def _read(self, query: ViewQuery, place: Place | None) -> list[Row]:
        with self._source.reading(query.name) as connection:
            result = connection.execute(query.select(place, self._batch))
            names = list(result.keys())
            return [query.cells(row, names) for row in result]

    def _deliver(self, query: ViewQuery, rows: Sequence[Row]) -> int:
        """Deliver the records whose content is not the one that was read last, and then remember it."""
        records = {self._record_mark(query, each): each for each in records_of(query, rows)}
        contents = {mark: self._blind("snapshot.content", each.content) for mark, each in records.items()}
        with read_transaction(self._engine) as connection:
            known = read_marks(connection, self._name, query.name, list(records))
        changed = [mark for mark in records if mark not in known or known[mark][0] != contents[mark]]
        revisions = {mark: known[mark][1] + 1 if mark in known else 1 for mark in changed}
        if changed:
            self._delivery.send(query, [(records[mark], _control_id(mark, revisions[mark])) for mark in changed])
            with write_transaction(self._engine) as connection:
                marks = {mark: (contents[mark], revisions[mark]) for mark in changed}
                write_marks(connection, self._name, query.name, marks)
        return len(changed)

    def _record_mark(self, query: ViewQuery, record: Record) -> bytes:
        return self._blind("snapshot.record", "\x1f".join((query.name, *record.key)).encode())


def _without_last_record(query: ViewQuery, rows: list[Row]) -> list[Row]:
    """Leave the last record of a full portion for the next one, which may hold more of its rows."""
    records = records_of(query, rows)
    if len(records) < 2:
        return rows
    last = {id(row) for row in records[-1].rows}
    end = next(position for position, row in enumerate(rows) if id(row) in last)
    return rows[:end] if end else rows


def _control_id(mark: bytes, revision: int) -> str:
    """Tell contents of a record apart, so that one it has had before is delivered again."""
    return f"{mark.hex()[:_MARK_CHARACTERS]}-{revision}"
