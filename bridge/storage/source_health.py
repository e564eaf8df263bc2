"""What is known of the systems that this node reads from: does their circuit let anything through, and since when.

Kept in the database because the worker that polls and the process that answers ``/metrics`` are not the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import BigInteger, Column, Connection, Integer, String, Table, delete, insert, select
from sqlmodel import Field, SQLModel


class SourceHealthRow(SQLModel, table=True):
    """One source. Times are Unix seconds, 0 for never; ``retry_at`` is 0 while the circuit is closed."""

    __tablename__ = "source_health"

    source: str = Field(sa_column=Column(String(64), primary_key=True))
    failures: int = Field(sa_column=Column(Integer, nullable=False))
    openings: int = Field(sa_column=Column(Integer, nullable=False))
    retry_at: int = Field(sa_column=Column(BigInteger, nullable=False))
    last_success: int = Field(sa_column=Column(BigInteger, nullable=False))
    last_failure: int = Field(sa_column=Column(BigInteger, nullable=False))
    cause: str = Field(sa_column=Column(String(100), nullable=False))
    future_rows: int = Field(sa_column=Column(Integer, nullable=False))


_HEALTH: Table = SourceHealthRow.__table__  # type: ignore[attr-defined]
_CAUSE_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """The state of one source.

    ``failures`` in a row; ``openings`` of the circuit without a success between; ``future_rows`` that the last reading
    left alone because they are dated later than now.
    """

    source: str
    failures: int = 0
    openings: int = 0
    retry_at: int = 0
    last_success: int = 0
    last_failure: int = 0
    cause: str = ""
    future_rows: int = 0

    def circuit(self, now: float) -> str:
        """Return "closed", "open", or "half-open": the time has come to try again."""
        if not self.retry_at:
            return "closed"
        return "half-open" if now >= self.retry_at else "open"


def read_health(connection: Connection, source: str) -> SourceHealth:
    """Return what is known of a source; of a new one, that nothing went wrong yet."""
    row = connection.execute(select(_HEALTH).where(_HEALTH.c.source == source)).mappings().first()
    return SourceHealth(source) if row is None else SourceHealth(**row)


def write_health(connection: Connection, health: SourceHealth) -> None:
    """Keep the state of a source. One process polls it at a time (its lease), so nobody else writes it."""
    kept = replace(health, cause=health.cause[:_CAUSE_CHARACTERS])
    connection.execute(delete(_HEALTH).where(_HEALTH.c.source == kept.source))
    connection.execute(
        insert(_HEALTH).values(
            source=kept.source,
            failures=kept.failures,
            openings=kept.openings,
            retry_at=kept.retry_at,
            last_success=kept.last_success,
            last_failure=kept.last_failure,
            cause=kept.cause,
            future_rows=kept.future_rows,
        )
    )
