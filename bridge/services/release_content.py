"""What a release holds: the patient's records that a scope covers, each with its receipt, page by page.

A page's plaintext is canonical JSON: ``{"v":1,"request","holder","requester","time","basis","grant","permit",
"patients","copies_until","page","bundle","receipts","provenance"}``. ``bundle`` is a FHIR Bundle of type collection;
``receipts[i]`` is the receipt of ``bundle.entry[i].resource``, whose canonical bytes have the digest that the receipt
names. ``provenance`` is the holder's signature over exactly the record versions of this page
(``bridge.services.record_signature``). The records' digests in this order, then the Provenance's, page after page, are
the leaves of the disclosed Merkle root: so the ledger dates the signatures as well.

``patients`` are the holder's Patient references, ``copies_until`` the Unix second until which copies may be kept (null:
no limit). One page is in memory at a time, however large the record is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from anchor import canonical
from anchor.errors import ChainError, ChainUnavailable
from anchor.gm import sm3
from anchor.receipt import MAX_DISCLOSED, RecordReceipt, receipt_value
from bridge.errors import Conflict, DisclosureRefused, NotFound
from bridge.services.decision import CATEGORY_OF_TYPE, Scope, covers

if TYPE_CHECKING:
    from bridge.services.anchoring import AnchoringService
    from bridge.services.receipts import ReceiptService
    from bridge.services.record_signature import Target
    from bridge.storage.records import RecordStore, StoredVersion

ANCHOR_ATTEMPTS = 3  # runs of the anchoring job that a release waits for when another process has it in hand
SUPPORTING_TYPES = frozenset({"Organization", "Practitioner", "PractitionerRole", "Location"})
"""Resources about no patient that released records refer to; they go along so that the references mean something."""
MAX_SUPPORTING = 200
RECEIPT_BYTES = 4096  # what a record's receipt adds to a page, roughly
MAX_PAGES = 4096  # of one release; each adds the Provenance that signs it to what is disclosed

_REFERENCE = re.compile(  # a quote within a text stands behind a backslash, so this is a member and its whole value
    rb'(?<!\\)"reference":"(%b)/([A-Za-z0-9\-.]{1,64})"' % "|".join(sorted(SUPPORTING_TYPES)).encode()
)


@dataclass(frozen=True, slots=True)
class Content:
    """One page of a release before sealing. ``pending``: records whose receipts are not on the ledger yet.

    The last digest and reference are the Provenance's.
    """

    plaintext: bytes
    digests: tuple[bytes, ...]
    refs: tuple[str, ...]
    pending: int
    last: bool


@dataclass(frozen=True, slots=True)
class PageBounds:
    """How large a page may become: records, and bytes of records and receipts before sealing."""

    records: int = 500
    bytes: int = 4 * 1024 * 1024


Group = tuple[list["StoredVersion"], list[dict[str, Any]], bool]
"""Record versions of one page, their receipts, and whether they are the last."""


class Collected:
    """What a release covers, page by page; the first page's records are read at once, the others when it is their turn.

    What goes wrong with the first shows when it is iterated, once.
    """

    def __init__(self, groups: Iterator[Group]) -> None:
        self._groups = groups
        self._first: Group | Exception
        try:
            self._first = next(groups)
        except Exception as error:  # noqa: BLE001 - raised below, where the records are wanted
            self._first = error

    def __iter__(self) -> Iterator[Group]:
        if isinstance(self._first, Exception):
            raise self._first
        yield self._first
        yield from self._groups


class ContentBuilder:
    """Collects a patient's records and their receipts."""

    def __init__(
        self,
        records: RecordStore,
        anchoring: AnchoringService,
        receipts: ReceiptService,
        *,
        base_url: str,
        sleep: Callable[[float], None],
        sign: Callable[[Sequence[Target], str], Mapping[str, Any]],
        silent: Callable[[], bool] = lambda: False,
        bounds: PageBounds | None = None,
    ) -> None:
        """``receipts``: over a client that remembers (``MemoChain``); ``sign`` gives a signed Provenance of an id.

        ``silent``: whether the ledger did not answer a moment ago; then nobody waits for it here.
        """
        self._records, self._anchoring, self._service = records, anchoring, receipts
        self._base_url, self._sleep = base_url, sleep
        self._sign, self._silent, self._bounds = sign, silent, bounds or PageBounds()

    def collect(self, patients: Sequence[str], scope: Scope) -> Collected:
        """Collect what a scope covers, with its receipts; it is at least one page."""
        return Collected(self._groups(patients, scope))

    def _groups(self, patients: Sequence[str], scope: Scope) -> Iterator[Group]:
        for versions, last in self._grouped(self._all(patients, scope)):
            yield versions, self._receipts_of([version.ref for version in versions]), last

    def pages(self, collected: Collected, header: dict[str, Any], now: int) -> Iterator[Content]:
        """Give the pages of a release, at least one; raises ``DisclosureRefused`` ("too-large") or ``ChainError``."""
        for number, group in enumerate(collected):
            yield self._page(group, {**header, "page": number}, now)

    def _page(self, group: Group, header: dict[str, Any], now: int) -> Content:
        versions, receipts, last = group
        entries = [
            {
                "fullUrl": f"{self._base_url}/{version.type}/{version.id}",
                "resource": canonical.Verbatim(version.content),
            }
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
            signed = payload["provenance"] = self._provenance(versions, header)
            digests.append(sm3(canonical.dump(signed)))
            refs.append(f"Provenance/{signed['id']}/_history/1")
        return Content(
            canonical.dump(payload),
            tuple(digests),
            tuple(refs),
            sum(receipt["state"] == "pending" for receipt in receipts),
            last,
        )

    def _grouped(self, versions: Iterable[StoredVersion]) -> Iterator[tuple[list[StoredVersion], bool]]:
        """Give versions in groups within the bounds, and whether it is the last group.

        A single version beyond the bounds is a page of its own.
        """
        group: list[StoredVersion] = []
        size = 0
        for total, version in enumerate(versions, start=1):
            more = len(version.content) + RECEIPT_BYTES
            if total > MAX_DISCLOSED - MAX_PAGES:
                raise DisclosureRefused("too-large", "the record is larger than one release may be; limit the request")
            if group and (len(group) >= self._bounds.records or size + more > self._bounds.bytes):
                yield group, False
                group, size = [], 0
            group.append(version)
            size += more
        yield group, True

    def _all(self, patients: Iterable[str], scope: Scope) -> Iterator[StoredVersion]:
        """Give what a scope covers, then what it refers to and is about no patient."""
        wanted: set[tuple[str, str]] = set()
        for version in self._covered(patients, scope):
            if len(wanted) < MAX_SUPPORTING:
                wanted.update(supporting(version.content))
            yield version
        for type, id in sorted(wanted)[:MAX_SUPPORTING]:
            try:
                yield self._records.read(type, id)
            except NotFound:
                continue

    def _provenance(self, versions: Sequence[StoredVersion], header: Mapping[str, Any]) -> dict[str, Any]:
        targets = [(version.ref, version.digest.hex()) for version in versions]
        provenance = dict(self._sign(targets, f"release-{header['request']}-{header['page']}"))
        return {**provenance, "meta": {"versionId": "1", "lastUpdated": provenance["recorded"]}}

    def _covered(self, patients: Iterable[str], scope: Scope) -> Iterator[StoredVersion]:
        for patient in patients:
            for version in self._records.of_subject(f"Patient/{patient}", CATEGORY_OF_TYPE):
                if covers(scope, version.values()):
                    yield version

    def _publish(self) -> None:
        """Log and publish what was not yet, so that receipts can be on the ledger.

        A ledger that does not answer leaves receipts "pending"; whether that may leave is the requester's and the
        release event's matter.
        """
        if self._silent():
            while self._anchoring.drain():
                pass
            return
        for attempt in range(ANCHOR_ATTEMPTS):
            try:
                run = self._anchoring.run()
            except ChainError:
                return  # drained; only the publication waits
            if not run.skipped:
                return
            self._sleep(0.2 * 2**attempt)

    def _receipts_of(self, refs: Sequence[str]) -> list[dict[str, Any]]:
        """Return the receipts of record versions; what is not published yet is published first."""
        for attempt in range(ANCHOR_ATTEMPTS):
            try:
                receipts = self._made(refs)
            except Conflict:  # not logged yet, or by another process only now
                if attempt + 1 == ANCHOR_ATTEMPTS:
                    raise
                if attempt:
                    self._sleep(0.2 * 2**attempt)
            else:
                if attempt or all(receipt.state != "pending" for receipt in receipts):
                    break
            self._publish()
        return [receipt_value(receipt) for receipt in receipts]

    def _made(self, refs: Sequence[str]) -> list[RecordReceipt]:
        """Return receipts; without the ledger the institution's own word, which is "pending"."""
        try:
            if self._silent():
                raise ChainUnavailable
            return self._service.records(refs)
        except ChainError:
            return self._service.records(refs, published=False)


def supporting(content: bytes) -> set[tuple[str, str]]:
    """Return (type, id) of the ``SUPPORTING_TYPES`` that a resource's canonical JSON refers to, at any depth."""
    return {(match[1].decode(), match[2].decode()) for match in _REFERENCE.finditer(content)}
