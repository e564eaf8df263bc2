"""Named leases: of all the processes of a node, one at a time runs a scheduled job.

A lease ends by itself, so that the job of a process that was killed is taken over, and at once where the holder was a
process of this machine (``bridge.process_identity``). Times are Unix milliseconds of the node's clock; processes on
several machines need synchronised clocks, as the rest of the node does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Engine, String, Table, bindparam, delete, select, update
from sqlmodel import Field, SQLModel

from bridge.process_identity import is_gone
from bridge.storage.database import read_transaction, transact, write_transaction

MILLISECONDS = 1000


class JobLease(SQLModel, table=True):
    """Who runs a job until when; ``note`` is what the last one left for the next."""

    __tablename__ = "job_lease"

    name: str = Field(sa_column=Column(String(100), primary_key=True))
    holder: str = Field(sa_column=Column(String(200), nullable=False))
    until: int = Field(sa_column=Column(BigInteger, nullable=False))
    note: str | None = Field(default=None, sa_column=Column(String(100), nullable=True))


_LEASE: Table = JobLease.__table__  # type: ignore[attr-defined]
# Built once: a transaction to the ledger takes the lease and gives it back.
_AT = _LEASE.c.name == bindparam("at")
_MINE = _AT & (_LEASE.c.holder == bindparam("by"))
_LOCK = select(_LEASE.c.holder, _LEASE.c.until, _LEASE.c.note).where(_AT).with_for_update()
_VALUES: dict[str, Any] = {"holder": bindparam("holder"), "until": bindparam("until"), "note": bindparam("note")}
_TAKE, _LEAVE = update(_LEASE).where(_AT).values(**_VALUES), update(_LEASE).where(_MINE).values(**_VALUES)
_GIVE_BACK = delete(_LEASE).where(_MINE)


class JobLeases:
    """Takes, prolongs and gives back leases; ``holder`` identifies one process."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock

    def _now(self) -> int:
        return int(self._clock() * MILLISECONDS)

    def acquire(self, name: str, holder: str, seconds: float) -> bool:
        """Take a lease that is free, expired, its own or a dead process's, for ``seconds``; say whether it is held."""
        return self.take(name, holder, seconds) is not None

    def take(self, name: str, holder: str, seconds: float) -> str | None:
        """As ``acquire``, but return the note that was left with the lease ("" for none), None when it is not held."""

        def work(connection: Connection) -> str | None:
            now = self._now()
            until = now + int(seconds * MILLISECONDS)
            row = connection.execute(_LOCK, {"at": name}).first()
            if row is None:
                connection.execute(_LEASE.insert().values(name=name, holder=holder, until=until))
                return ""
            if row.holder != holder and row.until > now and not is_gone(row.holder):
                return None
            connection.execute(_TAKE, {"at": name, "holder": holder, "until": until, "note": None})
            return row.note or ""

        return transact(self._engine, work)

    def renew(self, name: str, holder: str, seconds: float) -> bool:
        """Prolong a lease that the holder still has; False when it expired and may have been taken."""
        now = self._now()
        with write_transaction(self._engine) as connection:
            done = connection.execute(
                update(_LEASE)
                .where(_LEASE.c.name == name, _LEASE.c.holder == holder, _LEASE.c.until > now)
                .values(until=now + int(seconds * MILLISECONDS))
            )
            return done.rowcount == 1

    def release(self, name: str, holder: str, note: str = "") -> None:
        """Give the lease back; nothing happens when somebody else has it.

        ``note`` is for the next who takes it; one who dies with the lease leaves none.
        """
        mine = {"at": name, "by": holder}
        with write_transaction(self._engine) as connection:
            if note:
                connection.execute(_LEAVE, {**mine, "holder": "", "until": 0, "note": note})
            else:
                connection.execute(_GIVE_BACK, mine)

    def holder(self, name: str) -> str | None:
        """Return who holds the lease now, or None."""
        with read_transaction(self._engine) as connection:
            row = connection.execute(select(_LEASE.c.holder, _LEASE.c.until).where(_LEASE.c.name == name)).first()
        return row.holder if row is not None and row.until > self._now() else None
