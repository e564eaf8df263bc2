"""The circuit breaker towards a source: a HIS that is in trouble is left alone.

closed --(``FAILURES`` in a row)--> open --(time)--> half-open: one cheap probe --(good)--> closed
                                      ^--------------------(bad, twice as long)-----'

What counts is trouble of the source: it cannot be reached, a statement takes too long, the connection breaks. A view
that is not there is a mistake of configuration, reported, and no reason to stop reading the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import Engine

from bridge.errors import IngestError
from bridge.services.source_connection import SourceConnection, SourceUnavailable, ViewUnreadable
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.source_health import SourceHealth, read_health, write_health

FAILURES = 5
"""Failures in a row that open the circuit: one lost connection is no trouble, five are."""

FIRST_PAUSE_SECONDS = 60
"""How long the circuit stays open the first time; doubled each time that the probe fails."""

LONGEST_PAUSE_SECONDS = 1800
"""Longest pause: after a HIS is back it takes at most this long until it is read again."""


class CircuitOpen(IngestError):
    """The source is left alone for now."""

    default_message = "the source is left alone until it has had time to recover / 数据源熔断中，暂不读取"


class CircuitBreaker:
    """The circuit of one source; its state is kept in the node's database."""

    def __init__(self, source: str, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._source = source
        self._engine = engine
        self._clock = clock

    def health(self) -> SourceHealth:
        """Return what is known of the source."""
        with read_transaction(self._engine) as connection:
            return read_health(connection, self._source)

    @contextmanager
    def guarding(self, connection: SourceConnection) -> Iterator[None]:
        """Let the work on the source through, and learn from how it ends.

        Raises ``CircuitOpen`` without touching the source while the circuit is open. When the time to try again has
        come, the source is probed first.
        """
        state = self.health().circuit(self._clock())
        if state == "open":
            raise CircuitOpen
        try:
            if state == "half-open":
                connection.probe()
            yield
        except ViewUnreadable:
            self._succeeded()  # it answered, and said no
            raise
        except SourceUnavailable as error:
            self._failed(error.cause)
            raise
        else:
            self._succeeded()

    def note_future_rows(self, count: int) -> None:
        """Keep how many rows were left alone because they are dated later than now."""
        self._keep(lambda health: replace(health, future_rows=count))

    def _succeeded(self) -> None:
        now = int(self._clock())
        self._keep(lambda health: replace(health, failures=0, openings=0, retry_at=0, last_success=now, cause=""))

    def _failed(self, cause: str) -> None:
        now = int(self._clock())

        def worse(health: SourceHealth) -> SourceHealth:
            failures = health.failures + 1
            known = replace(health, failures=failures, last_failure=now, cause=cause)
            if failures < FAILURES and not health.retry_at:
                return known
            pause = min(FIRST_PAUSE_SECONDS * 2**health.openings, LONGEST_PAUSE_SECONDS)
            return replace(known, retry_at=now + pause, openings=min(health.openings + 1, 16))

        self._keep(worse)

    def _keep(self, change: Callable[[SourceHealth], SourceHealth]) -> None:
        with write_transaction(self._engine) as connection:
            before = read_health(connection, self._source)
            after = change(before)
            # The time of the last success alone is worth a write now and then, not at every poll.
            same = replace(after, last_success=before.last_success) == before
            if not same or after.last_success - before.last_success >= FIRST_PAUSE_SECONDS:
                write_health(connection, after)
