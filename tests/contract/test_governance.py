"""Governance against real engines, embedded and remote over HTTP: who decides, what it stops, what stays valid.

Three authorities, two of which decide. Hospital A has receipts from before each decision; they verify after it, beside
new ones, with the trust file of the day.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anchor import checkpoint
from anchor.chain.client import ChainClient
from anchor.chain.remote import RemoteChain
from anchor.contracts import member_keys, members
from anchor.errors import TransactionRejected
from anchor.gm import PrivateKey
from anchor.transaction import Code
from anchor.verify import verify_receipt
from bridge.services.submission import TransactionSubmitter
from bridge.storage.leases import JobLeases
from tests.contract.test_chain_clients import NoAuth, serve
from tests.evidence_world import AUTHORITY, CHAIN, HOSPITAL_A, HOSPITAL_B, NodeKeys, World, genesis_file, keys, org_id

SECOND, THIRD, NEWCOMER = org_id(21), org_id(22), org_id(23)


class Consortium(World):
    """The world of evidence under three authorities, reached through ``client``."""

    client: ChainClient

    def propose(self, action: dict[str, Any], by: str = AUTHORITY) -> str:
        proposal = secrets.token_hex(16)
        self.submitter(by).submit("membership.propose", {"proposal": proposal, "action": action})
        return proposal

    def approve(self, proposal: str, by: str = SECOND) -> None:
        self.submitter(by).submit("membership.approve", {"proposal": proposal})

    def decide(self, action: dict[str, Any]) -> None:
        self.clock.now += 1
        self.approve(self.propose(action))

    def submitter(self, org: str, chain: Any = None, key: PrivateKey | None = None) -> TransactionSubmitter:
        leases = JobLeases(self.engine)
        return TransactionSubmitter(chain or self.client, leases, org, key or keys(org)[0], CHAIN, self.clock)

    def use_key(self, key: PrivateKey) -> None:
        """Hospital A's node goes on with another signing key, as after a restart."""
        self.signer = NodeKeys(key)
        self.build_services(self.client)
        self.anchoring._submitter = self.submitter(HOSPITAL_A, self.client, key)

    def witnessed(self) -> None:
        """The other members sign the newest checkpoint: hospital B with the host's makes the quorum of two."""
        point = checkpoint.parse(self.client.checkpoint()).checkpoint
        mine = checkpoint.sign(point, HOSPITAL_B, keys(HOSPITAL_B)[0], int(self.clock()))
        self.client.cosign(checkpoint.render(checkpoint.SignedCheckpoint(point, (mine,))))

    def receipt(self, number: int) -> bytes:
        """Store, anchor and witness a record; return its receipt."""
        ref = self.store(number)
        self.clock.now += 1
        self.anchoring.run()
        self.witnessed()
        _, id, _, version = ref.split("/")
        return self.receipts.for_record("Observation", id, int(version))

    def check(self, *receipts: bytes) -> None:
        for each in receipts:
            assert verify_receipt(each, self.trust()).state == "witnessed"

    def refused(self, type: str, body: dict[str, Any], by: str, key: PrivateKey | None = None) -> str:
        with pytest.raises(TransactionRejected) as refusal:
            self.submitter(by, key=key).submit(type, body)
        return refusal.value.code


@pytest.fixture(params=["embedded", "remote"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Consortium]:
    Consortium.client = None  # type: ignore[assignment]
    world = Consortium(tmp_path, genesis_file((SECOND, THIRD), threshold=2))
    server = serve(world.chain) if request.param == "remote" else iter(())
    world.client = RemoteChain(next(server), auth=NoAuth()) if request.param == "remote" else world.chain
    world.build_services(world.client)
    yield world
    world.client.close()
    next(server, None)
    world.close()


def admission() -> dict[str, Any]:
    card = members.card(
        chain=CHAIN, org=NEWCOMER, name="新成员", roles=["hospital"], endpoint="http://127.0.0.1:1",
        signing=keys(NEWCOMER)[0], encryption=keys(NEWCOMER)[1], since=0,
    )  # fmt: skip
    return {"kind": "admit", "member": members.admission(card)}


MOVE = {"endpoint": "http://127.0.0.1:2"}


def test_m_of_n_authorities_admit_a_member(world: Consortium) -> None:
    assert world.refused("membership.endpoint", MOVE, NEWCOMER) == Code.UNKNOWN_SENDER
    proposal = world.propose(admission())
    assert world.client.state(f"member/{NEWCOMER}") is None, "one of two"
    again = {"proposal": proposal}
    assert world.refused("membership.approve", again, AUTHORITY) == Code.ALREADY_DONE, "its own proposal"
    assert world.refused("membership.approve", again, HOSPITAL_A) == Code.NOT_AUTHORISED, "no authority"
    assert world.refused("membership.endpoint", MOVE, NEWCOMER) == Code.UNKNOWN_SENDER
    world.approve(proposal, by=THIRD)
    assert world.refused("membership.approve", again, SECOND) == Code.ALREADY_DONE, "it is carried out"
    world.submitter(NEWCOMER).submit("membership.endpoint", MOVE)
    member = world.client.state(f"member/{NEWCOMER}")
    assert member is not None
    assert (member["status"], member["endpoint"]) == ("active", MOVE["endpoint"])


def test_a_suspended_authority_no_longer_counts(world: Consortium) -> None:
    proposal = world.propose(admission(), by=THIRD)
    world.decide({"kind": "suspend", "org": THIRD})
    world.approve(proposal, by=AUTHORITY)
    assert world.client.state(f"member/{NEWCOMER}") is None, "the third's approval is of no weight now"
    world.approve(proposal, by=SECOND)
    assert world.client.state(f"member/{NEWCOMER}") is not None


def test_suspension_stops_writes_at_once_and_the_past_stays_valid(world: Consortium) -> None:
    before = world.receipt(1)
    world.check(before)
    waiting = world.store(2)
    world.decide({"kind": "suspend", "org": HOSPITAL_A})
    with pytest.raises(TransactionRejected) as refusal:
        world.anchoring.run()  # in the very next block
    assert refusal.value.code == Code.SUSPENDED_SENDER
    assert world.refused("membership.endpoint", MOVE, HOSPITAL_A) == Code.SUSPENDED_SENDER
    world.check(before)
    assert world.receipts.for_record("Observation", "o1", 1), "what is on the ledger is still proven"

    world.decide({"kind": "reinstate", "org": HOSPITAL_A})
    world.clock.now += 1
    world.anchoring.run()  # what waited meanwhile is not lost
    world.witnessed()
    _, id, _, version = waiting.split("/")
    world.check(before, world.receipts.for_record("Observation", id, int(version)))


@pytest.mark.parametrize("use", ["sign", "encrypt"])
def test_a_key_is_rotated_with_an_overlap(world: Consortium, use: str) -> None:
    old, new = keys(HOSPITAL_A)[use == "encrypt"], PrivateKey.generate()
    before = world.receipt(1)
    now, overlap = int(world.clock()), 3600
    record = member_keys.key_record(new.public_key, use, since=now)
    proof = None
    if use == "sign":
        proof = member_keys.prove_possession(CHAIN, HOSPITAL_A, [record], new)
    retire = {"id": old.public_key.key_id, "until": now + overlap}
    world.submitter(HOSPITAL_A).submit("membership.rotate-key", {"key": record, "proof": proof, "retire": retire})

    def live() -> set[str]:
        member = world.client.state(f"member/{HOSPITAL_A}")
        assert member is not None
        return {key["id"] for key in member_keys.live_keys(member, use, int(world.clock()))}

    assert live() == {old.public_key.key_id, new.public_key.key_id}, "both in the overlap"
    during = world.receipt(2)  # by the old signing key, which is still live
    if use == "sign":
        world.use_key(new)
    also = world.receipt(3)
    world.clock.now += overlap
    after = world.receipt(4)
    assert live() == {new.public_key.key_id}
    if use == "sign":
        assert world.refused("membership.endpoint", MOVE, HOSPITAL_A, key=old) == Code.UNKNOWN_KEY
    world.check(before, during, also, after)


def test_a_lost_key_is_replaced_by_governance(world: Consortium) -> None:
    lost, found = keys(HOSPITAL_A)[0], (PrivateKey.generate(), PrivateKey.generate())
    before = world.receipt(1)
    card = members.card(
        chain=CHAIN, org=HOSPITAL_A, name="Member 2", roles=["hospital"], endpoint="http://127.0.0.1:1",
        signing=found[0], encryption=found[1], since=int(world.clock()),
    )  # fmt: skip
    action = {"kind": "replace-key", **{name: card[name] for name in ("org", "keys", "proofs")}}
    assert world.refused("membership.endpoint", MOVE, HOSPITAL_A, key=found[0]) == Code.UNKNOWN_KEY
    world.clock.now += 1
    proposal = world.propose(action)
    world.submitter(HOSPITAL_A).submit("membership.endpoint", MOVE)  # one authority alone takes nobody's key
    world.approve(proposal)
    assert world.refused("membership.endpoint", MOVE, HOSPITAL_A, key=lost) == Code.UNKNOWN_KEY, "at once"
    world.use_key(found[0])
    after = world.receipt(2)
    world.check(before, after)
    old = world.receipts.for_record("Observation", "o1", 1)  # made again under the new key
    world.check(old)


def test_a_foreign_card_takes_no_members_place(world: Consortium) -> None:
    """The proof of possession names the organisation: B's card does not replace A's keys."""
    card = members.card(
        chain=CHAIN, org=HOSPITAL_B, name="Member 3", roles=["hospital"], endpoint="http://127.0.0.1:1",
        signing=PrivateKey.generate(), encryption=PrivateKey.generate(), since=int(world.clock()),
    )  # fmt: skip
    action = {"kind": "replace-key", "org": HOSPITAL_A, "keys": card["keys"], "proofs": card["proofs"]}
    body = {"proposal": "0" * 32, "action": action}
    assert world.refused("membership.propose", body, AUTHORITY) == Code.BAD_BODY
