"""Lookups between real nodes, one scenario after another: the outcome, both audits and the ledger of each.

An authority, three hospitals, a member that is suspended, an attacker. What concerns the release itself is in
test_release_scenarios.py. The last test looks for every secret of every patient in all that the nodes have written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from anchor import canonical, gm
from anchor.chain.ledger_trust import trust_of
from anchor.contracts.access import REVIEW_SECONDS
from anchor.errors import ChainError
from bridge.errors import PeerError, PeerRejected, PeerUnavailable
from bridge.peer_signature import sign_headers
from bridge.services import access_request, patient_file
from bridge.services.exchange import REQUEST_PATH
from fhir_adapters.identifiers import ID_CARD_SYSTEM
from tests.exchange_scenarios import PRACTITIONER, REASON, Person, ScenarioConsortium, local_pseudonyms
from tests.node_consortium import wait_for
from tests.private_data_scan import forms, scan

pytestmark = pytest.mark.slow

DECISION, EXPORT, IMPORT = "110113", "110106", "110107"  # DICOM audit event types
ASKED, PERMITTED = [("access.request", "b")], [("access.request", "b"), ("access.permit", "a")]
RELEASED = [*PERMITTED, ("access.release", "a"), ("access.receive", "b")]
DENIED = [*ASKED, ("access.deny", "a")]
BROKEN_GLASS = [("access.emergency", "b"), *RELEASED[1:]]


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScenarioConsortium]:
    made = ScenarioConsortium(tmp_path_factory.mktemp("scenarios"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def people(consortium: ScenarioConsortium) -> Iterator[Person]:
    """A new patient for each scenario."""
    return iter(consortium.patients(16))


@pytest.fixture
def person(people: Iterator[Person]) -> Person:
    return next(people)


def only(result: Any) -> Any:
    (outcome,) = result.holders
    return outcome


def recorded(consortium: ScenarioConsortium, name: str, request: str, *expected: tuple[str, str]) -> None:
    """Check the (type, outcome) of every AuditEvent that a node has about a request, whatever their order."""
    found = consortium.audits(name, request)
    assert sorted((code, outcome) for code, outcome, _ in found) == sorted(expected), found


# --- what is permitted


def test_permitted(consortium: ScenarioConsortium, person: Person) -> None:
    consortium.grant(person)
    done = consortium["b"].run(
        "lookup", "--identifier", f"{ID_CARD_SYSTEM}|{person.number}", "--purpose", "TREAT", "--json",
        "--practitioner", PRACTITIONER,
    )  # fmt: skip
    (outcome,) = json.loads(done.stdout)["holders"]
    assert (outcome["status"], outcome["holder"], len(outcome["records"])) == ("received", consortium["a"].org, 3)
    assert consortium.transactions(outcome["request"]) == RELEASED
    recorded(consortium, "a", outcome["request"], (DECISION, "0"), (EXPORT, "0"))
    recorded(consortium, "b", outcome["request"], (IMPORT, "0"))
    consortium.output.append(done.stderr)


def test_an_emergency_with_its_review(consortium: ScenarioConsortium, person: Person) -> None:
    outcome = only(consortium.lookup(person, emergency="BTG", reason=REASON, role="emergency-physician"))
    assert outcome.status == "received"
    assert consortium.transactions(outcome.request) == BROKEN_GLASS
    recorded(consortium, "a", outcome.request, (DECISION, "0"), (EXPORT, "0"))
    recorded(consortium, "b", outcome.request, (IMPORT, "0"))
    assert outcome.request in consortium["a"].get("/reviews/v1/emergencies").text
    verdict = json.dumps({"outcome": "justified", "note": REASON})
    assert consortium["a"].post(f"/reviews/v1/emergencies/{outcome.request}", verdict, "application/json").ok
    assert consortium.transactions(outcome.request) == [*BROKEN_GLASS, ("access.review", "a")]
    assert (consortium.state(f"request/{outcome.request}") or {})["review"]["outcome"] == "justified"
    with consortium["a"].opened() as node:
        task = node.records.read("Task", f"review-{outcome.request}").resource()
        assert task["status"] == "completed"
        for whom in ("officer", "patient"):
            assert node.records.read("Communication", f"notice-{whom}-{outcome.request}").subject == (
                f"Patient/{person.id}"
            )


def test_an_emergency_without_its_review_becomes_an_alarm(consortium: ScenarioConsortium, person: Person) -> None:
    outcome = only(consortium.lookup(person, emergency="BTG", reason=REASON))
    assert consortium.transactions(outcome.request) == BROKEN_GLASS
    assert consortium.metric("a", "yiqiao_emergency_reviews_overdue") == 0
    with consortium["a"].opened() as node, node.engine.begin() as connection:  # a day passes
        connection.exec_driver_sql(
            f"UPDATE emergency_review SET due = due - {REVIEW_SECONDS + 60} WHERE request_id = '{outcome.request}'"
        )
    wait_for(lambda: "emergency reviews are overdue" in consortium["a"].log.read_text("utf-8"), "the alarm")
    assert consortium.metric("a", "yiqiao_emergency_reviews_overdue") == 1


# --- what is refused


def test_no_grant(consortium: ScenarioConsortium, person: Person) -> None:
    outcome = only(consortium.lookup(person))
    assert (outcome.status, outcome.code) == ("denied", "not-permitted")
    assert consortium.transactions(outcome.request) == DENIED
    recorded(consortium, "a", outcome.request, (DECISION, "8"))
    recorded(consortium, "b", outcome.request, (IMPORT, "8"))
    assert consortium.audits("a", outcome.request)[0][2].startswith("denied: no-grant")
    assert consortium.audits("b", outcome.request)[0][2] == "nothing received: not-permitted"


def test_expired(consortium: ScenarioConsortium, person: Person) -> None:
    grant = consortium.grant(person, seconds=2)
    until = (consortium.state(f"grant/{grant}") or {})["until"]
    wait_for(lambda: time.time() > until + 0.1, "the end of the grant")
    outcome = only(consortium.lookup(person))
    assert (outcome.status, outcome.code) == ("denied", "not-permitted")
    assert consortium.transactions(outcome.request) == DENIED
    recorded(consortium, "a", outcome.request, (DECISION, "8"))
    recorded(consortium, "b", outcome.request, (IMPORT, "8"))
    assert consortium.audits("a", outcome.request)[0][2].startswith("denied: grant-expired")


def test_a_replayed_request_is_refused_and_a_repeated_one_releases_nothing_again(
    consortium: ScenarioConsortium, person: Person
) -> None:
    consortium.grant(person)
    sent: list[requests.PreparedRequest] = []
    with consortium.recorded("b") as node:
        send = requests.Session.send

        def keeping(session: requests.Session, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
            if str(request.url).endswith(REQUEST_PATH):
                sent.append(request.copy())
            return send(session, request, **settings)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(requests.Session, "send", keeping)
            outcome = only(node.exchange.lookup(ID_CARD_SYSTEM, person.number, "TREAT"))
        (request,) = sent
        with node.peers._session(consortium["a"].org) as session:
            answer = session.send(request, timeout=20)
        assert answer.status_code == 401
        with consortium["a"].opened() as holder:
            newest = [version.resource() for version in holder.records.of_subject("node", ["AuditEvent"])]
        assert "request refused: replayed" in {each.get("outcomeDesc") for each in newest}
        body = request.body if isinstance(request.body, bytes) else str(request.body).encode()
        first, second = (node.peers.post(consortium["a"].org, REQUEST_PATH, body) for _ in range(2))
        assert canonical.load(first)["envelope"] == canonical.load(second)["envelope"]
    assert consortium.transactions(outcome.request) == RELEASED
    recorded(consortium, "a", outcome.request, (DECISION, "0"), *[(EXPORT, "0")] * 3)
    recorded(consortium, "b", outcome.request, (IMPORT, "0"))


def test_a_forged_member_gets_nothing(consortium: ScenarioConsortium, person: Person) -> None:
    """The attacker stands inside the network, with the stolen certificate of "c" but none of its keys."""
    consortium.grant(person, to=("b", "c"))
    before, key = consortium.accesses(), gm.PrivateKey.generate()
    with consortium.recorded("c") as node:
        pid = node.exchange_parts.registrar._pseudonyms.pids([(ID_CARD_SYSTEM, person.number)])[0]
        for claimed in ("b", "c"):
            asked = access_request.build(
                chain="scenario", requester=consortium[claimed].org, key=key, holder=consortium["a"].org, pid=pid,
                purpose="TREAT", now=int(time.time()),
            )  # fmt: skip
            url = consortium["a"].endpoint + REQUEST_PATH
            headers = sign_headers(
                "POST", url, asked.dump(), org=consortium[claimed].org, key=key, audience=consortium["a"].org,
                now=int(time.time()),
            )  # fmt: skip
            with node.peers._session(consortium["a"].org) as session:
                answer = session.post(url, data=asked.dump(), headers=headers, timeout=20)
            assert answer.status_code == 401
        with pytest.raises(PeerRejected) as caught:  # with c's own key, but in b's name
            node.peers.post(consortium["a"].org, REQUEST_PATH, asked.dump())
    assert caught.value.code == "not-permitted"
    assert consortium.accesses() == before
    assert consortium.audits("a", asked.id) == consortium.audits("c", asked.id) == []


def test_the_wrong_members_certificate(consortium: ScenarioConsortium, person: Person) -> None:
    """ "c" claims the address of "a" as its own: "b" notices before it has sent anything."""
    own = consortium["c"].endpoint

    def claim(endpoint: str) -> None:
        with consortium["c"].opened() as node:
            node.submitter.submit("membership.endpoint", {"endpoint": endpoint})

    claim(consortium["a"].endpoint)
    time.sleep(2.1)  # MEMBER_CACHE_SECONDS of every process
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bridge.services.exchange.SEND_ATTEMPTS", 1)
        outcome = only(consortium.lookup(person, holder=consortium["c"].org))
    claim(own)
    assert outcome.status == "unavailable"
    assert consortium.transactions(outcome.request) == ASKED
    recorded(consortium, "b", outcome.request, (IMPORT, "4"))
    assert consortium.audits("a", outcome.request) == consortium.audits("c", outcome.request) == []


# --- what is away


def test_the_ledger_is_down_before_the_request(consortium: ScenarioConsortium, person: Person) -> None:
    """Treatment goes on upon what the ledger said last, and is told to it afterwards; nothing else does."""
    consortium.grant(person)
    assert only(consortium.lookup(person)).status == "received"
    consortium.ledger_link.cut()
    try:
        treated = only(consortium.lookup(person))
        other = only(consortium.lookup(person, purpose="HOPERAT"))
    finally:
        consortium.ledger_link.mend()
    assert (treated.status, treated.gap) == ("received", True)
    assert other.status == "unavailable"
    wait_for(lambda: consortium.transactions(treated.request) == RELEASED, "the outage's events on the ledger", 90)
    assert only(consortium.lookup(person)).status == "received"


def test_the_ledger_goes_down_between_request_and_decision(consortium: ScenarioConsortium, person: Person) -> None:
    consortium.grant(person)
    with consortium.recorded("b") as node, pytest.MonkeyPatch.context() as patch:
        post = node.peers.post

        def cutting(org: str, path: str, body: bytes, **more: Any) -> bytes:
            if path == REQUEST_PATH:
                consortium.ledger_link.cut()
            return post(org, path, body, **more)

        patch.setattr("bridge.services.exchange.SEND_ATTEMPTS", 1)
        patch.setattr(node.peers, "post", cutting)
        try:
            outcome = only(node.exchange.lookup(ID_CARD_SYSTEM, person.number, "HOPERAT"))
        finally:
            consortium.ledger_link.mend()
    assert outcome.status == "unavailable"
    assert consortium.transactions(outcome.request) == ASKED
    recorded(consortium, "b", outcome.request, (IMPORT, "4"))
    assert consortium.audits("a", outcome.request) == []
    assert consortium.scalar("b", f"SELECT count(*) FROM received_record WHERE request_id = '{outcome.request}'") == 0


def test_the_authority_is_down_and_the_holder_is_known(consortium: ScenarioConsortium, person: Person) -> None:
    consortium.grant(person)
    consortium.identity_link.cut()
    try:
        with pytest.raises(PeerUnavailable):
            consortium.lookup(person)
        outcome = only(consortium.lookup(person, holder=consortium["a"].org))
    finally:
        consortium.identity_link.mend()
    assert outcome.status == "received"
    assert consortium.transactions(outcome.request) == RELEASED
    recorded(consortium, "a", outcome.request, (DECISION, "0"), (EXPORT, "0"))
    recorded(consortium, "b", outcome.request, (IMPORT, "0"))


def test_the_authoritys_node_is_down(consortium: ScenarioConsortium, person: Person) -> None:
    """Its processes killed: it hosts this ledger too, so only a known holder is asked, and only for treatment."""
    consortium.grant(person)
    assert only(consortium.lookup(person)).status == "received"
    consortium.authority.kill()
    with pytest.raises((PeerError, ChainError)):
        consortium.lookup(person)
    known = only(consortium.lookup(person, holder=consortium["a"].org))
    consortium.authority.start()
    consortium.authority.wait_ready()
    assert (known.status, known.gap) == ("received", True)
    wait_for(lambda: consortium.transactions(known.request) == RELEASED, "the outage's events on the ledger", 90)
    assert only(consortium.lookup(person)).status == "received"


# --- who is out


def test_a_suspended_member(consortium: ScenarioConsortium, person: Person) -> None:
    consortium.grant(person, to=("b", "s"))
    assert only(consortium.lookup(person, org="s")).status == "received"
    consortium.suspend("s")
    unfinished = "SELECT count(*) FROM exchange_request WHERE due IS NOT NULL"  # what the outages left is asked again
    wait_for(lambda: consortium.scalar("b", unfinished) == 0, "the end of every request of b", 60)
    before = consortium.accesses()
    with pytest.raises((PeerError, ChainError)):
        consortium.lookup(person, org="s")
    with consortium.recorded("s") as node:
        asked = access_request.build(
            chain="scenario", requester=node.signer.org, key=node.signer.sign, holder=consortium["a"].org,
            pid="1." + "0" * 64, purpose="TREAT", now=int(time.time()),
        )  # fmt: skip
        with pytest.raises(PeerError):
            node.peers.post(consortium["a"].org, REQUEST_PATH, asked.dump())
        with pytest.raises((PeerError, ChainError)):
            node.chain.state("validators")
    assert consortium.accesses() == before
    assert consortium.audits("a", asked.id) == consortium.audits("s", asked.id) == []


# --- what the patient is shown of it


def test_the_patient_sees_who_asked_and_who_saw(consortium: ScenarioConsortium, person: Person) -> None:
    consortium.grant(person)
    request = only(consortium.lookup(person)).request
    bundle = consortium["a"].get(f"/patients/v1/{person.id}/accesses").json()
    assert sum(request in json.dumps(entry) for entry in bundle["entry"]) == 2  # the decision and the release
    page = consortium["a"].get(f"/patients/v1/{person.id}/accesses.html").text
    assert request in page
    assert person.number not in page
    with consortium.authority.opened() as authority:
        trust = trust_of(authority.chain, "scenario", 1, ()).dump()
    for kind, count in (("accesses", len(bundle["entry"])), ("records", 3)):
        content = consortium["a"].get(f"/patients/v1/{person.id}/{kind}.json").content
        found = patient_file.check(content, trust, minimum="committed")
        assert (found.kind, found.org) == (kind, consortium["a"].org)
        assert found.records >= count


# --- after all of it


def test_nothing_private_is_on_the_ledger_in_logs_addresses_or_metrics(consortium: ScenarioConsortium) -> None:
    with consortium["a"].opened() as node:
        pids = local_pseudonyms(node)
    secrets = [text for person in consortium.people for text in person.secrets] + [REASON, PRACTITIONER]
    places = consortium.places()
    assert b"access.release" in places["ledger"]
    assert any(b"SQLite format 3" in data for place, data in places.items() if "sqlite3" in place)
    assert b"access POST /exchange/v1/requests" in places["a: log"]
    assert b"/exchange/v1/requests" in places["addresses"]
    assert all(b"yiqiao_ledger_up 1" in places[f"{name}: metrics"] for name in ("authority", "a", "b", "c"))
    assert scan(places, [*secrets, *pids]) == []
    for place in places:  # it would have been found
        planted = {**places, place: places[place] + forms(secrets[0])["sm3 hex"]}
        assert [found.place for found in scan({place: planted[place]}, secrets[:1])] == [place]
