"""What a release holds: the patient's records that a scope covers, each with its receipt, as one sealed envelope.

The plaintext is canonical JSON:
``{"v":1,"request","holder","requester","time","basis","grant","permit","bundle","receipts"}``. ``bundle`` is a FHIR
Bundle of type collection; ``receipts[i]`` is the receipt of ``bundle.entry[i].resource``, whose canonical bytes have
the digest that the receipt names. The digests in this order are the leaves of the disclosed Merkle root.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from anchor import canonical
from anchor.errors import ChainError
from anchor.receipt import MAX_DISCLOSED
from bridge.errors import Conflict, DisclosureRefused, NotFound
from bridge.services.decision import CATEGORY_OF_TYPE, Scope, covers
from bridge.services.memo_chain import MemoChain

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient
    from bridge.services.anchoring import AnchoringService
    from bridge.services.receipts import ReceiptService
    from bridge.storage.records import RecordStore, StoredVersion

ANCHOR_ATTEMPTS = 3  # runs of the anchoring job that a release waits for when another process has it in hand
SUPPORTING_TYPES = frozenset({"Organization", "Practitioner", "PractitionerRole", "Location"})
"""Resources about no patient that released records refer to; they go along so that the references mean something."""
MAX_SUPPORTING = 200

_REFERENCE = re.compile(r"([A-Z][A-Za-z]{1,63})/([A-Za-z0-9\-.]{1,64})")


@dataclass(frozen=True, slots=True)
class Content:
    """A release before sealing. ``pending``: records whose receipts are not on the ledger yet."""

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
    ) -> None:
        """``receipts`` makes a receipt service over a given chain client."""
        self._records, self._anchoring, self._receipts = records, anchoring, receipts
        self._chain, self._base_url, self._sleep = chain, base_url, sleep

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
        plaintext = canonical.dump({**header, "v": 1, "time": now, "bundle": bundle, "receipts": receipts})
        return Content(
            plaintext,
            tuple(version.digest for version in versions),
            tuple(version.ref for version in versions),
            sum(receipt["state"] == "pending" for receipt in receipts),
        )

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
