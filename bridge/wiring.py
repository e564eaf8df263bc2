"""The composition root: from Settings to a Node whose parts are built in the order in which they depend on each other.

Nothing else constructs a service. Whatever is missing or contradictory stops the node here, by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, make_url

from anchor.chain.client import ChainClient
from anchor.chain.followed import FollowedLedger
from anchor.gm import self_test
from bridge.exchange_wiring import add_exchange
from bridge.keys.store import KeyStore, retired_keys
from bridge.ledger_wiring import add_ledger, read_genesis
from bridge.metrics import LedgerHealth
from bridge.node_keys import Signer, load_signer
from bridge.pki.authority import CertificateAuthority
from bridge.pki.tls_identity import TlsIdentity
from bridge.profiles import ProfileBook
from bridge.services.abuse import AbuseWatch
from bridge.services.action_intake import ActionIntake
from bridge.services.anchoring import AnchoringService
from bridge.services.approvals import Approvals
from bridge.services.audit import AuditService
from bridge.services.audit_event import Party
from bridge.services.consent import ConsentService
from bridge.services.conversion import conversion
from bridge.services.cosignatures import CosignatureExchange
from bridge.services.drop_folder import DropFolder
from bridge.services.erasure import ErasureService
from bridge.services.evidence_status import EvidenceStatusService, Thresholds
from bridge.services.exchange import ExchangeService
from bridge.services.exchange_parts import ExchangeParts
from bridge.services.fhir_intake import FhirIntake
from bridge.services.fhir_resolution import FhirResolver, resolving
from bridge.services.file_intake import FileIntake
from bridge.services.gossip import CheckpointGossip
from bridge.services.identity import IdentityService
from bridge.services.ingest import DEFAULT_PROFILE, IngestService
from bridge.services.integrity import IntegrityService
from bridge.services.journey import JourneyService
from bridge.services.ledger_facts import LedgerFacts
from bridge.services.localisation import LocalisationIndex
from bridge.services.patient_view import PatientView
from bridge.services.peers import Peers
from bridge.services.polling import ViewPoller
from bridge.services.pseudonyms import PseudonymService
from bridge.services.reading import ReadingService
from bridge.services.receipts import ReceiptService
from bridge.services.received_copies import ReceivedCopies
from bridge.services.retention import RetentionService, RetentionTerms
from bridge.services.reviews import ReviewService
from bridge.services.search import SearchService
from bridge.services.signing import SigningService
from bridge.services.submission import TransactionSubmitter
from bridge.services.timestamping import TimestampService, TimestampTerms, read_certificates
from bridge.services.witnessing import WitnessService
from bridge.settings import Settings, load_settings
from bridge.settings_rules import check_settings
from bridge.source_profiles import load_profiles, profile_files
from bridge.stopping import Stopping, never
from bridge.storage.database import migrate, open_database
from bridge.storage.inbox import Inbox, InboxBounds
from bridge.storage.keyring import KeyRing
from bridge.storage.leases import JobLeases
from bridge.storage.nonces import NonceCache
from bridge.storage.outbox import Outbox
from bridge.storage.records import RecordStore
from fhir_adapters import SourceProfile

FHIR_WAIT_SECONDS = 10.0  # how long a client that writes FHIR waits for the worker before it is told to ask again
REVOKED_PATH = "/certificates/v1/revoked"
KEK = "kek.key"

Clock = Callable[[], float]


@dataclass(kw_only=True)
class Node:
    """Everything one node is made of. Built by ``build_node``; ``close`` lets go in reverse order."""

    settings: Settings
    clock: Clock
    stopping: Stopping
    keys: KeyStore
    signer: Signer
    profiles: Mapping[str, SourceProfile]
    # stores
    engine: Engine
    keyring: KeyRing
    inbox: Inbox
    records: RecordStore
    outbox: Outbox
    leases: JobLeases
    nonces: NonceCache
    # the ledger and the other members
    chain: ChainClient
    replay: FollowedLedger | None
    ledger_health: LedgerHealth
    facts: LedgerFacts
    submitter: TransactionSubmitter
    gossip: CheckpointGossip
    cosignatures: CosignatureExchange | None
    peers: Peers
    tls: TlsIdentity
    certificates: CertificateAuthority
    # services
    audit: AuditService
    ingest: IngestService
    journeys: JourneyService
    retention: RetentionService
    identity: IdentityService
    search: SearchService
    reading: ReadingService
    anchoring: AnchoringService
    witness: WitnessService
    timestamps: TimestampService
    evidence_status: EvidenceStatusService
    receipts: ReceiptService
    integrity: IntegrityService
    signing: SigningService
    pollers: tuple[ViewPoller | DropFolder, ...]
    files: FileIntake
    actions: ActionIntake
    fhir_intake: FhirIntake
    # exchange between institutions; the card authority's own services answer others only where the node has that role
    pseudonyms: PseudonymService
    localisation: LocalisationIndex
    consent: ConsentService
    exchange: ExchangeService
    reviews: ReviewService
    watch: AbuseWatch
    patient_view: PatientView
    approvals: Approvals
    exchange_parts: ExchangeParts
    erasure: ErasureService
    copies: ReceivedCopies
    resources: ExitStack

    def purge(self) -> int:
        """Forget what has run its course; return how much.

        Used nonces, old messages, pages of releases that are done with, copies whose time is over, requests that nobody
        answered, what the ledger said long ago.
        """
        done = self.nonces.purge(self.clock()) + self.retention.run()
        done += self.exchange_parts.releases.purge() + self.approvals.expire() + self.copies.expire()
        return done + self.facts.forget()

    def refresh_revoked(self) -> bool:
        """Bring the list of revoked certificates up to date; True when it changed.

        The authority makes it from the ledger's members; the others fetch it there.
        """
        if self.certificates.exists:
            content = self.certificates.revocation_list(lambda org: self.chain.state(f"member/{org}"))
        else:
            content = self.peers.get(self.settings.exchange.authority, REVOKED_PATH)
        return self.tls.exists and self.tls.replace_revoked(content)

    def close(self) -> None:
        """Let go of connections, files and threads, last opened first."""
        self.resources.close()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_node(home: str | Path, stopping: Stopping = never) -> Node:
    """Build the node at ``home`` from its settings; ``stopping`` as for ``build_node``.

    Raises ``SettingsError`` when they are missing or unsafe.
    """
    return build_node(load_settings(home), stopping=stopping)


def prepare_database(settings: Settings) -> None:
    """Bring the node's database to this version's schema; creates it when it is new."""
    engine = open_database(settings.database_url)
    try:
        migrate(engine)
    finally:
        engine.dispose()


def build_node(settings: Settings, clock: Clock = time.time, stopping: Stopping = never) -> Node:
    """Build a node. Once ``stopping`` says so, long jobs end after the step in hand and go on at their next run.

    Raises ``SettingsError`` for unsafe settings, ``AnchorError`` when the cryptography does not work.
    """
    check_settings(settings)
    self_test()
    with ExitStack() as resources:
        node = _build(settings, clock, stopping, resources)
        node.resources = resources.pop_all()  # nothing failed: the node closes them from now on
    return node


def _build(settings: Settings, clock: Clock, stopping: Stopping, resources: ExitStack) -> Node:
    parts: dict[str, Any] = {"settings": settings, "clock": clock, "stopping": stopping, "resources": resources}
    keys = settings.key_store()
    parts["keys"] = keys
    parts["signer"] = load_signer(settings, keys)
    parts["profiles"] = ProfileBook(lambda: load_profiles(settings, keys), profile_files(settings))
    _add_stores(parts, resources)
    add_ledger(parts, resources)
    _add_services(parts, resources)
    _add_evidence_status(parts)
    add_exchange(parts)
    return Node(**parts)


def _add_stores(parts: dict[str, Any], resources: ExitStack) -> None:
    settings: Settings = parts["settings"]
    clock: Clock = parts["clock"]
    engine = open_database(settings.database_url)
    resources.callback(engine.dispose)
    keys: KeyStore = parts["keys"]

    def keks() -> list[bytes]:
        return [keys.read(KEK), *retired_keys(keys, KEK)]

    keyring = KeyRing(engine, keys.read(KEK), keys.read("index.key"), clock, keks=keks)
    inbox = Inbox(engine, keyring, clock, bounds=_inbox_bounds(settings))
    resources.callback(inbox.close)
    parts |= {
        "engine": engine,
        "keyring": keyring,
        "inbox": inbox,
        "records": RecordStore(engine, keyring, clock),
        "outbox": Outbox(),
        "leases": JobLeases(engine, clock),
        "nonces": NonceCache(engine),
    }


def _inbox_bounds(settings: Settings) -> InboxBounds:
    bounds = settings.inbox
    file = make_url(settings.database_url).database if settings.database_url.startswith("sqlite") else None
    return InboxBounds(
        bounds.max_messages, bounds.max_bytes, bounds.min_free_bytes, None if file is None else Path(file).parent
    )


def _retention_terms(settings: Settings) -> RetentionTerms:
    terms = settings.retention
    return RetentionTerms(terms.stored_days, terms.failed_days, terms.stored_max_bytes)


def _add_services(parts: dict[str, Any], resources: ExitStack) -> None:
    settings: Settings = parts["settings"]
    clock: Clock = parts["clock"]
    signer: Signer = parts["signer"]
    engine, keyring, records, chain = parts["engine"], parts["keyring"], parts["records"], parts["chain"]
    stopping: Stopping = parts["stopping"]
    org, chain_id, replay = signer.org, settings.ledger.chain, parts["replay"]
    has_file = settings.ledger.engine != "remote" or (replay is not None and replay.progress() is not None)
    audit = AuditService(engine, records, Party(org, settings.node.name, settings.node.endpoint), clock)
    search = SearchService(records)
    converter = resolving(conversion, FhirResolver(records, org))
    ingest = IngestService(engine, parts["inbox"], records, parts["profiles"], clock, converter=converter)
    witness = WitnessService(engine, chain, org, signer.sign, chain_id, clock, replay=replay)
    profiles = parts["profiles"]
    pollers = tuple(
        ViewPoller(each, profiles[each.name], engine, ingest, keyring.blind, clock, stopping)
        for each in settings.sources
        if each.kind == "view"
    )
    for poller in pollers:
        resources.callback(poller.close)

    def profile_of(source: str) -> SourceProfile:
        found: SourceProfile = profiles.get(source) or profiles[DEFAULT_PROFILE]
        return found

    fhir_intake = FhirIntake(parts["inbox"], profile_of, FHIR_WAIT_SECONDS)
    files = FileIntake(ingest, profile_of, fhir_intake)
    folders = tuple(
        DropFolder(each, settings.path(each.path), files, clock, stopping)
        for each in settings.sources
        if each.kind == "folder"
    )
    parts |= {
        "audit": audit,
        "ingest": ingest,
        "journeys": JourneyService(engine, parts["inbox"], chain),
        "retention": RetentionService(parts["inbox"], _retention_terms(settings), clock),
        "identity": IdentityService(records),
        "search": search,
        "reading": ReadingService(engine, keyring, records, search, audit),
        "anchoring": AnchoringService(
            engine, keyring, chain, signer, org, clock,
            submitter=parts["submitter"], shard=settings.anchoring.shard or None, batch=settings.anchoring.batch,
            publishes=not settings.only_observes, stopping=stopping,
        ),
        "witness": witness,
        "receipts": ReceiptService(engine, keyring, chain, signer, org, clock, chain_id=chain_id, records=records),
        "integrity": IntegrityService(
            engine, keyring, chain, org, witness=witness,
            ledger_path=settings.path(settings.ledger.path) if has_file else None,
            genesis=read_genesis(settings) if has_file else None,
        ),
        "signing": SigningService(
            engine, records, node=audit.node, key=signer.sign, chain_id=chain_id, clock=clock,
            certificates=settings.path(settings.peer_tls.directory),
        ),
        "pollers": (*pollers, *folders),
        "files": files,
        "actions": ActionIntake(parts["inbox"], profile_of, clock),
        "fhir_intake": fhir_intake,
    }  # fmt: skip


def _add_evidence_status(parts: dict[str, Any]) -> None:
    settings: Settings = parts["settings"]
    stamping, witness = settings.timestamp, settings.witness
    terms = None
    if stamping.url:
        certificates = read_certificates(settings.path(stamping.certificate))
        terms = TimestampTerms(stamping.url, stamping.digest, certificates, stamping.timeout_seconds)
    stamps = TimestampService(parts["engine"], parts["witness"], settings.ledger.chain, terms, parts["clock"])
    parts |= {
        "timestamps": stamps,
        "evidence_status": EvidenceStatusService(
            parts["anchoring"],
            parts["witness"],
            parts["chain"],
            thresholds=Thresholds(
                settings.anchoring.max_age_seconds,
                witness.max_age_seconds,
                stamping.period_seconds if stamping.url else 0.0,
            ),
            quorum=witness.quorum,
            witnessing=witness.enabled,
            last_timestamp=stamps.last_time,
            replay=parts["replay"],
            clock=parts["clock"],
        ),
    }
