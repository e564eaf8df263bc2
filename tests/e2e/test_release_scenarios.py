"""What can go wrong with a release between real node processes: refused, altered, broken off by kill -9, keys rotated.

For each: the outcome, both audits, and what the ledger says. The other paths are in test_exchange_scenarios.py.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from bridge.services.exchange import REQUEST_PATH
from tests.exchange_scenarios import (
    DECIDED,
    DENIED,
    EXPORTED,
    HANDED_OVER,
    IMPORTED,
    INTERRUPTED,
    NOT_IMPORTED,
    PERMITTED,
    RELEASED,
    TURNED_DOWN,
    Person,
    ScenarioConsortium,
    Told,
)
from tests.exchange_world import observation
from tests.node_consortium import store, wait_for

pytestmark = pytest.mark.slow

PAGE_RECORDS = 3
RECORDS = 14  # with the patient's three: six pages of at most three


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScenarioConsortium]:
    made = ScenarioConsortium(tmp_path_factory.mktemp("releases"))
    try:
        for name in ("a", "b"):
            config = made[name].home / "config.toml"
            quick = f"[exchange]\npage_records = {PAGE_RECORDS}\ncollect_seconds = 1.0"
            config.write_text(config.read_text("utf-8").replace("[exchange]", quick, 1), "utf-8")
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def people(consortium: ScenarioConsortium) -> Iterator[Person]:
    return iter(consortium.patients(12))


@pytest.fixture
def person(people: Iterator[Person]) -> Person:
    return next(people)


def only(result: Any) -> Any:
    (outcome,) = result.holders
    return outcome


def refused(consortium: ScenarioConsortium, outcome: Any, rule: str) -> None:
    """Check a refusal: one answer to the requester, the rule to the holder alone, a denial on the ledger."""
    assert (outcome.status, outcome.code) == ("denied", "not-permitted")
    assert rule not in outcome.message
    consortium.leaves(outcome.request, TURNED_DOWN)
    (told,) = [text for code, result, text in consortium.audits("a", outcome.request) if (code, result) == DENIED]
    assert rule in told
    assert consortium.kept(outcome.request) == 0


@pytest.mark.parametrize(
    ("granted", "asked", "rule"),
    [
        pytest.param({}, {"purpose": "HRESCH"}, "wrong-purpose", id="wrong purpose"),
        pytest.param(
            {"categories": ("medication",)},
            {"categories": frozenset({"imaging"})},
            "wrong-category",
            id="wrong category",
        ),
    ],
)
def test_a_grant_that_does_not_cover(
    consortium: ScenarioConsortium, person: Person, granted: dict[str, Any], asked: dict[str, Any], rule: str
) -> None:
    consortium.grant(person, **granted)
    refused(consortium, only(consortium.lookup(person, **asked)), rule)


def test_revoked_between_request_and_release(consortium: ScenarioConsortium, person: Person) -> None:
    """The request is on the ledger, the revocation follows it, and then the holder is asked."""
    grant = consortium.grant(person)
    with consortium.recorded("b") as node, pytest.MonkeyPatch.context() as patch:
        post = node.peers.post

        def revoking(org: str, path: str, body: bytes, **more: Any) -> bytes:
            if path == REQUEST_PATH:
                with consortium["a"].opened() as holder:
                    holder.consent.revoke(grant)
            return post(org, path, body, **more)

        patch.setattr(node.peers, "post", revoking)
        outcome = only(node.exchange.lookup("urn:oid:2.16.156.10011.1.3", person.number, "TREAT"))
    refused(consortium, outcome, "grant-revoked")


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _tampered_envelope(answer: bytes) -> bytes:
    value = json.loads(answer)
    value["envelope"] = base64.b64encode(_flip(base64.b64decode(value["envelope"]))).decode()
    return json.dumps(value).encode()


def test_a_tampered_envelope(consortium: ScenarioConsortium, person: Person) -> None:
    consortium.grant(person)
    outcome = _meddled(consortium, person, _tampered_envelope)
    assert (outcome.status, outcome.code) == ("rejected", "envelope-does-not-open")
    consortium.leaves(outcome.request, Told(RELEASED, a=sorted([DECIDED, EXPORTED]), b=[NOT_IMPORTED]))
    assert (consortium.state(f"request/{outcome.request}") or {})["receive"]["status"] == "rejected"
    assert consortium.kept(outcome.request) == 0


def _meddled(consortium: ScenarioConsortium, person: Person, change: Callable[[bytes], bytes]) -> Any:
    """Look a person up through a line on which the holder's answer is changed."""
    with consortium.recorded("b") as node, pytest.MonkeyPatch.context() as patch:
        post = node.peers.post

        def meddling(org: str, path: str, body: bytes, **more: Any) -> bytes:
            answer = post(org, path, body, **more)
            return change(answer) if path == REQUEST_PATH else answer

        patch.setattr(node.peers, "post", meddling)
        return only(node.exchange.lookup("urn:oid:2.16.156.10011.1.3", person.number, "TREAT"))


def test_a_tampered_record(consortium: ScenarioConsortium, person: Person) -> None:
    """A row of the holder's database is exchanged behind its back: it does not even leave."""
    consortium.grant(person)
    with consortium["a"].opened() as node, node.engine.begin() as connection:
        changed = connection.exec_driver_sql(
            "UPDATE resource_version SET sealed = zeroblob(length(sealed)) "
            f"WHERE type = 'Observation' AND subject = 'Patient/{person.id}'"
        )
        assert changed.rowcount > 0
    with consortium.asked_once():
        outcome = only(consortium.lookup(person))
    assert outcome.status == "unavailable"
    consortium.leaves(outcome.request, Told(PERMITTED, a=[DECIDED], b=[INTERRUPTED]))
    assert consortium.kept(outcome.request) == 0


def test_the_requesters_key_is_rotated_between_request_and_release(
    consortium: ScenarioConsortium, person: Person
) -> None:
    consortium.grant(person)
    with consortium.recorded("b") as node, pytest.MonkeyPatch.context() as patch:
        post = node.peers.post

        def rotating(org: str, path: str, body: bytes, **more: Any) -> bytes:
            if path == REQUEST_PATH:
                consortium["b"].run("member", "rotate-key", "--use", "encrypt")
            return post(org, path, body, **more)

        patch.setattr(node.peers, "post", rotating)
        outcome = only(node.exchange.lookup("urn:oid:2.16.156.10011.1.3", person.number, "TREAT"))
    assert (outcome.status, len(outcome.records)) == ("received", 3)
    consortium.leaves(outcome.request, HANDED_OVER)


# --- broken off


def large(consortium: ScenarioConsortium, person: Person) -> int:
    """Give a person a record of several pages; return how many records there are."""
    with consortium["a"].opened() as node:
        more = [observation(f"{person.id}-{number}", of=person.id) for number in range(RECORDS)]
        store(node, person.id, *more)
    consortium.grant(person)
    return RECORDS + 3


def cut_after(consortium: ScenarioConsortium, person: Person, page: int, then: Callable[[], None]) -> Any:
    """Look a person up from a process of b; when a page has arrived, do something once."""
    done: list[int] = []
    with consortium.recorded("b") as node, pytest.MonkeyPatch.context() as patch:
        get = node.peers.get

        def cutting(org: str, path: str, **more: Any) -> bytes:
            if path.endswith(f"/pages/{page}") and not done:
                done.append(page)
                then()
            return get(org, path, **more)

        patch.setattr("bridge.services.exchange.RETRY_SECONDS", 0.01)
        patch.setattr(node.peers, "get", cutting)
        return only(node.exchange.lookup("urn:oid:2.16.156.10011.1.3", person.number, "TREAT"))


def received(consortium: ScenarioConsortium, request: str, records: int) -> None:
    """Check that a request has ended well: all records here, one release and one confirmation on the ledger."""
    here = f"SELECT count(*) FROM received_record WHERE request_id = '{request}' AND original_ref NOT LIKE 'Prov%'"
    state = f"SELECT state FROM exchange_request WHERE request_id = '{request}'"
    wait_for(lambda: consortium.scalar("b", state) == "verified", "the rest of the release", 60)
    assert consortium.scalar("b", here) == records
    assert consortium.scalar("b", "SELECT count(*) FROM received_page") == 0
    told = consortium.told(request)
    assert told.ledger == RELEASED
    assert (consortium.state(f"request/{request}") or {})["receive"]["status"] == "verified"
    assert told.b.count(IMPORTED) == 1
    assert told.a.count(DECIDED) == 1
    assert set(told.a) == {DECIDED, EXPORTED}  # a repeated request gets the same release, and that is recorded again


def test_the_holder_is_killed_during_the_transfer(consortium: ScenarioConsortium, person: Person) -> None:
    """kill -9 between two pages; the requester's own job fetches the others when the holder is back."""
    records = large(consortium, person)
    outcome = cut_after(consortium, person, 3, consortium["a"].kill)
    assert outcome.status == "interrupted"
    arrived = f"SELECT count(*) FROM received_page WHERE request_id = '{outcome.request}'"
    assert consortium.scalar("b", arrived) == 3
    kept = f"SELECT count(*) FROM received_record WHERE request_id = '{outcome.request}'"
    assert consortium.scalar("b", kept) == 0  # nothing is taken over that is not whole
    consortium["a"].start()
    consortium["a"].wait_ready()
    received(consortium, outcome.request, records)


def test_the_requester_is_killed_during_the_transfer(consortium: ScenarioConsortium, person: Person) -> None:
    """`yiqiao lookup` dies by kill -9 with some pages here; the node goes on under the same request."""
    import os
    import signal
    import subprocess
    import sys

    records = large(consortium, person)
    identifier = f"urn:oid:2.16.156.10011.1.3|{person.number}"
    command = [sys.executable, "-m", "bridge.cli", "lookup", "--identifier", identifier, "--purpose", "TREAT"]
    before = consortium.scalar("b", "SELECT count(*) FROM exchange_request")
    process = subprocess.Popen(
        [*command, "--home", str(consortium["b"].home)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: consortium.scalar("b", "SELECT count(*) FROM received_page") > 1, "the first pages", 60)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert consortium.scalar("b", "SELECT count(*) FROM exchange_request") == before + 1
    newest = "SELECT request_id FROM exchange_request ORDER BY created DESC, updated DESC LIMIT 1"
    request = str(consortium.scalar("b", newest))
    done = requests.get(f"http://127.0.0.1:{consortium['b'].http_port}/readyz", timeout=5)
    assert done.ok
    consortium["b"].run("collect", request)
    received(consortium, request, records)
