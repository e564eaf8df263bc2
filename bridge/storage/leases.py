"""Named leases: of all the processes of a node, one at a time runs a scheduled job.

A lease ends by itself, so that the job of a process that was killed is taken over, and at once where the holder was a
process of this machine (``bridge.process_identity``). Times are Unix milliseconds of the node's clock; processes on
several machines need synchronised clocks, as the rest of the node does.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import BigInteger, Column, Connection, Engine, String, Table, delete, select, update
from sqlmodel import Field, SQLModel

from bridge.process_identity import is_gone
from bridge.storage.database import read_transaction, transact, write_transaction

MILLISECONDS = 1000


class JobLease(SQLModel, table=True):
    """Who runs a job until when."""

    __tablename__ = "job_lease"

    name: str = Field(sa_column=Column(String(100), primary_key=True))
    holder: str = Field(sa_column=Column(String(200), nullable=False))
    until: int = Field(sa_column=Column(BigInteger, nullable=False))


_LEASE: Table = JobLease.__table__  # type: ignore[attr-defined]


class JobLeases:
    """Takes, prolongs and gives back leases; ``holder`` identifies one process."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock

    def _now(self) -> int:
        return int(self._clock() * MILLISECONDS)

    def acquire(self, name: str, holder: str, seconds: float) -> bool:
        """Take a lease that is free, expired, its own or a dead process's, for ``seconds``; say whether it is held."""

        def work(connection: Connection) -> bool:
            now = self._now()
            until = now + int(seconds * MILLISECONDS)
            row = connection.execute(
                select(_LEASE.c.holder, _LEASE.c.until).where(_LEASE.c.name == name).with_for_update()
            ).first()
            if row is None:
                connection.execute(_LEASE.insert().values(name=name, holder=holder, until=until))
                return True
            if row.holder != holder and row.until > now and not is_gone(row.holder):
                return False
            connection.execute(update(_LEASE).where(_LEASE.c.name == name).values(holder=holder, until=until))
            return True

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

    def release(self, name: str, holder: str) -> None:
        """Give the lease back; nothing happens when somebody else has it."""
        with write_transaction(self._engine) as connection:
            connection.execute(delete(_LEASE).where(_LEASE.c.name == name, _LEASE.c.holder == holder))

    def holder(self, name: str) -> str | None:
        """Return who holds the lease now, or None."""
        with read_transaction(self._engine) as connection:
            row = connection.execute(select(_LEASE.c.holder, _LEASE.c.until).where(_LEASE.c.name == name)).first()
        return row.holder if row is not None and row.until > self._now() else None
