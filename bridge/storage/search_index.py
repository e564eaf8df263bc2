"""The search index: blind terms for all that could name somebody or something, plain integers for clinical dates.

A term row says "this resource has this blind value"; which field and which value it was is inside the HMAC. The blind
values of a resource are also kept together in its ``resource`` row, so that an update removes exactly what it added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Index, LargeBinary, String, Table
from sqlmodel import Field, SQLModel

from bridge.storage.bulk import execute_rows, insert_rows
from bridge.storage.keyring import KeyRing
from bridge.storage.search_values import Span, Term, spans_of, terms_of

TERM_BYTES = 16
"""A blind term is the first 128 bits of the HMAC: enough against accidental meetings, half the index."""


class SearchTerm(SQLModel, table=True):
    """One blind term of one resource."""

    __tablename__ = "search_term"
    __table_args__ = {"sqlite_with_rowid": False}

    term: bytes = Field(sa_column=Column(LargeBinary(TERM_BYTES), primary_key=True))
    type: str = Field(sa_column=Column(String(64), primary_key=True))
    id: str = Field(sa_column=Column(String(64), primary_key=True))


class SearchDate(SQLModel, table=True):
    """The range of one date parameter of one resource, half-open, Unix milliseconds."""

    __tablename__ = "search_date"
    __table_args__ = (
        Index("ix_search_date_low", "type", "parameter", "low", "high", "id"),
        {"sqlite_with_rowid": False},
    )

    type: str = Field(sa_column=Column(String(64), primary_key=True))
    id: str = Field(sa_column=Column(String(64), primary_key=True))
    parameter: str = Field(sa_column=Column(String(64), primary_key=True))
    low: int = Field(sa_column=Column(BigInteger, nullable=False))
    high: int = Field(sa_column=Column(BigInteger, nullable=False))


TERM: Table = SearchTerm.__table__  # type: ignore[attr-defined]
DATE: Table = SearchDate.__table__  # type: ignore[attr-defined]

_DELETE_TERM = "DELETE FROM search_term WHERE term = ? AND type = ? AND id = ?"
_DELETE_DATES = "DELETE FROM search_date WHERE type = ? AND id = ?"


def blind_term(keyring: KeyRing, term: Term) -> bytes:
    """Return the indexed form of a term."""
    return keyring.blind(*term)[:TERM_BYTES]


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What is indexed for one resource; ``terms`` is the sorted concatenation of its blind terms."""

    type: str
    id: str
    terms: bytes
    spans: Mapping[str, Span]


def index_entry(keyring: KeyRing, resource: Mapping[str, Any], deleted: bool = False) -> IndexEntry:
    """Compute what is indexed for a resource: nothing for a deleted one."""
    if deleted:
        return IndexEntry(resource["resourceType"], resource["id"], b"", {})
    terms = b"".join(sorted({blind_term(keyring, term) for term in terms_of(resource)}))
    return IndexEntry(resource["resourceType"], resource["id"], terms, spans_of(resource))


def write_index(connection: Connection, changes: Sequence[tuple[IndexEntry, bytes | None]]) -> None:
    """Store index entries; each comes with the terms stored for that resource before (None for a new resource)."""
    removed: list[tuple[bytes, str, str]] = []
    stale: list[tuple[str, str]] = []
    terms: list[tuple[bytes, str, str]] = []
    dates: list[tuple[str, str, str, int, int]] = []
    for entry, old in changes:
        now = set(_split(entry.terms))
        if old is not None:
            before = set(_split(old))
            removed += [(term, entry.type, entry.id) for term in before - now]
            now -= before
            stale.append((entry.type, entry.id))
        terms += [(term, entry.type, entry.id) for term in now]
        dates += [(entry.type, entry.id, name, span.low, span.high) for name, span in entry.spans.items()]
    execute_rows(connection, _DELETE_TERM, sorted(removed))
    execute_rows(connection, _DELETE_DATES, stale)
    insert_rows(connection, DATE, ("type", "id", "parameter", "low", "high"), dates)
    insert_rows(connection, TERM, ("term", "type", "id"), sorted(terms))


def _split(terms: bytes) -> Iterable[bytes]:
    return (terms[start : start + TERM_BYTES] for start in range(0, len(terms), TERM_BYTES))
