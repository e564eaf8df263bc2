"""A release for which a person at the holder is asked first: waiting, approved and collected, refused, overdue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class

from bridge.errors import Conflict, InvalidRequest, NotFound
from bridge.services.audit_event import Party
from bridge.services.decision import ApprovalRules
from tests import exchange_world
from tests.exchange_world import A, B, World, observation, patient

OFFICER = Party("officer-7", "privacy officer")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("bridge.services.exchange.RETRY_SECONDS", 0.01)
    monkeypatch.setitem(exchange_world.TERMS, "approval", ApprovalRules(frozenset({"HRESCH"}), sensitive=True))
    directory = tmp_path / "consortium"
    directory.mkdir()
    made = World(directory)
    hiv = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "HIV"}]}
    made[A].store(patient(), observation("o1"), observation("o2", meta=hiv))
    made[A].parts.register()
    yield made
    made.close()


def asked(world: World, **more: Any) -> str:
    world.grant(purposes=("TREAT", "HRESCH"))
    (outcome,) = world.lookup(**({"purpose": "HRESCH", "practitioner": "研究员"} | more)).holders
    assert outcome.status == "waiting"
    assert outcome.request
    return str(outcome.request)


def collected(world: World) -> Any:
    world.tick(600)
    (outcome,) = world[B].parts.exchange.collect()
    return outcome


def test_an_approved_request_is_collected(world: World) -> None:
    request = asked(world)
    task = world[A].records.read("Task", f"approval-{request}").resource()
    get_fhir_model_class("Task").model_validate(task)
    assert task["status"] == "requested"
    notice = world[A].records.read("Communication", f"notice-approval-{request}").resource()
    get_fhir_model_class("Communication").model_validate(notice)
    state = world[A].chain.state(f"request/{request}")
    assert (state["status"], state["permit"]) == ("open", None)  # nothing is said on the ledger before a person did
    assert world[A].scalars("SELECT count(*) FROM release_page") == [0]
    (waiting,) = world[A].parts.approvals.waiting()
    assert (waiting.request, waiting.rule, waiting.approved) == (request, "approval-for-HRESCH", False)
    assert collected(world).status == "waiting"

    world[A].parts.approvals.decide(request, approve=True, note="伦理批件 2026-17", by=OFFICER)
    assert world[A].records.read("Task", f"approval-{request}").resource()["status"] == "accepted"
    outcome = collected(world)
    assert (outcome.status, outcome.request) == ("received", request)
    task = world[A].records.read("Task", f"approval-{request}").resource()
    assert task["status"] == "completed"
    assert "伦理批件" in json.dumps(task, ensure_ascii=False)
    assert world[A].parts.approvals.waiting() == []
    assert world.ledger_bytes().count(b'"type":"access.release"') == 1
    assert "伦理".encode() not in world.ledger_bytes()
    assert any("approval-for-HRESCH" in event.get("outcomeDesc", "") for event in world[A].audits())


def test_a_refused_request_is_denied_on_the_ledger_at_once(world: World) -> None:
    request = asked(world)
    world[A].parts.approvals.decide(request, approve=False, note="与目的不符", by=OFFICER)
    state = world[A].chain.state(f"request/{request}")
    assert (state["status"], state["deny"]["reason"]) == ("denied", "not-permitted")
    assert world[A].records.read("Task", f"approval-{request}").resource()["status"] == "rejected"
    outcome = collected(world)
    assert (outcome.status, outcome.code) == ("denied", "not-permitted")
    assert world[B].parts.exchange.unfinished() == []


def test_an_approval_does_not_outlive_the_grant(world: World) -> None:
    request = asked(world)
    world[A].parts.approvals.decide(request, approve=True, note="ok", by=OFFICER)
    (grant,) = world[A].parts.consent.grants_of("p1")
    world[A].parts.consent.revoke(grant.id)
    assert collected(world).status == "denied"
    assert world[A].chain.state(f"request/{request}")["release"] is None


def test_what_nobody_answers_is_refused(world: World) -> None:
    request = asked(world)
    assert world[A].parts.approvals.expire() == 0
    world.tick(7 * 86_400 + 1)
    assert world[A].parts.approvals.expire() == 1
    assert world[A].chain.state(f"request/{request}")["status"] == "denied"
    assert collected(world).status == "denied"


@pytest.mark.parametrize(
    ("granted", "lookup"),
    [
        pytest.param({}, {"purpose": "TREAT"}, id="treatment"),
        pytest.param({}, {"purpose": "TREAT", "emergency": "BTG", "reason": "昏迷，无法取得同意"}, id="an emergency"),
    ],
)
def test_nobody_is_asked_for(world: World, granted: dict[str, Any], lookup: dict[str, Any]) -> None:
    world.grant(**granted)
    assert world.lookup(**lookup).received
    assert world[A].parts.approvals.count() == 0


def test_sensitive_information_asks_a_person_by_the_other_rule(world: World) -> None:
    grant = world.grant(labels=("HIV",))
    (outcome,) = world.lookup(grant=grant.id).holders
    assert outcome.status == "waiting"
    assert [each.rule for each in world[A].parts.approvals.waiting()] == ["approval-for-sensitive"]


def test_decisions_that_make_no_sense(world: World) -> None:
    request = asked(world)
    decide = world[A].parts.approvals.decide
    with pytest.raises(InvalidRequest):
        decide(request, approve=True, note="  ", by=OFFICER)
    with pytest.raises(NotFound):
        decide("0" * 32, approve=True, note="x", by=OFFICER)
    decide(request, approve=True, note="x", by=OFFICER)
    with pytest.raises(Conflict):
        decide(request, approve=False, note="x", by=OFFICER)
