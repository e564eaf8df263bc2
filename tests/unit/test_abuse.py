"""Quotas, refused signatures, signs of enumeration: what is counted, what is refused, what becomes an alert."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from bridge.errors import PeerRejected, QuotaExceeded
from bridge.peer_signature import sign_headers
from bridge.services import abuse
from bridge.services.abuse import Alert, Limits
from bridge.services.exchange import REFUSAL_GRID_SECONDS, REQUEST_PATH, until_grid
from tests.exchange_world import AUTHORITY, OTHER, PERSON, A, B, World, keys, observation, patient

LOCATE = "/exchange/v1/locate"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    directory = tmp_path / "consortium"
    directory.mkdir()
    made = World(directory)
    made[A].store(patient(), observation("o1"))
    made[A].parts.register()
    yield made
    made.close()


def limit(world: World, org: str, **limits: int) -> abuse.AbuseWatch:
    watch = world[org].parts.watch
    watch._limits = Limits(**limits)
    return watch


def test_a_member_has_a_quota_an_hour(world: World) -> None:
    limit(world, A, member=2)
    world.grant()
    assert [world.lookup().holders[0].status for _ in range(2)] == ["received"] * 2
    (over,) = world.lookup().holders
    assert (over.status, over.code) == ("rejected", "quota-exceeded")
    assert (world[A].chain.state(f"request/{over.request}") or {})["status"] == "open"
    world.tick(3600)
    world.grant()
    assert world.lookup().received


def test_a_practitioner_has_a_quota_of_its_own(world: World) -> None:
    watch = limit(world, A, practitioner=2)
    for _ in range(2):
        watch.charge(B, "甲医师")
    with pytest.raises(QuotaExceeded):
        watch.charge(B, "甲医师")
    watch.charge(B, "乙医师")
    watch.charge(AUTHORITY, "甲医师")
    watch.charge(B, None)
    assert "甲医师" not in str(world[A].scalars("SELECT who FROM peer_activity"))


def test_guessing_at_a_holder_is_noticed(world: World) -> None:
    watch = limit(world, A, failures=3)
    for _ in range(3):
        world.lookup(holder=A, person=OTHER)
    assert watch.alerts() == ()
    world.lookup(holder=A, person=OTHER)
    assert watch.alerts() == (Alert("denials", B, 4),)
    assert watch.watch() == 1
    assert watch.watch() == 0, "told once"
    world.tick(2 * 3600)
    assert watch.alerts() == ()


def test_a_busy_member_that_is_mostly_permitted_is_not_conspicuous(world: World) -> None:
    watch = limit(world, A, failures=3)
    for _ in range(12):
        watch.charge(B, None)
    for _ in range(5):
        watch.denied(B)
    assert watch.alerts() == ()


def test_guessing_at_the_index_is_noticed(world: World) -> None:
    watch = limit(world, AUTHORITY, failures=3)
    for _ in range(4):
        assert world.lookup(person=OTHER).holders == ()
    assert watch.alerts() == (Alert("unknown-patients", B, 4),)


def test_a_jump_in_pseudonyms_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abuse, "FEW_PSEUDONYMS", 10)
    watch, service = world[AUTHORITY].parts.watch, world[AUTHORITY].parts.pseudonyms
    identifiers = [("urn:oid:2.16.156.10011.1.3", PERSON)] * 8
    for _ in range(4):  # a member's first day is no measure
        service.compute(B, "default", identifiers)
    assert watch.alerts() == ()
    for day in range(3):
        world.tick(86_400)
        service.compute(B, "default", identifiers)
        assert watch.alerts() == (), day
    world.tick(86_400)
    for _ in range(12):
        service.compute(B, "default", identifiers)
    assert watch.alerts() == (Alert("pseudonyms", B, 96),)


def post(world: World, org: str, key: Any, **changes: Any) -> int:
    url = world.endpoints[A] + REQUEST_PATH
    values = {"org": org, "key": key, "audience": A, "now": int(world.clock())} | changes
    return requests.post(url, data=b"{}", headers=sign_headers("POST", url, b"{}", **values), timeout=20).status_code


def test_refused_signatures_are_counted_audited_and_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abuse, "AUDITED_REFUSALS", 2)
    monkeypatch.setattr(abuse, "REFUSALS", 3)
    for number in range(4):
        assert post(world, B, keys(A)[0]) == 401
        assert len(world[A].audits()) == min(2, number + 1)
    assert post(world, "12330000999999999X", keys(A)[0]) == 401
    assert world[A].parts.watch.alerts() == (Alert("refused-signatures", B, 4),)
    told = Counter((event["type"]["code"], event["outcome"], event["outcomeDesc"]) for event in world[A].audits())
    assert told == {
        ("110113", "8", "request refused: unknown-key"): 2,
        ("110113", "8", "request refused: unknown-member"): 1,
    }
    assert world[A].scalars("SELECT DISTINCT org FROM peer_activity WHERE kind = 'refused' ORDER BY org") == ["", B]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"nonce": "n" * 22}, "replayed", id="replayed"),
        pytest.param({"audience": B}, "wrong-audience", id="for another"),
        pytest.param({"now": 1}, "stale", id="long ago"),
    ],
)
def test_what_is_refused_is_named_in_the_audit(world: World, changes: Any, code: str) -> None:
    statuses = [post(world, B, keys(B)[0], **changes) for _ in range(2)]
    assert statuses[-1] == 401
    assert world[A].audits()[-1]["outcomeDesc"] == f"request refused: {code}"


def test_a_clock_may_differ_by_half_a_minute(world: World) -> None:
    now = int(world.clock())
    assert [post(world, B, keys(B)[0], now=now + skew) for skew in (-85, -29, 29, 31, -91)] == [400, 400, 400, 401, 401]


def test_refusals_leave_on_a_grid() -> None:
    for elapsed in (0.0, 0.01, 0.0999, 0.1, 0.25, 3.0001):
        total = elapsed + until_grid(elapsed)
        assert abs(total / REFUSAL_GRID_SECONDS - round(total / REFUSAL_GRID_SECONDS)) < 1e-6
        assert 0 < until_grid(elapsed) <= REFUSAL_GRID_SECONDS + 1e-9


class Moments:
    """Stands in for the module ``time`` where refusals are held back: time passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_no_patient_and_not_allowed_take_alike_and_say_alike(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same status, code, message, ledger; and the same moment, though the way to one refusal is longer."""
    world.grant(purposes=("HRESCH",))
    moments, release = Moments(), world[A].parts.exchange._release  # type: ignore[attr-defined]
    decide = release.answer
    way = {PERSON: 0.09, OTHER: 0.02}  # seconds to the refusal: as many questions to the ledger as there are grants
    answers: dict[str, set[tuple[Any, ...]]] = {PERSON: set(), OTHER: set()}
    monkeypatch.setattr("bridge.services.exchange.time", moments)
    for person in (PERSON, OTHER, PERSON, OTHER):
        moments.now = 0.0

        def taking(*arguments: Any, seconds: float = way[person]) -> Any:
            moments.now += seconds
            return decide(*arguments)

        monkeypatch.setattr(release, "answer", taking)
        (outcome,) = world.lookup(holder=A, person=person).holders
        state = world[A].chain.state(f"request/{outcome.request}") or {}
        told = (outcome.status, outcome.code, outcome.message, state["status"], state["deny"]["reason"])
        answers[person].add((*told, round(moments.now, 6)))
    assert answers[PERSON] == answers[OTHER]
    assert {each[-1] for each in answers[PERSON]} == {REFUSAL_GRID_SECONDS}


def test_the_answers_bytes_are_the_same(world: World) -> None:
    world.grant(purposes=("HRESCH",))
    seen = set()
    for person in (PERSON, OTHER):
        with pytest.MonkeyPatch.context() as patch:
            sent: list[requests.Response] = []
            send = requests.Session.send

            def keeping(session: Any, request: Any, sent: Any = sent, send: Any = send, **more: Any) -> Any:
                sent.append(send(session, request, **more))
                assert sent[-1].content is not None  # read now, while it streams
                return sent[-1]

            patch.setattr(requests.Session, "send", keeping)
            with pytest.raises(PeerRejected):
                self_made(world, person)
        (answer,) = [each for each in sent if each.url.endswith(REQUEST_PATH)]
        headers = {name: value for name, value in answer.headers.items() if name not in ("Date", "X-Yiqiao-Checkpoint")}
        seen.add((answer.status_code, answer.content, tuple(sorted(headers.items()))))
    assert len(seen) == 1


def self_made(world: World, person: str) -> None:
    """Ask A for a person by a sealed identifier, without the requester's own service around it."""
    from bridge.services import access_request
    from bridge.services.sealed_subject import seal_subject
    from fhir_adapters.identifiers import ID_CARD_SYSTEM

    subject = seal_subject(keys(A)[1].public_key, A, (ID_CARD_SYSTEM, person))
    asked = access_request.build(
        chain="test-chain", requester=B, key=keys(B)[0], holder=A, pid=subject, purpose="TREAT", now=int(world.clock())
    )
    body = {"request": asked.id, "holder": A, "purpose": "TREAT", "commitment": asked.commitment}
    world[B].submitter.submit("access.request", body)
    world[B].peers.post(A, REQUEST_PATH, asked.dump())
