"""consent.grant, consent.amend, consent.revoke: what is accepted, and what is refused with which code."""

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
    grant_body,
    ident,
    propose,
)


@pytest.fixture
def ledger() -> Sender:
    return Sender()


@pytest.fixture
def granted(ledger: Sender) -> Sender:
    ledger.accepted(HOSPITAL_A, "consent.grant", grant_body())
    return ledger


def test_a_grant_is_kept_with_its_public_part(granted: Sender) -> None:
    value = granted.ledger.get(f"grant/{ident(1)}")
    assert value is not None
    assert (value["org"], value["status"], value["version"]) == (HOSPITAL_A, "active", 1)
    assert (value["grantees"], value["purposes"], value["commitment"]) == ([HOSPITAL_B], ["TREAT"], digest(1))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({}, Code.OK, id="right"),
        pytest.param({"grantees": [HOSPITAL_B, PAYER]}, Code.OK, id="two-grantees"),
        pytest.param({"from": START + DAY}, Code.OK, id="begins-later"),
        pytest.param({"from": 0}, Code.OK, id="began-long-ago"),
        pytest.param({"grantees": []}, Code.BAD_BODY, id="no-grantee"),
        pytest.param({"grantees": [HOSPITAL_B, HOSPITAL_B]}, Code.BAD_BODY, id="grantee-twice"),
        pytest.param({"grantees": [HOSPITAL_A]}, Code.BAD_BODY, id="to-itself"),
        pytest.param({"grantees": [STRANGER]}, Code.NOT_FOUND, id="grantee-not-a-member"),
        pytest.param({"grantees": ["129900001234567890"]}, Code.BAD_BODY, id="grantee-with-wrong-check-character"),
        pytest.param({"grantees": HOSPITAL_B}, Code.BAD_BODY, id="grantees-not-a-list"),
        pytest.param({"purposes": []}, Code.BAD_BODY, id="no-purpose"),
        pytest.param({"purposes": ["treat"]}, Code.BAD_BODY, id="purpose-not-a-code"),
        pytest.param({"until": START}, Code.BAD_BODY, id="over-before-it-begins"),
        pytest.param({"until": START + 11 * 366 * DAY}, Code.BAD_BODY, id="longer-than-ten-years"),
        pytest.param({"until": str(START + DAY)}, Code.BAD_BODY, id="until-as-text"),
        pytest.param({"until": True}, Code.BAD_BODY, id="until-as-true"),
        pytest.param({"commitment": "00"}, Code.BAD_BODY, id="short-commitment"),
        pytest.param({"commitment": digest(1).upper()}, Code.BAD_BODY, id="commitment-in-capitals"),
        pytest.param({"grant": "1"}, Code.BAD_BODY, id="short-id"),
        pytest.param({"patient": "x"}, Code.BAD_BODY, id="unknown-field"),
        pytest.param({"grant": None}, Code.BAD_BODY, id="no-id"),
    ],
)
def test_grant(ledger: Sender, changes: dict[str, Any], code: str) -> None:
    assert ledger.send(HOSPITAL_A, "consent.grant", grant_body(**changes)).code == code


@pytest.mark.parametrize("field", ["grant", "grantees", "purposes", "from", "until", "commitment"])
def test_a_grant_without_a_field_is_refused(ledger: Sender, field: str) -> None:
    body = grant_body()
    del body[field]
    assert ledger.send(HOSPITAL_A, "consent.grant", body).code == Code.BAD_BODY


@pytest.mark.parametrize("sender", [AUTHORITY, OBSERVER], ids=["authority", "observer"])
def test_only_a_holder_of_records_grants(ledger: Sender, sender: str) -> None:
    assert ledger.send(sender, "consent.grant", grant_body()).code == Code.NOT_AUTHORISED


def test_a_suspended_grantee_gets_no_new_grant(ledger: Sender) -> None:
    ledger.accepted(AUTHORITY, "membership.propose", propose({"kind": "suspend", "org": HOSPITAL_B}))
    assert ledger.send(HOSPITAL_A, "consent.grant", grant_body()).code == Code.CONFLICT


def test_a_grant_id_is_used_once(granted: Sender) -> None:
    assert granted.send(HOSPITAL_B, "consent.grant", grant_body(grantees=[PAYER])).code == Code.CONFLICT


@pytest.mark.parametrize(
    ("sender", "body", "code"),
    [
        pytest.param(HOSPITAL_A, {"until": START + 60 * DAY}, Code.OK, id="longer"),
        pytest.param(HOSPITAL_A, {"grantees": [PAYER], "purposes": ["HPAYMT"]}, Code.OK, id="to-somebody-else"),
        pytest.param(HOSPITAL_A, {"commitment": digest(9)}, Code.OK, id="detail"),
        pytest.param(HOSPITAL_A, {}, Code.BAD_BODY, id="nothing-to-change"),
        pytest.param(HOSPITAL_A, {"from": START}, Code.BAD_BODY, id="the-beginning-stays"),
        pytest.param(HOSPITAL_A, {"until": START - 1}, Code.BAD_BODY, id="into-the-past"),
        pytest.param(HOSPITAL_A, {"grantees": [STRANGER]}, Code.NOT_FOUND, id="to-a-stranger"),
        pytest.param(HOSPITAL_A, {"grant": ident(2), "until": START + DAY}, Code.NOT_FOUND, id="no-such-grant"),
        pytest.param(HOSPITAL_B, {"until": START + 60 * DAY}, Code.NOT_AUTHORISED, id="by-the-grantee"),
        pytest.param(AUTHORITY, {"until": START + 60 * DAY}, Code.NOT_AUTHORISED, id="by-the-authority"),
    ],
)
def test_amend(granted: Sender, sender: str, body: dict[str, Any], code: str) -> None:
    result = granted.send(sender, "consent.amend", {"grant": ident(1), **body})
    assert result.code == code
    value = granted.ledger.get(f"grant/{ident(1)}")
    assert value is not None
    assert value["version"] == (2 if code == Code.OK else 1)


def test_a_grant_that_is_over_is_not_amended(granted: Sender) -> None:
    granted.time = START + 30 * DAY
    body = {"grant": ident(1), "until": START + 60 * DAY}
    assert granted.send(HOSPITAL_A, "consent.amend", body).code == Code.GRANT_EXPIRED


@pytest.mark.parametrize(
    ("sender", "grant", "code"),
    [
        pytest.param(HOSPITAL_A, ident(1), Code.OK, id="by-the-granting-hospital"),
        pytest.param(HOSPITAL_B, ident(1), Code.NOT_AUTHORISED, id="by-the-grantee"),
        pytest.param(HOSPITAL_A, ident(2), Code.NOT_FOUND, id="no-such-grant"),
        pytest.param(HOSPITAL_A, "zz", Code.BAD_BODY, id="not-an-id"),
    ],
)
def test_revoke(granted: Sender, sender: str, grant: str, code: str) -> None:
    assert granted.send(sender, "consent.revoke", {"grant": grant}).code == code


def test_a_revoked_grant_stays_revoked(granted: Sender) -> None:
    granted.time = START + 5
    granted.accepted(HOSPITAL_A, "consent.revoke", {"grant": ident(1)})
    value = granted.ledger.get(f"grant/{ident(1)}")
    assert value is not None
    assert (value["status"], value["revoked"]) == ("revoked", START + 5)
    again = granted.send(HOSPITAL_A, "consent.revoke", {"grant": ident(1)})
    amended = granted.send(HOSPITAL_A, "consent.amend", {"grant": ident(1), "until": START + DAY})
    assert again.code == amended.code == Code.GRANT_REVOKED
