"""What the requester checks of a release before anything of it is stored (pure but for the ledger's answers).

(1) the envelope of each page opens with this node's key and is signed by a live key that the holder has on the ledger;
(2) its content answers this very request and is the page of this number;
(3) every record's canonical bytes have the digest that its receipt names, the receipt is of the holder's log and holds
    against the trust built from the ledger's own members (quorum from the settings), and the holder's signed
    Provenance is over exactly these records;
(4) each page is the one that the release's manifest names, and manifest, Merkle root over all digests, and their number
    are those of access.release on the ledger. For treatment a queued release is taken instead, if the holder's signed
    statement of it says the same; it is a gap.

Keys and members are asked of the ledger; while it does not answer, treatment may rest on what it last said, within the
bound (``bridge.services.ledger_facts``).
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from anchor import canonical
from anchor.errors import AnchorError, CanonicalError, ChainError, FormatError, SignatureInvalid
from anchor.gm import PublicKey, sm3
from anchor.receipt import MAX_RECEIPT_BYTES
from anchor.verify import ReceiptVerifier
from bridge.errors import CertificateInvalid, PeerRejected, PeerUnavailable
from bridge.peer_signature import live_key
from bridge.services.access_request import SignedRequest
from bridge.services.envelope import open_envelope
from bridge.services.ledger_facts import TRUST
from bridge.services.record_signature import Target, verify_institution
from bridge.services.release_content import MAX_PAGES
from bridge.services.release_pages import manifest_digest

if TYPE_CHECKING:
    from bridge.keys.decryption import DecryptionKeys
    from bridge.services.ledger_facts import LedgerFacts, Reading

_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Reply:
    """A holder's answer: the first page, the digests of all, and a queued release's signed statement (``gap``)."""

    envelope: bytes
    pages: tuple[str, ...]
    gap: Mapping[str, Any] | None


Record = tuple[dict[str, Any], str, bytes, bytes, str]
"""Resource, reference, canonical bytes, receipt, how far the receipt had come."""


@dataclass(frozen=True, slots=True)
class CheckedPage:
    """A page that passed (1) to (3). The last digest is the Provenance's, where there are records."""

    number: int
    digests: tuple[bytes, ...]
    records: tuple[Record, ...]
    provenance: dict[str, Any] | None
    patients: tuple[str, ...]
    until: int | None

    def listed(self) -> list[tuple[str, str]]:
        """Return (reference at the holder, hex digest) of everything that this page discloses, in order."""
        refs = [ref for _, ref, _, _, _ in self.records]
        if self.provenance is not None:
            refs.append(f"Provenance/{self.provenance.get('id')}/_history/1")
        return list(zip(refs, (digest.hex() for digest in self.digests), strict=True))


def read_reply(asked: SignedRequest, answer: bytes) -> Reply | None:
    """Read a holder's answer; None when a person there is asked first. Raises ``PeerRejected``."""
    try:
        value = canonical.load(answer)
        if value["request"] != asked.id:
            raise ValueError("of another request")
        if value["state"] == "waiting":
            return None
        envelope, gap, pages = base64.b64decode(value["envelope"], validate=True), value.get("gap"), value["pages"]
        if value["state"] != "released" or not (gap is None or isinstance(gap, dict)):
            raise ValueError("not an answer")
        if not 0 < len(pages) <= MAX_PAGES or not all(len(each) == 64 and set(each) <= _HEX for each in pages):
            raise ValueError("not the digests of pages")
    except (CanonicalError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise PeerRejected("bad-answer", "the holder's answer cannot be understood") from error
    return Reply(envelope, tuple(pages), gap)


class ReleaseChecks:
    """Checks what other members release to this node."""

    def __init__(
        self,
        *,
        chain_id: str,
        node: str,
        quorum: int,
        facts: LedgerFacts,
        decryption: DecryptionKeys,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._chain_id, self._node, self._quorum = chain_id, node, quorum
        self._ledger, self._decryption, self._clock = facts, decryption, clock

    def read(self, asked: SignedRequest) -> Reading:
        """Ask the ledger at once for all that a page and its release are checked against."""
        holder, request = asked.statement["holder"], f"request/{asked.id}"
        return self._ledger.read([f"member/{holder}"], fresh=[request], trust=(self._chain_id, self._quorum))

    def page(
        self,
        asked: SignedRequest,
        envelope: bytes,
        number: int,
        *,
        reading: Reading | None = None,
        verified: bool = False,
    ) -> CheckedPage:
        """Check one page, (1) to (3); ``verified``: it was before, and only has to be taken apart again.

        ``reading``: what the ledger says, where it was just asked (``read``). Raises ``PeerRejected`` with a code that
        names what does not hold, ``PeerUnavailable`` without the ledger.
        """
        holder = asked.statement["holder"]
        reading = reading or self.read(asked)
        opened = open_envelope(  # (1)
            envelope,
            chain=self._chain_id,
            decryption_key=self._decryption.find,
            signing_key=lambda key_id: self._signing_key(asked, key_id, reading),
        )
        payload = self._payload(asked, opened.content, number)  # (2)
        entries, receipts = (payload.get("bundle") or {}).get("entry", []), payload.get("receipts")
        if not isinstance(receipts, list) or not isinstance(entries, list) or len(entries) != len(receipts):
            raise PeerRejected("receipt-missing", "not every record came with its receipt")
        verifier = None if verified else _verifier(self._trust(asked, reading))
        minimum = "pending" if asked.treatment else "committed"
        records = [
            _check_record(entry, receipt, holder, verifier, minimum)  # (3)
            for entry, receipt in zip(entries, receipts, strict=True)
        ]
        digests = [sm3(content) for _, _, content, _, _ in records]
        provenance = payload.get("provenance")
        if records:
            refs = [ref for _, ref, _, _, _ in records]
            targets = [(ref, digest.hex()) for ref, digest in zip(refs, digests, strict=True)]
            self._check_signature(provenance, asked, targets, reading)
            digests.append(sm3(canonical.dump(provenance)))
        return CheckedPage(
            number,
            tuple(digests),
            tuple(records),
            provenance if records else None,
            tuple(payload["patients"]),
            payload["copies_until"],
        )

    def _payload(self, asked: SignedRequest, content: bytes, number: int) -> dict[str, Any]:
        try:
            payload = canonical.load(content)
        except CanonicalError as error:
            raise PeerRejected("content-malformed", "the release's content cannot be read") from error
        expected = {"v": 1, "request": asked.id, "holder": asked.statement["holder"], "requester": self._node}
        if not isinstance(payload, dict) or any(payload.get(name) != value for name, value in expected.items()):
            raise PeerRejected("content-of-another-request", "the release answers another request")
        if payload.get("page") != number:
            raise PeerRejected("content-of-another-page", "a page came in the place of another")
        if asked.statement["grant"] not in (None, payload.get("grant")):
            raise PeerRejected("content-of-another-request", "the release names another grant")
        patients, until = payload.get("patients"), payload.get("copies_until")
        if not isinstance(patients, list) or not all(isinstance(each, str) for each in patients):
            raise PeerRejected("content-malformed", "the release's content cannot be read")
        if until is not None and (type(until) is not int or until < 0):
            raise PeerRejected("content-malformed", "the release's content cannot be read")
        payload.setdefault("copies_until", None)
        return payload

    def _check_signature(
        self, provenance: Any, asked: SignedRequest, targets: Sequence[Target], reading: Reading
    ) -> None:
        """Check that a live key of the holder signed exactly the records that came."""
        if not isinstance(provenance, dict):
            raise PeerRejected("signature-missing", "the release is not signed by its holder")
        try:
            signed = verify_institution(
                provenance,
                asked.statement["holder"],
                self._chain_id,
                lambda key_id: self._signing_key(asked, key_id, reading),
            )
        except CertificateInvalid as error:
            raise PeerRejected("signature-invalid", f"the holder's signature does not hold ({error.code})") from error
        if list(signed) != list(targets):
            raise PeerRejected("signature-of-other-records", "the holder's signature is over other records than came")

    def _signing_key(self, asked: SignedRequest, key_id: str, reading: Reading) -> PublicKey | None:
        member = self._known(f"member/{asked.statement['holder']}", asked, reading)
        if member is None or member["status"] != "active":
            return None
        return live_key(member, "sign", int(self._clock()), key_id)

    def _trust(self, asked: SignedRequest, reading: Reading) -> bytes:
        text: str = self._known(TRUST, asked, reading)
        return text.encode()

    @staticmethod
    def _known(key: str, asked: SignedRequest, reading: Reading) -> Any:
        try:
            fact = reading.fact(key)
        except ChainError as error:
            raise PeerUnavailable("the ledger does not answer, and nothing can be checked without it") from error
        if fact.stale and not asked.treatment:
            raise PeerUnavailable("the ledger does not answer, and only treatment can do without it")
        return fact.value

    def release(
        self,
        asked: SignedRequest,
        reply: Reply,
        whole: tuple[str, int] | None = None,
        *,
        reading: Reading | None = None,
    ) -> str | None:
        """Check (4) and return the release's transaction id, None while it is queued at the holder.

        ``whole``: the Merkle root (hex) and number of all digests, once every page is here. ``reading``: what the
        ledger says, where it was just asked; where it does not know the release yet it is asked again.
        """
        expected: dict[str, Any] = {"commitment": manifest_digest(asked.id, reply.pages)}
        if whole is not None:
            expected |= {"disclosed": whole[0], "count": whole[1]}
        queued = reply.gap is not None and asked.treatment
        key = f"request/{asked.id}"
        state = None if reading is None else reading.fresh.get(key)
        try:
            if not (state or {}).get("release"):
                state = self._ledger.fresh(key, lambda it: queued or bool(it.get("release")))
            release = (state or {}).get("release")
        except ChainError as error:
            if not asked.treatment:
                raise PeerUnavailable("the ledger does not answer, and only treatment can do without it") from error
            release = None
        if release:
            if any(release.get(name) != value for name, value in expected.items()):
                raise PeerRejected("release-differs", "the ledger's release is of something else than what arrived")
            return str(release["tx"])
        if reply.gap is None or not asked.treatment:
            raise PeerRejected("release-missing", "the ledger holds no release for what arrived")
        self._check_gap(asked, reply.gap, expected, reading or self.read(asked))
        return None

    def _check_gap(
        self, asked: SignedRequest, gap: Mapping[str, Any], expected: Mapping[str, Any], reading: Reading
    ) -> None:
        """Check the holder's signed statement of a release that waits for the ledger."""
        try:
            key = self._signing_key(asked, str(gap["key"]), reading)
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


@lru_cache(maxsize=2)  # the newest trust file's: what it has found to hold of one release holds of the next
def _verifier(trust: bytes) -> ReceiptVerifier:
    return ReceiptVerifier(trust)


def _check_record(entry: Any, receipt: Any, holder: str, verifier: ReceiptVerifier | None, minimum: Any) -> Record:
    resource = entry.get("resource") if isinstance(entry, dict) else None
    meta = resource.get("meta") if isinstance(resource, dict) else None
    if not isinstance(resource, dict) or not isinstance(meta, dict) or not isinstance(receipt, dict):
        raise PeerRejected("content-malformed", "the release's content cannot be read")
    ref = f"{resource.get('resourceType')}/{resource.get('id')}/_history/{meta.get('versionId')}"
    try:
        content, receipt_bytes = canonical.dump(resource), canonical.dump(receipt)
        if verifier is None:
            return resource, ref, content, receipt_bytes, str(receipt["state"])
        if len(receipt_bytes) > MAX_RECEIPT_BYTES:
            raise FormatError("a receipt is larger than receipts are")
        report = verifier.verify_value(receipt, resource=content, minimum=minimum)
    except AnchorError as error:
        step = getattr(error, "step", "format")
        raise PeerRejected("receipt-invalid", f"a record's receipt does not hold (step {step})") from error
    if report.kind != "record" or report.org != holder or report.subject != ref:
        raise PeerRejected("receipt-of-another-record", "a receipt is of another record than the one it came with")
    return resource, ref, content, receipt_bytes, report.state
