"""The holder's decision: every rule, beside the case it must not be confused with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bridge.services.decision import (
    CONFIDENTIALITY,
    SENSITIVITY,
    AskedFor,
    GrantFacts,
    Scope,
    categories_of,
    covers,
    decide,
)

NOW = 1_790_000_000
MEMBER = {"org": "B", "status": "active"}
LEDGER = {"grantees": ["B"], "purposes": ["TREAT"], "from": NOW - 10, "until": NOW + 10, "status": "active"}
GRANT = GrantFacts(
    id="g1",
    consent="Consent/c1",
    grantees=frozenset({"B"}),
    purposes=frozenset({"TREAT"}),
    valid_from=NOW - 10,
    valid_until=NOW + 10,
    active=True,
    ledger=LEDGER,
)
ASKED = AskedFor("B", "TREAT")
EMERGENCY = AskedFor("B", "TREAT", emergency="BTG", reason="昏迷无法取得同意", role="physician")


def judge(asked: AskedFor = ASKED, grants: tuple[GrantFacts, ...] = (GRANT,), **more: Any) -> Any:
    facts = {"member": MEMBER, "holds_records": True, "now": NOW} | more
    return decide(asked, grants=grants, **facts)


def with_ledger(**changes: Any) -> GrantFacts:
    return replace(GRANT, ledger={**LEDGER, **changes})


@pytest.mark.parametrize(
    ("asked", "grants", "more", "rule"),
    [
        pytest.param(ASKED, (GRANT,), {}, "grant", id="a live grant that covers it"),
        pytest.param(replace(ASKED, grant="g1"), (GRANT,), {}, "grant", id="named grant"),
        pytest.param(ASKED, (with_ledger(status="revoked"), GRANT), {}, "grant", id="one of two grants covers"),
        pytest.param(EMERGENCY, (), {}, "emergency", id="emergency without any grant"),
        pytest.param(replace(EMERGENCY, purpose="ETREAT"), (), {}, "emergency", id="emergency treatment"),
    ],
)
def test_permits(asked: AskedFor, grants: Any, more: Any, rule: str) -> None:
    decision = judge(asked, grants, **more)
    assert decision.permit
    assert decision.rule == rule
    assert decision.scope is not None


@pytest.mark.parametrize(
    ("asked", "grants", "more", "rule"),
    [
        pytest.param(ASKED, (GRANT,), {"member": None}, "member-unknown", id="unknown member"),
        pytest.param(ASKED, (GRANT,), {"member": {"status": "suspended"}}, "member-suspended", id="suspended"),
        pytest.param(ASKED, (GRANT,), {"member": {}}, "member-suspended", id="member without a status"),
        pytest.param(EMERGENCY, (), {"member": {"status": "suspended"}}, "member-suspended", id="emergency, suspended"),
        pytest.param(replace(ASKED, purpose="HMARKT"), (GRANT,), {}, "purpose-unknown", id="purpose of no rule"),
        pytest.param(ASKED, (GRANT,), {"holds_records": False}, "no-patient", id="no such patient"),
        pytest.param(ASKED, (), {}, "no-grant", id="no grant"),
        pytest.param(replace(ASKED, grant="g2"), (GRANT,), {}, "no-grant", id="another grant named"),
        pytest.param(ASKED, (replace(GRANT, ledger=None),), {}, "grant-not-on-ledger", id="not on the ledger"),
        pytest.param(ASKED, (replace(GRANT, grantees=frozenset({"C"})),), {}, "wrong-grantee", id="other grantee here"),
        pytest.param(ASKED, (with_ledger(grantees=["C"]),), {}, "wrong-grantee", id="other grantee on the ledger"),
        pytest.param(replace(ASKED, purpose="HRESCH"), (GRANT,), {}, "wrong-purpose", id="wrong purpose"),
        pytest.param(ASKED, (with_ledger(purposes=["HRESCH"]),), {}, "wrong-purpose", id="purpose on the ledger only"),
        pytest.param(ASKED, (replace(GRANT, active=False),), {}, "grant-revoked", id="revoked here"),
        pytest.param(ASKED, (with_ledger(status="revoked"),), {}, "grant-revoked", id="revoked on the ledger"),
        pytest.param(ASKED, (GRANT,), {"now": NOW + 10}, "grant-expired", id="expired this second"),
        pytest.param(ASKED, (with_ledger(until=NOW),), {}, "grant-expired", id="amended on the ledger to end now"),
        pytest.param(ASKED, (GRANT,), {"now": NOW - 11}, "grant-not-yet-valid", id="not yet"),
        pytest.param(
            replace(ASKED, categories=frozenset({"imaging"})),
            (replace(GRANT, categories=frozenset({"laboratory"})),),
            {},
            "wrong-category",
            id="category not granted",
        ),
        pytest.param(replace(EMERGENCY, emergency="CURIOUS"), (), {}, "emergency-reason-unknown", id="unknown code"),
        pytest.param(replace(EMERGENCY, purpose="HRESCH"), (), {}, "emergency-purpose", id="research is no emergency"),
        pytest.param(replace(EMERGENCY, reason=" "), (), {}, "emergency-text", id="no text"),
        pytest.param(replace(EMERGENCY, reason="x" * 501), (), {}, "emergency-text", id="text too long"),
        pytest.param(replace(EMERGENCY, role="clerk"), (), {}, "emergency-role", id="role that may not"),
    ],
)
def test_denies(asked: AskedFor, grants: Any, more: Any, rule: str) -> None:
    decision = judge(asked, grants, **more)
    assert not decision.permit
    assert decision.rule == rule
    assert decision.scope is None


def test_categories_of_grant_and_request_are_intersected() -> None:
    asked = replace(ASKED, categories=frozenset({"Observation", "encounter"}))
    granted = replace(GRANT, categories=frozenset({"observation", "condition"}))
    assert judge(asked, (granted,)).scope.categories == frozenset({"Observation"})


def resource(type: str = "Observation", **more: Any) -> dict[str, Any]:
    return {"resourceType": type, "id": "x", **more}


def label(code: str, system: str = CONFIDENTIALITY) -> dict[str, Any]:
    return {"meta": {"security": [{"system": system, "code": code}]}}


EVERYTHING = Scope(None, frozenset())
LAB = {"category": [{"coding": [{"code": "laboratory"}]}]}


@pytest.mark.parametrize(
    ("scope", "what", "expected"),
    [
        pytest.param(EVERYTHING, resource(), True, id="all categories"),
        pytest.param(EVERYTHING, resource("Provenance"), False, id="a type that is never released"),
        pytest.param(EVERYTHING, resource("AuditEvent"), False, id="audit trail"),
        pytest.param(Scope(frozenset({"laboratory"}), frozenset()), resource(**LAB), True, id="coded category"),
        pytest.param(Scope(frozenset({"laboratory"}), frozenset()), resource(), False, id="other observation"),
        pytest.param(Scope(frozenset({"Observation"}), frozenset()), resource(), True, id="by resource type"),
        pytest.param(Scope(frozenset({"laboratory"}), frozenset()), resource("Patient"), True, id="patient goes along"),
        pytest.param(EVERYTHING, resource(**label("N")), True, id="normal"),
        pytest.param(EVERYTHING, resource(**label("R")), False, id="restricted"),
        pytest.param(EVERYTHING, resource(**label("?")), False, id="level nobody knows"),
        pytest.param(Scope(None, frozenset({"R"})), resource(**label("R")), True, id="restricted, granted"),
        pytest.param(EVERYTHING, resource("Patient", **label("V")), False, id="even a Patient"),
        pytest.param(EVERYTHING, resource(**label("HIV", SENSITIVITY)), False, id="sensitive"),
        pytest.param(Scope(None, frozenset({"HIV"})), resource(**label("HIV", SENSITIVITY)), True, id="sens. granted"),
        pytest.param(
            Scope(None, frozenset(), emergency=True), resource(**label("R")), True, id="restricted, emergency"
        ),
        pytest.param(Scope(None, frozenset(), emergency=True), resource(**label("V")), False, id="very restricted"),
        pytest.param(
            Scope(None, frozenset(), ("2026-01-01", "2026-01-31")),
            resource(effectiveDateTime="2026-01-31T23:00:00+08:00"),
            True,
            id="last day of the period",
        ),
        pytest.param(
            Scope(None, frozenset(), ("2026-01-01", "2026-01-31")),
            resource(effectiveDateTime="2026-02-01"),
            False,
            id="day after the period",
        ),
        pytest.param(Scope(None, frozenset(), ("2026-01-01", None)), resource(), False, id="no date, limited period"),
        pytest.param(
            Scope(None, frozenset(), ("2026-01-10", None)),
            resource("Encounter", period={"start": "2026-01-01"}),
            True,
            id="an open encounter reaches into it",
        ),
    ],
)
def test_what_a_scope_covers(scope: Scope, what: dict[str, Any], expected: bool) -> None:
    assert covers(scope, what) is expected


def test_a_resource_is_of_its_types_and_its_coded_category() -> None:
    assert categories_of(resource(**LAB)) == {"observation", "laboratory"}
    assert categories_of(resource("Basic")) == frozenset()
