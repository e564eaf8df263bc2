"""How far each polled view has been read."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Connection, String, Table, delete, insert, select
from sqlmodel import Field, SQLModel


class PollWatermark(SQLModel, table=True):
    """The place up to which a view was read; ``position`` is JSON of updated_at with its kind, ``row_key`` the
    row's key.

    ``moved`` is when the place last moved (Unix seconds), ``caught_up`` whether the end of the view was reached there.
    """

    __tablename__ = "poll_watermark"

    source: str = Field(sa_column=Column(String(64), primary_key=True))
    view: str = Field(sa_column=Column(String(128), primary_key=True))
    position: str = Field(sa_column=Column(String(64), nullable=False))
    row_key: str = Field(sa_column=Column(String(400), nullable=False))
    moved: int = Field(sa_column=Column(BigInteger, nullable=False))
    caught_up: bool


_WATERMARK: Table = PollWatermark.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Watermark:
    """A row of the table, without its key."""

    position: str
    row_key: str
    moved: int
    caught_up: bool


def read_watermark(connection: Connection, source: str, view: str) -> Watermark | None:
    """Return how far a view was read, or None when it never was."""
    row = connection.execute(select(_WATERMARK).where(_WATERMARK.c.source == source, _WATERMARK.c.view == view)).first()
    return None if row is None else Watermark(row.position, row.row_key, row.moved, row.caught_up)


def write_watermark(connection: Connection, source: str, view: str, mark: Watermark) -> None:
    """Keep how far a view was read. One process polls a source at a time (its lease), so nobody else writes it."""
    connection.execute(delete(_WATERMARK).where(_WATERMARK.c.source == source, _WATERMARK.c.view == view))
    connection.execute(
        insert(_WATERMARK).values(
            source=source,
            view=view,
            position=mark.position,
            row_key=mark.row_key,
            moved=mark.moved,
            caught_up=mark.caught_up,
        )
    )
