"""A small consortium for tests of evidence: a ledger in a real SQLite file, hospital A's database in another.

The authority hosts the ledger; hospital A has records, hospital B asks for them. Time is a counter that tests move on.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from anchor import genesis
from anchor.chain.embedded import EmbeddedChain
from anchor.contracts.org_id import check_character
from anchor.gm import PrivateKey, sm3
from anchor.receipt import commitment, disclosed_root
from anchor.trust import Trust
from bridge.services.anchoring import AnchoringService
from bridge.services.integrity import IntegrityService
from bridge.services.receipts import ReceiptService
from bridge.services.submission import TransactionSubmitter
from bridge.services.witnessing import WitnessService
from bridge.storage.database import migrate, open_database, transact
from bridge.storage.exchange import DisclosedRecord
from bridge.storage.keyring import KeyRing
from bridge.storage.leases import JobLeases
from bridge.storage.records import Lineage, RecordStore

CHAIN = "test-chain"
START = 1_790_000_000
LINEAGE = Lineage("his", sm3(b"source message"), "hl7v2/1.0")


def org_id(number: int) -> str:
    body = f"12330000{number:09d}"
    return body + check_character(body)


AUTHORITY, HOSPITAL_A, HOSPITAL_B = org_id(1), org_id(2), org_id(3)
ORGS = {AUTHORITY: "authority", HOSPITAL_A: "hospital", HOSPITAL_B: "hospital"}


@cache
def keys(org: str) -> tuple[PrivateKey, PrivateKey]:
    return PrivateKey.generate(), PrivateKey.generate()


@dataclass(frozen=True)
class NodeKeys:
    sign: PrivateKey


class Clock:
    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now


def genesis_file(authorities: tuple[str, ...] = (), threshold: int = 1) -> bytes:
    """Return the genesis file; ``authorities``: further ones beside the usual."""
    members = [
        genesis.member_record(
            org=org,
            name=f"Member {number}",
            roles=[role],
            endpoint="http://127.0.0.1:1",
            signing=keys(org)[0],
            encryption=keys(org)[1],
            time=START - 1000,
        )
        for number, (org, role) in enumerate({**ORGS, **dict.fromkeys(authorities, "authority")}.items(), start=1)
    ]
    return genesis.build(chain=CHAIN, time=START - 1000, threshold=threshold, members=members)


class World:
    """Everything a test of evidence needs; ``close`` lets go of files."""

    def __init__(self, directory: Path, genesis: bytes | None = None) -> None:
        self.directory = directory
        self.clock = Clock()
        self.ledger_path = directory / "ledger.sqlite3"
        self.genesis = genesis or genesis_file()
        self.chain = self.open_chain()
        self.signer = NodeKeys(keys(HOSPITAL_A)[0])
        self.database = directory / "node.sqlite3"
        self.engine = open_database(f"sqlite:///{self.database}")
        migrate(self.engine)
        self.keyring = KeyRing(self.engine, b"k" * 16, b"i" * 32)
        self.records = RecordStore(self.engine, self.keyring, self.clock)
        self.build_services()

    def open_chain(self) -> EmbeddedChain:
        host = keys(AUTHORITY)[0]
        return EmbeddedChain(
            self.ledger_path, genesis=self.genesis, host_key=host, host_org=AUTHORITY, clock=self.clock, quorum=2
        )

    def submitter(self, org: str, chain: Any = None) -> TransactionSubmitter:
        leases = JobLeases(self.engine)
        return TransactionSubmitter(chain or self.chain, leases, org, keys(org)[0], CHAIN, self.clock)

    def build_services(self, chain: Any = None, shard: str = "2026") -> None:
        chain = chain or self.chain
        self.anchoring = AnchoringService(
            self.engine,
            self.keyring,
            chain,
            self.signer,
            HOSPITAL_A,
            self.clock,
            submitter=self.submitter(HOSPITAL_A, chain),
            shard=shard,
        )
        self.receipts = ReceiptService(
            self.engine, self.keyring, chain, self.signer, HOSPITAL_A, self.clock, chain_id=CHAIN, records=self.records
        )
        key = keys(HOSPITAL_A)[0]
        self.witness = WitnessService(self.engine, chain, HOSPITAL_A, key, CHAIN, self.clock)
        self.integrity = IntegrityService(
            self.engine,
            self.keyring,
            chain,
            HOSPITAL_A,
            witness=self.witness,
            ledger_path=self.ledger_path,
            genesis=self.genesis,
        )

    def trust(self, quorum: int = 2, mandatory: tuple[str, ...] = ()) -> bytes:
        members = self.chain.state_with_prefix("member/").values()
        return Trust.from_members(CHAIN, quorum, mandatory, members).dump()

    def store(self, number: int, text: str = "0.40", subject: str = "Patient/p1") -> str:
        content = b'{"resourceType":"Observation","id":"o%d","status":"final","valueQuantity":{"value":%s}}' % (
            number,
            text.encode(),
        )
        return transact(self.engine, lambda conn: self.records.put(conn, content, LINEAGE, subject)).ref

    def anchored(self, count: int = 1) -> list[str]:
        refs = [self.store(number) for number in range(count)]
        self.clock.now += 1
        self.anchoring.run()
        return refs

    def content(self, ref: str) -> bytes:
        type, id, _, version = ref.split("/")
        return self.records.vread(type, id, int(version)).content

    def kinds(self) -> set[str]:
        return {difference.kind for difference in self.integrity.check().differences}

    def places(self) -> set[str]:
        return {f"{difference.kind} {difference.place}" for difference in self.integrity.check().differences}

    def sql(self, statement: str, *values: Any) -> None:
        with self.engine.begin() as conn:
            conn.exec_driver_sql(statement, values)

    def close(self) -> None:
        self.chain.close()
        self.engine.dispose()


@dataclass
class Disclosure:
    """Steps of one disclosure from A to B, taken on the real ledger."""

    world: World
    grant: str
    request: str
    statement: dict[str, Any]

    @classmethod
    def begin(cls, world: World, *, emergency: bool = False) -> Disclosure:
        self = cls(world, secrets.token_hex(16), secrets.token_hex(16), {})
        self.statement = {
            "request": self.request,
            "requester": HOSPITAL_B,
            "holder": HOSPITAL_A,
            "salt": secrets.token_hex(32),
        }
        digest = commitment(self.statement).hex()
        asked = {"request": self.request, "holder": HOSPITAL_A, "commitment": digest}
        if emergency:
            world.submitter(HOSPITAL_B).submit("access.emergency", {**asked, "reason": "ETREAT"})
            return self
        now = int(world.clock())
        self.hold(
            "consent.grant",
            grant=self.grant,
            grantees=[HOSPITAL_B],
            purposes=["TREAT"],
            until=now + 86_400,
            commitment="ab" * 32,
            **{"from": now - 10},
        )
        world.submitter(HOSPITAL_B).submit("access.request", {**asked, "purpose": "TREAT"})
        return self

    def hold(self, type: str, **body: Any) -> Any:
        self.world.clock.now += 1
        return self.world.submitter(HOSPITAL_A).submit(type, body)

    def release(self, refs: list[str], *, grant: bool = True, permit: bool = True) -> None:
        digests = [sm3(self.world.content(ref)) for ref in refs]
        named = self.grant if grant else None
        if permit:
            self.hold("access.permit", request=self.request, grant=named)
        table = DisclosedRecord.__table__  # type: ignore[attr-defined]
        with self.world.engine.begin() as conn:
            rows = [
                {"request_id": self.request, "position": number, "ref": ref, "digest": digest.hex()}
                for number, (ref, digest) in enumerate(zip(refs, digests, strict=True))
            ]
            conn.execute(table.insert(), rows)
        root = disclosed_root(digests).hex()
        self.hold(
            "access.release",
            request=self.request,
            grant=named,
            disclosed=root,
            count=len(refs),
            commitment="cd" * 32,
        )

    def receive(self) -> None:
        root = self.world.chain.state(f"request/{self.request}")["release"]["disclosed"]
        body = {"request": self.request, "disclosed": root, "status": "verified"}
        self.world.submitter(HOSPITAL_B).submit("access.receive", body)

    def revoke(self) -> None:
        self.hold("consent.revoke", grant=self.grant)
