"""The ledger does not answer at all: treatment goes on for a bounded time on what it last said, nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from anchor.errors import ChainUnavailable
from bridge.services.ledger_facts import DEFAULT_MAX_AGE_SECONDS, LedgerFacts
from tests.exchange_world import A, B, World, observation, patient

QUESTIONS = (
    "state",
    "states",
    "state_with_prefix",
    "submit",
    "next_seq",
    "transaction",
    "checkpoint",
    "witnessed_checkpoint",
)
QUESTIONS += ("inclusion_proof", "consistency_proof", "finality", "state_proof")


class Health:
    ok, block_time = False, 0


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("bridge.services.exchange.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("bridge.services.ledger_facts.LEFT_ALONE_SECONDS", 0.0)
    directory = tmp_path / "consortium"
    directory.mkdir()
    made = World(directory)
    made[A].store(patient(), observation("o1"))
    made[A].parts.register()
    made.grant(purposes=("TREAT", "HRESCH"), seconds=90 * 86_400)
    yield made
    made.close()


def cut(world: World, monkeypatch: pytest.MonkeyPatch, *orgs: str) -> None:
    """Let no question of these hospitals reach the ledger; the authority's other services go on."""

    def deaf(*_: Any, **__: Any) -> Any:
        raise ChainUnavailable("no answer")

    for org in orgs:
        for name in QUESTIONS:
            monkeypatch.setattr(world[org].chain, name, deaf)
        monkeypatch.setattr(world[org].chain, "health", Health)


def test_treatment_rests_on_what_the_ledger_last_said_and_is_told_to_it_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.lookup().received  # both have seen members and grant
    world[A].store(observation("o2"))
    with monkeypatch.context() as outage:
        cut(world, outage, A, B)
        (outcome,) = world.lookup().holders
        assert (outcome.status, outcome.gap) == ("received", True)
        receipts = {record.original.split("/")[1]: record.receipt for record in outcome.records}
        assert receipts["o2"] == "pending"  # the institution's own word; for the others their receipts are known
        assert {"Observation/o1", "Observation/o2"} < {r.original.split("/_history")[0] for r in outcome.records}
        assert [gap["type"] for gap in world[A].parts.events.gaps()] == ["access.permit", "access.release"]
        assert [gap["type"] for gap in world[B].parts.events.gaps()] == ["access.request", "access.receive"]
        assert world[A].parts.settle() == world[B].parts.settle() == 0
    world.tick(60)
    assert world[A].parts.settle() == 0  # the request is B's to tell first
    assert world[B].parts.settle() == 1
    assert world[A].parts.settle() == 2
    assert world[B].parts.settle() == 1
    state = world[A].chain.state(f"request/{outcome.request}")
    assert (state["status"], state["receive"]["status"]) == ("received", "verified")
    assert world[A].parts.gaps() == world[B].parts.gaps() == []


def test_an_emergency_goes_on_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.lookup().received
    cut(world, monkeypatch, A, B)
    (outcome,) = world.lookup(emergency="BTG", reason="昏迷，无法取得同意").holders
    assert (outcome.status, outcome.gap) == ("received", True)
    assert [each.request for each in world[A].parts.reviews.here()] == [outcome.request]


@pytest.mark.parametrize(
    ("seconds", "lookup"),
    [
        pytest.param(DEFAULT_MAX_AGE_SECONDS + 60, {}, id="what it said is too old"),
        pytest.param(1, {"purpose": "HRESCH"}, id="not treatment"),
    ],
)
def test_nothing_leaves_when(
    world: World, monkeypatch: pytest.MonkeyPatch, seconds: float, lookup: dict[str, Any]
) -> None:
    assert world.lookup().received
    world.tick(seconds)
    cut(world, monkeypatch, A)
    (outcome,) = world.lookup(**lookup).holders
    assert outcome.status == "unavailable"
    assert world[A].scalars("SELECT count(*) FROM disclosure WHERE state = 'released'") == [1]


def test_nothing_counts_when_the_ledger_was_never_heard_of(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(world, monkeypatch, A)
    (outcome,) = world.lookup().holders
    assert outcome.status == "unavailable"


def test_a_grant_of_ones_own_counts_as_long_as_the_ledger_was_heard_of(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world[A].facts.refresh() == len(world[A].chain.state_with_prefix("member/"))
    world.tick(DEFAULT_MAX_AGE_SECONDS - 10)
    cut(world, monkeypatch, A)
    assert world.lookup().received
    world.tick(20)
    (outcome,) = world.lookup().holders
    assert outcome.status == "unavailable"


def test_a_revocation_here_counts_without_the_ledger(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.lookup().received
    (grant,) = world[A].parts.consent.grants_of("p1")
    cut(world, monkeypatch, A)
    world[A].parts.consent.revoke(grant.id)
    (outcome,) = world.lookup().holders
    assert (outcome.status, outcome.code) == ("denied", "not-permitted")


def test_facts_are_shared_bounded_and_forgotten(world: World) -> None:
    site = world[A]
    key = f"member/{B}"
    assert not site.facts.fact(key).stale
    other = LedgerFacts(site.engine, Deaf(), max_age_seconds=100, clock=world.clock)  # type: ignore[arg-type]
    world.tick(50)
    found = other.fact(key)
    assert (found.stale, found.age, found.value["org"]) == (True, 50.0, B)
    with pytest.raises(ChainUnavailable):
        other.fact("member/nobody")
    world.tick(51)
    with pytest.raises(ChainUnavailable):
        other.fact(key)
    world.tick(2 * 86_400)
    assert site.facts.forget() > 0


class Deaf:
    def state(self, key: str) -> Any:
        raise ChainUnavailable(key)


def test_a_fault_of_ones_own_database_is_told_at_once_and_not_taken_for_the_ledgers_silence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = world[A]

    def full(*_: Any, **__: Any) -> Any:
        raise OperationalError("UPDATE", {}, Exception("disk is full"))

    monkeypatch.setattr(site.submitter, "submit", full)
    with pytest.raises(OperationalError):
        site.parts.events.commit("access.deny", {"request": "r", "reason": "x"}, may_queue=True)
    assert not site.facts.silent
    assert site.parts.events.gaps() == []
