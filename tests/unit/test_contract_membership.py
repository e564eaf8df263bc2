"""The membership contract: m-of-n decisions, admission with proof of possession, suspension, and keys that change."""

from __future__ import annotations

from typing import Any

import pytest

from anchor.contracts import member_keys, members
from anchor.contracts.membership import PROPOSAL_SECONDS
from anchor.transaction import Code
from tests.ledger_consortium import (
    AUTHORITY,
    CHAIN,
    DAY,
    HOSPITAL_A,
    HOSPITAL_B,
    OBSERVER,
    PAYER,
    SECOND_AUTHORITY,
    START,
    STRANGER,
    Sender,
    admit,
    card,
    encrypt_key,
    genesis_bytes,
    grant_body,
    ident,
    key,
    propose,
    sign_key,
)

ENDPOINT = {"endpoint": "https://moved.invalid"}


def two_authorities() -> Sender:
    return Sender(genesis_bytes((AUTHORITY, SECOND_AUTHORITY, HOSPITAL_A, HOSPITAL_B), threshold=2))


def keys_of(ledger: Sender, org: str) -> list[dict[str, Any]]:
    value = ledger.ledger.get(f"member/{org}")
    assert value is not None
    return value["keys"]


def admission_with(**changes: Any) -> dict[str, Any]:
    member = members.admission(card(STRANGER))
    return propose({"kind": "admit", "member": {**member, **changes}})


def test_an_admitted_member_acts_at_once() -> None:
    ledger = Sender()
    assert ledger.send(STRANGER, "membership.endpoint", ENDPOINT).code == Code.UNKNOWN_SENDER
    ledger.accepted(AUTHORITY, "membership.propose", admit(STRANGER))
    ledger.accepted(STRANGER, "membership.endpoint", ENDPOINT)
    value = ledger.ledger.get(f"member/{STRANGER}")
    assert value is not None
    assert (value["endpoint"], value["status"]) == ("https://moved.invalid", "active")
    assert "proofs" not in value


def test_the_transaction_that_reaches_m_carries_the_action_out() -> None:
    ledger = two_authorities()
    ledger.accepted(AUTHORITY, "membership.propose", admit(STRANGER))
    assert ledger.ledger.get(f"member/{STRANGER}") is None
    assert ledger.send(AUTHORITY, "membership.approve", {"proposal": ident(1)}).code == Code.ALREADY_DONE
    assert ledger.send(HOSPITAL_A, "membership.approve", {"proposal": ident(1)}).code == Code.NOT_AUTHORISED
    ledger.accepted(SECOND_AUTHORITY, "membership.approve", {"proposal": ident(1)})
    assert ledger.ledger.get(f"member/{STRANGER}") is not None
    assert ledger.send(SECOND_AUTHORITY, "membership.approve", {"proposal": ident(1)}).code == Code.ALREADY_DONE


def test_a_proposal_lapses() -> None:
    ledger = two_authorities()
    ledger.accepted(AUTHORITY, "membership.propose", admit(STRANGER))
    ledger.time = START + PROPOSAL_SECONDS
    assert ledger.send(SECOND_AUTHORITY, "membership.approve", {"proposal": ident(1)}).code == Code.EXPIRED


def test_a_proposal_that_no_longer_can_be_carried_out_is_refused_on_approval() -> None:
    ledger = two_authorities()
    ledger.accepted(AUTHORITY, "membership.propose", admit(STRANGER, 1))
    ledger.accepted(AUTHORITY, "membership.propose", admit(STRANGER, 2))
    ledger.accepted(SECOND_AUTHORITY, "membership.approve", {"proposal": ident(1)})
    assert ledger.send(SECOND_AUTHORITY, "membership.approve", {"proposal": ident(2)}).code == Code.CONFLICT


@pytest.mark.parametrize(
    ("sender", "body", "code"),
    [
        pytest.param(HOSPITAL_A, admit(STRANGER), Code.NOT_AUTHORISED, id="by-a-hospital"),
        pytest.param(OBSERVER, admit(STRANGER), Code.NOT_AUTHORISED, id="by-an-observer"),
        pytest.param(AUTHORITY, admit(HOSPITAL_A), Code.CONFLICT, id="a-member-already"),
        pytest.param(AUTHORITY, propose({"kind": "rename", "org": HOSPITAL_A}), Code.BAD_BODY, id="no-such-action"),
        pytest.param(AUTHORITY, propose({"kind": ["admit"]}), Code.BAD_BODY, id="kind-not-text"),
        pytest.param(AUTHORITY, propose({}), Code.BAD_BODY, id="no-action"),
        pytest.param(AUTHORITY, {"proposal": ident(1)}, Code.BAD_BODY, id="no-action-field"),
        pytest.param(AUTHORITY, admission_with(roles=[]), Code.BAD_BODY, id="no-roles"),
        pytest.param(AUTHORITY, admission_with(roles=["king"]), Code.BAD_BODY, id="unknown-role"),
        pytest.param(AUTHORITY, admission_with(name=" x"), Code.BAD_BODY, id="name-with-space"),
        pytest.param(AUTHORITY, admission_with(name="a\u0000b"), Code.BAD_BODY, id="name-with-control"),
        pytest.param(AUTHORITY, admission_with(endpoint="ftp://x"), Code.BAD_BODY, id="endpoint-not-http"),
        pytest.param(AUTHORITY, admission_with(endpoint="https://u:p@x/"), Code.BAD_BODY, id="endpoint-with-user"),
        pytest.param(AUTHORITY, admission_with(org=HOSPITAL_B), Code.BAD_BODY, id="card-of-another"),
        pytest.param(AUTHORITY, admission_with(org="129900001234567890"), Code.BAD_BODY, id="wrong-check-character"),
        pytest.param(AUTHORITY, admission_with(proofs={}), Code.BAD_BODY, id="no-proof"),
        pytest.param(AUTHORITY, admission_with(keys=[]), Code.BAD_BODY, id="no-keys"),
        pytest.param(AUTHORITY, admission_with(extra=1), Code.BAD_BODY, id="unknown-field"),
        pytest.param(AUTHORITY, admit(STRANGER, chain="another"), Code.BAD_BODY, id="card-for-another-chain"),
        pytest.param(AUTHORITY, admit(STRANGER, since=START + 1), Code.BAD_BODY, id="keys-not-live-yet"),
        pytest.param(AUTHORITY, admit(STRANGER, since=1, until=2), Code.BAD_BODY, id="keys-over-already"),
        pytest.param(
            AUTHORITY, admit(STRANGER, encryption=sign_key(STRANGER)), Code.BAD_BODY, id="one-key-for-both-uses"
        ),
        pytest.param(AUTHORITY, propose({"kind": "suspend", "org": STRANGER}), Code.NOT_FOUND, id="suspend-a-stranger"),
        pytest.param(AUTHORITY, propose({"kind": "suspend", "org": AUTHORITY}), Code.CONFLICT, id="last-authority"),
        pytest.param(AUTHORITY, propose({"kind": "reinstate", "org": HOSPITAL_A}), Code.CONFLICT, id="not-suspended"),
        pytest.param(AUTHORITY, propose({"kind": "threshold", "value": 2}), Code.CONFLICT, id="threshold-too-high"),
        pytest.param(AUTHORITY, propose({"kind": "threshold", "value": 0}), Code.BAD_BODY, id="threshold-zero"),
        pytest.param(AUTHORITY, propose({"kind": "threshold", "value": 1}), Code.OK, id="threshold"),
        pytest.param(AUTHORITY, propose({"kind": "suspend", "org": HOSPITAL_A}), Code.OK, id="suspend"),
    ],
)
def test_propose(sender: str, body: dict[str, Any], code: str) -> None:
    assert Sender().send(sender, "membership.propose", body).code == code


def test_a_proof_of_possession_by_another_key_is_refused() -> None:
    member = members.admission(card(STRANGER))
    key_id = sign_key(STRANGER).public_key.key_id
    forged = member_keys.prove_possession(CHAIN, STRANGER, member["keys"], key("forger"))
    body = propose({"kind": "admit", "member": {**member, "proofs": {key_id: forged}}})
    assert Sender().send(AUTHORITY, "membership.propose", body).code == Code.BAD_BODY


def test_a_key_that_is_no_point_of_the_curve_is_refused() -> None:
    member = members.admission(card(STRANGER))
    member["keys"][1] = {**member["keys"][1], "public": "04" + "11" * 64}
    body = propose({"kind": "admit", "member": member})
    assert Sender().send(AUTHORITY, "membership.propose", body).code == Code.BAD_BODY


def test_a_key_vouches_for_nothing_before_it_was_on_the_ledger() -> None:
    ledger = Sender()
    ledger.time = START + 500
    ledger.accepted(AUTHORITY, "membership.propose", admit(STRANGER, since=START - 10 * DAY))
    assert {one["from"] for one in keys_of(ledger, STRANGER)} == {START + 500}


def test_an_admitted_authority_counts_and_the_threshold_can_then_rise() -> None:
    ledger = Sender()
    ledger.accepted(AUTHORITY, "membership.propose", admit(SECOND_AUTHORITY))
    ledger.accepted(AUTHORITY, "membership.propose", propose({"kind": "threshold", "value": 2}, 2))
    ledger.accepted(AUTHORITY, "membership.propose", propose({"kind": "suspend", "org": HOSPITAL_A}, 3))
    ledger.accepted(HOSPITAL_A, "membership.endpoint", ENDPOINT)
    suspend_peer = propose({"kind": "suspend", "org": SECOND_AUTHORITY}, 4)
    assert ledger.send(AUTHORITY, "membership.propose", suspend_peer).code == Code.CONFLICT
    ledger.accepted(SECOND_AUTHORITY, "membership.approve", {"proposal": ident(3)})
    assert ledger.send(HOSPITAL_A, "membership.endpoint", ENDPOINT).code == Code.SUSPENDED_SENDER


def test_a_suspended_member_keeps_its_past_and_returns() -> None:
    ledger = Sender()
    ledger.accepted(HOSPITAL_A, "consent.grant", grant_body())
    ledger.accepted(AUTHORITY, "membership.propose", propose({"kind": "suspend", "org": HOSPITAL_A}))
    assert ledger.send(HOSPITAL_A, "consent.revoke", {"grant": ident(1)}).code == Code.SUSPENDED_SENDER
    assert ledger.ledger.get(f"grant/{ident(1)}") is not None
    ledger.accepted(AUTHORITY, "membership.propose", propose({"kind": "reinstate", "org": HOSPITAL_A}, 2))
    ledger.accepted(HOSPITAL_A, "consent.revoke", {"grant": ident(1)})


@pytest.mark.parametrize(
    ("sender", "body", "code"),
    [
        pytest.param(OBSERVER, ENDPOINT, Code.OK, id="an-observer-moves"),
        pytest.param(HOSPITAL_A, {"endpoint": "http://10.0.0.1:8080/x"}, Code.OK, id="with-port-and-path"),
        pytest.param(HOSPITAL_A, {"endpoint": "https://x/?q=1"}, Code.BAD_BODY, id="with-query"),
        pytest.param(HOSPITAL_A, {"endpoint": "x" * 300}, Code.BAD_BODY, id="too-long"),
        pytest.param(HOSPITAL_A, {}, Code.BAD_BODY, id="missing"),
        pytest.param(HOSPITAL_A, {**ENDPOINT, "name": "x"}, Code.BAD_BODY, id="and-more"),
    ],
)
def test_endpoint(sender: str, body: dict[str, Any], code: str) -> None:
    assert Sender().send(sender, "membership.endpoint", body).code == code


def rotation(new: str = "sign-2", use: str = "sign", retire: Any = None, **changes: Any) -> dict[str, Any]:
    """Return the body of a rotation of hospital A's."""
    signing = key(HOSPITAL_A, new)
    record = {**member_keys.key_record(signing.public_key, use, since=START), **changes}
    proof = member_keys.prove_possession(CHAIN, HOSPITAL_A, [record], signing) if use == "sign" else None
    return {"key": record, "proof": proof, "retire": retire}


def retire(until: int, which: str = "sign") -> dict[str, Any]:
    old = sign_key(HOSPITAL_A) if which == "sign" else encrypt_key(HOSPITAL_A)
    return {"id": old.public_key.key_id, "until": until}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(rotation(), Code.OK, id="another-signing-key"),
        pytest.param(rotation(retire=retire(START + 7 * DAY)), Code.OK, id="with-overlap"),
        pytest.param(rotation(retire=retire(START)), Code.OK, id="at-once"),
        pytest.param(rotation("e-2", "encrypt", retire(START + DAY, "encrypt")), Code.OK, id="encryption-key"),
        pytest.param({**rotation(), "proof": None}, Code.BAD_BODY, id="no-proof"),
        pytest.param({**rotation(), "proof": "0" * 128}, Code.BAD_BODY, id="wrong-proof"),
        pytest.param({**rotation("e-2", "encrypt"), "proof": "0" * 128}, Code.BAD_BODY, id="proof-for-encryption"),
        pytest.param(rotation(id="0" * 16), Code.BAD_BODY, id="id-of-another-key"),
        pytest.param(rotation(until=START), Code.BAD_BODY, id="ends-as-it-begins"),
        pytest.param(rotation(use="both"), Code.BAD_BODY, id="unknown-use"),
        pytest.param(rotation(retire=retire(START - 1)), Code.BAD_BODY, id="retired-in-the-past"),
        pytest.param(rotation(retire=retire(START + DAY, "encrypt")), Code.BAD_BODY, id="retires-the-other-use"),
        pytest.param(rotation(retire={"id": "0" * 16, "until": START + 1}), Code.NOT_FOUND, id="retires-nothing"),
        pytest.param(rotation(retire={"id": "0" * 16}), Code.BAD_BODY, id="retire-without-time"),
        pytest.param(
            rotation(retire=retire(START + DAY), **{"from": START + 2 * DAY}), Code.BAD_BODY, id="leaves-a-gap"
        ),
        pytest.param(
            rotation(retire=retire(START + 3 * DAY), until=START + 2 * DAY), Code.BAD_BODY, id="ends-before-the-old-one"
        ),
    ],
)
def test_rotate_key(body: dict[str, Any], code: str) -> None:
    assert Sender().send(HOSPITAL_A, "membership.rotate-key", body).code == code


def test_during_the_overlap_both_keys_sign_and_after_it_only_the_new_one() -> None:
    ledger, second = Sender(), key(HOSPITAL_A, "sign-2")
    ledger.accepted(HOSPITAL_A, "membership.rotate-key", rotation(retire=retire(START + 7 * DAY)))
    ledger.time = START + 7 * DAY - 1
    ledger.accepted(HOSPITAL_A, "membership.endpoint", ENDPOINT)
    ledger.accepted(HOSPITAL_A, "membership.endpoint", ENDPOINT, key=second)
    ledger.time = START + 7 * DAY
    assert ledger.send(HOSPITAL_A, "membership.endpoint", ENDPOINT).code == Code.UNKNOWN_KEY
    ledger.accepted(HOSPITAL_A, "membership.endpoint", ENDPOINT, key=second)
    assert len(keys_of(ledger, HOSPITAL_A)) == 3


def test_a_key_is_not_registered_twice() -> None:
    ledger = Sender()
    ledger.accepted(HOSPITAL_A, "membership.rotate-key", rotation())
    assert ledger.send(HOSPITAL_A, "membership.rotate-key", rotation()).code == Code.CONFLICT


def replacement(**changes: Any) -> dict[str, Any]:
    signing, encryption = key(HOSPITAL_A, "found"), key(HOSPITAL_A, "found-e")
    keys = [
        member_keys.key_record(signing.public_key, "sign", since=START),
        member_keys.key_record(encryption.public_key, "encrypt", since=START),
    ]
    proofs = {signing.public_key.key_id: member_keys.prove_possession(CHAIN, HOSPITAL_A, keys, signing)}
    return propose({"kind": "replace-key", "org": HOSPITAL_A, "keys": keys, "proofs": proofs, **changes})


def test_lost_keys_are_replaced_by_governance_and_the_old_ones_end_now() -> None:
    ledger = Sender()
    ledger.time = START + 10
    ledger.accepted(AUTHORITY, "membership.propose", replacement())
    assert ledger.send(HOSPITAL_A, "membership.endpoint", ENDPOINT).code == Code.UNKNOWN_KEY
    ledger.accepted(HOSPITAL_A, "membership.endpoint", ENDPOINT, key=key(HOSPITAL_A, "found"))
    assert [one["until"] for one in keys_of(ledger, HOSPITAL_A)] == [START + 10, START + 10, None, None]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"proofs": {}}, Code.BAD_BODY, id="no-proof"),
        pytest.param({"keys": []}, Code.BAD_BODY, id="no-keys"),
        pytest.param({"org": PAYER}, Code.BAD_BODY, id="proof-of-another-member"),
        pytest.param({"org": STRANGER}, Code.NOT_FOUND, id="not-a-member"),
    ],
)
def test_replace_key_is_refused(changes: dict[str, Any], code: str) -> None:
    assert Sender().send(AUTHORITY, "membership.propose", replacement(**changes)).code == code


def test_keys_are_bounded() -> None:
    ledger = Sender()
    for number in range(member_keys.MAX_KEYS - 2):
        ledger.accepted(HOSPITAL_A, "membership.rotate-key", rotation(f"n{number}"))
    assert ledger.send(HOSPITAL_A, "membership.rotate-key", rotation("one-more")).code == Code.CONFLICT
