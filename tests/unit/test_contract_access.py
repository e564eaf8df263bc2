"""The access contract: who may move a request where, on what basis, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from anchor.transaction import Code
from tests.ledger_consortium import (
    AUTHORITY,
    DAY,
    HOSPITAL_A,
    HOSPITAL_B,
    OBSERVER,
    PAYER,
    START,
    STRANGER,
    Sender,
    digest,
    emergency_body,
    genesis_bytes,
    grant_body,
    ident,
    member,
    propose,
    release_body,
    request_body,
)

PERMIT = {"request": ident(1), "grant": ident(1)}
DENY = {"request": ident(1), "reason": "NO"}
RECEIVE = {"request": ident(1), "disclosed": digest(101), "status": "verified"}
REVIEW = {"request": ident(1), "outcome": "justified", "commitment": digest(7)}


def at(stage: str) -> Sender:
    """Return a ledger on which request 1 of hospital B to hospital A has come to a stage, under grant 1."""
    ledger = Sender()
    ledger.accepted(HOSPITAL_A, "consent.grant", grant_body())
    steps = {
        "granted": [],
        "open": [(HOSPITAL_B, "access.request", request_body())],
        "emergency": [(HOSPITAL_B, "access.emergency", emergency_body())],
    }
    steps["permitted"] = [*steps["open"], (HOSPITAL_A, "access.permit", PERMIT)]
    steps["denied"] = [*steps["open"], (HOSPITAL_A, "access.deny", {"request": ident(1), "reason": "SENSITIVE"})]
    steps["released"] = [*steps["permitted"], (HOSPITAL_A, "access.release", release_body())]
    steps["received"] = [*steps["released"], (HOSPITAL_B, "access.receive", RECEIVE)]
    steps["emergency-released"] = [*steps["emergency"], (HOSPITAL_A, "access.release", release_body(grant=None))]
    for sender, type, body in steps[stage]:
        ledger.accepted(sender, type, body)
    return ledger


def request(ledger: Sender) -> dict[str, Any]:
    value = ledger.ledger.get(f"request/{ident(1)}")
    assert value is not None
    return value


def test_a_whole_disclosure_leaves_every_event_on_its_request() -> None:
    value = request(at("received"))
    assert value["status"] == "received"
    assert value["release"]["disclosed"] == value["receive"]["disclosed"] == digest(101)
    assert all(value[event]["tx"] for event in ("permit", "release", "receive"))
    assert value["review"] is None


@pytest.mark.parametrize(
    ("sender", "changes", "code"),
    [
        pytest.param(HOSPITAL_B, {}, Code.OK, id="right"),
        pytest.param(PAYER, {}, Code.OK, id="by-a-payer"),
        pytest.param(AUTHORITY, {"purpose": "PUBHLTH"}, Code.OK, id="by-the-authority"),
        pytest.param(OBSERVER, {}, Code.NOT_AUTHORISED, id="by-an-observer"),
        pytest.param(HOSPITAL_A, {}, Code.BAD_BODY, id="to-itself"),
        pytest.param(HOSPITAL_B, {"holder": STRANGER}, Code.NOT_FOUND, id="to-a-stranger"),
        pytest.param(HOSPITAL_B, {"holder": AUTHORITY}, Code.CONFLICT, id="to-one-that-holds-nothing"),
        pytest.param(HOSPITAL_B, {"purpose": "curiosity"}, Code.BAD_BODY, id="purpose-not-a-code"),
        pytest.param(HOSPITAL_B, {"commitment": None}, Code.BAD_BODY, id="no-commitment"),
        pytest.param(HOSPITAL_B, {"patient": "x"}, Code.BAD_BODY, id="unknown-field"),
    ],
)
def test_request(sender: str, changes: dict[str, Any], code: str) -> None:
    assert at("granted").send(sender, "access.request", request_body(**changes)).code == code


@pytest.mark.parametrize(
    ("sender", "changes", "code"),
    [
        pytest.param(HOSPITAL_B, {}, Code.OK, id="by-a-hospital"),
        pytest.param(PAYER, {}, Code.NOT_AUTHORISED, id="by-a-payer"),
        pytest.param(AUTHORITY, {}, Code.NOT_AUTHORISED, id="by-the-authority"),
        pytest.param(HOSPITAL_B, {"reason": ""}, Code.BAD_BODY, id="no-reason"),
        pytest.param(HOSPITAL_B, {"reason": "他昏迷了"}, Code.BAD_BODY, id="reason-in-words"),
        pytest.param(HOSPITAL_B, {"purpose": "TREAT"}, Code.BAD_BODY, id="purpose-is-not-asked"),
    ],
)
def test_emergency(sender: str, changes: dict[str, Any], code: str) -> None:
    ledger = at("granted")
    assert ledger.send(sender, "access.emergency", emergency_body(**changes)).code == code
    if code == Code.OK:
        value = request(ledger)
        assert (value["kind"], value["purpose"]) == ("emergency", "ETREAT")
        assert value["review"] == {"due": START + DAY, "outcome": None}


def test_a_request_id_is_used_once() -> None:
    ledger = at("open")
    assert ledger.send(HOSPITAL_B, "access.request", request_body()).code == Code.CONFLICT
    assert ledger.send(PAYER, "access.emergency", emergency_body()).code == Code.NOT_AUTHORISED
    assert ledger.send(HOSPITAL_B, "access.emergency", emergency_body()).code == Code.CONFLICT


@pytest.mark.parametrize(
    ("stage", "sender", "type", "body", "code"),
    [
        pytest.param("open", HOSPITAL_A, "permit", PERMIT, Code.OK, id="permit"),
        pytest.param("open", HOSPITAL_B, "permit", PERMIT, Code.NOT_AUTHORISED, id="permit-by-the-requester"),
        pytest.param("open", AUTHORITY, "permit", PERMIT, Code.NOT_AUTHORISED, id="permit-by-the-authority"),
        pytest.param("open", HOSPITAL_A, "permit", {**PERMIT, "grant": None}, Code.NO_GRANT, id="permit-on-no-grant"),
        pytest.param("open", HOSPITAL_A, "permit", {**PERMIT, "grant": ident(5)}, Code.NO_GRANT, id="permit-no-such"),
        pytest.param("open", HOSPITAL_A, "permit", {"request": ident(1)}, Code.BAD_BODY, id="permit-without-field"),
        pytest.param("granted", HOSPITAL_A, "permit", PERMIT, Code.NOT_FOUND, id="permit-of-nothing"),
        pytest.param("permitted", HOSPITAL_A, "permit", PERMIT, Code.ALREADY_DONE, id="permit-twice"),
        pytest.param("denied", HOSPITAL_A, "permit", PERMIT, Code.CONFLICT, id="permit-after-denial"),
        pytest.param("emergency", HOSPITAL_A, "permit", {**PERMIT, "grant": None}, Code.OK, id="permit-emergency"),
        pytest.param("emergency", HOSPITAL_A, "permit", PERMIT, Code.NO_GRANT, id="permit-emergency-by-other-grant"),
        pytest.param("open", HOSPITAL_A, "deny", DENY, Code.OK, id="deny"),
        pytest.param("permitted", HOSPITAL_A, "deny", DENY, Code.OK, id="deny-later"),
        pytest.param("released", HOSPITAL_A, "deny", DENY, Code.ALREADY_DONE, id="deny-too-late"),
        pytest.param("denied", HOSPITAL_A, "deny", DENY, Code.CONFLICT, id="deny-twice"),
        pytest.param(
            "open",
            HOSPITAL_B,
            "deny",
            DENY,
            Code.NOT_AUTHORISED,
            id="deny-by-requester",
        ),
        pytest.param("permitted", HOSPITAL_A, "release", release_body(), Code.OK, id="release"),
        pytest.param("permitted", HOSPITAL_A, "release", release_body(count=0), Code.OK, id="release-of-nothing"),
        pytest.param("permitted", HOSPITAL_A, "release", release_body(count=-1), Code.BAD_BODY, id="negative-count"),
        pytest.param("permitted", HOSPITAL_B, "release", release_body(), Code.NOT_AUTHORISED, id="by-requester"),
        pytest.param("open", HOSPITAL_A, "release", release_body(), Code.CONFLICT, id="release-without-permit"),
        pytest.param("denied", HOSPITAL_A, "release", release_body(), Code.CONFLICT, id="release-after-denial"),
        pytest.param("released", HOSPITAL_A, "release", release_body(), Code.ALREADY_DONE, id="release-twice"),
        pytest.param("received", HOSPITAL_A, "release", release_body(), Code.ALREADY_DONE, id="release-after-receipt"),
        pytest.param(
            "permitted", HOSPITAL_A, "release", release_body(grant=None), Code.CONFLICT, id="release-on-another-basis"
        ),
        pytest.param("emergency", HOSPITAL_A, "release", release_body(grant=None), Code.OK, id="release-emergency"),
        pytest.param("emergency", HOSPITAL_A, "release", release_body(), Code.NO_GRANT, id="emergency-by-other-grant"),
        pytest.param("granted", HOSPITAL_A, "release", release_body(), Code.NOT_FOUND, id="release-of-no-request"),
        pytest.param("released", HOSPITAL_B, "receive", RECEIVE, Code.OK, id="receive"),
        pytest.param("released", HOSPITAL_A, "receive", RECEIVE, Code.NOT_AUTHORISED, id="receive-by-holder"),
        pytest.param("permitted", HOSPITAL_B, "receive", RECEIVE, Code.CONFLICT, id="receive-before-release"),
        pytest.param("received", HOSPITAL_B, "receive", RECEIVE, Code.ALREADY_DONE, id="receive-twice"),
        pytest.param(
            "released", HOSPITAL_B, "receive", {**RECEIVE, "disclosed": digest(5)}, Code.CONFLICT, id="verified-other"
        ),
        pytest.param(
            "released",
            HOSPITAL_B,
            "receive",
            {**RECEIVE, "disclosed": digest(5), "status": "rejected"},
            Code.OK,
            id="rejected-other",
        ),
        pytest.param(
            "released", HOSPITAL_B, "receive", {**RECEIVE, "status": "lost"}, Code.BAD_BODY, id="unknown-status"
        ),
        pytest.param("emergency", AUTHORITY, "review", REVIEW, Code.OK, id="review-by-authority"),
        pytest.param("emergency-released", HOSPITAL_A, "review", REVIEW, Code.OK, id="review-by-holder"),
        pytest.param("emergency", HOSPITAL_B, "review", REVIEW, Code.NOT_AUTHORISED, id="review-of-oneself"),
        pytest.param("emergency", PAYER, "review", REVIEW, Code.NOT_AUTHORISED, id="review-by-a-third"),
        pytest.param("open", AUTHORITY, "review", REVIEW, Code.CONFLICT, id="review-of-no-emergency"),
        pytest.param("granted", AUTHORITY, "review", REVIEW, Code.NOT_FOUND, id="review-of-nothing"),
        pytest.param("emergency", AUTHORITY, "review", {**REVIEW, "outcome": "ok"}, Code.BAD_BODY, id="other-outcome"),
    ],
)
def test_step(stage: str, sender: str, type: str, body: dict[str, Any], code: str) -> None:
    assert at(stage).send(sender, f"access.{type}", body).code == code


@pytest.mark.parametrize(
    ("changes", "time", "code"),
    [
        pytest.param({}, START + 30 * DAY - 1, Code.OK, id="last-second"),
        pytest.param({}, START + 30 * DAY, Code.GRANT_EXPIRED, id="over"),
        pytest.param({"from": START + DAY}, START + DAY - 1, Code.GRANT_EXPIRED, id="not-yet"),
        pytest.param({"from": START + DAY}, START + DAY, Code.OK, id="first-second"),
        pytest.param({"grantees": [PAYER]}, START, Code.NO_GRANT, id="another-grantee"),
        pytest.param({"purposes": ["HPAYMT"]}, START, Code.NO_GRANT, id="another-purpose"),
    ],
)
def test_a_permission_needs_a_grant_that_covers_it_at_block_time(changes: dict[str, Any], time: int, code: str) -> None:
    ledger = Sender()
    ledger.accepted(HOSPITAL_A, "consent.grant", grant_body(**changes))
    ledger.accepted(HOSPITAL_B, "access.request", request_body())
    ledger.time = time
    assert ledger.send(HOSPITAL_A, "access.permit", PERMIT).code == code


@pytest.mark.parametrize(
    ("changes", "time", "code"),
    [
        pytest.param({}, START + 30 * DAY - 1, Code.OK, id="last-second"),
        pytest.param({}, START + 30 * DAY, Code.GRANT_EXPIRED, id="over"),
        pytest.param({"until": START + DAY}, START + DAY, Code.GRANT_EXPIRED, id="shortened"),
        pytest.param({"grantees": [PAYER]}, START, Code.NO_GRANT, id="grantee-taken-out"),
        pytest.param({"purposes": ["HPAYMT"]}, START, Code.NO_GRANT, id="purpose-taken-out"),
    ],
)
def test_a_release_holds_the_grant_as_it_is_by_then(changes: dict[str, Any], time: int, code: str) -> None:
    ledger = at("permitted")
    if changes:
        ledger.accepted(HOSPITAL_A, "consent.amend", {"grant": ident(1), **changes})
    ledger.time = time
    assert ledger.send(HOSPITAL_A, "access.release", release_body()).code == code


def test_a_release_after_the_revocation_is_refused_even_within_one_block() -> None:
    ledger = at("permitted")
    revoke = ledger.envelope(HOSPITAL_A, "consent.revoke", {"grant": ident(1)})
    release = ledger.envelope(HOSPITAL_A, "access.release", release_body(), seq=4)
    block = ledger.ledger.apply_block([revoke, release], START)
    assert [one.code for one in block.results] == [Code.OK, Code.GRANT_REVOKED]


def test_another_institutions_grant_is_no_basis() -> None:
    ledger = Sender()
    ledger.accepted(PAYER, "consent.grant", grant_body())
    ledger.accepted(HOSPITAL_B, "access.request", request_body())
    assert ledger.send(HOSPITAL_A, "access.permit", PERMIT).code == Code.NO_GRANT


def test_nothing_is_released_to_a_suspended_requester() -> None:
    ledger = at("permitted")
    ledger.accepted(AUTHORITY, "membership.propose", propose({"kind": "suspend", "org": HOSPITAL_B}))
    assert ledger.send(HOSPITAL_A, "access.release", release_body()).code == Code.CONFLICT


def test_an_emergency_is_reviewed_once() -> None:
    ledger = at("emergency")
    ledger.accepted(AUTHORITY, "access.review", REVIEW)
    assert ledger.send(HOSPITAL_A, "access.review", REVIEW).code == Code.ALREADY_DONE
    review = request(ledger)["review"]
    assert (review["outcome"], review["reviewer"], review["due"]) == ("justified", AUTHORITY, START + DAY)


def test_an_authority_that_is_a_hospital_does_not_review_its_own_emergency() -> None:
    both = {**member(HOSPITAL_B), "roles": ["authority", "hospital"]}
    ledger = Sender(genesis_bytes_with(both))
    ledger.accepted(HOSPITAL_B, "access.emergency", emergency_body())
    assert ledger.send(HOSPITAL_B, "access.review", REVIEW).code == Code.NOT_AUTHORISED


def genesis_bytes_with(record: dict[str, Any]) -> bytes:
    from anchor import genesis

    parsed = genesis.parse(genesis_bytes())
    members = [record if one["org"] == record["org"] else one for one in parsed.members]
    return genesis.build(chain=parsed.chain, time=parsed.time, threshold=1, members=members)
