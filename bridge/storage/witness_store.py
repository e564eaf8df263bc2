"""What a node keeps as a witness of the ledger: what it cosigned, what it heard, contradictions, and time stamps.

``bridge.storage.evidence`` is about this node's own log; this is about the ledger, whose origin line keys every table.
A connection's transaction is the caller's. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, LargeBinary, String, Table, delete, func, insert, select
from sqlalchemy import update as sql_update
from sqlmodel import Field, SQLModel


class WitnessedCheckpoint(SQLModel, table=True):
    """The newest checkpoint of a ledger that this node has cosigned; nothing older is ever cosigned after it."""

    __tablename__ = "evidence_witnessed"

    origin: str = Field(sa_column=Column(String(200), primary_key=True))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    note: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    cosigned: int = Field(sa_column=Column(BigInteger, nullable=False))


class CheckpointConflict(SQLModel, table=True):
    """Evidence against a ledger's host: two signed checkpoints that cannot both be heads of one append-only log.

    Where an observer's replay found it out, ``first`` is what the replay gives, unsigned, and ``transactions`` the
    block that breaks the rules (JSON; empty where none does and the states differ). ``acknowledged``: when an operator
    took note of it, which ends the alarm and keeps the evidence.
    """

    __tablename__ = "evidence_conflict"

    fingerprint: str = Field(sa_column=Column(String(64), primary_key=True))
    origin: str = Field(sa_column=Column(String(200), nullable=False))
    kind: str = Field(sa_column=Column(String(40), nullable=False))
    source: str = Field(sa_column=Column(String(200), nullable=False))
    first: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    second: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    detected: int = Field(sa_column=Column(BigInteger, nullable=False))
    acknowledged: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    transactions: bytes = Field(sa_column=Column(LargeBinary(4 * 1024 * 1024), nullable=False))


class HeardCheckpoint(SQLModel, table=True):
    """The newest ledger checkpoint that another member showed on a call, until it has been compared.

    ``problem``: why it could not be shown to belong to the ledger that this node sees; "" before the first comparison.
    """

    __tablename__ = "evidence_heard"

    origin: str = Field(sa_column=Column(String(200), primary_key=True))
    source: str = Field(sa_column=Column(String(64), primary_key=True))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    note: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    heard: int = Field(sa_column=Column(BigInteger, nullable=False))
    problem: str = Field(sa_column=Column(String(300), nullable=False))


class LedgerLook(SQLModel, table=True):
    """What came of this node's latest look at a ledger as its witness (``bridge.services.witnessing.WitnessRun``)."""

    __tablename__ = "evidence_look"

    origin: str = Field(sa_column=Column(String(200), primary_key=True))
    looked: int = Field(sa_column=Column(BigInteger, nullable=False))
    outcome: str = Field(sa_column=Column(String(20), nullable=False))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    detail: str = Field(sa_column=Column(String(300), nullable=False))


class CheckpointTimestamp(SQLModel, table=True):
    """An RFC 3161 time-stamp token over a ledger checkpoint's text; ``time`` is the authority's."""

    __tablename__ = "evidence_timestamp"

    origin: str = Field(sa_column=Column(String(200), primary_key=True))
    size: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    note: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    token: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    time: int = Field(sa_column=Column(BigInteger, nullable=False))


def _table(model: type[SQLModel]) -> Table:
    table: Table = model.__table__  # type: ignore[attr-defined]
    return table


WITNESSED, CONFLICT = _table(WitnessedCheckpoint), _table(CheckpointConflict)
HEARD, LOOK, TIMESTAMP = _table(HeardCheckpoint), _table(LedgerLook), _table(CheckpointTimestamp)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two checkpoints of one log that contradict each other, and who showed the second (``CheckpointConflict``)."""

    fingerprint: str
    origin: str
    kind: str
    source: str
    first: bytes
    second: bytes
    detected: int
    acknowledged: int | None = None
    transactions: bytes = b""


@dataclass(frozen=True, slots=True)
class Heard:
    """A checkpoint that another member showed, and what came of comparing it (``problem``, "" for nothing yet)."""

    source: str
    size: int
    note: bytes
    heard: int
    problem: str


@dataclass(frozen=True, slots=True)
class Look:
    """What came of the latest look at the ledger, and when that was."""

    looked: int
    outcome: str
    size: int
    detail: str


@dataclass(frozen=True, slots=True)
class Timestamped:
    """A checkpoint with its RFC 3161 token; ``time`` is the time-stamping authority's."""

    size: int
    note: bytes
    token: bytes
    time: int


def witnessed(conn: Connection, origin: str) -> bytes | None:
    """Return the note of the newest checkpoint of a ledger that this node has cosigned, or None."""
    note = conn.execute(select(WITNESSED.c.note).where(WITNESSED.c.origin == origin)).scalar_one_or_none()
    return None if note is None else bytes(note)


def set_witnessed(conn: Connection, origin: str, size: int, note: bytes, cosigned: int) -> None:
    """Record what is about to be cosigned: called, and committed, before the cosignature leaves the node."""
    _upsert(conn, WITNESSED, {"origin": origin}, {"size": size, "note": note, "cosigned": cosigned})


def add_conflict(conn: Connection, conflict: Conflict) -> bool:
    """Keep evidence of a contradiction; False when this very pair is kept already."""
    where = CONFLICT.c.fingerprint == conflict.fingerprint
    if conn.execute(select(func.count()).select_from(CONFLICT).where(where)).scalar_one():
        return False
    conn.execute(insert(CONFLICT).values({name: getattr(conflict, name) for name in Conflict.__slots__}))
    return True


def conflicts(conn: Connection) -> list[Conflict]:
    """Return all kept evidence of contradictions, oldest first."""
    rows = conn.execute(select(CONFLICT).order_by(CONFLICT.c.detected, CONFLICT.c.fingerprint)).all()
    return [
        Conflict(
            fingerprint=r.fingerprint,
            origin=r.origin,
            kind=r.kind,
            source=r.source,
            first=bytes(r.first),
            second=bytes(r.second),
            detected=r.detected,
            acknowledged=r.acknowledged,
            transactions=bytes(r.transactions),
        )
        for r in rows
    ]


def open_conflicts(conn: Connection) -> int:
    """Return how many contradictions no operator has acknowledged."""
    waiting = select(func.count()).select_from(CONFLICT).where(CONFLICT.c.acknowledged.is_(None))
    return int(conn.execute(waiting).scalar_one())


def acknowledge(conn: Connection, fingerprint: str, now: int) -> bool:
    """Note that an operator has seen a contradiction; False when there is none of that fingerprint waiting."""
    place = (CONFLICT.c.fingerprint == fingerprint, CONFLICT.c.acknowledged.is_(None))
    return conn.execute(sql_update(CONFLICT).where(*place).values(acknowledged=now)).rowcount == 1


def hear(conn: Connection, origin: str, heard: Heard) -> bool:
    """Keep what a member showed, unless something as new of its is waiting; says whether it is kept."""
    place = {"origin": origin, "source": heard.source}
    waiting = conn.execute(select(HEARD.c.size, HEARD.c.problem).where(*_where(HEARD, place))).first()
    if waiting is not None and waiting.size >= heard.size:
        return False
    values = {"size": heard.size, "note": heard.note, "heard": heard.heard, "problem": heard.problem}
    _upsert(conn, HEARD, place, values)
    return True


def heard(conn: Connection, origin: str) -> list[Heard]:
    """Return what members have shown and is not compared yet, or could not be."""
    rows = conn.execute(select(HEARD).where(HEARD.c.origin == origin).order_by(HEARD.c.source)).all()
    return [Heard(row.source, row.size, bytes(row.note), row.heard, row.problem) for row in rows]


def settle_heard(conn: Connection, origin: str, each: Heard, problem: str) -> None:
    """Forget what was compared and agrees ("" as ``problem``), or note why it does not; a newer one stays."""
    same = (*_where(HEARD, {"origin": origin, "source": each.source}), HEARD.c.size == each.size)
    if problem:
        conn.execute(sql_update(HEARD).where(*same).values(problem=problem[:300]))
    else:
        conn.execute(delete(HEARD).where(*same))


def last_look(conn: Connection, origin: str) -> Look | None:
    """Return what came of the latest look at a ledger, or None before the first."""
    row = conn.execute(select(LOOK).where(LOOK.c.origin == origin)).first()
    return None if row is None else Look(row.looked, row.outcome, row.size, row.detail)


def set_look(conn: Connection, origin: str, look: Look) -> None:
    """Note what came of a look at a ledger."""
    values = {"looked": look.looked, "outcome": look.outcome, "size": look.size, "detail": look.detail[:300]}
    _upsert(conn, LOOK, {"origin": origin}, values)


def add_timestamp(conn: Connection, origin: str, stamped: Timestamped) -> None:
    """Keep a time stamp; the first one of a size stays."""
    place = {"origin": origin, "size": stamped.size}
    known = select(func.count()).select_from(TIMESTAMP).where(*_where(TIMESTAMP, place))
    if not conn.execute(known).scalar_one():
        conn.execute(
            insert(TIMESTAMP).values({**place, "note": stamped.note, "token": stamped.token, "time": stamped.time})
        )


def timestamp_from(conn: Connection, origin: str, size: int) -> Timestamped | None:
    """Return the earliest time-stamped checkpoint of at least ``size`` entries, or None."""
    query = select(TIMESTAMP).where(TIMESTAMP.c.origin == origin, TIMESTAMP.c.size >= size)
    row = conn.execute(query.order_by(TIMESTAMP.c.size).limit(1)).first()
    return None if row is None else Timestamped(row.size, bytes(row.note), bytes(row.token), row.time)


def last_timestamp(conn: Connection, origin: str) -> Timestamped | None:
    """Return the newest time-stamped checkpoint, or None."""
    query = select(TIMESTAMP).where(TIMESTAMP.c.origin == origin).order_by(TIMESTAMP.c.size.desc()).limit(1)
    row = conn.execute(query).first()
    return None if row is None else Timestamped(row.size, bytes(row.note), bytes(row.token), row.time)


def _where(table: Table, place: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(table.c[name] == value for name, value in place.items())


def _upsert(conn: Connection, table: Table, place: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    if conn.execute(sql_update(table).where(*_where(table, place)).values(**values)).rowcount == 0:
        conn.execute(insert(table).values(**place, **values))
