"""Reads a hospital's database by watermark, beside the HIS and read-only.

1. Rows are read in the order of watermark and key, from the last place read, at most ``batch`` a query and
   ``MAX_QUERIES`` queries a run, each with a time limit: the load on the source is bounded. Rows dated later than now
   (a clock that is ahead, a mistyped year) are left until their time has come: they must not carry the place away.
2. Rows with one watermark are read to the end before they are used, so that a report, whose rows share it, is whole.
3. Rows of one report, visit or patient go into the durable inbox together, as what was read; only then does the
   place move. A crash in between reads them again, and the inbox knows them by source and content: nothing doubles.
4. A row may become visible after a younger one (transactions that commit late, clocks that differ): until the place has
   not moved for twice the overlap, each run begins ``overlap_seconds`` before it. Rows already taken are passed over.
5. What came later than the overlap forgives is found by reading the last day again, once a day (``reread``).
6. A table without any time of change is read whole now and then (``bridge.services.snapshot_reading``).
7. A source in trouble is left alone (``bridge.services.circuit_breaker``).

Nothing is written to the source. Deletions are not seen: a view says 'cancelled', not nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import Engine

from bridge.errors import SettingsError
from bridge.services.circuit_breaker import CircuitBreaker, CircuitOpen
from bridge.services.poll_places import Place, earlier, is_beyond, kept_place, moment_of, place_of
from bridge.services.row_delivery import Blind, RowDelivery, RowReceiver
from bridge.services.snapshot_reading import SnapshotReading
from bridge.services.source_connection import SourceConnection, ViewUnreadable
from bridge.services.view_queries import MappedQuery, Row, StandardQuery, ViewQuery
from bridge.settings import SourceSettings
from bridge.stopping import Stopping, never
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.watermarks import Watermark, read_watermark, write_watermark
from fhir_adapters import SourceProfile
from fhir_adapters.view_contract import VIEWS

MAX_QUERIES = 20  # of one run and view: at 500 rows and 30 s that is 20,000 rows a minute
MAX_REREAD_QUERIES = 5  # of one run and view for reading again what was read: it is never urgent
MAX_TIE_ROWS = 20_000  # rows with one watermark: a bulk update is read in these portions
FUTURE_SECONDS = 300.0  # clocks of a hospital differ by minutes; a row later than this is not yet read
REREAD = "#reread"

_VIEW_NAME = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_$]{0,127}\.)?([A-Za-z_][A-Za-z0-9_]{0,127})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Polled:
    """What one run did; false when there was nothing new. ``future``: rows left alone because of their time."""

    rows: int = 0
    deliveries: int = 0
    future: int = 0

    def __bool__(self) -> bool:
        return self.deliveries > 0


class ViewPoller:
    """Polls one source."""

    def __init__(
        self,
        settings: SourceSettings,
        profile: SourceProfile,
        engine: Engine,
        receiver: RowReceiver,
        blind: Blind,
        clock: Callable[[], float] = time.time,
        stopping: Stopping = never,
    ) -> None:
        self.source = settings.name
        self.period_seconds = settings.poll_seconds
        self._settings = settings
        self._zone = profile.zone
        self._engine = engine
        self._clock = clock
        self._stopping = stopping
        self._queries = queries_of(settings, profile)
        self._source = SourceConnection(settings.name, settings.url, settings.statement_seconds)
        self._breaker = CircuitBreaker(settings.name, engine, clock)
        self._delivery = RowDelivery(settings.name, receiver)
        self._snapshots = SnapshotReading(settings, engine, self._source, self._delivery, blind, clock, stopping)
        self._future = 0

    def run(self) -> Polled:
        """Read what is new in every query, in their order.

        A view that cannot be read does not keep the others from being read; what was wrong is raised at the end.
        Raises ``IngestError`` or ``StorageError``.
        """
        rows = deliveries = 0
        self._future = 0
        wrong: list[ViewUnreadable] = []
        try:
            with self._breaker.guarding(self._source):
                for query in self._queries:
                    if self._stopping():
                        break
                    try:
                        read, delivered = self._run(query)
                    except ViewUnreadable as error:
                        wrong.append(error)
                        continue
                    rows, deliveries = rows + read, deliveries + delivered
                if wrong:
                    raise wrong[0]
        except CircuitOpen:
            return Polled()
        finally:
            self._breaker.note_future_rows(self._future)
        return Polled(rows, deliveries, self._future)

    def close(self) -> None:
        """Close the connections to the source."""
        self._source.close()

    def _run(self, query: ViewQuery) -> tuple[int, int]:
        if not query.has_watermark:
            return self._snapshots.run(query, MAX_QUERIES)
        rows = deliveries = 0
        for batch in self._batches(query):
            rows += len(batch)
            deliveries += self._delivery.deliver(query, batch)
        for batch in self._again(query):
            rows += len(batch)
            deliveries += self._delivery.deliver(query, batch)
        return rows, deliveries

    def _batches(self, query: ViewQuery) -> Iterator[list[Row]]:
        """Give batches of rows; the place moves past a batch when the caller comes back for the next one."""
        mark = self._mark(query.name)
        place = self._beginning(query, mark)
        reached = None if mark is None else place_of(mark)
        for _ in range(MAX_QUERIES):
            rows, caught_up = self._read(query, place)
            if rows:
                yield rows
                place = query.place(rows[-1])
            moved = bool(rows) and place is not None and is_beyond(place, reached)
            if moved or (mark is not None and caught_up != mark.caught_up):
                reached = place if moved else reached
                mark = self._keep(query.name, reached, mark, moved, caught_up)
            if caught_up or self._stopping():
                return

    def _beginning(self, query: ViewQuery, mark: Watermark | None) -> Place | None:
        """Return the place after which to read: the last one, or the overlap before it while late rows may come."""
        if mark is None:
            return query.beginning
        place, overlap = place_of(mark), self._overlap(query)
        quiet = self._clock() - mark.moved > 2 * overlap
        if quiet or not mark.caught_up or not overlap:
            return place
        before = earlier(place.watermark, overlap)
        return place if before is None else Place(before)

    def _overlap(self, query: ViewQuery) -> float:
        own = query.overlap if isinstance(query, MappedQuery) else None
        return self._settings.overlap_seconds if own is None else own

    def _again(self, query: ViewQuery) -> Iterator[list[Row]]:
        """Read the last of what was read once more, in portions: what became visible too late for the overlap."""
        main, span = self._mark(query.name), self._settings.reread_seconds
        if not span or main is None or not main.caught_up:
            return
        name, end = query.name + REREAD, place_of(main)
        mark = self._mark(name)
        now = int(self._clock())
        if mark is None:
            self._keep(name, end, None, True, True)  # the first reading has just been
            return
        if mark.caught_up:
            start = earlier(end.watermark, span)
            if start is None or now - mark.moved < self._settings.reread_period_seconds:
                return
            place = Place(start)
        else:
            place = place_of(mark)
        for _ in range(MAX_REREAD_QUERIES):
            rows, caught_up = self._read(query, place)
            if rows:
                yield rows
                place = query.place(rows[-1])
            done = caught_up or not is_beyond(end, place)
            self._keep(name, place, None, True, done)
            if done or self._stopping():
                return

    def _mark(self, name: str) -> Watermark | None:
        with read_transaction(self._engine) as connection:
            return read_watermark(connection, self.source, name)

    def _keep(
        self, name: str, place: Place | None, mark: Watermark | None, moved: bool, caught_up: bool
    ) -> Watermark | None:
        if place is None:
            return None
        when = int(self._clock()) if moved or mark is None else mark.moved
        kept = kept_place(place, when, caught_up)
        with write_transaction(self._engine) as connection:
            write_watermark(connection, self.source, name, kept)
        return kept

    def _read(self, query: ViewQuery, place: Place | None) -> tuple[list[Row], bool]:
        """Return the next rows, ties completed, and whether they are the last there are now."""
        batch = self._settings.batch
        with self._source.reading(query.name) as connection:

            def fetch(after: Place | None, limit: int, tie: bool = False) -> list[Row]:
                result = connection.execute(query.select(after, limit, tie=tie))
                names = list(result.keys())
                return [query.cells(row, names) for row in result]

            rows = fetch(place, batch)
            caught_up = len(rows) < batch
            if rows and not caught_up:
                rows += fetch(query.place(rows[-1]), MAX_TIE_ROWS, tie=True)
        present = self._until_now(query, rows)
        return present, caught_up or len(present) < len(rows)

    def _until_now(self, query: ViewQuery, rows: list[Row]) -> list[Row]:
        """Cut off the rows at the end that are dated later than now."""
        limit = self._clock() + FUTURE_SECONDS
        kept = len(rows)
        while kept:
            moment = moment_of(query.place(rows[kept - 1]).watermark, self._zone)
            if moment is None or moment <= limit:
                break
            kept -= 1
        self._future += len(rows) - kept
        return rows[:kept]


def queries_of(settings: SourceSettings, profile: SourceProfile) -> tuple[ViewQuery, ...]:
    """Return what is read of a source: the views of the settings, which a profile's mappings stand for by name.

    Without views in the settings, every mapping of the profile. Raises ``SettingsError`` for a name that is neither.
    """
    mapped = {mapping.name: mapping for mapping in profile.views}
    names = settings.views or tuple(mapped)
    if not names:
        raise SettingsError(
            f"sources.{settings.name}: views is empty and the profile {profile.name} maps none; name the views"
        )
    return tuple(MappedQuery(mapped[name]) if name in mapped else _standard(settings, name) for name in names)


def _standard(settings: SourceSettings, name: str) -> StandardQuery:
    found = _VIEW_NAME.fullmatch(name)
    view = VIEWS.get(found[1].upper()) if found else None
    if view is None:
        raise SettingsError(f"sources.{settings.name}.views: {name} is none of {', '.join(VIEWS)}")
    return StandardQuery(name, view)
