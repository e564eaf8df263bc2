"""Emergency access: who may, what it leaves behind, who is told, how it is judged, and when it becomes an alarm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fhir.resources.R4B import get_fhir_model_class

from anchor.contracts.access import REVIEW_SECONDS
from anchor.errors import ChainUnavailable
from anchor.receipt import commitment
from bridge.errors import Conflict, DisclosureRefused, InvalidRequest, NotFound
from bridge.services.audit_event import Party
from bridge.services.decision import EMERGENCY_COPIES_DAYS, EmergencyRules
from tests.exchange_world import AUTHORITY, NAME, PERSON, A, B, World, observation, patient

OFFICER = Party("officer", "隐私专员")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    directory = tmp_path / "consortium"
    directory.mkdir()
    made = World(directory)
    made[A].store(patient(), observation("o1"))
    made[A].parts.register()
    yield made
    made.close()


def emergency(world: World, **more: str) -> str:
    (outcome,) = world.lookup(emergency="BTG", reason="昏迷，无法取得同意", practitioner="值班医师", **more).holders
    assert outcome.status == "received", outcome
    return str(outcome.request)


def test_the_officer_and_the_patients_record_are_told(world: World) -> None:
    request = emergency(world)
    records = world[A].records
    for whom in ("officer", "patient"):
        notice = records.read("Communication", f"notice-{whom}-{request}")
        get_fhir_model_class("Communication").model_validate(notice.resource())
        assert notice.subject == "Patient/p1"
        assert NAME not in json.dumps(notice.resource(), ensure_ascii=False)
    assert records.read("Communication", f"notice-patient-{request}").resource()["recipient"] == [
        {"reference": "Patient/p1"}
    ]
    (event,) = [each for each in world[A].audits() if each["type"]["code"] == "110113"]
    assert "physician" in json.dumps(event)
    assert "值班医师" in json.dumps(event, ensure_ascii=False)


def test_a_review_is_judged_once_and_its_outcome_is_on_the_ledger(world: World) -> None:
    request = emergency(world)
    reviews = world[A].parts.reviews
    (waiting,) = reviews.here()
    assert (waiting.request, waiting.requester, waiting.state) == (request, B, "open")
    assert waiting.due == waiting.opened + REVIEW_SECONDS
    done = reviews.close(request, "justified", "抢救记录可查", OFFICER)
    assert (done.state, done.outcome) == ("closed", "justified")
    state = world[A].chain.state(f"request/{request}")["review"]
    assert (state["outcome"], state["reviewer"]) == ("justified", A)
    with world[A].engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT * FROM emergency_review").one()
        opened = world[A].keyring.open(connection, "Patient/p1", row.detail_sealed, f"review|{request}".encode())
    assert commitment(json.loads(opened)).hex() == state["commitment"]
    task = world[A].records.read("Task", f"review-{request}").resource()
    get_fhir_model_class("Task").model_validate(task)
    assert (task["status"], task["output"][0]["valueString"]) == ("completed", "justified")
    assert reviews.here() == []
    assert reviews.here(closed=True)[0].outcome == "justified"
    with pytest.raises(Conflict):
        reviews.close(request, "unjustified", "x", OFFICER)
    assert "抢救记录可查".encode() not in world.ledger_bytes()


def test_overdue_reviews_alarm(world: World) -> None:
    emergency(world)
    reviews = world[A].parts.reviews
    assert reviews.counts() == (1, 0)
    world.tick(REVIEW_SECONDS + 5)
    assert reviews.counts() == (1, 1)
    (late,) = reviews.here()
    assert late.overdue(world.clock())
    across = world[AUTHORITY].parts.reviews.across_the_ledger()
    assert [(each.request, each.holder) for each in across] == [(late.request, A)]
    assert across[0].overdue(world.clock())


def test_an_authority_may_judge_what_the_holder_did_not(world: World) -> None:
    request = emergency(world)
    done = world[AUTHORITY].parts.reviews.close(request, "unjustified", "无抢救记录", Party("supervisor"))
    assert done.state == "closed"
    assert world[A].chain.state(f"request/{request}")["review"]["reviewer"] == AUTHORITY
    world.tick()
    assert world[A].parts.reviews.close(request, "justified", "迟到的结论", OFFICER).state == "closed"
    assert world[A].chain.state(f"request/{request}")["review"]["outcome"] == "unjustified"  # the first counts


def test_the_requester_and_strangers_judge_nothing(world: World) -> None:
    request = emergency(world)
    with pytest.raises(DisclosureRefused) as caught:
        world[B].parts.reviews.close(request, "justified", "x", OFFICER)
    assert caught.value.code == "not-authorised"
    with pytest.raises(NotFound):
        world[A].parts.reviews.close("0" * 32, "justified", "x", OFFICER)
    with pytest.raises(InvalidRequest):
        world[A].parts.reviews.close(request, "maybe", "x", OFFICER)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        world[A].parts.reviews.close(request, "justified", " ", OFFICER)
    world.grant()
    (ordinary,) = world.lookup().holders
    with pytest.raises(NotFound):
        world[AUTHORITY].parts.reviews.close(ordinary.request, "justified", "x", OFFICER)


def test_an_outcome_waits_for_a_ledger_that_does_not_answer(world: World) -> None:
    request = emergency(world)
    submit = world[A].submitter.submit

    def deaf(type: str, body: object, *more: object) -> object:
        raise ChainUnavailable("no answer")

    world[A].submitter.submit = deaf  # type: ignore[method-assign, assignment]
    assert world[A].parts.reviews.close(request, "justified", "抢救", OFFICER).state == "closing"
    world[A].submitter.submit = submit  # type: ignore[method-assign]
    world.tick()
    assert world[A].parts.settle() >= 1
    assert world[A].chain.state(f"request/{request}")["review"]["outcome"] == "justified"
    assert world[A].parts.reviews.here() == []


def test_roles_that_may_are_the_settings(world: World) -> None:
    basis = world[A].parts.exchange._release._basis  # type: ignore[attr-defined]
    basis.emergency = EmergencyRules(frozenset({"emergency-physician"}))
    (refused,) = world.lookup(emergency="BTG", reason="抢救病人", role="physician").holders
    assert refused.code == "not-permitted"
    emergency(world, role="emergency-physician")


def test_an_emergency_reads_and_does_not_last(world: World) -> None:
    """The same request again gets the same envelope for an hour, and nothing afterwards."""
    from bridge.errors import PeerRejected
    from bridge.services.exchange import REQUEST_PATH

    sent: list[bytes] = []
    post = world[B].peers.post

    def remembering(org: str, path: str, body: bytes, **more: object) -> bytes:
        sent.append(body)
        return post(org, path, body, **more)  # type: ignore[arg-type]

    world[B].peers.post = remembering  # type: ignore[method-assign, assignment]
    emergency(world)
    world.tick(600)
    assert post(A, REQUEST_PATH, sent[-1])
    world.tick(3600)
    with pytest.raises(PeerRejected):
        post(A, REQUEST_PATH, sent[-1])


def test_copies_of_an_emergency_are_removed_when_their_time_is_over(world: World) -> None:
    request = emergency(world)
    received = world[B].records.read("Provenance", f"received-{request}").resource()
    assert received["extension"][0]["url"].endswith("copies-kept-until")
    copies = world[B].scalars("SELECT count(*) FROM resource_version WHERE type = 'Observation' AND length(sealed) > 0")
    assert copies == [1]
    world.tick(EMERGENCY_COPIES_DAYS * 86_400)
    assert world[B].copies.expire() == 1
    left = world[B].scalars("SELECT count(*) FROM resource_version WHERE type = 'Observation' AND length(sealed) > 0")
    assert left == [0]


def test_copies_of_an_emergency_stay_where_the_holder_sets_no_limit(world: World) -> None:
    world[A].parts.exchange._release._basis.emergency = EmergencyRules(copies_days=None)  # type: ignore[attr-defined]
    emergency(world)
    world.tick(EMERGENCY_COPIES_DAYS * 86_400)
    assert world[B].copies.expire() == 0


def test_nothing_of_it_is_on_the_ledger(world: World) -> None:
    request = emergency(world)
    world[A].parts.reviews.close(request, "justified", "抢救记录可查", OFFICER)
    ledger = world.ledger_bytes()
    for text in (PERSON, NAME, "昏迷", "值班医师", "抢救"):
        assert text.encode() not in ledger
