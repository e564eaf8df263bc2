"""A hospital's node and the ledger it anchors on, as far as evidence needs them: real files, keys made for the run."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from anchor import genesis
from anchor.chain.embedded import EmbeddedChain
from anchor.contracts.org_id import check_character
from anchor.gm import PrivateKey
from anchor.trust import Trust
from bridge.services.anchoring import AnchoringService
from bridge.services.receipts import ReceiptService
from bridge.services.submission import TransactionSubmitter
from bridge.services.witnessing import WitnessService
from bridge.storage.database import migrate, open_database, transact
from bridge.storage.keyring import KeyRing
from bridge.storage.leases import JobLeases
from bridge.storage.outbox import OUTBOX
from bridge.storage.records import Lineage, RecordStore, RecordWrite

CHAIN = "bench"
START = 1_790_000_000
PATIENT_EVERY = 100
"""Entries of one patient: a data key is made and unwrapped for each hundred."""
STAGE = 50_000
"""Outbox rows put in by one statement."""
LINEAGE = Lineage("bench", secrets.token_bytes(32), "hl7v2/1.0")


def _org(number: int) -> str:
    body = f"12990000MB{number:07d}"
    return body + check_character(body)


def _id() -> str:
    """Return a resource id of the kind that the adapters derive from business identifiers."""
    return str(uuid.UUID(bytes=secrets.token_bytes(16)))


AUTHORITY, HOSPITAL = _org(1), _org(2)


@dataclass(frozen=True)
class _Keys:
    sign: PrivateKey


class Site:
    """The parts; ``close`` lets go of the files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = float(START)
        self.database = directory / "node.sqlite3"
        self.engine = open_database(f"sqlite:///{self.database}")
        migrate(self.engine)
        self.keyring = KeyRing(self.engine, secrets.token_bytes(16), secrets.token_bytes(32))
        self.records = RecordStore(self.engine, self.keyring, self.clock)
        host, signer = _Keys(PrivateKey.generate()), _Keys(PrivateKey.generate())
        members = [
            genesis.member_record(
                org=org,
                name=f"Member {org}",
                roles=[role],
                endpoint="http://127.0.0.1:1",
                signing=keys.sign,
                encryption=PrivateKey.generate(),
                time=START,
            )
            for org, role, keys in ((AUTHORITY, "authority", host), (HOSPITAL, "hospital", signer))
        ]
        self.chain = EmbeddedChain(
            directory / "ledger.sqlite3",
            genesis=genesis.build(chain=CHAIN, time=START, threshold=1, members=members),
            host_key=host.sign,
            host_org=AUTHORITY,
            clock=self.clock,
            quorum=2,
        )
        leases = JobLeases(self.engine)
        submitter = TransactionSubmitter(self.chain, leases, HOSPITAL, signer.sign, CHAIN, self.clock)
        parts = (self.engine, self.keyring, self.chain, signer, HOSPITAL, self.clock)
        self.anchoring = AnchoringService(*parts, submitter=submitter, shard="2026")
        self.receipts = ReceiptService(*parts, chain_id=CHAIN)
        self.witness = WitnessService(self.engine, self.chain, HOSPITAL, signer.sign, CHAIN, self.clock)

    def clock(self) -> float:
        """The time, which stands still until the caller moves ``now``."""
        return self.now

    def stage(self, count: int) -> None:
        """Put rows into the outbox as the record store does, without the records; ids are as random as real ones."""
        for start in range(0, count, STAGE):
            subjects = [f"Patient/{_id()}" for _ in range(STAGE // PATIENT_EVERY)]
            rows = [
                {
                    "ref": f"Observation/{_id()}/_history/1",
                    "subject": subjects[number // PATIENT_EVERY],
                    "digest": secrets.token_bytes(32),
                    "source_digest": secrets.token_bytes(32),
                    "adapter": "hl7v2/1.0",
                    "stored": START * 1000,
                }
                for number in range(min(STAGE, count - start))
            ]
            with self.engine.begin() as connection:
                connection.execute(OUTBOX.insert(), rows)

    def store(self, count: int) -> list[str]:
        """Store records of one patient; return the references of their versions."""
        subject = f"Patient/{_id()}"
        resources = [{"resourceType": "Observation", "id": _id(), "status": "final"} for _ in range(count)]
        writes = [RecordWrite(each, LINEAGE, subject) for each in resources]
        return [put.ref for put in transact(self.engine, lambda conn: self.records.put_many(conn, writes))]

    def settle(self) -> None:
        """Move what was written from SQLite's write-ahead log into the database, as every some thousand pages."""
        with closing(self.engine.raw_connection()) as raw, closing(raw.cursor()) as cursor:
            cursor.execute("PRAGMA wal_checkpoint").fetchall()

    def publish(self) -> None:
        """Anchor what waits and have the ledger's checkpoint cosigned."""
        self.now += 1
        self.anchoring.run()
        self.witness.run()

    def receipt(self, ref: str) -> bytes:
        """Return the receipt of a record version."""
        type, id, _, version = ref.split("/")
        return self.receipts.for_record(type, id, int(version))

    def trust(self) -> bytes:
        """Return the trust file: both members, both needed."""
        return Trust.from_members(CHAIN, 2, (), self.chain.state_with_prefix("member/").values()).dump()

    def close(self) -> None:
        """Let go of the files."""
        self.chain.close()
        self.engine.dispose()


@contextmanager
def site() -> Iterator[Site]:
    """Give a fresh site in a folder of its own, removed afterwards."""
    with TemporaryDirectory() as directory:
        made = Site(Path(directory))
        try:
            yield made
        finally:
            made.close()
