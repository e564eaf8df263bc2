"""Receipts made by the real services over a real ledger, verified offline, then bent in every way that matters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anchor import canonical, checkpoint
from anchor.receipt import canonical_receipt
from anchor.verify import InputUnreadable, StepFailed, verify_receipt
from bridge.errors import Conflict, KeyDestroyed, NotFound
from bridge.storage.database import transact
from tests.evidence_world import AUTHORITY, HOSPITAL_A, HOSPITAL_B, Disclosure, World, keys


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def receipt_of(world: World, ref: str) -> bytes:
    type, id, _, version = ref.split("/")
    return world.receipts.for_record(type, id, int(version))


def bent(receipt: bytes, change: Any) -> bytes:
    value = canonical.load(receipt)
    change(value)
    return canonical.dump(value)


def failing_step(receipt: bytes, trust: bytes, **options: Any) -> str:
    with pytest.raises((StepFailed, InputUnreadable)) as caught:
        verify_receipt(receipt, trust, **options)
    return caught.value.step


def test_a_receipt_grows_from_pending_to_witnessed(world: World) -> None:
    ref = world.store(1)
    with pytest.raises(Conflict):
        receipt_of(world, ref)
    world.anchoring.drain()
    pending = receipt_of(world, ref)
    trust = world.trust()
    assert verify_receipt(pending, trust, minimum="pending").state == "pending"
    assert failing_step(pending, trust) == "state"
    world.anchoring.run()
    committed = receipt_of(world, ref)
    assert verify_receipt(committed, trust, minimum="committed").state == "committed"
    assert failing_step(committed, trust) == "state"
    assert world.witness.run().outcome == "cosigned"
    report = verify_receipt(receipt_of(world, ref), trust, resource=world.content(ref))
    assert (report.state, report.org, report.subject) == ("witnessed", HOSPITAL_A, ref)
    assert [step.name for step in report.steps] == [
        *("trust", "format", "chain", "resource", "transaction", "publication", "institution", "entry"),
        *("checkpoint", "inclusion", "quorum", "state"),
    ]
    assert {each.org for each in report.cosignatures} == {AUTHORITY, HOSPITAL_A}
    assert report.time is not None
    assert report.time <= world.clock.now
    assert "VERIFIED" in report.to_text()
    assert "验证通过" in report.to_text()


def test_a_receipt_holds_nothing_of_other_records(world: World) -> None:
    refs = world.anchored(5)
    receipt = receipt_of(world, refs[2]).decode()
    for other in refs[:2] + refs[3:]:
        assert other not in receipt
        assert json.loads(receipt_of(world, other))["entry"]["digest"] not in receipt


def _other_ref(value: Any) -> None:
    value["entry"]["ref"] = "Observation/o9/_history/1"


def _claim(value: Any) -> None:
    value["state"] = "committed"
    value["ledger"]["checkpoint"] = value["ledger"]["checkpoint"].replace("—", "-")


def _drop_cosignature(value: Any) -> None:
    note = value["ledger"]["checkpoint"]
    value["ledger"]["checkpoint"] = note[: note.rindex("— ")]


def _own_extra_field(value: Any) -> None:
    value["entry"]["note"] = "x"


def _swap_sender(value: Any) -> None:
    value["publication"]["envelope"]["tx"]["sender"] = HOSPITAL_B


def _earlier_block(value: Any) -> None:
    value["publication"]["entry"]["time"] -= 1


def _foreign_signature(value: Any) -> None:
    signed = checkpoint.parse(value["ledger"]["checkpoint"].encode())
    own = checkpoint.sign(signed.checkpoint, HOSPITAL_B, keys(HOSPITAL_A)[0], 1_790_000_100)
    value["ledger"]["checkpoint"] = checkpoint.render(signed.with_signatures([own])).decode()


@pytest.mark.parametrize(
    ("change", "step"),
    [
        pytest.param(lambda v: v.update(chain="other"), "chain", id="of another chain"),
        pytest.param(lambda v: v.update(kind="gift"), "format", id="of an unknown kind"),
        pytest.param(lambda v: v.update(v=2), "format", id="of another version"),
        pytest.param(lambda v: v.update(state="pending"), "format", id="state and parts disagree"),
        pytest.param(_own_extra_field, "format", id="a field of one's own"),
        pytest.param(_other_ref, "entry", id="presented as another record's"),
        pytest.param(lambda v: v["entry"].update(org=HOSPITAL_B), "publication", id="as another institution's"),
        pytest.param(lambda v: v["log"].update(index=3), "entry", id="another place in the log"),
        pytest.param(lambda v: v["log"]["proof"].pop(), "entry", id="proof cut short"),
        pytest.param(lambda v: v["publication"]["proof"].append("00" * 32), "inclusion", id="proof made longer"),
        pytest.param(_swap_sender, "transaction", id="another sender"),
        pytest.param(_earlier_block, "inclusion", id="an earlier time"),
        pytest.param(lambda v: v["publication"].update(index=7), "transaction", id="another place on the ledger"),
        pytest.param(_drop_cosignature, "quorum", id="a cosignature taken away"),
        pytest.param(_foreign_signature, "checkpoint", id="signed in another member's name"),
        pytest.param(_claim, "checkpoint", id="signatures that are none"),
    ],
)
def test_a_bent_record_receipt_fails_at_its_step(world: World, change: Any, step: str) -> None:
    ref = world.anchored(5)[1]
    world.witness.run()
    receipt = receipt_of(world, ref)
    trust = world.trust()
    verify_receipt(receipt, trust)
    assert failing_step(bent(receipt, change), trust) == step


def test_another_record_is_not_the_one_the_receipt_names(world: World) -> None:
    refs = world.anchored(2)
    world.witness.run()
    receipt, trust = receipt_of(world, refs[0]), world.trust()
    assert failing_step(receipt, trust, resource=world.content(refs[1])) == "resource"
    assert failing_step(receipt, trust, resource=world.content(refs[0]).replace(b"0.40", b"0.4")) == "resource"
    assert failing_step(receipt, trust, resource=b"{") == "resource"


def test_trust_decides_quorum_and_mandatory_cosigners(world: World) -> None:
    ref = world.anchored()[0]
    world.witness.run()
    receipt = receipt_of(world, ref)
    assert failing_step(receipt, world.trust(quorum=3)) == "quorum"
    assert failing_step(receipt, world.trust(mandatory=(HOSPITAL_B,))) == "quorum"
    assert verify_receipt(receipt, world.trust(mandatory=(AUTHORITY,))).state == "witnessed"
    assert failing_step(receipt, b"{}") == "trust"
    assert failing_step(receipt, world.trust().replace(b"active", b"actice", 1)) == "trust"


def test_a_suspended_members_cosignature_does_not_count_and_its_past_does(world: World) -> None:
    ref = world.anchored()[0]
    world.witness.run()
    receipt, trust = receipt_of(world, ref), canonical.load(world.trust())
    for member in trust["members"]:
        if member["org"] == HOSPITAL_A:
            member["status"] = "suspended"
    assert failing_step(receipt, canonical.dump(trust)) == "quorum"
    trust["quorum"] = 1
    report = verify_receipt(receipt, canonical.dump(trust))
    assert [each.counted for each in report.cosignatures if each.org == HOSPITAL_A] == [False]


def test_key_validity_is_judged_at_the_time_of_signing(world: World) -> None:
    ref = world.anchored()[0]
    world.witness.run()
    receipt = receipt_of(world, ref)
    signed_at = verify_receipt(receipt, world.trust()).time
    assert signed_at is not None

    def with_until(until: int) -> bytes:
        trust = canonical.load(world.trust())
        for member in trust["members"]:
            for key in member["keys"]:
                if member["org"] == HOSPITAL_A:
                    key["until"] = until
        return canonical.dump(trust)

    assert verify_receipt(receipt, with_until(signed_at + 1)).state == "witnessed"  # rotated since: still valid
    assert failing_step(receipt, with_until(signed_at)) == "transaction"  # retired before: not


def test_a_receipt_outlives_the_record_it_is_about(world: World) -> None:
    ref = world.anchored()[0]
    world.witness.run()
    receipt = receipt_of(world, ref)
    transact(world.engine, lambda conn: world.keyring.destroy(conn, "Patient/p1"))
    assert verify_receipt(receipt, world.trust()).state == "witnessed"
    with pytest.raises(KeyDestroyed):
        receipt_of(world, ref)


def test_a_receipt_of_an_older_shard_stays_obtainable(world: World) -> None:
    ref = world.anchored()[0]
    world.build_services(shard="2027")
    newer = world.store(7)
    world.anchoring.run()
    world.witness.run()
    for each in (ref, newer):
        assert verify_receipt(receipt_of(world, each), world.trust()).state == "witnessed"
    assert world.kinds() == set()


def disclosure_receipt(world: World, *, received: bool = True, revoked: bool = False) -> tuple[Disclosure, bytes]:
    refs = world.anchored(3)
    disclosure = Disclosure.begin(world)
    disclosure.release(refs)
    if received:
        disclosure.receive()
    if revoked:
        disclosure.revoke()
    world.witness.run()
    return disclosure, world.receipts.for_disclosure(disclosure.request, disclosure.statement)


def test_a_disclosure_receipt_shows_the_whole_course(world: World) -> None:
    disclosure, receipt = disclosure_receipt(world)
    content = world.content("Observation/o1/_history/1")
    report = verify_receipt(receipt, world.trust(), resource=content)
    assert (report.kind, report.state, report.org) == ("disclosure", "witnessed", HOSPITAL_A)
    assert report.subject == disclosure.request
    assert report.facts["requester"] == HOSPITAL_B
    assert report.facts["records"] == 3
    assert [step.name for step in report.steps] == [
        *("trust", "format", "chain", "transaction", "checkpoint", "inclusion", "quorum", "request", "grant"),
        *("decision", "order", "disclosed", "resource", "receive", "state"),
    ]
    assert failing_step(receipt, world.trust(), resource=b'{"resourceType":"Basic"}') == "resource"


def test_a_later_revocation_is_shown_and_does_no_harm(world: World) -> None:
    _, receipt = disclosure_receipt(world, revoked=True)
    assert "revoked afterwards" in verify_receipt(receipt, world.trust()).facts
    hidden = bent(receipt, lambda v: v["transactions"].pop("revoke"))
    assert failing_step(hidden, world.trust()) == "grant"


def test_an_amended_grant_is_replayed(world: World) -> None:
    refs = world.anchored(1)
    disclosure = Disclosure.begin(world)
    disclosure.hold("consent.amend", grant=disclosure.grant, purposes=["TREAT", "HPAYMT"])
    disclosure.release(refs)
    disclosure.hold("consent.amend", grant=disclosure.grant, purposes=["HPAYMT"])
    world.witness.run()
    receipt = world.receipts.for_disclosure(disclosure.request)
    assert verify_receipt(receipt, world.trust()).state == "witnessed"
    for change in (lambda v: v["amendments"].pop(), lambda v: v["amendments"].reverse()):
        assert failing_step(bent(receipt, change), world.trust()) == "grant"


def test_an_emergency_needs_no_grant(world: World) -> None:
    refs = world.anchored(1)
    disclosure = Disclosure.begin(world, emergency=True)
    disclosure.release(refs, grant=False, permit=False)
    world.witness.run()
    report = verify_receipt(world.receipts.for_disclosure(disclosure.request), world.trust())
    assert report.facts["emergency"] == "ETREAT"


def test_nothing_released_has_no_receipt(world: World) -> None:
    disclosure = Disclosure.begin(world)
    with pytest.raises(Conflict):
        world.receipts.for_disclosure(disclosure.request)
    with pytest.raises(NotFound):
        world.receipts.for_disclosure("00" * 16)


def _swap_release(value: Any) -> None:
    value["transactions"]["permit"] = value["transactions"]["release"]


@pytest.mark.parametrize(
    ("change", "step"),
    [
        pytest.param(lambda v: v["disclosed"].pop(), "disclosed", id="a record left out"),
        pytest.param(lambda v: v["disclosed"].reverse(), "disclosed", id="records swapped"),
        pytest.param(lambda v: v["statement"].update(purpose="other"), "request", id="another statement"),
        pytest.param(lambda v: v["statement"].update(salt="00"), "request", id="a statement without a salt"),
        pytest.param(lambda v: v.update(request="00" * 16), "request", id="another request"),
        pytest.param(lambda v: v.update(grant=None), "grant", id="no grant shown"),
        pytest.param(lambda v: v["grant"]["value"].update(status="revoked"), "grant", id="another state of the grant"),
        pytest.param(lambda v: v["grant"]["proof"]["path"].reverse(), "grant", id="a state proof of another path"),
        pytest.param(lambda v: v["transactions"].pop("grant"), "grant", id="no grant transaction"),
        pytest.param(lambda v: v["transactions"].pop("permit"), "decision", id="no permission"),
        pytest.param(lambda v: v["transactions"].pop("release"), "format", id="no release"),
        pytest.param(_swap_release, "transaction", id="a release as permission"),
        pytest.param(_drop_cosignature, "quorum", id="a cosignature taken away"),
    ],
)
def test_a_bent_disclosure_receipt_fails_at_its_step(world: World, change: Any, step: str) -> None:
    _, receipt = disclosure_receipt(world)
    assert failing_step(bent(receipt, change), world.trust()) == step


def test_a_receipt_from_before_the_revocation_does_not_serve_a_release_after_it(world: World) -> None:
    """The ledger would refuse such a release; a colluding host's is refused by the receipt's own steps."""
    _, before = disclosure_receipt(world)
    _, after = _release_after_revocation(world, before)
    assert failing_step(after, world.trust()) in {"inclusion", "grant", "transaction", "checkpoint"}


def _release_after_revocation(world: World, before: bytes) -> tuple[None, bytes]:
    """Put the old proof of the grant under the receipt of a second disclosure by a second grant."""
    refs = [f"Observation/o{number}/_history/1" for number in range(3)]
    second = Disclosure.begin(world)
    second.release(refs)
    second.revoke()
    world.witness.run()
    receipt = canonical.load(world.receipts.for_disclosure(second.request))
    old = canonical.load(before)
    receipt["grant"] = old["grant"]
    receipt["transactions"]["grant"] = old["transactions"]["grant"]
    receipt["transactions"].pop("revoke")
    return None, canonical.dump(receipt)


def test_white_space_and_order_do_not_matter(world: World) -> None:
    ref = world.anchored()[0]
    world.witness.run()
    receipt = receipt_of(world, ref)
    loose = json.dumps(json.loads(receipt), indent=2).encode()
    assert canonical_receipt(loose) == receipt
    assert verify_receipt(loose, world.trust()).state == "witnessed"
