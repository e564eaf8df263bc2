"""A consortium of in-process nodes for tests of the exchange: an authority, hospitals A and B, and a suspended one.

Every node has a database and a web server of its own on a loopback port; the hospitals reach the ledger over HTTP at
the authority. Time is a counter that tests move on. All people and numbers are made up.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import requests
from flask import Flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from anchor import genesis
from anchor.chain.embedded import EmbeddedChain
from anchor.chain.remote import RemoteChain
from anchor.contracts.org_id import check_character
from anchor.gm import PrivateKey, sm3
from bridge.app import _answer_error
from bridge.auth import guard
from bridge.keys.decryption import DecryptionKeys
from bridge.keys.store import KeyStore
from bridge.node_keys import Signer
from bridge.peer_signature import PeerAuth
from bridge.routes.exchange import exchange_blueprint
from bridge.routes.gossip import carry_checkpoints
from bridge.routes.ledger import ledger_blueprint
from bridge.services.anchoring import AnchoringService
from bridge.services.audit import AuditService
from bridge.services.audit_event import Party
from bridge.services.erasure import ErasureService
from bridge.services.exchange_parts import ExchangeTerms, assemble_exchange
from bridge.services.gossip import CheckpointGossip
from bridge.services.ledger_facts import LedgerFacts
from bridge.services.peers import MemberDirectory, PeerRules, Peers
from bridge.services.received_copies import ReceivedCopies
from bridge.services.signing import SigningService
from bridge.services.submission import TransactionSubmitter
from bridge.services.witnessing import WitnessService
from bridge.storage.database import migrate, open_database, transact
from bridge.storage.inbox import Inbox
from bridge.storage.keyring import KeyRing
from bridge.storage.leases import JobLeases
from bridge.storage.nonces import NonceCache
from bridge.storage.records import Lineage, RecordStore
from fhir_adapters.identifiers import ID_CARD_SYSTEM
from fhir_adapters.identifiers.gb11643 import check_character as resident_check

CHAIN = "test-chain"
START = 1_790_000_000
TERMS: dict[str, Any] = {}  # further terms of every site; tests that need some set them before they make a world
LINEAGE = Lineage("his", sm3(b"source message"), "hl7v2/1.0")


def org_id(number: int) -> str:
    body = f"12330000{number:09d}"
    return body + check_character(body)


def resident(number: int) -> str:
    body = f"110105194912{number:05d}"
    return body + resident_check(body)


AUTHORITY, A, B, SUSPENDED = org_id(11), org_id(12), org_id(13), org_id(14)
ROLES = {AUTHORITY: "authority", A: "hospital", B: "hospital", SUSPENDED: "hospital"}
PERSON = resident(31001)
OTHER = resident(31022)
NAME = "测试患者甲"


@cache
def keys(org: str) -> tuple[PrivateKey, PrivateKey]:
    return PrivateKey.generate(), PrivateKey.generate()


class Clock:
    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


def _socket() -> socket.socket:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(64)
    return listening


class Site:
    """One node."""

    def __init__(
        self,
        org: str,
        directory: Path,
        chain: Any,
        clock: Clock,
        endpoint: str,
        authority_url: str,
        database: str | None = None,
    ) -> None:
        self.org, self.directory, self.chain, self.clock = org, directory, chain, clock
        directory.mkdir()
        (directory / "keys").mkdir(mode=0o700)
        self.keys = KeyStore(directory / "keys")
        self.engine = open_database(database or f"sqlite:///{directory / 'node.sqlite3'}")
        migrate(self.engine)
        self.keyring = KeyRing(self.engine, secrets.token_bytes(16), secrets.token_bytes(32), clock)
        self.records = RecordStore(self.engine, self.keyring, clock)
        self.signer = Signer(org, *keys(org))
        self.nonces = NonceCache(self.engine)
        self.gossip = CheckpointGossip(self.engine, CHAIN, org, clock)
        self.submitter = TransactionSubmitter(chain, JobLeases(self.engine), org, keys(org)[0], CHAIN, clock)
        self.anchoring = AnchoringService(
            self.engine, self.keyring, chain, self.signer, org, clock, submitter=self.submitter, shard="2026"
        )
        self.witness = WitnessService(self.engine, chain, org, keys(org)[0], CHAIN, clock)
        self.audit = AuditService(self.engine, self.records, Party(org, f"Member {org[-3:]}", endpoint), clock)
        self.facts = LedgerFacts(self.engine, chain, clock=clock)
        self.peers = Peers(
            directory=MemberDirectory(self.facts),
            org=org,
            key=keys(org)[0],
            nonces=self.nonces,
            rules=PeerRules(https_only=False, allow_local=True, timeout_seconds=20),
            addresses={AUTHORITY: authority_url},
            gossip=self.gossip,
            clock=clock,
        )
        terms = ExchangeTerms(CHAIN, AUTHORITY, "default", 5.0, 1, self.keys, f"{endpoint}/fhir", **TERMS)
        self.parts = assemble_exchange(
            terms,
            engine=self.engine,
            keyring=self.keyring,
            records=self.records,
            chain=chain,
            signer=self.signer,
            decryption=DecryptionKeys(self.keys, keys(org)[1]),
            submitter=self.submitter,
            peers=self.peers,
            facts=self.facts,
            anchoring=self.anchoring,
            audit=self.audit,
            signing=SigningService(
                self.engine,
                self.records,
                node=self.audit.node,
                key=keys(org)[0],
                chain_id=CHAIN,
                certificates=directory / "pki",
                clock=clock,
            ),
            clock=clock,
        )
        self.erasure = ErasureService(
            self.engine,
            self.keyring,
            Inbox(self.engine, self.keyring, clock),
            consent=self.parts.consent,
            localisation=None,
            audit=self.audit,
            anchoring=self.anchoring,
            clock=clock,
        )
        self.copies = ReceivedCopies(self.engine, self.erasure, clock)
        self.node = SimpleNamespace(
            settings=SimpleNamespace(
                node=SimpleNamespace(org=org, roles=(ROLES[org],)),
                security=SimpleNamespace(tokens="tokens.json"),
                path=lambda value: directory / value,
            ),
            clock=clock,
            chain=chain,
            nonces=self.nonces,
            peers=self.peers,
            pseudonyms=self.parts.pseudonyms,
            localisation=self.parts.index,
            exchange=self.parts.exchange,
            watch=self.parts.watch,
        )

    def app(self) -> Flask:
        app = Flask(__name__, static_folder=None)
        guard(app, self.node)
        carry_checkpoints(app, self.gossip)
        app.register_blueprint(exchange_blueprint(self.node))
        app.register_blueprint(ledger_blueprint(self.node))
        app.register_error_handler(Exception, _answer_error)
        return app

    def store(self, *resources: dict[str, Any], patient: str = "p1") -> None:
        def work(connection: Any) -> None:
            for resource in resources:
                self.records.put(connection, json.dumps(resource).encode(), LINEAGE, f"Patient/{patient}")

        transact(self.engine, work)

    def audits(self) -> list[dict[str, Any]]:
        return [version.resource() for version in self.records.of_subject("node", ["AuditEvent"])]

    def scalars(self, statement: str) -> list[Any]:
        with self.engine.connect() as connection:
            return [row[0] for row in connection.exec_driver_sql(statement)]

    def close(self) -> None:
        self.peers.close()
        self.chain.close()
        self.engine.dispose()


class World:
    """The consortium; ``close`` stops the servers and lets go of files.

    ``databases``: URLs of the nodes' databases by org, which else are files of SQLite.
    """

    def __init__(
        self,
        directory: Path,
        orgs: Sequence[str] = (AUTHORITY, A, B),
        databases: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.clock = Clock()
        self.directory = directory
        sockets = {org: _socket() for org in orgs}
        self.endpoints = {org: f"http://127.0.0.1:{each.getsockname()[1]}" for org, each in sockets.items()}
        self.sites: dict[str, Site] = {}
        self.servers: list[tuple[BaseWSGIServer, threading.Thread, socket.socket]] = []
        content = self._genesis()
        for org in orgs:
            chain = self._chain(org, content)
            places = self.endpoints[org], self.endpoints[AUTHORITY]
            site = Site(org, directory / org, chain, self.clock, *places, databases.get(org))
            self.sites[org] = site
            self._serve(site, sockets[org])

    def __getitem__(self, org: str) -> Site:
        return self.sites[org]

    def _genesis(self) -> bytes:
        members = [
            genesis.member_record(
                org=org,
                name=f"Member {org[-3:]}",
                roles=[role],
                endpoint=self.endpoints.get(org, "http://127.0.0.1:9"),
                signing=keys(org)[0],
                encryption=keys(org)[1],
                time=START - 1000,
            )
            for org, role in ROLES.items()
        ]
        return genesis.build(chain=CHAIN, time=START - 1000, threshold=1, members=members)

    def _chain(self, org: str, content: bytes) -> Any:
        if org == AUTHORITY:
            path = self.directory / "ledger.sqlite3"
            return EmbeddedChain(path, genesis=content, host_key=keys(org)[0], host_org=org, clock=self.clock)

        def newest() -> str | None:
            return self.sites[org].gossip.newest() if org in self.sites else None

        def session() -> requests.Session:
            made = requests.Session()
            made.trust_env = False
            return self.sites[org].gossip.listen(made, AUTHORITY)

        auth = PeerAuth(org=org, key=keys(org)[0], audience=AUTHORITY, clock=self.clock, checkpoint=newest)
        return RemoteChain(self.endpoints[AUTHORITY], auth=auth, timeout_seconds=20, session=session)

    def _serve(self, site: Site, listening: socket.socket) -> None:
        server = make_server(
            "127.0.0.1",
            listening.getsockname()[1],
            site.app(),
            threaded=True,
            fd=listening.fileno(),
            request_handler=_Quiet,
        )
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        self.servers.append((server, thread, listening))

    def suspend(self, org: str) -> None:
        action = {"kind": "suspend", "org": org}
        self[AUTHORITY].submitter.submit("membership.propose", {"proposal": secrets.token_hex(16), "action": action})

    def tick(self, seconds: float = 1) -> None:
        self.clock.now += seconds

    def lookup(self, person: str = PERSON, purpose: str = "TREAT", org: str = B, **more: Any) -> Any:
        self.tick()
        return self[org].parts.exchange.lookup(ID_CARD_SYSTEM, person, purpose, **more)

    def grant(self, *, patient: str = "p1", to: Sequence[str] = (B,), seconds: int = 3600, **more: Any) -> Any:
        from bridge.services.grant_terms import GrantTerms

        now = int(self.clock())
        terms = GrantTerms(
            tuple(to), more.pop("purposes", ("TREAT",)), now + seconds, more.pop("valid_from", now), **more
        )
        return self[A].parts.consent.grant(patient, terms)

    def ledger_bytes(self) -> bytes:
        """Everything the ledger has ever committed."""
        chain, found = self[AUTHORITY].chain, []
        while page := chain.transactions(len(found), 500):
            found += page
        return b"\n".join(each.envelope + each.entry for each in found)

    def close(self) -> None:
        for server, thread, listening in self.servers:
            server.shutdown()
            thread.join()
            server.server_close()
            listening.close()
        for site in reversed(self.sites.values()):
            site.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def patient(id: str = "p1", number: str = PERSON) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "id": id,
        "identifier": [{"system": ID_CARD_SYSTEM, "value": number}],
        "name": [{"text": NAME}],
        "managingOrganization": {"reference": "Organization/o1"},
    }


def observation(id: str, *, of: str = "p1", day: str = "2026-03-01", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "category": [{"coding": [{"code": "laboratory"}]}],
        "code": {"text": "测试项目葡萄糖"},
        "subject": {"reference": f"Patient/{of}"},
        "effectiveDateTime": f"{day}T08:00:00+08:00",
        "valueQuantity": {"value": 5, "unit": "mmol/L"},
        **more,
    }
