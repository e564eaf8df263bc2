"""The requester's side of a release: open it, check everything, and only then store anything.

The checks, in order and marked in the code:

(1) the envelope opens with this node's key and is signed by a live key that the holder has on the ledger;
(2) the content answers this very request;
(3) every record's canonical bytes have the digest that its receipt names, and the receipt is of the holder's log and
holds
    against the trust built from the ledger's own members (quorum from the settings);
(4) the Merkle root over the digests, their number and the envelope's digest are those of access.release on the
ledger. For
    treatment a queued release is taken instead, if the holder's signed statement of it says the same; it is a gap.

Then copies, originals, receipts, Provenance and AuditEvent are stored in one transaction, and access.receive is
recorded.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.dialects import postgresql, sqlite

from anchor import canonical
from anchor.chain.client import ChainClient
from anchor.chain.ledger_trust import trust_of
from anchor.errors import AnchorError, CanonicalError, SignatureInvalid, TransactionRejected
from anchor.gm import PublicKey, sm3
from anchor.receipt import disclosed_root
from anchor.verify import ReceiptVerifier
from bridge.errors import CertificateInvalid, PeerRejected
from bridge.peer_signature import live_key
from bridge.services.access_request import SignedRequest
from bridge.services.audit_event import ExchangeFacts, Party
from bridge.services.awaited_state import awaited_state
from bridge.services.envelope import open_envelope
from bridge.services.ledger_events import LedgerEvents, Recorded
from bridge.services.local_copy import local_copy, provenance, subject_of
from bridge.services.record_signature import Target, verify_institution
from bridge.storage.database import transact
from bridge.storage.disclosures import DisclosureStore
from bridge.storage.exchange import ReceivedRecord
from bridge.storage.records import Lineage, RecordWrite

if TYPE_CHECKING:
    from bridge.keys.decryption import DecryptionKeys
    from bridge.services.audit import AuditService
    from bridge.storage.keyring import KeyRing
    from bridge.storage.records import RecordStore

ADAPTER = "yiqiao-exchange/1.0"
NO_ROOT = "0" * 64  # what access.receive names when a release could not even be opened

_RECEIVED: Table = ReceivedRecord.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class ReceivedItem:
    """One record that was checked and stored. ``receipt`` says how far its receipt had come."""

    original: str
    local: str
    digest: str
    receipt: str


@dataclass(frozen=True, slots=True)
class Received:
    """What one request brought. ``release``: where the holder's event is; ``gap``: true while it is only queued."""

    records: tuple[ReceivedItem, ...]
    disclosed: str
    release_tx: str | None
    receive_tx: str | None
    gap: bool


_Record = tuple[dict[str, Any], str, bytes, bytes, str]
"""Resource, reference, canonical bytes, receipt, how far the receipt had come."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """A release that passed (1) to (3)."""

    digests: tuple[bytes, ...]
    records: tuple[_Record, ...]
    provenance: dict[str, Any] | None

    @property
    def root(self) -> str:
        return disclosed_root(self.digests).hex()


class ReceiveService:
    """Checks and stores what other members release to this node."""

    def __init__(
        self,
        *,
        engine: Engine,
        keyring: KeyRing,
        records: RecordStore,
        store: DisclosureStore,
        chain: ChainClient,
        chain_id: str,
        quorum: int,
        node: Party,
        decryption: DecryptionKeys,
        events: LedgerEvents,
        audit: AuditService,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._keyring, self._records, self._store = engine, keyring, records, store
        self._chain, self._chain_id, self._quorum, self._node = chain, chain_id, quorum, node
        self._decryption, self._events, self._audit, self._clock = decryption, events, audit, clock

    def accept(self, asked: SignedRequest, answer: bytes, facts: ExchangeFacts) -> Received:
        """Check and store the answer to a request of this node.

        Raises ``PeerRejected`` with a code that names what does not hold, after recording the rejection on the ledger
        and in the audit trail; nothing of the release is stored then.
        """
        root = NO_ROOT
        try:
            envelope, gap = _answer(asked, answer)
            checked = self._check(asked, envelope)
            root = checked.root
            release_tx = self._check_release(asked, checked, envelope, gap)
        except PeerRejected:
            self._confirm(asked, root, "rejected")
            raise
        items = transact(self._engine, lambda connection: self._keep(connection, asked, checked, facts))
        if release_tx is None:  # the holder's event is still on its way; ours follows it
            self._events.enqueue("access.receive", {"request": asked.id, "disclosed": root, "status": "verified"})
            return Received(items, root, None, None, True)
        confirmed = self._confirm(asked, root, "verified")
        return Received(items, root, release_tx, confirmed.tx_id if confirmed else None, False)

    # --- checking

    def _check(self, asked: SignedRequest, envelope: bytes) -> _Checked:
        holder = asked.statement["holder"]
        opened = open_envelope(  # (1)
            envelope,
            chain=self._chain_id,
            decryption_key=self._decryption.find,
            signing_key=lambda key_id: self._signing_key(holder, key_id),
        )
        try:
            payload = canonical.load(opened.content)
        except CanonicalError as error:
            raise PeerRejected("content-malformed", "the release's content cannot be read") from error
        expected = {"v": 1, "request": asked.id, "holder": holder, "requester": self._node.id}  # (2)
        if not isinstance(payload, dict) or any(payload.get(name) != value for name, value in expected.items()):
            raise PeerRejected("content-of-another-request", "the release answers another request")
        if asked.statement["grant"] not in (None, payload.get("grant")):
            raise PeerRejected("content-of-another-request", "the release names another grant")
        entries, receipts = (payload.get("bundle") or {}).get("entry", []), payload.get("receipts")
        if not isinstance(receipts, list) or not isinstance(entries, list) or len(entries) != len(receipts):
            raise PeerRejected("receipt-missing", "not every record came with its receipt")
        verifier = ReceiptVerifier(self._trust())
        minimum = "pending" if asked.treatment else "committed"
        records = [
            self._check_record(entry, receipt, holder, verifier, minimum)  # (3)
            for entry, receipt in zip(entries, receipts, strict=True)
        ]
        digests = [sm3(content) for _, _, content, _, _ in records]
        provenance = payload.get("provenance")
        if records:
            refs = [ref for _, ref, _, _, _ in records]
            self._check_signature(provenance, holder, [(ref, d.hex()) for ref, d in zip(refs, digests, strict=True)])
            digests.append(sm3(canonical.dump(provenance)))
        return _Checked(tuple(digests), tuple(records), provenance if records else None)

    def _check_signature(self, provenance: Any, holder: str, targets: Sequence[Target]) -> None:
        """Check that a live key of the holder signed exactly the records that came."""
        if not isinstance(provenance, dict):
            raise PeerRejected("signature-missing", "the release is not signed by its holder")
        try:
            signed = verify_institution(
                provenance, holder, self._chain_id, lambda key_id: self._signing_key(holder, key_id)
            )
        except CertificateInvalid as error:
            raise PeerRejected("signature-invalid", f"the holder's signature does not hold ({error.code})") from error
        if list(signed) != list(targets):
            raise PeerRejected("signature-of-other-records", "the holder's signature is over other records than came")

    def _signing_key(self, holder: str, key_id: str) -> PublicKey | None:
        member = self._chain.state(f"member/{holder}")
        if member is None or member["status"] != "active":
            return None
        return live_key(member, "sign", int(self._clock()), key_id)

    def _trust(self) -> bytes:
        return trust_of(self._chain, self._chain_id, self._quorum).dump()

    @staticmethod
    def _check_record(entry: Any, receipt: Any, holder: str, verifier: ReceiptVerifier, minimum: Any) -> _Record:
        resource = entry.get("resource") if isinstance(entry, dict) else None
        meta = resource.get("meta") if isinstance(resource, dict) else None
        if not isinstance(resource, dict) or not isinstance(meta, dict) or not isinstance(receipt, dict):
            raise PeerRejected("content-malformed", "the release's content cannot be read")
        ref = f"{resource.get('resourceType')}/{resource.get('id')}/_history/{meta.get('versionId')}"
        try:
            content, receipt_bytes = canonical.dump(resource), canonical.dump(receipt)
            report = verifier.verify(receipt_bytes, resource=content, minimum=minimum)
        except AnchorError as error:
            step = getattr(error, "step", "format")
            raise PeerRejected("receipt-invalid", f"a record's receipt does not hold (step {step})") from error
        if report.kind != "record" or report.org != holder or report.subject != ref:
            raise PeerRejected("receipt-of-another-record", "a receipt is of another record than the one it came with")
        return resource, ref, content, receipt_bytes, report.state

    def _check_release(
        self, asked: SignedRequest, checked: _Checked, envelope: bytes, gap: Mapping[str, Any] | None
    ) -> str | None:
        """Check (4) and return the release's transaction id, None while it is queued at the holder."""
        expected = {
            "disclosed": checked.root,
            "count": len(checked.digests),
            "commitment": sm3(envelope).hex(),
        }
        key, queued = f"request/{asked.id}", gap is not None and asked.treatment
        state = awaited_state(self._chain, key, lambda it: queued or bool(it.get("release"))) or {}
        release = state.get("release")
        if release:
            if any(release.get(name) != value for name, value in expected.items()):
                raise PeerRejected("release-differs", "the ledger's release is of something else than what arrived")
            return str(release["tx"])
        if gap is None or not asked.treatment:
            raise PeerRejected("release-missing", "the ledger holds no release for what arrived")
        self._check_gap(asked, gap, expected)
        return None

    def _check_gap(self, asked: SignedRequest, gap: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        """Check the holder's signed statement of a release that waits for the ledger."""
        holder = asked.statement["holder"]
        try:
            member = self._chain.state(f"member/{holder}") or {}
            key = live_key(member, "sign", int(self._clock()), str(gap["key"]))
            if key is None:
                raise SignatureInvalid("no such key")
            key.verify(str(gap["statement"]).encode(), bytes.fromhex(str(gap["sig"])))
            statement = canonical.load(str(gap["statement"]).encode())
            body = statement["body"]
            same = statement["type"] == "access.release" and body["request"] == asked.id
            if not same or any(body.get(name) != value for name, value in expected.items()):
                raise SignatureInvalid("of something else")
        except (AnchorError, KeyError, TypeError, ValueError) as error:
            raise PeerRejected("release-missing", "the holder's statement of the release does not hold") from error

    # --- keeping

    def _keep(
        self, connection: Connection, asked: SignedRequest, checked: _Checked, facts: ExchangeFacts
    ) -> tuple[ReceivedItem, ...]:
        holder, now = asked.statement["holder"], int(self._clock())
        copies = [local_copy(resource, holder=holder, ref=ref) for resource, ref, _, _, _ in checked.records]
        patients = [f"Patient/{copy['id']}" for copy in copies if copy["resourceType"] == "Patient"]
        subjects = [subject_of(copy, patients) for copy in copies]
        digests = checked.digests[: len(copies)]
        writes = [
            RecordWrite(copy, Lineage(f"org:{holder}", digest, ADAPTER), subject)
            for copy, digest, subject in zip(copies, digests, subjects, strict=True)
        ]
        results = self._records.put_many(connection, writes)
        for record, result, digest, subject in zip(checked.records, results, digests, subjects, strict=True):
            self._keep_original(connection, asked, record, result.ref, digest, subject, now)
        refs = [ref for _, ref, _, _, _ in checked.records]
        if checked.provenance is not None:
            refs.append(self._keep_signature(connection, asked, checked, patients, now))
        if results:
            trail = provenance(
                request=asked.id,
                holder=holder,
                requester=self._node.id,
                purpose=asked.statement["purpose"],
                targets=[result.ref for result in results],
                sources=refs[: len(results)],
                now=now,
            )
            subject = patients[0] if patients else "node"
            self._records.put(connection, trail, Lineage(f"org:{holder}", sm3(asked.dump()), ADAPTER), subject)
        listed = list(zip(refs, (digest.hex() for digest in checked.digests), strict=True))
        self._store.keep_records(connection, asked.id, listed)
        stored = ExchangeFacts(
            request=facts.request,
            purpose=facts.purpose,
            holder=facts.holder,
            requester=facts.requester,
            description=f"received and verified {len(results)} records",
            patient=patients[0] if patients else None,
            practitioner=facts.practitioner,
            role=facts.role,
            emergency=facts.emergency,
            records=tuple(result.ref for result in results),
        )
        self._audit.record_receive(stored, connection)
        return tuple(
            ReceivedItem(ref, result.ref, digest.hex(), state)
            for (_, ref, _, _, state), result, digest in zip(checked.records, results, digests, strict=True)
        )

    def _keep_signature(
        self, connection: Connection, asked: SignedRequest, checked: _Checked, patients: Sequence[str], now: int
    ) -> str:
        """Store the holder's signed Provenance like any record that came; return its reference at the holder."""
        assert checked.provenance is not None
        holder, signed = asked.statement["holder"], checked.provenance
        ref, digest = f"Provenance/{signed.get('id')}/_history/1", checked.digests[-1]
        subject = patients[0] if patients else "node"
        copy = local_copy(signed, holder=holder, ref=ref)
        result = self._records.put(connection, copy, Lineage(f"org:{holder}", digest, ADAPTER), subject)
        record = (signed, ref, canonical.dump(signed), b"", "signed")
        self._keep_original(connection, asked, record, result.ref, digest, subject, now)
        return ref

    def _keep_original(
        self,
        connection: Connection,
        asked: SignedRequest,
        record: _Record,
        local_ref: str,
        digest: bytes,
        subject: str,
        now: int,
    ) -> None:
        _, ref, content, receipt, _ = record
        holder = asked.statement["holder"]
        place = f"{holder}|{ref}".encode()
        values = {
            "request_id": asked.id,
            "local_ref": local_ref,
            "subject": subject,
            "digest": digest.hex(),
            "content_sealed": self._keyring.seal(connection, subject, content, b"received|" + place),
            "receipt_sealed": self._keyring.seal(connection, subject, receipt, b"receipt|" + place),
            "received": now,
        }
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        statement = insert(_RECEIVED).values(holder=holder, original_ref=ref, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["holder", "original_ref"], set_=values))

    def _confirm(self, asked: SignedRequest, root: str, status: str) -> Recorded | None:
        """Record access.receive; None when the ledger has nothing that could be confirmed."""
        body = {"request": asked.id, "disclosed": root, "status": status}
        try:
            return self._events.commit("access.receive", body, may_queue=True)
        except TransactionRejected:
            return None


def _answer(asked: SignedRequest, answer: bytes) -> tuple[bytes, Mapping[str, Any] | None]:
    """Read the holder's answer: the envelope, and the signed statement of a release that is only queued."""
    try:
        value = canonical.load(answer)
        envelope = base64.b64decode(value["envelope"], validate=True)
        gap = value.get("gap")
        if value["request"] != asked.id or not (gap is None or isinstance(gap, dict)):
            raise ValueError("of another request")
    except (CanonicalError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise PeerRejected("bad-answer", "the holder's answer cannot be understood") from error
    return envelope, gap
