"""A record larger than one page: it leaves in pages, a broken transfer goes on, what is not whole is not taken over.

Real HTTP and a real ledger, in one process; test_release_scenarios.py kills processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import PeerRejected, PeerUnavailable, StorageError
from bridge.services.release_content import PageBounds
from tests import exchange_world
from tests.exchange_world import AUTHORITY, A, B, World, observation, patient

RECORDS = 17  # a Patient and 16 Observations: four pages of five, five, five and two
PAGES = 4


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("bridge.services.exchange.RETRY_SECONDS", 0.01)
    monkeypatch.setitem(exchange_world.TERMS, "pages", PageBounds(records=5))
    directory = tmp_path / "consortium"
    directory.mkdir()
    made = World(directory)
    made[A].store(patient(), *(observation(f"o{number:02}") for number in range(RECORDS - 1)))
    made[A].parts.register()
    made.grant(seconds=90 * 86_400)
    yield made
    made.close()


def fetched(world: World, change: Callable[[int, bytes], bytes] = lambda _, page: page) -> list[int]:
    """Let B note which pages it fetches; ``change`` may alter one or raise."""
    numbers: list[int] = []
    get = world[B].peers.get

    def noting(org: str, path: str, **more: Any) -> bytes:
        number = int(path.rpartition("/")[2])
        page = change(number, get(org, path, **more))
        numbers.append(number)
        return page

    world[B].peers.get = noting  # type: ignore[method-assign]
    return numbers


def count(world: World, org: str, table: str) -> int:
    found: int = world[org].scalars(f"SELECT count(*) FROM {table}")[0]
    return found


def test_a_large_record_arrives_in_pages_under_one_release(world: World) -> None:
    numbers = fetched(world)
    (outcome,) = world.lookup().holders
    assert (outcome.status, len(outcome.records), numbers) == ("received", RECORDS, [1, 2, 3])
    state = world[B].chain.state(f"request/{outcome.request}")
    assert state["release"]["count"] == RECORDS + PAGES  # each page is signed, and its signature disclosed
    assert state["receive"]["status"] == "verified"
    assert world.ledger_bytes().count(b'"type":"access.release"') == 1
    assert count(world, B, "received_page") == 0
    assert count(world, B, "received_record") == RECORDS + PAGES
    for number in range(PAGES):
        id = f"received-{outcome.request}" + (f"-{number}" if number else "")
        assert world[B].records.read("Provenance", id).resource()["target"]
    observed = [record for record in outcome.records if "Observation" in record.local]
    subjects = {world[B].records.read(*r.local.split("/")[:2]).subject for r in observed}
    (patient_copy,) = {r.local.split("/_history")[0] for r in outcome.records if r.local.startswith("Patient/")}
    assert subjects == {patient_copy}  # the Patient came pages later, and still is whose key seals them


def test_a_broken_transfer_goes_on_where_it_stopped(world: World) -> None:
    def breaks(number: int, page: bytes) -> bytes:
        if number == 2 and broken:
            raise PeerUnavailable("the line is dead")
        return page

    broken = [True]
    numbers = fetched(world, breaks)
    (outcome,) = world.lookup().holders
    assert (outcome.status, numbers) == ("interrupted", [1])
    assert count(world, B, "received_record") == 0
    assert count(world, B, "received_page") == 2
    assert world[B].parts.exchange.collect() == []  # not due yet
    (waiting,) = world[B].parts.exchange.unfinished()
    assert (waiting["request"], waiting["state"]) == (outcome.request, "transferring")
    assert [each.kind for each in world[B].parts.gaps()] == ["request-transferring"]

    broken.clear()
    world.tick(3600)  # the request itself is older than any new one may be
    (resumed,) = world[B].parts.exchange.collect()
    assert (resumed.status, len(resumed.records), numbers) == ("received", RECORDS, [1, 2, 3])
    assert world.ledger_bytes().count(b'"type":"access.release"') == 1
    assert world[B].parts.exchange.unfinished() == []


def test_a_process_that_dies_while_storing_is_followed_by_one_that_starts_over(world: World) -> None:
    receive = world[B].parts.exchange._receive  # type: ignore[attr-defined]
    keep = receive._keep_page

    def fails(connection: Any, asked: Any, page: Any, space: str) -> Any:
        if page.number == 2:
            raise StorageError(cause="the process died here")
        return keep(connection, asked, page, space)

    receive._keep_page = fails
    with pytest.raises(StorageError):
        world.lookup()
    receive._keep_page = keep
    world.tick(300)
    (resumed,) = world[B].parts.exchange.collect()
    assert (resumed.status, len(resumed.records)) == ("received", RECORDS)
    assert {record.local.rpartition("/")[2] for record in resumed.records} == {"1"}  # nothing became a second version
    assert [event["outcome"] for event in world[B].audits()] == ["0"]


def test_what_is_revoked_during_the_transfer_stops_it(world: World) -> None:
    (grant,) = world[A].parts.consent.grants_of("p1")

    def revoking(number: int, page: bytes) -> bytes:
        if number == 1:
            world[A].parts.consent.revoke(grant.id)
        return page

    fetched(world, revoking)
    (outcome,) = world.lookup().holders
    assert (outcome.status, outcome.code) == ("denied", "not-permitted")
    for table in ("received_page", "received_record", "disclosed_record"):
        assert count(world, B, table) == 0
    assert world[A].chain.state(f"request/{outcome.request}")["receive"]["status"] == "rejected"
    world.tick(1000)
    assert [each.kind for each in world[A].parts.gaps()] == ["release-rejected"]


def _flipped(number: int, page: bytes) -> bytes:
    if number != 2:
        return page
    return page[:900] + bytes([page[900] ^ 1]) + page[901:]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(_flipped, "envelope-does-not-open", id="a bit flipped"),
        pytest.param(lambda n, page: page[:-1] if n == 3 else page, "envelope-malformed", id="cut off"),
    ],
)
def test_an_altered_page_rejects_the_whole(world: World, change: Any, code: str) -> None:
    fetched(world, change)
    (outcome,) = world.lookup().holders
    assert (outcome.status, outcome.code) == ("rejected", code)
    assert count(world, B, "received_record") == count(world, B, "received_page") == 0
    assert world[A].chain.state(f"request/{outcome.request}")["receive"]["status"] == "rejected"


def test_a_page_in_the_place_of_another_is_found_out(world: World) -> None:
    get = world[B].peers.get
    world[B].peers.get = lambda org, path, **more: get(org, path[:-1] + "1", **more)  # type: ignore[method-assign]
    (outcome,) = world.lookup().holders
    assert (outcome.status, outcome.code) == ("rejected", "content-of-another-page")


def test_a_page_sealed_once_more_is_not_the_one_released(world: World) -> None:
    sealer = world[A].parts.exchange._release._sealer  # type: ignore[attr-defined]
    from bridge.services.envelope import seal
    from tests.exchange_world import CHAIN, keys

    def resealed(number: int, page: bytes) -> bytes:
        if number != 1:
            return page
        from bridge.services.envelope import open_envelope

        opened = open_envelope(
            page, chain=CHAIN, decryption_key=lambda _: keys(B)[1], signing_key=lambda _: keys(A)[0].public_key
        )
        return seal(opened.content, chain=CHAIN, signing_key=keys(A)[0], recipient_key=keys(B)[1].public_key)

    assert sealer is not None
    fetched(world, resealed)
    (outcome,) = world.lookup().holders
    assert (outcome.status, outcome.code) == ("rejected", "page-differs")


def test_pages_are_for_the_member_that_asked_and_for_a_while(world: World) -> None:
    (outcome,) = world.lookup().holders
    path = f"/exchange/v1/requests/{outcome.request}/pages/1"
    assert world[B].peers.get(A, path)
    with pytest.raises(PeerRejected, match="does not permit"):
        world[AUTHORITY].peers.get(A, path)
    with pytest.raises(PeerRejected, match="does not permit"):
        world[B].peers.get(A, f"/exchange/v1/requests/{'0' * 32}/pages/1")
    with pytest.raises(PeerRejected):
        world[B].peers.get(A, f"/exchange/v1/requests/{outcome.request}/pages/9")
    assert world[A].parts.releases.purge() == 0
    world.tick(3601)
    assert world[A].parts.releases.purge() == 1  # confirmed on the ledger, and an hour old
    with pytest.raises(PeerRejected):
        world[B].peers.get(A, path)


def test_a_record_beyond_one_release_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.services.release_content.MAX_DISCLOSED", 4100)
    monkeypatch.setattr("bridge.services.release_content.MAX_PAGES", 4090)
    (outcome,) = world.lookup().holders
    assert outcome.status == "denied"
    assert world[A].scalars("SELECT state || ' ' || reason FROM disclosure") == ["refused too-large"]
    assert count(world, A, "release_page") == 0
    assert world[A].chain.state(f"request/{outcome.request}")["release"] is None


def test_the_grant_limits_how_long_copies_are_kept(world: World) -> None:
    (unlimited,) = world.lookup().holders
    (grant,) = world[A].parts.consent.grants_of("p1")
    world[A].parts.consent.revoke(grant.id)
    world.grant(copies_days=30)
    (limited,) = world.lookup().holders
    assert not {r.local for r in unlimited.records} & {r.local for r in limited.records}
    made = world[B].records.read("Provenance", f"received-{limited.request}").resource()
    assert made["extension"][0]["url"].endswith("copies-kept-until")
    assert world[B].copies.expire() == 0

    world.tick(30 * 86_400)
    assert world[B].copies.expire() == 1
    assert world[B].copies.expire() == 0
    for record in limited.records:
        assert world[B].scalars(
            f"SELECT count(*) FROM resource_version WHERE type = '{record.local.split('/')[0]}' "
            f"AND id = '{record.local.split('/')[1]}' AND length(sealed) > 0"
        ) == [0]
    kind, id, _, version = unlimited.records[0].local.split("/")
    assert world[B].records.vread(kind, id, int(version)).content
    (told,) = [event for event in world[B].audits() if event["type"]["code"] == "110110"]
    assert "retention-ended" in told["outcomeDesc"]

    world.grant(copies_days=30)
    (again,) = world.lookup().holders
    assert again.status == "received"


def test_copies_that_were_erased_may_come_again(world: World) -> None:
    (first,) = world.lookup().holders
    local = next(record.local for record in first.records if record.local.startswith("Patient/"))
    world[B].erasure.erase(local.split("/_history")[0], "patient-request")
    (second,) = world.lookup().holders
    assert second.status == "received"
    assert local not in {record.local for record in second.records}
