"""Erasing a subject: its data key, its place in the search index, and whatever else could confirm a guess about it.

What stays is what evidence needs: that a version of this reference existed, and its opaque leaf in the log. Each
erasure is recorded with the AuditEvent that tells of it: a data key that is gone without such a record was not erased,
it was taken away, and fsck says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Connection, String, Table, delete, func, insert, select, update
from sqlmodel import Field, SQLModel

from bridge.storage.exchange import (
    DisclosedRecord,
    Disclosure,
    ExchangeRequest,
    LocalisedPatient,
    LocalPseudonym,
    ReceivedPage,
    ReceivedRecord,
    ReleasePage,
)
from bridge.storage.inbox import Inbox
from bridge.storage.keyring import KeyRing
from bridge.storage.outbox import OUTBOX
from bridge.storage.record_tables import RESOURCE, VERSION
from bridge.storage.search_index import IndexEntry, write_index


class RecordedErasure(SQLModel, table=True):
    """That a subject was erased: when (Unix seconds), how many versions it had, and the AuditEvent that tells of it."""

    __tablename__ = "erasure"

    subject: str = Field(sa_column=Column(String(200), primary_key=True))
    event: str = Field(sa_column=Column(String(64), nullable=False))
    versions: int = Field(sa_column=Column(BigInteger, nullable=False))
    erased: int = Field(sa_column=Column(BigInteger, nullable=False))


ERASURE: Table = RecordedErasure.__table__  # type: ignore[attr-defined]
_DISCLOSURE: Table = Disclosure.__table__  # type: ignore[attr-defined]
_DISCLOSED: Table = DisclosedRecord.__table__  # type: ignore[attr-defined]
_ASKED: Table = ExchangeRequest.__table__  # type: ignore[attr-defined]
_RECEIVED: Table = ReceivedRecord.__table__  # type: ignore[attr-defined]
_PSEUDONYM: Table = LocalPseudonym.__table__  # type: ignore[attr-defined]
_PAGE: Table = ReleasePage.__table__  # type: ignore[attr-defined]
_ARRIVED: Table = ReceivedPage.__table__  # type: ignore[attr-defined]
_LOCALISED: Table = LocalisedPatient.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Erasure:
    """A recorded erasure; ``event`` is the AuditEvent's id."""

    subject: str
    event: str
    versions: int
    erased: int


def erase_subject(connection: Connection, keyring: KeyRing, inbox: Inbox, subject: str) -> int:
    """Erase everything kept about a subject, in the caller's transaction; return how many record versions it had.

    Content becomes unreadable in every process at once. Digests go as well, since they are unsalted. Versions that
    were not yet in the log never will be: nothing about them was published. Raises ``Conflict`` for "node".
    """
    keyring.destroy(connection, subject)
    for row in connection.execute(select(RESOURCE).where(RESOURCE.c.subject == subject)).all():
        write_index(connection, [(IndexEntry(row.type, row.id, b"", {}), row.terms)])
    connection.execute(
        update(RESOURCE).where(RESOURCE.c.subject == subject).values(terms=b"", content_key=b"", deleted=True)
    )
    held = select(func.count()).select_from(VERSION).where(VERSION.c.subject == subject)
    versions = connection.execute(held).scalar_one()
    connection.execute(
        update(VERSION).where(VERSION.c.subject == subject).values(sealed=b"", digest=b"", source_digest=b"")
    )
    connection.execute(delete(OUTBOX).where(OUTBOX.c.subject == subject))
    inbox.erase(connection, subject)
    return int(versions)


def erase_exchanged(connection: Connection, subject: str) -> int:
    """Erase what exchanges with other institutions left of a patient here; return how many exchanges there were.

    Gone are the digests of what was disclosed or received (unsalted, they could confirm a guess), the signed requests
    (they name the patient's pseudonym), sealed envelopes, originals and receipts, and the registered pseudonyms. What
    the ledger has of them, and receipts made before, stay as they are.
    """
    patient = subject.removeprefix("Patient/")
    answered = list(
        connection.execute(select(_DISCLOSURE.c.request_id).where(_DISCLOSURE.c.patient_id == patient)).scalars()
    )
    received = (_RECEIVED.c.subject == subject,)
    asked = list(connection.execute(select(_RECEIVED.c.request_id).where(*received).distinct()).scalars())
    for request in {*answered, *asked}:
        connection.execute(delete(_DISCLOSED).where(_DISCLOSED.c.request_id == request))
        connection.execute(update(_ASKED).where(_ASKED.c.request_id == request).values(request_sealed=b""))
        connection.execute(
            update(_DISCLOSURE)
            .where(_DISCLOSURE.c.request_id == request)
            .values(request_sealed=b"", request_digest="", pages=0)
        )
        connection.execute(delete(_PAGE).where(_PAGE.c.request_id == request))
        connection.execute(delete(_ARRIVED).where(_ARRIVED.c.request_id == request))
    connection.execute(update(_RECEIVED).where(*received).values(digest="", content_sealed=b"", receipt_sealed=b""))
    connection.execute(delete(_PSEUDONYM).where(_PSEUDONYM.c.patient_id == patient))
    newest = connection.execute(select(func.max(RESOURCE.c.updated)).where(RESOURCE.c.subject == subject)).scalar()
    connection.execute(delete(_LOCALISED).where(_LOCALISED.c.patient_id == patient))
    if newest is not None:  # so that the registration job does not look for what is gone
        values = {"patient_id": patient, "version": 0, "categories": "[]", "updated": newest}
        connection.execute(insert(_LOCALISED).values(**values))
    return len({*answered, *asked})


def record_erasure(connection: Connection, erasure: Erasure) -> None:
    """Record that a subject was erased, in the transaction that erases it."""
    values = {name: getattr(erasure, name) for name in Erasure.__slots__}
    connection.execute(delete(ERASURE).where(ERASURE.c.subject == erasure.subject))
    connection.execute(insert(ERASURE).values(**values))


def find_erasure(connection: Connection, subject: str) -> Erasure | None:
    """Return the recorded erasure of a subject, or None."""
    row = connection.execute(select(ERASURE).where(ERASURE.c.subject == subject)).first()
    return None if row is None else Erasure(row.subject, row.event, row.versions, row.erased)


def erasures(connection: Connection) -> dict[str, Erasure]:
    """Return every recorded erasure by its subject."""
    return {
        row.subject: Erasure(row.subject, row.event, row.versions, row.erased)
        for row in connection.execute(select(ERASURE))
    }
