"""Tables of the record store and how a stored row becomes a version again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Index,
    Integer,
    LargeBinary,
    Row,
    Select,
    String,
    Table,
    and_,
    bindparam,
    select,
)
from sqlmodel import Field, SQLModel

from bridge.storage.keyring import SUBJECT_KEY, KeyRing
from bridge.storage.record_versions import Lineage, StoredVersion, associated_data, instant


class RecordVersion(SQLModel, table=True):
    """One immutable version of a resource, sealed under its subject's data key. ``updated`` is Unix milliseconds.

    ``outbox_id`` is the id of its row in the outbox, by which its log entry is found.
    """

    __tablename__ = "resource_version"
    __table_args__ = (Index("ix_resource_version_updated", "type", "updated"),)

    type: str = Field(sa_column=Column(String(64), primary_key=True))
    id: str = Field(sa_column=Column(String(64), primary_key=True))
    version: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    updated: int = Field(sa_column=Column(BigInteger, nullable=False))
    subject: str = Field(sa_column=Column(String(200), nullable=False))
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    deleted: bool = Field(sa_column=Column(Boolean, nullable=False))
    source: str = Field(sa_column=Column(String(200), nullable=False))
    source_digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    adapter: str = Field(sa_column=Column(String(100), nullable=False))
    outbox_id: int = Field(sa_column=Column(BigInteger, nullable=False))


class CurrentRecord(SQLModel, table=True):
    """Which version of a resource is the current one, and what is indexed for it.

    ``content_key`` is a keyed hash of the content without version and time; ``terms`` the blind terms of the index;
    ``arrival`` the number of the last message that said what stands here, None when no message did.
    """

    __tablename__ = "resource"
    __table_args__ = (
        Index("ix_resource_updated", "type", "updated", "id"),
        Index("ix_resource_subject", "subject", "type", "id"),
    )

    type: str = Field(sa_column=Column(String(64), primary_key=True))
    id: str = Field(sa_column=Column(String(64), primary_key=True))
    version: int = Field(sa_column=Column(Integer, nullable=False))
    updated: int = Field(sa_column=Column(BigInteger, nullable=False))
    subject: str = Field(sa_column=Column(String(200), nullable=False))
    content_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    deleted: bool = Field(sa_column=Column(Boolean, nullable=False))
    arrival: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    terms: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


VERSION: Table = RecordVersion.__table__  # type: ignore[attr-defined]
RESOURCE: Table = CurrentRecord.__table__  # type: ignore[attr-defined]

CURRENT = and_(
    VERSION.c.type == RESOURCE.c.type, VERSION.c.id == RESOURCE.c.id, VERSION.c.version == RESOURCE.c.version
)
"""Join of a resource to its current version."""

_NEAR = and_(
    VERSION.c.type.in_(bindparam("near_types", expanding=True)),
    VERSION.c.id.in_(bindparam("near_ids", expanding=True)),
    VERSION.c.version.between(bindparam("near_first"), bindparam("near_last")),
)


def near(places: Iterable[tuple[str, str, int]]) -> tuple[ColumnElement[bool], dict[str, Any]]:
    """Return the condition, and its values, that leaves the versions at (type, id, version) and perhaps a few others.

    What is wanted is picked out of the rows: asked for exactly, as a list of triples, SQLite 3.40 reads a whole table.
    Some hundred places at a time: each is a bound variable, and each type is looked up with each id.
    """
    wanted = list(places)
    versions = [version for _, _, version in wanted]
    return _NEAR, {
        "near_types": sorted({type for type, _, _ in wanted}),
        "near_ids": sorted({id for _, id, _ in wanted}),
        "near_first": min(versions, default=0),
        "near_last": max(versions, default=0),
    }


def select_versions(*extra: Any) -> Select[Any]:
    """Select version rows together with the wrapped data key that opens them."""
    return select(VERSION, SUBJECT_KEY.c.wrapped, *extra).join(
        SUBJECT_KEY, SUBJECT_KEY.c.subject == VERSION.c.subject, isouter=True
    )


def opened(keyring: KeyRing, row: Row[Any]) -> StoredVersion:
    """Open a row of ``select_versions``; raises ``KeyDestroyed`` or ``SealBroken``."""
    lineage = Lineage(row.source, row.source_digest, row.adapter)
    content = keyring.unwrap(row.subject, row.wrapped).open(row.sealed, associated_data(row.type, row.id, row.version))
    return StoredVersion(
        row.type,
        row.id,
        row.version,
        instant(row.updated),
        content,
        row.digest,
        row.subject,
        bool(row.deleted),
        lineage,
    )
