"""Receipts brought on from pending to witnessed, across rotated keys, yearly shards, erasure and time stamps."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anchor import canonical
from anchor.chain.embedded import EmbeddedChain
from anchor.contracts import member_keys
from anchor.errors import FormatError, VerificationError
from anchor.gm import PrivateKey
from anchor.trust import Trust
from anchor.verify import StepFailed, verify_receipt
from bridge.errors import Conflict, PeerUnavailable
from bridge.services.receipts import ReceiptService
from bridge.services.submission import TransactionSubmitter
from bridge.services.timestamping import TimestampService, TimestampTerms
from bridge.services.witnessing import WitnessService
from bridge.storage.database import transact
from bridge.storage.leases import JobLeases
from tests.evidence_world import (
    AUTHORITY,
    CHAIN,
    HOSPITAL_A,
    HOSPITAL_B,
    Disclosure,
    NodeKeys,
    World,
    keys,
)
from tests.local_tsa import LocalTsa, needs_openssl, serving


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def state_of(receipt: bytes) -> str:
    return str(json.loads(receipt)["state"])


def at_hospital_b(world: World) -> ReceiptService:
    """The requester's receipt service: another database would do, it needs none of A's for what it upgrades."""
    signer = NodeKeys(keys(HOSPITAL_B)[0])
    return ReceiptService(world.engine, world.keyring, world.chain, signer, HOSPITAL_B, world.clock, chain_id=CHAIN)


def test_a_receipt_is_brought_from_pending_to_witnessed(world: World) -> None:
    ref = world.store(1)
    world.anchoring.drain()
    receipt = world.receipts.for_record("Observation", "o1", 1)
    states = [state_of(receipt)]
    assert world.receipts.upgrade(receipt) != receipt or states == ["pending"]
    world.anchoring.run()
    receipt = world.receipts.upgrade(receipt)
    states.append(state_of(receipt))
    world.witness.run()
    receipt = world.receipts.upgrade(receipt)
    states.append(state_of(receipt))
    assert states == ["pending", "committed", "witnessed"]
    assert verify_receipt(receipt, world.trust(), resource=world.content(ref)).state == "witnessed"


def test_a_receipt_is_never_set_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.anchored(1)
    world.witness.run()
    receipt = world.receipts.for_record("Observation", "o0", 1)
    monkeypatch.setattr(world.chain, "witnessed_checkpoint", lambda: None)
    assert world.receipts.upgrade(receipt) == receipt


def test_the_receiver_of_records_upgrades_their_receipts_itself(world: World) -> None:
    world.anchored(3)
    committed = world.receipts.for_record("Observation", "o1", 1)
    assert state_of(committed) == "committed"
    world.witness.run()
    upgraded = at_hospital_b(world).upgrade(committed)
    assert verify_receipt(upgraded, world.trust()).state == "witnessed"


def test_a_foreign_pending_receipt_is_upgraded_when_that_very_head_was_published(world: World) -> None:
    world.store(1)
    world.anchoring.drain()
    pending = world.receipts.for_record("Observation", "o1", 1)
    with pytest.raises(Conflict, match="only"):
        at_hospital_b(world).upgrade(pending)
    world.anchoring.run()
    assert state_of(at_hospital_b(world).upgrade(pending)) == "committed"
    world.store(2)
    world.anchoring.run()
    with pytest.raises(Conflict, match="only"):
        at_hospital_b(world).upgrade(pending)  # published in another size since: the proof is A's to give
    assert state_of(world.receipts.upgrade(pending)) == "committed"


def test_what_is_no_receipt_of_this_log_is_refused(world: World) -> None:
    world.anchored(2)
    receipt = world.receipts.for_record("Observation", "o1", 1)
    other = canonical.load(receipt)
    other["entry"]["salt"] = secrets.token_hex(32)
    with pytest.raises(Conflict, match="another entry"):
        world.receipts.upgrade(canonical.dump(other))
    with pytest.raises(Conflict, match="another ledger"):
        world.receipts.upgrade(canonical.dump({**canonical.load(receipt), "chain": "other"}))
    with pytest.raises(FormatError):
        world.receipts.upgrade(b"{}")


def test_a_disclosure_receipt_is_upgraded_from_the_file_alone(world: World) -> None:
    refs = world.anchored(3)
    disclosure = Disclosure.begin(world)
    disclosure.release(refs)
    committed = world.receipts.for_disclosure(disclosure.request, disclosure.statement)
    assert state_of(committed) == "committed"
    disclosure.receive()
    world.witness.run()
    world.sql("DELETE FROM disclosed_record")
    upgraded = at_hospital_b(world).upgrade(committed)
    report = verify_receipt(upgraded, world.trust())
    assert report.state == "witnessed"
    assert str(report.facts["received"]).startswith("verified"), "what came since is in it"
    assert json.loads(upgraded)["statement"] == disclosure.statement
    bent = canonical.load(committed)
    bent["disclosed"].pop()
    with pytest.raises(Conflict, match="other records"):
        world.receipts.upgrade(canonical.dump(bent))


# --- key rotation


def rotate(world: World, org: str, *, overlap: int = 3600) -> PrivateKey:
    """Give a member a new signing key on the ledger and end the old one after an overlap."""
    new, now = PrivateKey.generate(), int(world.clock())
    record = member_keys.key_record(new.public_key, "sign", since=now)
    proof = member_keys.prove_possession(CHAIN, org, [record], new)
    retire = {"id": keys(org)[0].public_key.key_id, "until": now + overlap}
    world.submitter(org).submit("membership.rotate-key", {"key": record, "proof": proof, "retire": retire})
    return new


def test_receipts_outlive_the_rotation_of_every_key_that_signed_them(world: World) -> None:
    """Institution, host and witness change their signing keys; the old receipt holds under the new trust file."""
    ref = world.anchored(2)[1]
    world.witness.run()
    old = world.receipts.for_record("Observation", "o1", 1)
    before = world.trust()
    new = {org: rotate(world, org) for org in (AUTHORITY, HOSPITAL_A)}
    world.clock.now += 7200  # the overlap is over: the old keys sign nothing more
    world.chain.close()
    world.chain = EmbeddedChain(
        world.ledger_path,
        genesis=world.genesis,
        host_key=new[AUTHORITY],
        host_org=AUTHORITY,
        clock=world.clock,
        quorum=2,
    )
    world.signer = NodeKeys(new[HOSPITAL_A])
    world.build_services()
    submitter = TransactionSubmitter(
        world.chain, JobLeases(world.engine), HOSPITAL_A, new[HOSPITAL_A], CHAIN, world.clock
    )
    world.anchoring._submitter = submitter
    world.witness = WitnessService(world.engine, world.chain, HOSPITAL_A, new[HOSPITAL_A], CHAIN, world.clock)
    world.store(7)
    world.anchoring.run()
    assert world.witness.run().outcome == "cosigned"
    after = world.trust()
    for receipt, trust in ((old, before), (old, after)):
        assert verify_receipt(receipt, trust, resource=world.content(ref)).state == "witnessed"
    newer = world.receipts.for_record("Observation", "o7", 1)
    assert verify_receipt(newer, after).state == "witnessed"
    with pytest.raises(StepFailed) as caught:
        verify_receipt(newer, before)  # an old trust file does not know the new keys, and says so
    assert caught.value.step in ("transaction", "checkpoint")
    renewed = world.receipts.upgrade(old)
    assert verify_receipt(renewed, after).state == "witnessed", "signed by old keys and by new ones"
    assert world.kinds() == set()


def test_a_lost_key_replaced_by_the_authorities_leaves_receipts_valid(world: World) -> None:
    world.anchored(1)
    world.witness.run()
    old = world.receipts.for_record("Observation", "o0", 1)
    world.clock.now += 60
    signing, encryption, now = PrivateKey.generate(), PrivateKey.generate(), int(world.clock())
    records = [
        member_keys.key_record(signing.public_key, "sign", since=now),
        member_keys.key_record(encryption.public_key, "encrypt", since=now),
    ]
    proofs = {signing.public_key.key_id: member_keys.prove_possession(CHAIN, HOSPITAL_A, records, signing)}
    action = {"kind": "replace-key", "org": HOSPITAL_A, "keys": records, "proofs": proofs}
    world.submitter(AUTHORITY).submit("membership.propose", {"proposal": secrets.token_hex(16), "action": action})
    world.store(5)
    world.anchoring.drain()
    with pytest.raises(Exception, match="no such live signing key"):
        world.anchoring.publish()  # the lost key signs nothing more
    assert verify_receipt(old, world.trust()).state == "witnessed"
    submitter = TransactionSubmitter(world.chain, JobLeases(world.engine), HOSPITAL_A, signing, CHAIN, world.clock)
    world.signer = NodeKeys(signing)
    world.build_services()
    world.anchoring._submitter = submitter
    world.anchoring.run()
    world.witness = WitnessService(world.engine, world.chain, HOSPITAL_A, signing, CHAIN, world.clock)
    world.witness.run()
    assert verify_receipt(world.receipts.for_record("Observation", "o5", 1), world.trust()).state == "witnessed"


# --- yearly shards and erased patients


def test_an_older_shards_receipt_is_upgraded_in_the_new_year(world: World) -> None:
    ref = world.anchored(2)[0]
    committed = world.receipts.for_record("Observation", "o0", 1)
    world.clock.now += 365 * 86_400
    world.build_services(shard="2027")
    world.store(7)
    world.anchoring.run()
    world.witness.run()
    upgraded = world.receipts.upgrade(committed)
    report = verify_receipt(upgraded, world.trust(), resource=world.content(ref))
    assert (report.state, report.facts["log"][-4:]) == ("witnessed", "2026")


def test_a_receipt_is_upgraded_after_its_patient_was_erased(world: World) -> None:
    world.anchored(2)
    committed = world.receipts.for_record("Observation", "o1", 1)
    transact(world.engine, lambda conn: world.keyring.destroy(conn, "Patient/p1"))
    world.witness.run()
    assert verify_receipt(world.receipts.upgrade(committed), world.trust()).state == "witnessed"


# --- RFC 3161


@pytest.fixture
def tsa(tmp_path: Path) -> LocalTsa:
    return LocalTsa(tmp_path / "tsa")


def stamping(world: World, tsa: LocalTsa, url: str, imprint: str = "sm3") -> TimestampService:
    terms = TimestampTerms(url, imprint, (tsa.certificate,), 5.0)
    return TimestampService(world.engine, world.witness, CHAIN, terms, world.clock)


def trust_with(world: World, *certificates: bytes) -> bytes:
    members = world.chain.state_with_prefix("member/").values()
    return Trust.from_members(CHAIN, 2, (), members, certificates).dump()


@needs_openssl
@pytest.mark.parametrize("imprint", ["sm3", "sha256"])
def test_a_receipt_carries_an_authoritys_time_stamp(world: World, tsa: LocalTsa, imprint: str) -> None:
    ref = world.anchored(3)[1]
    world.witness.run()
    with pytest.raises(Conflict, match="no time stamp"):
        world.receipts.for_record("Observation", "o1", 1, stamped=True)
    with serving(tsa) as url:
        service = stamping(world, tsa, url, imprint)
        stamped = service.run()
        assert service.run() is None, "the same head is stamped once"
    assert stamped is not None
    receipt = world.receipts.for_record("Observation", "o1", 1, stamped=True)
    report = verify_receipt(receipt, trust_with(world, tsa.certificate), resource=world.content(ref))
    assert report.facts["time-stamping authority"] == "TSA ec"
    assert "timestamp" in [step.name for step in report.steps]
    for trust in (world.trust(), trust_with(world, LocalTsa(world.directory / "another").certificate)):
        with pytest.raises(StepFailed) as caught:
            verify_receipt(receipt, trust)
        assert caught.value.step == "timestamp"
    assert verify_receipt(world.receipts.for_record("Observation", "o1", 1), world.trust()).state == "witnessed"


@needs_openssl
def test_a_later_stamp_covers_what_came_before(world: World, tsa: LocalTsa) -> None:
    refs = world.anchored(2)
    disclosure = Disclosure.begin(world)
    disclosure.release(refs)
    world.witness.run()
    before = world.receipts.for_disclosure(disclosure.request)
    for number in range(3):
        world.store(10 + number)
        world.clock.now += 1
        world.anchoring.run()
    world.witness.run()
    with serving(tsa) as url:
        stamping(world, tsa, url).run()
    trust = trust_with(world, tsa.certificate)
    for receipt in (
        world.receipts.for_record("Observation", "o0", 1, stamped=True),
        world.receipts.upgrade(before, stamped=True),
    ):
        assert "time stamped" in verify_receipt(receipt, trust).facts
        bent = canonical.load(receipt)
        bent["timestamp"]["text"] = bent["timestamp"]["text"].replace("height ", "height 1")
        with pytest.raises(StepFailed) as caught:
            verify_receipt(canonical.dump(bent), trust)
        assert caught.value.step == "timestamp"


@needs_openssl
@pytest.mark.parametrize(("mode", "error"), [("down", PeerUnavailable), ("rubbish", (FormatError, VerificationError))])
def test_an_authority_that_fails_stops_nothing(world: World, tsa: LocalTsa, mode: str, error: Any) -> None:
    world.anchored(1)
    world.witness.run()
    with serving(tsa) as url:
        tsa.mode = mode
        with pytest.raises(error):
            stamping(world, tsa, url).run()
        tsa.mode = "honest"
        assert stamping(world, tsa, url).run() is not None, "the next run catches up"
    with pytest.raises(PeerUnavailable):
        stamping(world, tsa, "http://127.0.0.1:1/tsa")._ask(b"query")


def test_without_an_authority_nothing_is_stamped(world: World) -> None:
    service = TimestampService(world.engine, world.witness, CHAIN, None, world.clock)
    assert not service.configured
    assert service.run() is None
    assert service.last_time() is None
