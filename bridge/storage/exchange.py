"""Tables of the exchange between institutions.

Who writes which:

* every member: ``peer_nonce`` (replay cache), ``peer_activity`` (quotas and signs of abuse), ``ledger_gap`` (events
  that the ledger could not take in time), ``ledger_fact`` (what the ledger last said);
* the authority: ``pseudonym_use`` (quota), ``localisation`` (which member holds records for a pseudonym);
* a holder of records: ``local_pseudonym``, ``consent_grant``, ``disclosure``, ``disclosed_record``, ``release_page``;
* a requester: ``exchange_request``, ``received_record``, ``received_page``, and ``disclosed_record`` for what it got.

Clinical content, pseudonyms and salts stand here only sealed (``bridge.storage.keyring``) or blinded. Times are Unix
seconds; digests and ledger ids are lowercase hex; lists are JSON text.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, UniqueConstraint
from sqlmodel import Field, SQLModel


class PeerNonce(SQLModel, table=True):
    """A signed request already received; ``nonce`` is "<org>:<nonce>", ``expires`` when it can be forgotten."""

    __tablename__ = "peer_nonce"
    nonce: str = Field(primary_key=True, max_length=96)
    expires: int = Field(sa_type=BigInteger, index=True)


class PseudonymUse(SQLModel, table=True):
    """How many pseudonyms a member had computed on a day (days since 1970-01-01)."""

    __tablename__ = "pseudonym_use"
    org: str = Field(primary_key=True, max_length=18)
    day: int = Field(primary_key=True)
    count: int


class PeerActivity(SQLModel, table=True):
    """How often something happened with a member in an hour (hours since 1970-01-01); see ``bridge.services.abuse``.

    ``who`` is a keyed hash of the practitioner, or "" for the member in all.
    """

    __tablename__ = "peer_activity"
    kind: str = Field(primary_key=True, max_length=16)
    org: str = Field(primary_key=True, max_length=18)
    who: str = Field(primary_key=True, max_length=32)
    hour: int = Field(primary_key=True, index=True)
    count: int


class Localisation(SQLModel, table=True):
    """The authority's index: a member holds records of these categories for a pseudonym. No counts, no dates."""

    __tablename__ = "localisation"
    pid: str = Field(primary_key=True, max_length=80)
    org: str = Field(primary_key=True, max_length=18)
    categories: str
    registered: int = Field(sa_type=BigInteger)


class LocalPseudonym(SQLModel, table=True):
    """A pseudonym of a patient of this node; ``pid_blind`` finds it, ``pid_sealed`` keeps it for a withdrawal.

    ``categories`` is what was registered last, ``version`` that of the authority's key.
    """

    __tablename__ = "local_pseudonym"
    __table_args__ = (UniqueConstraint("patient_id", "pid_blind"),)
    id: int | None = Field(default=None, primary_key=True)
    patient_id: str = Field(index=True, max_length=64)
    pid_blind: bytes = Field(index=True)
    pid_sealed: bytes
    version: int = Field(index=True)
    categories: str
    state: str = Field(max_length=16)
    updated: int = Field(sa_type=BigInteger)


class LocalisedPatient(SQLModel, table=True):
    """Up to which version a patient was looked at for registration, so that a run reads only what changed."""

    __tablename__ = "localised_patient"
    patient_id: str = Field(primary_key=True, max_length=64)
    version: int
    categories: str
    updated: int = Field(sa_type=BigInteger)


class ConsentGrant(SQLModel, table=True):
    """A grant given at this node. ``detail_sealed`` opens the ledger's commitment: patient, all terms, and the salt.

    ``state``: draft (waits for the patient's confirmation), pending (the ledger has not answered), active, amending
    (active; the ledger has not answered for the newest terms), revoking, revoked, refused. What could tell something
    of the patient's health (categories, labels, exceptions) stands in the sealed detail only.
    """

    __tablename__ = "consent_grant"
    grant_id: str = Field(primary_key=True, max_length=32)
    patient_id: str = Field(index=True, max_length=64)
    consent_id: str = Field(max_length=64)
    grantees: str
    purposes: str
    valid_from: int = Field(sa_type=BigInteger)
    valid_until: int = Field(sa_type=BigInteger)
    state: str = Field(index=True, max_length=16)
    commitment: str = Field(max_length=64)
    detail_sealed: bytes
    tx_id: str | None = Field(default=None, max_length=64)
    revoke_tx_id: str | None = Field(default=None, max_length=64)
    updated: int = Field(sa_type=BigInteger)


class ConsentCode(SQLModel, table=True):
    """A one-time code that confirms a draft consent: ``code_sealed`` until it was fetched for
    delivery, then blind only.
    """

    __tablename__ = "consent_code"
    grant_id: str = Field(primary_key=True, max_length=32)
    consent_id: str = Field(max_length=64)
    patient_id: str = Field(max_length=64)
    code_blind: bytes
    code_sealed: bytes | None = None
    expires: int = Field(sa_type=BigInteger)
    tries: int


class Disclosure(SQLModel, table=True):
    """One request answered at this node (the holder).

    ``state``: deciding, waiting (for a person), denied, permitted, sealed (all pages are ready, their release not yet
    committed), released, refused. ``request_sealed`` is the signed request with its salt. ``approved``: what a person
    said where one was asked, ``approval_sealed`` who it was and why. ``manifest``: the digest over all pages, which the
    ledger's release names. ``received``: "verified" or "rejected", once it is known that the ledger says so.
    """

    __tablename__ = "disclosure"
    request_id: str = Field(primary_key=True, max_length=32)
    requester: str = Field(index=True, max_length=18)
    purpose: str = Field(max_length=16)
    basis: str | None = Field(default=None, max_length=16)
    grant_id: str | None = Field(default=None, index=True, max_length=32)
    patient_id: str | None = Field(default=None, index=True, max_length=64)
    state: str = Field(max_length=16)
    reason: str | None = Field(default=None, max_length=64)
    request_digest: str = Field(max_length=64)
    request_sealed: bytes
    approved: bool | None = None
    approval_sealed: bytes | None = None
    approval_due: int | None = Field(default=None, index=True, sa_type=BigInteger)
    pages: int = 0
    received: str | None = Field(default=None, max_length=16)
    manifest: str | None = Field(default=None, max_length=64)
    disclosed: str | None = Field(default=None, max_length=64)
    count: int = 0
    decision_tx_id: str | None = Field(default=None, max_length=64)
    release_tx_id: str | None = Field(default=None, max_length=64)
    created: int = Field(sa_type=BigInteger)
    updated: int = Field(sa_type=BigInteger)


class ReleasePage(SQLModel, table=True):
    """One page of a release at the holder: the very envelope that leaves, sealed here under the patient's key."""

    __tablename__ = "release_page"
    request_id: str = Field(primary_key=True, max_length=32)
    number: int = Field(primary_key=True)
    envelope_sealed: bytes
    digest: str = Field(max_length=64)
    count: int


class DisclosedRecord(SQLModel, table=True):
    """One record version of a disclosure, at its place in the disclosed Merkle tree."""

    __tablename__ = "disclosed_record"
    request_id: str = Field(primary_key=True, max_length=32)
    position: int = Field(primary_key=True)
    ref: str = Field(max_length=160)
    digest: str = Field(max_length=64)


class ExchangeRequest(SQLModel, table=True):
    """One request made by this node (the requester).

    ``state``: new, requested, waiting (for a person at the holder), transferring (released, not all pages are here),
    denied, rejected, verified, failed. ``due``: when a job asks again, for one that waits or was cut short.
    """

    __tablename__ = "exchange_request"
    request_id: str = Field(primary_key=True, max_length=32)
    holder: str = Field(index=True, max_length=18)
    purpose: str = Field(max_length=16)
    emergency: bool = False
    grant_id: str | None = Field(default=None, max_length=32)
    state: str = Field(max_length=16)
    reason: str | None = Field(default=None, max_length=64)
    request_sealed: bytes
    disclosed: str | None = Field(default=None, max_length=64)
    count: int = 0
    request_tx_id: str | None = Field(default=None, max_length=64)
    receive_tx_id: str | None = Field(default=None, max_length=64)
    due: int | None = Field(default=None, index=True, sa_type=BigInteger)
    created: int = Field(sa_type=BigInteger)
    updated: int = Field(sa_type=BigInteger)


class ReceivedPage(SQLModel, table=True):
    """A page of a release that has arrived and was checked: its envelope, which only this node's key opens.

    Kept until the whole release is here. ``count`` digests of the disclosed Merkle tree are its own.
    """

    __tablename__ = "received_page"
    request_id: str = Field(primary_key=True, max_length=32)
    number: int = Field(primary_key=True)
    envelope: bytes
    digest: str = Field(max_length=64)
    count: int


class ReceivedRecord(SQLModel, table=True):
    """A record version received from another member: its original bytes and receipt, and the local copy's name.

    ``expires``: until when (Unix seconds) it may be kept; null for no limit.
    """

    __tablename__ = "received_record"
    holder: str = Field(primary_key=True, max_length=18)
    original_ref: str = Field(primary_key=True, max_length=160)
    request_id: str = Field(index=True, max_length=32)
    local_ref: str = Field(primary_key=True, index=True, max_length=160)
    subject: str = Field(max_length=80)
    digest: str = Field(max_length=64)
    content_sealed: bytes
    receipt_sealed: bytes
    received: int = Field(sa_type=BigInteger)
    expires: int | None = Field(default=None, index=True, sa_type=BigInteger)


class EmergencyReview(SQLModel, table=True):
    """The review of one emergency access at this node (the holder). ``state``: open, closing, closed."""

    __tablename__ = "emergency_review"
    request_id: str = Field(primary_key=True, max_length=32)
    patient_id: str = Field(max_length=64)
    requester: str = Field(max_length=18)
    opened: int = Field(sa_type=BigInteger)
    due: int = Field(index=True, sa_type=BigInteger)
    state: str = Field(index=True, max_length=16)
    outcome: str | None = Field(default=None, max_length=16)
    detail_sealed: bytes | None = None
    tx_id: str | None = Field(default=None, max_length=64)
    updated: int = Field(sa_type=BigInteger)


class LedgerFact(SQLModel, table=True):
    """What the ledger last said of something, for the moment when it does not answer. ``value`` is JSON."""

    __tablename__ = "ledger_fact"
    key: str = Field(primary_key=True, max_length=120)
    value: str
    seen: int = Field(index=True, sa_type=BigInteger)


class LedgerGap(SQLModel, table=True):
    """An event that happened while the ledger could not take it: signed, queued, and reported until it is committed.

    ``statement`` is canonical JSON of type, body and time; ``signature`` this node's SM2 signature over it.
    ``state``: queued, committed, refused (then ``code`` says why).
    """

    __tablename__ = "ledger_gap"
    id: int | None = Field(default=None, primary_key=True)
    request_id: str = Field(index=True, max_length=32)
    type: str = Field(max_length=32)
    body: str
    statement: str
    signature: str = Field(max_length=128)
    key_id: str = Field(max_length=16)
    created: int = Field(sa_type=BigInteger)
    state: str = Field(index=True, max_length=16)
    code: str | None = Field(default=None, max_length=32)
    tx_id: str | None = Field(default=None, max_length=64)
    settled: int | None = Field(default=None, sa_type=BigInteger)
