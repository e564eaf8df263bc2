"""Table of the inbox, and the values that go in and out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, text
from sqlmodel import Field, SQLModel

State = Literal["received", "stored", "failed", "dead"]

RECEIVED: State = "received"
STORED: State = "stored"
FAILED: State = "failed"
DEAD: State = "dead"
STATES: tuple[State, ...] = (RECEIVED, STORED, FAILED, DEAD)
"""received: waits or is in work. stored: converted and stored. failed: refused, a re-run after a fix may help.
dead: given up after repeated faults that were not the message's own."""

RERUNNABLE: tuple[State, ...] = (FAILED, DEAD)


class InboxMessage(SQLModel, table=True):
    """One delivered message; ``raw``, ``acknowledgement`` and ``report`` are sealed. Times are Unix milliseconds.

    ``message_key`` is what a redelivery has in common: blind over source, control id and digest; ``control_key``
    without the digest. ``patient_key`` is blind and None where no order is to be kept. ``rerun`` is the number of the
    bulk re-run that last put the message back. Numbers are never used again, for they are the order of arrival. The
    large columns come last: SQLite reads a row from its beginning.
    """

    __tablename__ = "inbox"
    __table_args__ = (
        Index("ix_inbox_message_key", "message_key", unique=True),
        Index("ix_inbox_control_key", "control_key"),
        Index(
            "ix_inbox_waiting_patient",
            "patient_key",
            "id",
            sqlite_where=text("state = 'received'"),
            postgresql_where=text("state = 'received'"),
        ),
        Index("ix_inbox_state", "state", "finished", "id", "size"),
        Index(
            "ix_inbox_rerun",
            "rerun",
            "state",
            sqlite_where=text("rerun IS NOT NULL"),
            postgresql_where=text("rerun IS NOT NULL"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(
        default=None,
        sa_column=Column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    )
    message_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    control_key: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    patient_key: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    source: str = Field(sa_column=Column(String(200), nullable=False))
    control_id: str = Field(sa_column=Column(String(200), nullable=False))
    format: str = Field(sa_column=Column(String(20), nullable=False))
    event: str = Field(sa_column=Column(String(100), nullable=False))
    received: int = Field(sa_column=Column(BigInteger, nullable=False))
    digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    size: int = Field(sa_column=Column(Integer, nullable=False))
    conflict: bool = Field(sa_column=Column(Boolean, nullable=False))
    state: str = Field(sa_column=Column(String(10), nullable=False))
    attempts: int = Field(default=0, sa_column=Column(Integer, nullable=False))
    crashes: int = Field(default=0, sa_column=Column(Integer, nullable=False))
    available: int = Field(sa_column=Column(BigInteger, nullable=False))
    lease: str | None = Field(default=None, sa_column=Column(String(200), nullable=True))
    lease_until: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    finished: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    rerun: int | None = Field(default=None, sa_column=Column(Integer, nullable=True))
    subject: str | None = Field(default=None, sa_column=Column(String(200), nullable=True))
    code: str = Field(default="", sa_column=Column(String(60), nullable=False))
    location: str = Field(default="", sa_column=Column(String(200), nullable=False))
    reason: str = Field(default="", sa_column=Column(String(500), nullable=False))
    acknowledgement: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    report: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    raw: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class InboxRerun(SQLModel, table=True):
    """One bulk re-run: when it began (Unix milliseconds) and how many messages it put back."""

    __tablename__ = "inbox_rerun"

    id: int | None = Field(default=None, sa_column=Column(Integer, primary_key=True, autoincrement=True))
    started: int = Field(sa_column=Column(BigInteger, nullable=False))
    messages: int = Field(sa_column=Column(Integer, nullable=False))


INBOX: Table = InboxMessage.__table__  # type: ignore[attr-defined]
RERUN: Table = InboxRerun.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message was not stored: a stable ``code``, the place in the message, and a text without its content."""

    code: str
    location: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message as it arrives.

    ``control_id`` is "" when it has none that could be read; ``patient`` names the patient for the order of processing
    ("" for none) and is stored blind; ``acknowledgement`` is what the sender is answered, now and at every redelivery.
    With ``refusal`` the message is kept as failed and not processed.
    """

    source: str
    raw: bytes = field(repr=False)
    format: str = "hl7v2"
    control_id: str = ""
    event: str = ""
    patient: str = field(default="", repr=False)
    acknowledgement: bytes = field(default=b"", repr=False)
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a delivery.

    ``acknowledgement`` is the one to send, the stored one when ``replayed``: the same message was here before.
    ``conflict``: its control id was here before with other content; both are kept.
    """

    id: int
    acknowledgement: bytes = field(repr=False)
    replayed: bool = False
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A message taken up for processing; ``lease`` must still be its own when its effects are committed.

    ``patient`` is the blind key of the order: of several claims with one key none may be stored before the one ahead.
    """

    id: int
    lease: str
    source: str
    format: str
    event: str
    control_id: str
    digest: bytes
    attempts: int
    size: int = 0
    patient: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class InboxFilter:
    """Which messages a person asks for; an empty part asks for nothing.

    ``patient`` is the identifier as the order of processing knows it ("number^assigning authority" of PID-3) and is
    compared blind; ``subject`` is "Patient/<id>" of stored messages. ``since`` and ``until`` bound the arrival, Unix
    milliseconds, the end not included. ``code`` is the reason of a failure.
    """

    state: str = ""
    source: str = ""
    code: str = ""
    event: str = ""
    control_id: str = ""
    patient: str = field(default="", repr=False)
    subject: str = ""
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """A message as it may be shown: everything but its content and its patient. Times are Unix milliseconds."""

    id: int
    source: str
    control_id: str
    format: str
    event: str
    state: State
    received: int
    finished: int | None
    size: int
    digest: str
    conflict: bool
    attempts: int
    code: str
    location: str
    reason: str


@dataclass(frozen=True, slots=True)
class InboxDetail:
    """A message as it may be shown, with the answer its sender got, the issues of its conversion and what it led to.

    ``issues`` have severity, code, location and text, none of which repeats content; ``versions`` are references of
    record versions; ``answered`` are the acknowledgement's bytes, which repeat no content either.
    """

    entry: InboxEntry
    answered: bytes = field(repr=False)
    issues: tuple[dict[str, str], ...]
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RerunProgress:
    """How far a bulk re-run is: messages it put back, and how many of them are in which state now."""

    id: int
    started: int
    messages: int
    counts: dict[str, int]

    @property
    def waiting(self) -> int:
        """Messages that are not processed yet."""
        return self.counts.get(RECEIVED, 0)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be processed: messages, their bytes as delivered, and when the oldest arrived (None: nothing)."""

    messages: int
    bytes: int
    oldest: int | None
