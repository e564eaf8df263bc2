"""The requester's side of a release: fetch page by page, check everything, and only then store anything.

A release of one page is checked (``bridge.services.release_checks``) and stored in one transaction. Of a longer one
each page is checked as it arrives and kept as the sealed envelope it came in; a transfer that breaks off goes on with
the first page that is missing. When all are here and root and number are the ledger's, they are stored page after page,
each in a transaction of its own with its Provenance; storing again changes nothing, so a process that dies meanwhile is
followed by one that starts over. Memory holds one page and one line for each record.

The AuditEvent belongs to the last transaction; access.receive follows. Copies whose grant limits how long they may be
kept are kept apart (``bridge.services.local_copy``), with their end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.dialects import postgresql, sqlite

from anchor import canonical
from anchor.errors import TransactionRejected
from anchor.gm import sm3
from anchor.receipt import disclosed_root
from bridge.errors import PeerRejected
from bridge.services.access_request import SignedRequest
from bridge.services.audit_event import ExchangeFacts, Party
from bridge.services.ledger_events import LedgerEvents, Recorded
from bridge.services.local_copy import local_copy, local_id, provenance, subject_of
from bridge.services.release_checks import CheckedPage, Record, ReleaseChecks, Reply, read_reply
from bridge.storage.database import transact, write_transaction
from bridge.storage.disclosures import DisclosureStore
from bridge.storage.erasure import find_erasure
from bridge.storage.exchange import ReceivedRecord
from bridge.storage.pages import ArrivedPages
from bridge.storage.records import Lineage, RecordWrite

if TYPE_CHECKING:
    from bridge.services.audit import AuditService
    from bridge.services.ledger_facts import Reading
    from bridge.storage.keyring import KeyRing
    from bridge.storage.records import RecordStore

ADAPTER = "yiqiao-exchange/1.0"
NO_ROOT = "0" * 64  # what access.receive names when a release could not even be opened
MAX_AUDITED = 1000  # records named in one AuditEvent; of more, their number stands in it

Original = tuple[Record, str, bytes, str]
"""A record as it came, the reference of its copy here, its digest, and the subject whose key seals it."""

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


class ReceiveService:
    """Fetches, checks and stores what other members release to this node."""

    def __init__(
        self,
        *,
        engine: Engine,
        keyring: KeyRing,
        records: RecordStore,
        store: DisclosureStore,
        arrived: ArrivedPages,
        checks: ReleaseChecks,
        node: Party,
        events: LedgerEvents,
        audit: AuditService,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._keyring, self._records, self._store = engine, keyring, records, store
        self._arrived, self._checks, self._node = arrived, checks, node
        self._events, self._audit, self._clock = events, audit, clock

    def read(self, asked: SignedRequest, answer: bytes) -> Reply | None:
        """Read a holder's answer; None when a person there is asked first. Raises ``PeerRejected``, recorded."""
        try:
            return read_reply(asked, answer)
        except PeerRejected:
            self._confirm(asked, NO_ROOT, "rejected")
            raise

    def accept(
        self, asked: SignedRequest, reply: Reply, facts: ExchangeFacts, fetch: Callable[[int], bytes]
    ) -> Received:
        """Fetch what is missing of a release, check and store it; ``fetch`` returns the envelope of a page.

        Raises ``PeerRejected`` with a code that names what does not hold, after recording the rejection on the ledger
        and in the audit trail; nothing of the release is stored then. ``PeerUnavailable`` from ``fetch`` or from the
        ledger leaves what has arrived, to go on from there.
        """
        root = NO_ROOT
        try:
            reading = self._checks.read(asked)
            first = self._take(asked, reply, fetch, reading)
            listed = self._store.records(asked.id) if first is None else first.listed()
            root = disclosed_root([bytes.fromhex(digest) for _, digest in listed]).hex()
            release_tx = self._checks.release(asked, reply, (root, len(listed)), reading=reading if first else None)
        except PeerRejected:
            with write_transaction(self._engine) as connection:
                self._arrived.drop(connection, asked.id)
                self._store.drop_records(connection, asked.id)
            self._confirm(asked, root, "rejected")
            raise
        items = self._keep(asked, self._pages(asked, reply, first), len(reply.pages), facts)
        if release_tx is None:  # the holder's event is still on its way; ours follows it
            self._events.enqueue("access.receive", {"request": asked.id, "disclosed": root, "status": "verified"})
            return Received(items, root, None, None, True)
        confirmed = self._confirm(asked, root, "verified")
        return Received(items, root, release_tx, confirmed.tx_id if confirmed else None, False)

    # --- arriving

    def _take(
        self, asked: SignedRequest, reply: Reply, fetch: Callable[[int], bytes], reading: Reading
    ) -> CheckedPage | None:
        """Check every page that is not here yet; return the only one of a short release, None for kept ones.

        ``reading``: what the ledger says now; for pages that are fetched it is asked again.
        """
        here = self._here(asked, reply) if len(reply.pages) > 1 else []  # what an only page leaves behind, it removes
        start = sum(count for _, count in here)
        if here:
            self._checks.release(asked, reply, reading=reading)
        for number in range(len(here), len(reply.pages)):
            envelope = fetch(number) if number else reply.envelope
            page = self._checks.page(asked, envelope, number, reading=None if number else reading)
            if sm3(envelope).hex() != reply.pages[number]:
                raise PeerRejected("page-differs", "a page is another than the release's manifest names")
            if number == 0:
                self._checks.release(asked, reply, reading=reading)
            if len(reply.pages) == 1:
                return page  # is stored at once, with the list of what it discloses
            with write_transaction(self._engine) as connection:
                if number == 0:
                    self._store.drop_records(connection, asked.id)
                self._arrived.keep(connection, asked.id, number, envelope, reply.pages[number], len(page.digests))
                self._store.add_records(connection, asked.id, start, page.listed())
            start += len(page.digests)
        return None

    def _here(self, asked: SignedRequest, reply: Reply) -> list[tuple[str, int]]:
        """Return the pages that have arrived before; those of another answer are thrown away."""
        here = self._arrived.here(asked.id)
        if [digest for digest, _ in here] == list(reply.pages[: len(here)]):
            return here
        with write_transaction(self._engine) as connection:
            self._arrived.drop(connection, asked.id)
            self._store.drop_records(connection, asked.id)
        return []

    def _pages(self, asked: SignedRequest, reply: Reply, only: CheckedPage | None) -> Iterator[CheckedPage]:
        if only is not None:
            yield only
            return
        for number in range(len(reply.pages)):
            envelope = self._arrived.envelope(asked.id, number)
            if sm3(envelope).hex() != reply.pages[number]:
                raise PeerRejected("page-differs", "a page was altered while it was kept here")
            yield self._checks.page(asked, envelope, number, verified=True)

    # --- keeping

    def _keep(
        self, asked: SignedRequest, pages: Iterator[CheckedPage], count: int, facts: ExchangeFacts
    ) -> tuple[ReceivedItem, ...]:
        items: list[ReceivedItem] = []
        for page in pages:
            last = page.number + 1 == count

            def work(connection: Connection, page: CheckedPage = page, last: bool = last) -> list[ReceivedItem]:
                if count == 1:
                    self._store.drop_records(connection, asked.id)
                    self._store.add_records(connection, asked.id, 0, page.listed())
                space = self._space(connection, asked, page)
                kept, patients, originals = self._keep_page(connection, asked, page, space)
                told: list[RecordWrite] = []
                if page.records:
                    told = [_signed(asked, page, space, patients), self._trail(asked, page, kept, patients)]
                ended = [self._ended(facts, items + kept, patients)] if last else []  # noqa: B023
                results = self._records.put_many(connection, told + ended)
                if told:
                    originals.append(_original(page, results[0].ref, told[0].subject))
                self._keep_originals(connection, asked, originals, page.until)
                if last:
                    self._arrived.drop(connection, asked.id)
                return kept

            items = items + transact(self._engine, work)
        return tuple(items)

    def _space(self, connection: Connection, asked: SignedRequest, page: CheckedPage) -> str:
        """Return where the copies of a release are kept: with a limit by themselves, else where nothing was erased."""
        if page.until is not None:
            return asked.id
        holder, generation, space = asked.statement["holder"], 0, ""
        ids = [patient.removeprefix("Patient/") for patient in page.patients]
        while any(find_erasure(connection, f"Patient/{local_id(holder, 'Patient', id, space)}") for id in ids):
            generation += 1
            space = str(generation)
        return space

    def _keep_page(
        self, connection: Connection, asked: SignedRequest, page: CheckedPage, space: str
    ) -> tuple[list[ReceivedItem], list[str], list[Original]]:
        """Store the copies of a page's records; returns them, their patients here, and the records as they came."""
        holder = asked.statement["holder"]
        ids = [patient.removeprefix("Patient/") for patient in page.patients]
        patients = [f"Patient/{local_id(holder, 'Patient', id, space)}" for id in ids]
        copies = [local_copy(resource, holder=holder, ref=ref, space=space) for resource, ref, _, _, _ in page.records]
        subjects = [subject_of(copy, patients) for copy in copies]
        digests = page.digests[: len(copies)]
        writes = [
            RecordWrite(copy, Lineage(f"org:{holder}", digest, ADAPTER), subject)
            for copy, digest, subject in zip(copies, digests, subjects, strict=True)
        ]
        results = self._records.put_many(connection, writes)
        kept = [
            ReceivedItem(ref, result.ref, digest.hex(), state)
            for (_, ref, _, _, state), result, digest in zip(page.records, results, digests, strict=True)
        ]
        originals = [
            (record, result.ref, digest, subject)
            for record, result, digest, subject in zip(page.records, results, digests, subjects, strict=True)
        ]
        return kept, patients, originals

    def _trail(
        self, asked: SignedRequest, page: CheckedPage, kept: Sequence[ReceivedItem], patients: Sequence[str]
    ) -> RecordWrite:
        """Return this node's own Provenance of the copies."""
        holder = asked.statement["holder"]
        trail = provenance(
            request=asked.id,
            page=page.number,
            holder=holder,
            requester=self._node.id,
            purpose=asked.statement["purpose"],
            targets=[each.local for each in kept],
            sources=[each.original for each in kept],
            now=int(self._clock()),
            until=page.until,
        )
        return RecordWrite(trail, Lineage(f"org:{holder}", sm3(asked.dump()), ADAPTER), _patient_of(patients))

    def _ended(self, facts: ExchangeFacts, items: Sequence[ReceivedItem], patients: Sequence[str]) -> RecordWrite:
        """Return the AuditEvent of all that was received."""
        stored = replace(
            facts,
            description=f"received and verified {len(items)} records",
            patient=next(iter(patients), None),
            records=tuple(item.local for item in items[:MAX_AUDITED]),
        )
        return self._audit.receive_write(stored)

    def _keep_originals(
        self, connection: Connection, asked: SignedRequest, originals: Sequence[Original], until: int | None
    ) -> None:
        """Keep records and receipts as they came, each sealed under its subject's key."""
        holder, now = asked.statement["holder"], int(self._clock())
        keys = self._keyring.data_keys(connection, {subject for _, _, _, subject in originals})
        rows = []
        for (_, ref, content, receipt, _), local_ref, digest, subject in originals:
            place = f"{holder}|{ref}".encode()
            rows.append(
                {
                    "holder": holder,
                    "original_ref": ref,
                    "local_ref": local_ref,
                    "request_id": asked.id,
                    "subject": subject,
                    "digest": digest.hex(),
                    "content_sealed": keys[subject].seal(content, b"received|" + place),
                    "receipt_sealed": keys[subject].seal(receipt, b"receipt|" + place),
                    "received": now,
                    "expires": None if subject == "node" else until,
                }
            )
        if not rows:
            return
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        statement = insert(_RECEIVED)
        conflict = ("holder", "original_ref", "local_ref")
        renewed = {name: statement.excluded[name] for name in rows[0] if name not in conflict}
        connection.execute(statement.on_conflict_do_update(index_elements=conflict, set_=renewed), rows)

    def _confirm(self, asked: SignedRequest, root: str, status: str) -> Recorded | None:
        """Record access.receive; None when the ledger has nothing that could be confirmed."""
        body = {"request": asked.id, "disclosed": root, "status": status}
        try:
            return self._events.commit("access.receive", body, may_queue=True)
        except TransactionRejected:
            return None


def _patient_of(patients: Sequence[str]) -> str:
    return patients[0] if patients else "node"


def _signed(asked: SignedRequest, page: CheckedPage, space: str, patients: Sequence[str]) -> RecordWrite:
    """Return the holder's signed Provenance, to be stored like any record that came."""
    assert page.provenance is not None
    holder, ref = asked.statement["holder"], page.listed()[-1][0]
    copy = local_copy(page.provenance, holder=holder, ref=ref, space=space)
    return RecordWrite(copy, Lineage(f"org:{holder}", page.digests[-1], ADAPTER), _patient_of(patients))


def _original(page: CheckedPage, local: str, subject: str) -> Original:
    """Return the holder's signed Provenance as it is kept beside the records; ``local`` is its copy's reference."""
    assert page.provenance is not None
    record = (page.provenance, page.listed()[-1][0], canonical.dump(page.provenance), b"", "signed")
    return record, local, page.digests[-1], subject
