"""What a patient's terms do to a lookup: exceptions, roles, sensitive information, drafts, changes
at the next block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import DisclosureRefused, InvalidRequest
from bridge.services.decision import SENSITIVITY, Exclusion
from bridge.services.grant_terms import GrantTerms
from tests.exchange_world import AUTHORITY, A, B, World, observation, patient

HIV = {"security": [{"system": SENSITIVITY, "code": "HIV"}]}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    directory = tmp_path / "consortium"
    directory.mkdir()
    made = World(directory)
    made[A].store(patient(), observation("o1"), observation("o2", day="2025-12-31"), observation("o3", meta=HIV))
    made[A].parts.register()
    yield made
    made.close()


def got(result: Any) -> set[str]:
    ids = {record.original.split("/")[1] for outcome in result.holders for record in outcome.records}
    return ids - {"p1"}


def test_exceptions_are_left_out(world: World) -> None:
    world.grant(exclusions=(Exclusion(period=("2025-01-01", "2025-12-31")),))
    assert got(world.lookup()) == {"o1"}
    world.grant(exclusions=(Exclusion(("laboratory",), grantees=(AUTHORITY,)),), to=(B, AUTHORITY))
    assert got(world.lookup()) == {"o1", "o2"}  # the newest grant excepts somebody else


def test_only_the_granted_roles_may_ask(world: World) -> None:
    world.grant(roles=("pharmacist",))
    (refused,) = world.lookup(role="physician").holders
    assert refused.code == "not-permitted"
    assert got(world.lookup(role="pharmacist")) == {"o1", "o2"}
    (unknown,) = world.lookup(role="king").holders
    assert unknown.code == "not-permitted"
    assert world[A].scalars("SELECT reason FROM disclosure ORDER BY created") == ["wrong-role", None, "role-unknown"]


def test_sensitive_information_leaves_under_its_own_consent_only(world: World) -> None:
    general = world.grant()
    sensitive = world.grant(labels=("HIV",))
    assert got(world.lookup()) == {"o1", "o2"}
    assert got(world.lookup(grant=sensitive.id)) == {"o3"}
    assert got(world.lookup(grant=general.id)) == {"o1", "o2"}


def test_a_draft_grants_nothing(world: World) -> None:
    now = int(world.clock())
    draft = world[A].parts.consent.propose("p1", GrantTerms((B,), ("TREAT",), now + 3600, now))
    assert draft.state == "draft"
    (refused,) = world.lookup().holders
    assert refused.code == "not-permitted"
    (delivery,) = world[A].parts.consent.confirmations.deliveries()
    world[A].parts.consent.confirm(draft.id, code=delivery["code"])
    assert got(world.lookup()) == {"o1", "o2"}


def amended(world: World, grant: Any, **changes: Any) -> Any:
    consent = world[A].parts.consent
    return consent.amend(grant.id, replace(consent.terms_of(grant.id), **changes))


def test_a_change_counts_at_the_next_block(world: World) -> None:
    grant = world.grant()
    state = world[A].chain.state(f"grant/{grant.id}")
    assert amended(world, grant, categories=("encounter",)).state == "active"
    changed = world[A].chain.state(f"grant/{grant.id}")
    assert (changed["version"], changed["commitment"] != state["commitment"]) == (2, True)
    assert got(world.lookup()) == set()
    amended(world, grant, categories=None, purposes=("HRESCH",))
    (refused,) = world.lookup().holders
    assert refused.code == "not-permitted"
    assert world.lookup(purpose="HRESCH").received


def test_a_narrower_grant_counts_here_before_the_ledger_has_it(world: World) -> None:
    from anchor.errors import ChainUnavailable

    grant = world.grant(purposes=("TREAT", "HRESCH"))
    submit = world[A].submitter.submit

    def deaf(type: str, body: Any, *more: Any) -> Any:
        if type == "consent.amend":
            raise ChainUnavailable("no answer")
        return submit(type, body, *more)

    world[A].submitter.submit = deaf  # type: ignore[method-assign]
    assert amended(world, grant, purposes=("TREAT",)).state == "amending"
    (refused,) = world.lookup(purpose="HRESCH").holders
    assert refused.code == "not-permitted"
    assert world.lookup().received
    world[A].submitter.submit = submit  # type: ignore[method-assign]
    world.tick()
    assert world[A].parts.settle() == 1
    assert world[A].chain.state(f"grant/{grant.id}")["purposes"] == ["TREAT"]
    assert world[A].parts.settle() == 0


def test_the_job_of_another_process_may_be_first(world: World) -> None:
    """A grant stands in the database before it is submitted; the job that settles may take it up just then."""
    consent = world[A].parts.consent
    submit = world[A].submitter.submit

    def overtaken(type: str, body: Any, *more: Any) -> Any:
        world[A].submitter.submit = submit  # type: ignore[method-assign]
        assert consent.settle() == 1
        return submit(type, body, *more)

    world[A].submitter.submit = overtaken  # type: ignore[method-assign]
    assert world.grant().state == "active"
    assert world.lookup().received


def test_changes_that_make_no_sense(world: World) -> None:
    grant = world.grant()
    with pytest.raises(InvalidRequest):
        amended(world, grant, labels=("HIV",))
    with pytest.raises(InvalidRequest):
        amended(world, grant, valid_from=1)
    with pytest.raises(DisclosureRefused):
        amended(world, grant, grantees=("12330000999999999X",))
    assert world[A].parts.consent.grants_of("p1")[0].state == "refused"


def test_the_audit_says_which_grant_lacked_what(world: World) -> None:
    first = world.grant(purposes=("HRESCH",))
    second = world.grant(to=(AUTHORITY,))
    world.lookup()
    (event,) = world[A].audits()
    assert event["outcomeDesc"].startswith("denied: wrong-purpose")
    assert f"grant {first.id}: wrong-purpose" in event["outcomeDesc"]
    assert f"grant {second.id}: wrong-grantee" in event["outcomeDesc"]


def test_nothing_of_the_terms_lies_open_in_the_database(world: World) -> None:
    world.grant(labels=("HIV",))
    world.grant(categories=("laboratory",), exclusions=(Exclusion(("imaging",)),))
    content = (world[A].directory / "node.sqlite3").read_bytes() + (
        world[A].directory / "node.sqlite3-wal"
    ).read_bytes()
    for text in (b'["HIV"]', b'"HIV"', b"imaging"):
        assert text not in content
