"""Puts the services of the exchange together; ``bridge.wiring`` calls it and nothing else constructs them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bridge.services.abuse import AbuseWatch, Limits
from bridge.services.approvals import Approvals
from bridge.services.confirmation import Confirmations
from bridge.services.consent import ConsentRules, ConsentService
from bridge.services.decision import ApprovalRules, EmergencyRules
from bridge.services.exchange import ExchangeService
from bridge.services.ledger_events import LedgerEvents
from bridge.services.ledger_facts import LedgerFacts
from bridge.services.localisation import LocalisationClient, LocalisationIndex, LocalisationRegistrar, LocalPatients
from bridge.services.memo_chain import MemoChain
from bridge.services.pseudonyms import DAILY_QUOTA, PseudonymClient, PseudonymService
from bridge.services.receipts import ReceiptService
from bridge.services.receive import ReceiveService
from bridge.services.release import ReleaseService
from bridge.services.release_checks import ReleaseChecks
from bridge.services.release_content import ContentBuilder, PageBounds
from bridge.services.release_keeping import OpenEvent, ReleaseKeeping
from bridge.services.release_pages import PageSealer
from bridge.services.request_basis import RequestBasis
from bridge.services.reviews import ReviewService
from bridge.services.sealed_subject import open_subject
from bridge.storage.asked_requests import AskedRequests
from bridge.storage.disclosures import DisclosureStore
from bridge.storage.pages import ArrivedPages, ReleasePages

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from anchor.chain.client import ChainClient
    from bridge.keys.decryption import DecryptionKeys
    from bridge.keys.store import KeyStore
    from bridge.services.anchoring import AnchoringService, NodeSigner
    from bridge.services.audit import AuditService
    from bridge.services.peers import Peers
    from bridge.services.signing import SigningService
    from bridge.services.submission import TransactionSubmitter
    from bridge.storage.keyring import KeyRing
    from bridge.storage.records import RecordStore


@dataclass(frozen=True, slots=True)
class ExchangeTerms:
    """What the settings say. ``authority`` is the card authority's org and may be this node's own; "" for none."""

    chain_id: str
    authority: str
    scope: str
    release_timeout_seconds: float
    quorum: int
    keys: KeyStore
    base_url: str
    consent: ConsentRules = field(default_factory=ConsentRules)
    signature_anchors: Path | None = None
    emergency: EmergencyRules = field(default_factory=EmergencyRules)
    limits: Limits = field(default_factory=Limits)
    pseudonyms_per_day: int = DAILY_QUOTA
    approval: ApprovalRules = field(default_factory=ApprovalRules)
    pages: PageBounds = field(default_factory=PageBounds)


@dataclass(frozen=True, slots=True)
class ExchangeParts:
    """The services, and the jobs ``register`` (holders) and ``settle`` (events and grants the ledger has not got)."""

    pseudonyms: PseudonymService
    index: LocalisationIndex
    consent: ConsentService
    exchange: ExchangeService
    registrar: LocalisationRegistrar
    events: LedgerEvents
    reviews: ReviewService
    watch: AbuseWatch
    approvals: Approvals
    releases: ReleaseKeeping

    def register(self) -> int:
        """Run the registration job; returns how many patients were registered."""
        return self.registrar.run()

    def gaps(self) -> list[OpenEvent]:
        """Return what of exchanges has no end yet, oldest first: the gap report."""
        queued = [
            OpenEvent(f"event-{gap['state']}", gap["request"], "", gap["since"], f"{gap['type']} {gap['code'] or ''}")
            for gap in self.events.gaps()
        ]
        asked = [
            OpenEvent(f"request-{each['state']}", each["request"], each["holder"], each["created"])
            for each in self.exchange.unfinished()
        ]
        return sorted([*queued, *self.releases.unconfirmed(), *asked], key=lambda each: each.since)

    def settle(self) -> int:
        """Bring to the ledger what it could not take in time; returns how much was settled."""
        return self.events.settle() + self.consent.settle() + self.reviews.settle() + self.watch.watch()


def assemble_exchange(
    terms: ExchangeTerms,
    *,
    engine: Engine,
    keyring: KeyRing,
    records: RecordStore,
    chain: ChainClient,
    signer: NodeSigner,
    decryption: DecryptionKeys,
    submitter: TransactionSubmitter,
    peers: Peers,
    facts: LedgerFacts,
    anchoring: AnchoringService,
    audit: AuditService,
    signing: SigningService,
    clock: Callable[[], float] = time.time,
) -> ExchangeParts:
    """Build the services of the exchange over a node's other parts."""
    node, key = audit.node, signer.sign
    own = terms.authority == node.id
    service = PseudonymService(engine, terms.keys, audit, clock, terms.pseudonyms_per_day)
    watch = AbuseWatch(engine, keyring, audit, terms.limits, clock)
    index = LocalisationIndex(engine, audit, clock, lambda conn, org, found: watch.sought(conn, org, found=found))
    pseudonyms = PseudonymClient(peers, node.id, terms.authority, terms.scope, service if own else None)
    localisation = LocalisationClient(peers, node.id, terms.authority, index if own else None)
    events = LedgerEvents(
        engine, submitter, chain, key, facts=facts, timeout_seconds=terms.release_timeout_seconds, clock=clock
    )
    consent = ConsentService(
        engine,
        records,
        keyring,
        submitter,
        chain,
        node.id,
        clock,
        rules=terms.consent,
        confirmations=Confirmations(engine, keyring, anchors=terms.signature_anchors, clock=clock),
    )
    store = DisclosureStore(engine, keyring)

    memo: Any = MemoChain(chain)
    receipts = ReceiptService(engine, keyring, memo, signer, node.id, clock, chain_id=terms.chain_id)
    reviews = ReviewService(engine, records, keyring, submitter, chain, audit, clock)
    approvals = Approvals(engine, records, keyring, events, audit, clock)
    pages = ReleasePages(engine, keyring)
    content = ContentBuilder(
        records,
        anchoring,
        receipts,
        base_url=terms.base_url,
        sleep=time.sleep,
        sign=signing.provenance,
        silent=lambda: facts.silent,
        bounds=terms.pages,
    )
    patients = LocalPatients(keyring, lambda text: open_subject(text, decryption, node.id), consent.find_patients)
    release = ReleaseService(
        engine=engine,
        store=store,
        reviews=reviews,
        approvals=approvals,
        sealer=PageSealer(engine, store, pages, content, chain_id=terms.chain_id, key=key, clock=clock),
        basis=RequestBasis(engine, facts, patients, consent, terms.emergency),
        facts=facts,
        chain_id=terms.chain_id,
        node=node,
        events=events,
        audit=audit,
        approval=terms.approval,
        clock=clock,
    )
    checks = ReleaseChecks(
        chain_id=terms.chain_id, node=node.id, quorum=terms.quorum, facts=facts, decryption=decryption, clock=clock
    )
    receive = ReceiveService(
        engine=engine,
        keyring=keyring,
        records=records,
        store=store,
        arrived=ArrivedPages(engine),
        checks=checks,
        node=node,
        events=events,
        audit=audit,
        clock=clock,
    )
    exchange = ExchangeService(
        engine=engine,
        requests=AskedRequests(engine, keyring),
        chain=chain,
        chain_id=terms.chain_id,
        node=node,
        key=key,
        pseudonyms=pseudonyms,
        localisation=localisation,
        peers=peers,
        events=events,
        receive=receive,
        release=release,
        audit=audit,
        watch=watch,
        clock=clock,
    )
    registrar = LocalisationRegistrar(engine, records, keyring, pseudonyms, localisation, clock)
    keeping = ReleaseKeeping(engine, store, pages, chain, clock)
    return ExchangeParts(service, index, consent, exchange, registrar, events, reviews, watch, approvals, keeping)
