"""The exchange between nodes whose databases are on PostgreSQL: asked, decided, released, received, refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import PeerRejected
from bridge.services.exchange import REQUEST_PATH
from fhir_adapters.identifiers import ID_CARD_SYSTEM
from tests.exchange_world import AUTHORITY, OTHER, PERSON, A, B, World, observation, patient
from tests.stores import new_postgres

pytestmark = pytest.mark.service
AT_ONCE = 4


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as databases:
        urls = {org: databases.enter_context(new_postgres()) for org in (AUTHORITY, A, B)}
        directory: Path = tmp_path_factory.mktemp("consortium")
        made = World(directory, databases=urls)
        databases.callback(made.close)
        assert {each.engine.dialect.name for each in made.sites.values()} == {"postgresql"}
        made[A].store(patient(), observation("o1", valueQuantity={"value": 5}), observation("o2"))
        made[A].store(patient("p2", OTHER), observation("o3", of="p2"), patient="p2")
        assert made[A].parts.register() == 2
        made.grant()
        yield made


def received(world: World, outcome: Any) -> None:
    """Both sides, the ledger and the counters know of one whole release."""
    assert (outcome.status, outcome.gap) == ("received", False), (outcome.code, outcome.message)
    assert {each.receipt for each in outcome.records} <= {"committed", "witnessed"}
    held = world[A].scalars(f"SELECT state FROM disclosure WHERE request_id = '{outcome.request}'")
    asked = world[B].scalars(f"SELECT state FROM exchange_request WHERE request_id = '{outcome.request}'")
    assert (held, asked) == (["released"], ["verified"])
    state = world[B].chain.state(f"request/{outcome.request}")
    assert (state["status"], state["receive"]["status"]) == ("received", "verified")


def test_a_patient_is_looked_up_and_the_release_leaves_once(world: World) -> None:
    sent: list[bytes] = []
    post = world[B].peers.post

    def remembering(org: str, path: str, body: bytes, **more: Any) -> bytes:
        if path == REQUEST_PATH:
            sent.append(body)
        return post(org, path, body, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world[B].peers, "post", remembering)
        (outcome,) = world.lookup().holders
    received(world, outcome)
    assert len(outcome.records) == 3
    first, again = (json.loads(post(A, REQUEST_PATH, sent[0])) for _ in range(2))
    assert first == again  # the very same envelope
    assert world.ledger_bytes().count(b'"type":"access.release"') == 1


def test_what_is_not_permitted_is_refused_and_audited(world: World) -> None:
    (outcome,) = world.lookup(person=OTHER).holders
    assert (outcome.status, outcome.code) == ("denied", "not-permitted")
    assert any("no-grant" in str(event.get("outcomeDesc")) for event in world[A].audits())
    assert world[A].scalars(f"SELECT reason FROM disclosure WHERE request_id = '{outcome.request}'") == ["no-grant"]


def test_an_emergency_opens_a_review(world: World) -> None:
    (outcome,) = world.lookup(person=OTHER, emergency="BTG", reason="抢救病人", role="physician").holders
    received(world, outcome)
    assert world[A].scalars(f"SELECT state FROM emergency_review WHERE request_id = '{outcome.request}'") == ["open"]


def test_several_at_once_are_each_answered_once(world: World) -> None:
    before = world[A].scalars("SELECT sum(count) FROM peer_activity WHERE kind = 'asked' AND who = ''")[0]
    look_up = world[B].parts.exchange.lookup
    with ThreadPoolExecutor(AT_ONCE) as threads:
        done = [
            each.result() for each in [threads.submit(look_up, ID_CARD_SYSTEM, PERSON, "TREAT") for _ in range(AT_ONCE)]
        ]
    for result in done:
        received(world, result.holders[0])
    after = world[A].scalars("SELECT sum(count) FROM peer_activity WHERE kind = 'asked' AND who = ''")[0]
    assert after == before + AT_ONCE


def test_a_suspended_member_is_not_heard(world: World) -> None:
    world.suspend(B)
    world.tick()
    with pytest.raises(PeerRejected) as caught:
        world[B].peers.post(A, REQUEST_PATH, b"{}")
    assert caught.value.code == "not-authenticated"
