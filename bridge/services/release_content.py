"""What a release holds: the patient's records that a scope covers, each with its receipt, as one sealed envelope.

The plaintext is canonical JSON:
``{"v":1,"request","holder","requester","time","basis","grant","permit","bundle","receipts","provenance"}``. ``bundle``
is a FHIR Bundle of type collection; ``receipts[i]`` is the receipt of ``bundle.entry[i].resource``, whose canonical
bytes have the digest that the receipt names. ``provenance`` is the holder's signature over exactly these record
versions (``bridge.services.record_signature``). The records' digests in this order, then the Provenance's, are the
leaves of the disclosed Merkle root: so the ledger dates the signature as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from anchor import canonical
from anchor.errors import ChainError
from anchor.gm import sm3
from anchor.receipt import MAX_DISCLOSED
from bridge.errors import Conflict, DisclosureRefused, NotFound
from bridge.services.decision import CATEGORY_OF_TYPE, Scope, covers
from bridge.services.memo_chain import MemoChain

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient
    from bridge.services.anchoring import AnchoringService
    from bridge.services.receipts import ReceiptService
    from bridge.services.record_signature import Target
    from bridge.storage.records import RecordStore, StoredVersion

ANCHOR_ATTEMPTS = 3  # runs of the anchoring job that a release waits for when another process has it in hand
SUPPORTING_TYPES = frozenset({"Organization", "Practitioner", "PractitionerRole", "Location"})
"""Resources about no patient that released records refer to; they go along so that the references mean something."""
MAX_SUPPORTING = 200

_REFERENCE = re.compile(r"([A-Z][A-Za-z]{1,63})/([A-Za-z0-9\-.]{1,64})")


@dataclass(frozen=True, slots=True)
class Content:
    """A release before sealing. ``pending``: records whose receipts are not on the ledger yet.

    The last digest and reference are the Provenance's.
    """

    plaintext: bytes
    digests: tuple[bytes, ...]
    refs: tuple[str, ...]
    pending: int


class ContentBuilder:
    """Collects a patient's records and their receipts."""

    def __init__(
        self,
        records: RecordStore,
        anchoring: AnchoringService,
        receipts: Callable[[ChainClient], ReceiptService],
        chain: ChainClient,
        *,
        base_url: str,
        sleep: Callable[[float], None],
        sign: Callable[[Sequence[Target], str], Mapping[str, Any]],
    ) -> None:
        """``receipts`` makes a receipt service over a given chain client, ``sign`` a signed Provenance of an id."""
        self._records, self._anchoring, self._receipts = records, anchoring, receipts
        self._chain, self._base_url, self._sleep = chain, base_url, sleep
        self._sign = sign

    def build(self, patients: Iterable[str], scope: Scope, header: dict[str, Any], now: int) -> Content:
        """Return the content of a release; raises ``DisclosureRefused`` ("too-large") or ``ChainError``."""
        versions = list(self._covered(patients, scope))
        versions += self._supporting(versions)
        if len(versions) > MAX_DISCLOSED:
            raise DisclosureRefused("too-large", "the record is larger than one release may be; limit the request")
        receipts = self._receipts_of(versions)
        entries = [
            {"fullUrl": f"{self._base_url}/{version.type}/{version.id}", "resource": version.resource()}
            for version in versions
        ]
        bundle = {
            "resourceType": "Bundle",
            "type": "collection",
            "timestamp": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "entry": entries,
        }
        if not entries:
            del bundle["entry"]  # FHIR JSON has no empty arrays
        digests, refs = [version.digest for version in versions], [version.ref for version in versions]
        payload = {**header, "v": 1, "time": now, "bundle": bundle, "receipts": receipts, "provenance": None}
        if versions:
            signed = payload["provenance"] = self._provenance(versions, header["request"])
            digests.append(sm3(canonical.dump(signed)))
            refs.append(f"Provenance/{signed['id']}/_history/1")
        return Content(
            canonical.dump(payload),
            tuple(digests),
            tuple(refs),
            sum(receipt["state"] == "pending" for receipt in receipts),
        )

    def _provenance(self, versions: Sequence[StoredVersion], request: str) -> dict[str, Any]:
        targets = [(version.ref, version.digest.hex()) for version in versions]
        provenance = dict(self._sign(targets, f"release-{request}"))
        return {**provenance, "meta": {"versionId": "1", "lastUpdated": provenance["recorded"]}}

    def _covered(self, patients: Iterable[str], scope: Scope) -> Iterator[StoredVersion]:
        for patient in patients:
            for version in self._records.of_subject(f"Patient/{patient}", CATEGORY_OF_TYPE):
                if covers(scope, version.resource()):
                    yield version

    def _supporting(self, versions: Iterable[StoredVersion]) -> list[StoredVersion]:
        wanted = {
            match.groups()
            for version in versions
            for reference in references(version.resource())
            if (match := _REFERENCE.fullmatch(reference)) and match[1] in SUPPORTING_TYPES
        }
        found = []
        for type, id in sorted(wanted)[:MAX_SUPPORTING]:
            try:
                found.append(self._records.read(type, id))
            except NotFound:
                continue
        return found

    def _receipts_of(self, versions: list[StoredVersion]) -> list[dict[str, Any]]:
        """Return each version's receipt, after logging and publishing what was not yet.

        A ledger that does not answer leaves receipts "pending"; whether that may leave is the requester's and the
        release event's matter.
        """
        for attempt in range(ANCHOR_ATTEMPTS):
            try:
                run = self._anchoring.run()
            except ChainError:
                break  # drained; only the publication waits
            if not run.skipped:
                break
            self._sleep(0.2 * 2**attempt)
        service = self._receipts(MemoChain(self._chain))
        for attempt in range(ANCHOR_ATTEMPTS):
            try:
                return [canonical.load(service.for_record(each.type, each.id, each.version)) for each in versions]
            except Conflict:  # logged by another process only now
                if attempt + 1 == ANCHOR_ATTEMPTS:
                    raise
                self._sleep(0.2 * 2**attempt)
        return []


def references(value: Any) -> Iterator[str]:
    """Give every literal reference of a resource."""
    if isinstance(value, dict):
        for name, child in value.items():
            if name == "reference" and isinstance(child, str):
                yield child
            else:
                yield from references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)
