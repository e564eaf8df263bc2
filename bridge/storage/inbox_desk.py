"""What people do with the inbox: look, without seeing content, run again what failed, and let old messages go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import orjson
from sqlalchemy import Connection, Engine, delete, func, select, update

from bridge.errors import Conflict, InvalidRequest, NotFound
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.inbox_tables import INBOX, RECEIVED, RERUNNABLE, STATES, STORED, InboxDetail, InboxEntry, State
from bridge.storage.keyring import KeyRing

PAGE_ROWS = 100
"""Messages a list shows unless more are asked for."""

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

    def list(
        self, state: str = "", source: str = "", limit: int = PAGE_ROWS, before: int | None = None
    ) -> list[InboxEntry]:
        """Return messages newest first, as they may be shown; ``before`` is the smallest id of the previous page."""
        statement = select(*(INBOX.c[name] for name in _SHOWN)).order_by(INBOX.c.id.desc()).limit(limit)
        if state:
            statement = statement.where(INBOX.c.state == _known_state(state))
        if source:
            statement = statement.where(INBOX.c.source == source)
        if before is not None:
            statement = statement.where(INBOX.c.id < before)
        with read_transaction(self._engine) as connection:
            return [_entry(row) for row in connection.execute(statement)]

    def show(self, id: int) -> InboxDetail:
        """Return a message as it may be shown, with the issues of its conversion; raises ``NotFound``."""
        statement = select(*(INBOX.c[name] for name in _SHOWN), INBOX.c.report).where(INBOX.c.id == id)
        with read_transaction(self._engine) as connection:
            row = connection.execute(statement).first()
        if row is None:
            raise NotFound("the inbox has no message of this number")
        if not row.report:
            return InboxDetail(_entry(row), (), ())
        report = orjson.loads(self._keyring.node_key().open(row.report, sealed_place("report", row.id)))
        return InboxDetail(_entry(row), tuple(report["issues"]), tuple(report["versions"]))

    def rerun(self, id: int) -> None:
        """Have one message processed again; raises ``NotFound``, or ``Conflict`` while it waits."""
        with write_transaction(self._engine) as connection:
            row = connection.execute(select(INBOX.c.state, INBOX.c.raw).where(INBOX.c.id == id)).first()
            if row is None:
                raise NotFound("the inbox has no message of this number")
            if row.state == RECEIVED:
                raise Conflict("this message is still waiting to be processed")
            if not row.raw:
                raise Conflict("the content of this message was erased")
            connection.execute(update(INBOX).where(INBOX.c.id == id).values(**self._fresh()))

    def rerun_all(self, state: str = "", source: str = "") -> int:
        """Have all failed and dead messages (of one state, of one source) processed again; return how many."""
        if state and state not in RERUNNABLE:
            raise InvalidRequest("messages that failed or are dead can be run again in bulk")
        chosen = [state] if state else list(RERUNNABLE)
        statement = update(INBOX).where(INBOX.c.state.in_(chosen), INBOX.c.size > 0)
        if source:
            statement = statement.where(INBOX.c.source == source)
        with write_transaction(self._engine) as connection:
            return connection.execute(statement.values(**self._fresh())).rowcount

    def purge(self, before: float, states: Iterable[str] = (STORED,)) -> int:
        """Remove messages finished before a time (Unix seconds) and return how many.

        A later redelivery of one is then new: keep them at least as long as a source may repeat itself.
        """
        chosen = [_known_state(state) for state in states if state != RECEIVED]
        with write_transaction(self._engine) as connection:
            return connection.execute(
                delete(INBOX).where(INBOX.c.state.in_(chosen), INBOX.c.finished < int(before * 1000))
            ).rowcount

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

    def _fresh(self) -> dict[str, Any]:
        return {
            "state": RECEIVED,
            "attempts": 0,
            "crashes": 0,
            "available": self._now(),
            "lease": None,
            "lease_until": 0,
            "finished": None,
        }


def _known_state(state: str) -> str:
    if state not in STATES:
        raise InvalidRequest("state is one of " + ", ".join(STATES))
    return state


def _entry(row: Any) -> InboxEntry:
    values = {name: getattr(row, name) for name in _SHOWN}
    return InboxEntry(
        **{**values, "state": cast(State, row.state), "digest": row.digest.hex(), "conflict": bool(row.conflict)}
    )
