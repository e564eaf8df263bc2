"""Reads a hospital's standard views by watermark, beside the HIS and read-only.

1. Rows are read in the order of (updated_at, row_key), from the last place read, at most ``batch`` a query and
   ``MAX_QUERIES`` queries a run, each with a time limit: the load on the source is bounded.
2. Rows with one updated_at are read to the end before they are used, so that a report, whose rows share it, is whole.
3. Rows of one report, visit or patient go into the durable inbox together, as what was read; only then does the
   watermark move. A crash in between reads them again, and the inbox knows them by source and content: nothing doubles.
4. A row may become visible after a younger one (transactions that commit late, clocks that differ): until the place has
   not moved for twice the overlap, each run begins ``overlap_seconds`` before it. Rows already taken are passed over.

Nothing is written to the source. Deletions are not seen: a view says 'cancelled', not nothing.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Any, Protocol

import orjson
from sqlalchemy import (
    ColumnClause,
    Connection,
    Engine,
    Select,
    and_,
    column,
    create_engine,
    literal_column,
    or_,
    select,
    table,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.elements import quoted_name

from anchor.gm import sm3
from bridge.errors import IngestError, SettingsError
from bridge.settings import SourceSettings
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.watermarks import Watermark, read_watermark, write_watermark
from fhir_adapters.tabular.contract import VIEWS, View

MAX_QUERIES = 20  # of one run: at 500 rows and 30 s that is 20,000 rows a minute
MAX_TIE_ROWS = 20_000  # rows with one updated_at: a bulk update is read in these portions
MAX_SEEN = 200_000  # deliveries remembered to spare the inbox the question; some 10 MB
SENDERS = 16  # deliveries that share one commit of the inbox

#: what makes a session read-only and bounds its statements ({seconds}, {milliseconds}), by dialect
SESSION_STATEMENTS: Mapping[str, tuple[str, ...]] = {
    "sqlite": ("PRAGMA query_only=ON",),
    "postgresql": ("SET TRANSACTION READ ONLY", "SET LOCAL statement_timeout = {milliseconds}"),
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION max_execution_time = {milliseconds}"),
    "oracle": ("SET TRANSACTION READ ONLY",),
}
_VIEW_NAME = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_$]{0,127}\.)?([A-Za-z_][A-Za-z0-9_]{0,127})", re.ASCII)

Row = Mapping[str, Any]


class RowReceiver(Protocol):
    """The inbox's door for rows: returns after the commit; the same rows again create nothing."""

    def receive_rows(self, source: str, view: str, rows: Sequence[Row], patient: str = "") -> Any:
        """Keep rows as one message."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A place in a view's order; ``updated_at`` as the driver gave it."""

    updated_at: Any
    row_key: str | None


@dataclass(frozen=True, slots=True)
class Polled:
    """What one run did; false when there was nothing new."""

    rows: int = 0
    deliveries: int = 0

    def __bool__(self) -> bool:
        return self.deliveries > 0


class ViewPoller:
    """Polls the views of one source."""

    def __init__(
        self, settings: SourceSettings, engine: Engine, receiver: RowReceiver, clock: Callable[[], float] = time.time
    ) -> None:
        self.source = settings.name
        self.period_seconds = settings.poll_seconds
        self._settings = settings
        self._engine = engine
        self._receiver = receiver
        self._clock = clock
        self._views = [_known_view(settings, name) for name in settings.views]
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._source_engine: Engine | None = None

    def run(self) -> Polled:
        """Read what is new in every view, in the order of the settings. Raises ``IngestError`` or ``StorageError``."""
        rows = deliveries = 0
        for name, view in self._views:
            for batch in self._batches(name):
                rows += len(batch)
                deliveries += self._deliver(view, batch)
        return Polled(rows, deliveries)

    def close(self) -> None:
        """Close the connections to the source."""
        if self._source_engine is not None:
            self._source_engine.dispose()

    def _batches(self, name: str) -> Iterator[list[Row]]:
        """Give batches of rows; the watermark moves past a batch when the caller comes back for the next one."""
        with read_transaction(self._engine) as connection:
            mark = read_watermark(connection, self.source, name)
        place = self._beginning(mark)
        reached = None if mark is None else _place_of(mark)
        for _ in range(MAX_QUERIES):
            rows, caught_up = self._read(name, place)
            if rows:
                yield rows
                place = _Place(rows[-1]["updated_at"], str(rows[-1]["row_key"]))
            moved = place is not None and _is_beyond(place, reached)
            if moved or (mark is not None and caught_up != mark.caught_up):
                reached = place if moved else reached
                mark = self._keep(name, reached, mark, moved, caught_up)
            if caught_up:
                return

    def _beginning(self, mark: Watermark | None) -> _Place | None:
        """Return the place after which to read: the watermark, or the overlap before it while late rows may come."""
        if mark is None:
            return None
        place = _place_of(mark)
        quiet = self._clock() - mark.moved > 2 * self._settings.overlap_seconds
        if quiet or not mark.caught_up or not self._settings.overlap_seconds:
            return place
        earlier = _earlier(place.updated_at, self._settings.overlap_seconds)
        return place if earlier is None else _Place(earlier, None)

    def _keep(
        self, name: str, place: _Place | None, mark: Watermark | None, moved: bool, caught_up: bool
    ) -> Watermark | None:
        if place is None:
            return None
        when = int(self._clock()) if moved or mark is None else mark.moved
        kept = Watermark(_dump_time(place.updated_at), place.row_key or "", when, caught_up)
        with write_transaction(self._engine) as connection:
            write_watermark(connection, self.source, name, kept)
        return kept

    def _deliver(self, view: View, rows: Sequence[Row]) -> int:
        """Hand the rows of each report, visit or patient to the inbox, those of one patient in order."""
        waiting: list[list[tuple[str, list[Row], bytes]]] = []
        groups = _grouped(view, rows)
        for patient, of_patient in groupby(sorted(groups, key=lambda group: group[0]), key=lambda group: group[0]):
            fresh = [(patient, group, mark) for _, group in of_patient if (mark := _mark(group)) not in self._seen]
            if fresh:
                waiting.append(fresh)
        with ThreadPoolExecutor(SENDERS, thread_name_prefix="poll") as pool:
            for _ in pool.map(lambda fresh: self._send(view, fresh), waiting):
                pass
        for _, _, mark in (each for fresh in waiting for each in fresh):
            self._seen[mark] = None
        while len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return sum(len(fresh) for fresh in waiting)

    def _send(self, view: View, fresh: Sequence[tuple[str, list[Row], bytes]]) -> None:
        for patient, group, _ in fresh:
            self._receiver.receive_rows(self.source, view.name, group, patient)

    def _read(self, name: str, place: _Place | None) -> tuple[list[Row], bool]:
        """Return the next rows, ties completed, and whether they are the last there are now."""
        batch = self._settings.batch
        with self._connected() as connection:
            rows = _fetch(connection, name, place, batch)
            caught_up = len(rows) < batch
            if rows and not caught_up:
                last = _Place(rows[-1]["updated_at"], str(rows[-1]["row_key"]))
                rows += _fetch(connection, name, last, MAX_TIE_ROWS, tie=True)
        return rows, caught_up

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """Give a read-only connection to the source whose statements end in time; always rolled back."""
        try:
            with self._source().connect() as connection:
                seconds = self._settings.statement_seconds
                for statement in SESSION_STATEMENTS.get(connection.dialect.name, ()):
                    connection.execute(text(statement.format(seconds=seconds, milliseconds=int(seconds * 1000))))
                with _time_limit(connection, seconds):
                    yield connection
        except SQLAlchemyError as error:
            raise IngestError(
                f"the views of source {self.source} cannot be read; check sources.url, the views and their columns / "
                "无法读取数据源视图",
                cause=type(getattr(error, "orig", None) or error).__name__,
            ) from None

    def _source(self) -> Engine:
        if self._source_engine is None:
            try:
                self._source_engine = create_engine(
                    self._settings.url, pool_size=1, max_overflow=0, pool_pre_ping=True, hide_parameters=True
                )
            except (SQLAlchemyError, ImportError) as error:
                raise IngestError(
                    f"sources.{self.source}.url cannot be used: not a database URL, or its driver is not installed / "
                    "数据源地址或驱动不可用",
                    cause=type(error).__name__,
                ) from None
        return self._source_engine


def _fetch(connection: Connection, name: str, place: _Place | None, limit: int, tie: bool = False) -> list[Row]:
    """Return up to ``limit`` rows after a place; with ``tie`` only those of the same updated_at."""
    updated_at: ColumnClause[Any] = column("updated_at")
    row_key: ColumnClause[Any] = column("row_key")
    schema, _, plain = name.rpartition(".")
    view = table(quoted_name(plain, quote=False), schema=quoted_name(schema, quote=False) if schema else None)
    statement: Select[Any] = select(literal_column("*")).select_from(view).order_by(updated_at, row_key).limit(limit)
    if place is not None and tie:
        statement = statement.where(updated_at == place.updated_at, row_key > place.row_key)
    elif place is not None and place.row_key is not None:
        same = and_(updated_at == place.updated_at, row_key > place.row_key)
        statement = statement.where(or_(updated_at > place.updated_at, same))
    elif place is not None:
        statement = statement.where(updated_at >= place.updated_at)
    else:
        statement = statement.where(updated_at.is_not(None))
    return [{key.lower(): value for key, value in row.items()} for row in connection.execute(statement).mappings()]


@contextmanager
def _time_limit(connection: Connection, seconds: float) -> Iterator[None]:
    """Cancel what the driver is doing after ``seconds``, for drivers that can; servers with a limit have their own."""
    driver: Any = connection.connection.driver_connection
    cancel = getattr(driver, "interrupt", None) or getattr(driver, "cancel", None)
    timer = threading.Timer(seconds, cancel if cancel is not None else lambda: None)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _known_view(settings: SourceSettings, name: str) -> tuple[str, View]:
    found = _VIEW_NAME.fullmatch(name)
    view = VIEWS.get(found[1].upper()) if found else None
    if view is None:
        raise SettingsError(f"sources.{settings.name}.views: {name} is none of {', '.join(VIEWS)}")
    return name, view


def _grouped(view: View, rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return (patient, rows) of each record, in the order of their first rows; "" where no patient is meant."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        key = tuple(str(row.get(name) or "") for name in ("assigning_authority", *view.record))
        groups.setdefault(key, []).append(row)
    if not view.of_patients:
        return [("", group) for group in groups.values()]
    return [(f"{group[0].get('patient_no')}^{key[0]}", group) for key, group in groups.items()]


def _mark(rows: Sequence[Row]) -> bytes:
    return sm3(orjson.dumps([dict(row) for row in rows], default=str))


def _dump_time(value: Any) -> str:
    """Write updated_at so that it comes back as the type that the driver gave, for the next comparison."""
    if isinstance(value, datetime):
        return json.dumps(["datetime", value.isoformat()])
    if isinstance(value, date):
        return json.dumps(["date", value.isoformat()])
    return json.dumps(["number" if isinstance(value, int | float) else "text", value], default=str)


def _place_of(mark: Watermark) -> _Place:
    kind, value = json.loads(mark.position)
    if kind == "datetime":
        value = datetime.fromisoformat(value)
    elif kind == "date":
        value = date.fromisoformat(value)
    return _Place(value, mark.row_key)


def _is_beyond(place: _Place, reached: _Place | None) -> bool:
    if reached is None:
        return True
    with suppress(TypeError):  # the driver's type changed: what was read last counts
        return bool((place.updated_at, place.row_key or "") > (reached.updated_at, reached.row_key or ""))
    return True


def _earlier(value: Any, seconds: float) -> Any:
    """Return a time ``seconds`` earlier in the form it has; None for a form that cannot be reckoned with."""
    back = timedelta(seconds=seconds)
    if isinstance(value, datetime | date):
        return value - (back if isinstance(value, datetime) else max(back, timedelta(days=1)))
    if isinstance(value, int | float):
        return value - seconds
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(value) - back
        return moment.isoformat(sep="T" if "T" in value else " ", timespec="auto")
    return None
