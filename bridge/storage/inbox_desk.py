"""What people do with the inbox: look, without seeing content, run again what failed, and let old messages go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import orjson
from sqlalchemy import ColumnElement, Connection, Engine, delete, func, insert, literal_column, select, update

from bridge.errors import Conflict, InvalidRequest, NotFound
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.inbox_tables import (
    INBOX,
    RECEIVED,
    RERUN,
    RERUNNABLE,
    STATES,
    STORED,
    Backlog,
    InboxDetail,
    InboxEntry,
    InboxFilter,
    RerunProgress,
    State,
)
from bridge.storage.keyring import KeyRing

PAGE_ROWS = 100
"""Messages a list shows unless more are asked for."""

CHUNK_ROWS = 1000
"""Rows changed or removed in one transaction: acknowledging does not wait for more than this."""

SELECT_CHUNK = 400
"""Keys a query names at once: below SQLite's limit of bound variables on every build."""

ALL = InboxFilter()

RECEIVED_ONLY: ColumnElement[str] = literal_column("'received'")
"""A literal and not a parameter: only then SQLite uses an index on the waiting messages alone."""

_Conditions = list[ColumnElement[bool]]

_SHOWN = (
    *("id", "source", "control_id", "format", "event", "state", "received", "finished", "size", "digest", "conflict"),
    *("attempts", "code", "location", "reason"),
)


def sealed_place(column: str, key: bytes | int) -> bytes:
    """Return the associated data of a sealed inbox column; ``key`` is the row's message key, or its id for a report."""
    return f"inbox|{column}|{key.hex() if isinstance(key, bytes) else key}".encode()


class InboxDesk:
    """The part of the inbox that people and metrics use."""

    def __init__(self, engine: Engine, keyring: KeyRing, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._keyring = keyring
        self._clock = clock

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def counts(self) -> dict[str, int]:
        """Return how many messages there are in each state."""
        with read_transaction(self._engine) as connection:
            rows = connection.execute(select(INBOX.c.state, func.count()).group_by(INBOX.c.state)).all()
        return dict.fromkeys(STATES, 0) | {str(state): int(count) for state, count in rows}

    def backlog(self) -> Backlog:
        """Return how much waits to be processed."""
        with read_transaction(self._engine) as connection:
            return backlog(connection)

    def list(self, chosen: InboxFilter = ALL, limit: int = PAGE_ROWS, before: int | None = None) -> list[InboxEntry]:
        """Return messages newest first, as they may be shown; ``before`` is the smallest id of the previous page."""
        statement = select(*_shown()).where(*self._conditions(chosen)).order_by(INBOX.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(INBOX.c.id < before)
        with read_transaction(self._engine) as connection:
            return [_entry(row) for row in connection.execute(statement)]

    def show(self, id: int) -> InboxDetail:
        """Return a message as it may be shown, with the issues of its conversion; raises ``NotFound``."""
        statement = select(*_shown(), INBOX.c.report, INBOX.c.acknowledgement, INBOX.c.message_key)
        with read_transaction(self._engine) as connection:
            row = connection.execute(statement.where(INBOX.c.id == id)).first()
        if row is None:
            raise NotFound("the inbox has no message of this number")
        answered = self._keyring.node_key().open(row.acknowledgement, sealed_place("acknowledgement", row.message_key))
        if not row.report:
            return InboxDetail(_entry(row), answered, (), ())
        report = orjson.loads(self._keyring.node_key().open(row.report, sealed_place("report", row.id)))
        return InboxDetail(_entry(row), answered, tuple(report["issues"]), tuple(report["versions"]))

    def finished(self, ids: Sequence[int]) -> dict[int, InboxEntry]:
        """Return those of the messages that no longer wait, by number."""
        found: dict[int, InboxEntry] = {}
        with read_transaction(self._engine) as connection:
            for start in range(0, len(ids), SELECT_CHUNK):
                statement = select(*_shown()).where(
                    INBOX.c.id.in_(ids[start : start + SELECT_CHUNK]), INBOX.c.state != RECEIVED_ONLY
                )
                found.update({row.id: _entry(row) for row in connection.execute(statement)})
        return found

    def rerun(self, id: int) -> None:
        """Have one message processed again; raises ``NotFound``, or ``Conflict`` while it waits."""
        with write_transaction(self._engine) as connection:
            row = connection.execute(select(INBOX.c.state, INBOX.c.size).where(INBOX.c.id == id)).first()
            if row is None:
                raise NotFound("the inbox has no message of this number")
            if row.state == RECEIVED:
                raise Conflict("this message is still waiting to be processed")
            if not row.size:
                raise Conflict("the content of this message was erased")
            connection.execute(update(INBOX).where(INBOX.c.id == id).values(**self._fresh()))

    def rerun_all(self, chosen: InboxFilter = ALL) -> RerunProgress:
        """Have the failed and dead messages that are asked for processed again, oldest first.

        They are put back in portions, so that messages go on arriving meanwhile; ``rerun_progress`` says how far their
        processing is. Raises ``InvalidRequest`` for another state.
        """
        if chosen.state and chosen.state not in RERUNNABLE:
            raise InvalidRequest("messages that failed or are dead can be run again in bulk")
        states = [chosen.state] if chosen.state else list(RERUNNABLE)
        wanted = (INBOX.c.state.in_(states), INBOX.c.size > 0, *self._conditions(chosen))
        with write_transaction(self._engine) as connection:
            last = connection.execute(select(func.max(INBOX.c.id)).where(*wanted)).scalar()
            started = self._now()
            added = connection.execute(insert(RERUN).values(started=started, messages=0))
            number = int(_first(added.inserted_primary_key))
        total, reached = 0, 0
        while last is not None and reached < last:
            with write_transaction(self._engine) as connection:
                within = (*wanted, INBOX.c.id > reached, INBOX.c.id <= last)
                ids = (
                    connection.execute(select(INBOX.c.id).where(*within).order_by(INBOX.c.id).limit(CHUNK_ROWS))
                    .scalars()
                    .all()
                )
                if not ids:
                    break
                put_back = (INBOX.c.id > reached, INBOX.c.id <= ids[-1], *wanted)
                connection.execute(update(INBOX).where(*put_back).values(**{**self._fresh(), "rerun": number}))
                total += len(ids)
                reached = ids[-1]
                connection.execute(update(RERUN).where(RERUN.c.id == number).values(messages=total))
        return self.rerun_progress(number)

    def rerun_progress(self, number: int) -> RerunProgress:
        """Return how far a bulk re-run is; raises ``NotFound``."""
        with read_transaction(self._engine) as connection:
            batch = connection.execute(select(RERUN).where(RERUN.c.id == number)).first()
            if batch is None:
                raise NotFound("there was no bulk re-run of this number")
            rows = connection.execute(
                select(INBOX.c.state, func.count()).where(INBOX.c.rerun == number).group_by(INBOX.c.state)
            ).all()
        counts = dict.fromkeys(STATES, 0) | {str(state): int(count) for state, count in rows}
        return RerunProgress(batch.id, batch.started, batch.messages, counts)

    def purge(self, before: float, states: Iterable[str] = (STORED,)) -> int:
        """Remove messages finished before a time (Unix seconds) and return how many.

        A later redelivery of one is then new: keep them at least as long as a source may repeat itself.
        """
        chosen = [_known_state(state) for state in states if state != RECEIVED]
        limit = int(before * 1000)
        return sum(self._remove(INBOX.c.state == state, INBOX.c.finished < limit) for state in chosen)

    def purge_to_size(self, max_bytes: int) -> int:
        """Remove the messages stored longest ago until those that are left hold at most ``max_bytes``; say how many."""
        removed = 0
        with read_transaction(self._engine) as connection:
            held = connection.execute(select(func.sum(INBOX.c.size)).where(INBOX.c.state == STORED)).scalar() or 0
        while held > max_bytes:
            with write_transaction(self._engine) as connection:
                oldest = connection.execute(
                    select(INBOX.c.id, INBOX.c.size)
                    .where(INBOX.c.state == STORED)
                    .order_by(INBOX.c.finished, INBOX.c.id)
                    .limit(SELECT_CHUNK)
                ).all()
                surplus = []
                for row in oldest:
                    if held <= max_bytes:
                        break
                    surplus.append(row.id)
                    held -= row.size
                if not surplus:
                    break
                removed += connection.execute(delete(INBOX).where(INBOX.c.id.in_(surplus))).rowcount
        return removed

    def _remove(self, *conditions: ColumnElement[bool]) -> int:
        """Remove messages in portions."""
        removed = 0
        portion = select(INBOX.c.id).where(*conditions).limit(CHUNK_ROWS).scalar_subquery()
        while True:
            with write_transaction(self._engine) as connection:
                count = connection.execute(delete(INBOX).where(INBOX.c.id.in_(portion))).rowcount
            removed += count
            if count < CHUNK_ROWS:
                return removed

    def erase(self, connection: Connection, subject: str) -> int:
        """Remove the content of the messages that a subject's records came from; their rows stay.

        The digest goes too: unsalted, it would let a guess at the content be confirmed.
        """
        done = connection.execute(
            update(INBOX)
            .where(INBOX.c.subject == subject)
            .values(raw=b"", digest=b"", size=0, report=None, patient_key=None)
        )
        return done.rowcount

    def _conditions(self, chosen: InboxFilter) -> _Conditions:
        """Return what a row must fulfil; raises ``InvalidRequest`` for a state that there is not."""
        conditions: _Conditions = []
        if chosen.state:
            conditions.append(INBOX.c.state == _known_state(chosen.state))
        for name in ("source", "code", "event", "control_id", "subject"):
            if value := getattr(chosen, name):
                conditions.append(INBOX.c[name] == value)
        if chosen.patient:
            conditions.append(INBOX.c.patient_key == self._keyring.blind("inbox.patient", chosen.patient))
        if chosen.since is not None:
            conditions.append(INBOX.c.received >= chosen.since)
        if chosen.until is not None:
            conditions.append(INBOX.c.received < chosen.until)
        return conditions

    def _fresh(self) -> dict[str, Any]:
        return {
            "state": RECEIVED,
            "attempts": 0,
            "crashes": 0,
            "available": self._now(),
            "lease": None,
            "lease_until": 0,
            "finished": None,
            "rerun": None,
        }


def backlog(connection: Connection) -> Backlog:
    """Return how much waits to be processed; read from an index alone."""
    waiting = (INBOX.c.state == RECEIVED_ONLY, INBOX.c.finished.is_(None))
    counted = select(func.count(), func.sum(INBOX.c.size), func.min(INBOX.c.id)).where(*waiting)
    messages, size, first = connection.execute(counted).one()
    oldest = None
    if first is not None:
        oldest = connection.execute(select(INBOX.c.received).where(INBOX.c.id == first)).scalar()
    return Backlog(int(messages), int(size or 0), oldest)


def _first(key: Any) -> Any:
    """The only column of a key."""
    return key[0]


def _known_state(state: str) -> str:
    if state not in STATES:
        raise InvalidRequest("state is one of " + ", ".join(STATES))
    return state


def _shown() -> list[Any]:
    return [INBOX.c[name] for name in _SHOWN]


def _entry(row: Any) -> InboxEntry:
    values = {name: getattr(row, name) for name in _SHOWN}
    return InboxEntry(
        **{**values, "state": cast(State, row.state), "digest": row.digest.hex(), "conflict": bool(row.conflict)}
    )
