"""Lookups between real nodes, one scenario after another: the outcome, both audits and the ledger of each.

An authority, three hospitals, a member that is suspended, and an attacker, each a process of its own. What concerns
the release itself is in test_release_scenarios.py. The last test looks for every secret of every patient in all that
the nodes have written.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from anchor import canonical
from anchor.chain.ledger_trust import trust_of
from anchor.contracts.access import REVIEW_SECONDS
from anchor.errors import ChainError
from bridge.errors import DisclosureRefused, PeerError, PeerRejected, PeerUnavailable
from bridge.pki.tls_identity import CERTIFICATE, KEY
from bridge.services import access_request, patient_file
from bridge.services.exchange import REQUEST_PATH
from bridge.tokens import create_token
from fhir_adapters.identifiers import ID_CARD_SYSTEM
from tests.exchange_scenarios import (
    ASKED,
    BROKEN_GLASS,
    DECIDED,
    EXPORTED,
    HANDED_OVER,
    IMPORTED,
    INTERRUPTED,
    NOTHING,
    PRACTITIONER,
    REASON,
    RELEASED,
    TURNED_DOWN,
    Person,
    ScenarioConsortium,
    Told,
    local_pseudonyms,
)
from tests.node_consortium import wait_for
from tests.private_data_scan import forms, scan

pytestmark = pytest.mark.slow

GRANT_SECONDS = (2, 10, 40)  # of a grant that is to end: a busy machine may be slower than the shortest


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
    return iter(consortium.patients(18))


@pytest.fixture
def person(people: Iterator[Person]) -> Person:
    return next(people)


def only(result: Any) -> Any:
    (outcome,) = result.holders
    return outcome


def brief_grant(consortium: ScenarioConsortium, person: Person) -> int:
    """Give a grant that ends soon; return when (Unix seconds)."""
    for seconds in GRANT_SECONDS[:-1]:
        try:
            grant = consortium.grant(person, seconds=seconds)
        except DisclosureRefused:  # it had ended before the ledger had it
            continue
        break
    else:
        grant = consortium.grant(person, seconds=GRANT_SECONDS[-1])
    return int((consortium.state(f"grant/{grant}") or {})["until"])


# --- what is permitted


def test_permitted(consortium: ScenarioConsortium, person: Person) -> None:
    consortium.grant(person)
    done = consortium["b"].run(
        "lookup", "--identifier", f"{ID_CARD_SYSTEM}|{person.number}", "--purpose", "TREAT", "--json",
        "--practitioner", PRACTITIONER,
    )  # fmt: skip
    (outcome,) = json.loads(done.stdout)["holders"]
    assert (outcome["status"], outcome["holder"], len(outcome["records"])) == ("received", consortium["a"].org, 3)
    consortium.leaves(outcome["request"], HANDED_OVER)
    consortium.output.append(done.stderr)


def test_an_application_asks_over_http(consortium: ScenarioConsortium, person: Person) -> None:
    consortium.grant(person)
    node = consortium["b"]
    _, token = create_token(node.home / "tokens.json", name="EMR", role="clinical", now=int(time.time()))
    asked = {"system": ID_CARD_SYSTEM, "value": person.number, "purpose": "TREAT", "practitioner": PRACTITIONER}
    url, headers = f"http://127.0.0.1:{node.http_port}/lookups/v1", {"Authorization": f"Bearer {token}"}
    answer = requests.post(url, json={**asked, "role": "physician"}, headers=headers, timeout=180)
    (outcome,) = answer.json()["holders"]
    assert (outcome["status"], len(outcome["records"])) == ("received", 3)
    consortium.leaves(outcome["request"], HANDED_OVER)
    consortium.output.append(answer.text)


def test_an_emergency_with_its_review(consortium: ScenarioConsortium, person: Person) -> None:
    outcome = only(consortium.lookup(person, emergency="BTG", reason=REASON, role="emergency-physician"))
    assert outcome.status == "received"
    consortium.leaves(outcome.request, replace(HANDED_OVER, ledger=BROKEN_GLASS))
    assert outcome.request in consortium["a"].get("/reviews/v1/emergencies").text
    verdict = json.dumps({"outcome": "justified", "note": REASON})
    assert consortium["a"].post(f"/reviews/v1/emergencies/{outcome.request}", verdict, "application/json").ok
    assert consortium.told(outcome.request).ledger == [*BROKEN_GLASS, ("access.review", "a")]
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
    assert outcome.status == "received"
    consortium.leaves(outcome.request, replace(HANDED_OVER, ledger=BROKEN_GLASS))
    assert consortium.metric("a", "yiqiao_emergency_reviews_overdue") == 0
    with consortium["a"].opened() as node, node.engine.begin() as connection:  # a day passes
        connection.exec_driver_sql(
            f"UPDATE emergency_review SET due = due - {REVIEW_SECONDS + 60} WHERE request_id = '{outcome.request}'"
        )
    wait_for(lambda: "emergency reviews are overdue" in consortium["a"].log.read_text("utf-8"), "the alarm", 90)
    assert consortium.metric("a", "yiqiao_emergency_reviews_overdue") == 1
    assert consortium.told(outcome.request).ledger == BROKEN_GLASS
    assert (consortium.state(f"request/{outcome.request}") or {})["review"]["outcome"] is None


# --- what is refused


def test_no_grant(consortium: ScenarioConsortium, person: Person) -> None:
    outcome = only(consortium.lookup(person))
    assert (outcome.status, outcome.code) == ("denied", "not-permitted")
    consortium.leaves(outcome.request, TURNED_DOWN)
    assert consortium.kept(outcome.request) == 0
    assert consortium.audits("a", outcome.request)[0][2].startswith("denied: no-grant")
    assert consortium.audits("b", outcome.request)[0][2] == "nothing received: not-permitted"


def test_expired(consortium: ScenarioConsortium, person: Person) -> None:
    until = brief_grant(consortium, person)
    wait_for(lambda: time.time() > until + 0.1, "the end of the grant", GRANT_SECONDS[-1] + 30)
    outcome = only(consortium.lookup(person))
    assert (outcome.status, outcome.code) == ("denied", "not-permitted")
    consortium.leaves(outcome.request, TURNED_DOWN)
    assert consortium.kept(outcome.request) == 0
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
        assert (consortium["b"].org, "replayed") in consortium.refusals("a")
        body = request.body if isinstance(request.body, bytes) else str(request.body).encode()
        first, second = (node.peers.post(consortium["a"].org, REQUEST_PATH, body) for _ in range(2))
        assert canonical.load(first)["envelope"] == canonical.load(second)["envelope"]
    consortium.leaves(outcome.request, Told(RELEASED, a=sorted([DECIDED, *[EXPORTED] * 3]), b=[IMPORTED]))


def test_an_attacker_gets_nothing(consortium: ScenarioConsortium, person: Person) -> None:
    """A process that stands inside the network, with c's stolen certificate and a captured request, but none of its
    keys.
    """
    consortium.grant(person, to=("b", "c"))
    names = {name: consortium[name].org for name in ("b", "c")}
    sent: list[requests.PreparedRequest] = []
    with consortium.recorded("b") as node, pytest.MonkeyPatch.context() as patch:
        pid = node.exchange_parts.registrar._pseudonyms.pids([(ID_CARD_SYSTEM, person.number)])[0]
        send = requests.Session.send

        def keeping(session: requests.Session, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
            if str(request.url).endswith(REQUEST_PATH):
                sent.append(request.copy())
            return send(session, request, **settings)

        patch.setattr(requests.Session, "send", keeping)
        honest = only(node.exchange.lookup(ID_CARD_SYSTEM, person.number, "TREAT"))
    before, refused = consortium.accesses(), consortium.refusals("a")
    came_of = attack(consortium, list(names.values()), pid, sent[0])
    no_channel = dict.fromkeys(("no certificate", "a certificate of its own"), "no channel")
    tried = ("as nobody's member", "replayed", "replayed with another body", "unsigned")
    assert came_of == no_channel | dict.fromkeys((*tried, *(f"as {org}" for org in names.values())), "401")
    assert consortium.accesses() == before
    consortium.leaves(honest.request, HANDED_OVER)
    told = list((Counter(consortium.refusals("a")) - Counter(refused)).elements())
    captured = [reason for org, reason in told if org == names["b"] and reason != "unknown-key"]
    assert len(captured) == 2
    assert set(captured) <= {"replayed", "altered-body", "stale"}  # "stale" where this machine took a minute
    assert {("unknown", "unknown-member"), *((org, "unknown-key") for org in names.values())} <= set(told)
    assert len(told) == len(captured) + 1 + len(names)


def attack(
    consortium: ScenarioConsortium, members: list[str], pid: str, captured: requests.PreparedRequest
) -> dict[str, str]:
    """Run the attacker's process (``tests.attacker``); return what came of its attempts."""
    holder, identity = consortium["a"], consortium["c"].settings.tls_identity()
    body = captured.body if isinstance(captured.body, bytes) else str(captured.body).encode()
    known = {
        "chain": "scenario", "members": members, "pid": pid,
        "holder": {"org": holder.org, "endpoint": holder.endpoint},
        "stolen": {
            "certificate": str(identity.directory / CERTIFICATE), "key": str(identity.directory / KEY),
            "password": identity.password,
        },
        "captured": {"headers": dict(captured.headers), "body": body.decode()},
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.attacker"], input=json.dumps(known), capture_output=True, text=True, timeout=240,
        check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_member_in_anothers_name_gets_nothing(consortium: ScenarioConsortium, person: Person) -> None:
    """c's own key and certificate, and a request that says it is b's."""
    consortium.grant(person)
    before = consortium.accesses()
    with consortium.recorded("c") as node:
        asked = access_request.build(
            chain="scenario", requester=consortium["b"].org, key=node.signer.sign, holder=consortium["a"].org,
            pid=node.exchange_parts.registrar._pseudonyms.pids([(ID_CARD_SYSTEM, person.number)])[0],
            purpose="TREAT", now=int(time.time()),
        )  # fmt: skip
        with pytest.raises(PeerRejected) as caught:
            node.peers.post(consortium["a"].org, REQUEST_PATH, asked.dump())
    assert caught.value.code == "not-permitted"
    assert consortium.accesses() == before
    assert (consortium["c"].org, "wrong-party") in consortium.refusals("a")
    consortium.leaves(asked.id, NOTHING)
    assert consortium.audits("c", asked.id) == []


def test_the_wrong_members_certificate(consortium: ScenarioConsortium, person: Person) -> None:
    """ "c" claims the address of "a" as its own: "b" notices before it has sent anything."""
    own = consortium["c"].endpoint

    def claim(endpoint: str) -> None:
        with consortium["c"].opened() as node:
            node.submitter.submit("membership.endpoint", {"endpoint": endpoint})

    claim(consortium["a"].endpoint)
    with consortium.asked_once():
        outcome = only(consortium.lookup(person, holder=consortium["c"].org))
    claim(own)
    assert outcome.status == "unavailable"
    consortium.leaves(outcome.request, Told(ASKED, b=[INTERRUPTED]))
    assert consortium.audits("c", outcome.request) == []


# --- what is away


def test_the_ledger_is_down_before_the_request(consortium: ScenarioConsortium, person: Person) -> None:
    """Treatment goes on upon what the ledger said last, and is told to it afterwards; nothing else does."""
    consortium.grant(person)
    assert only(consortium.lookup(person)).status == "received"
    consortium.ledger_link.cut()
    try:
        with consortium.asked_once():
            treated = only(consortium.lookup(person))
            other = only(consortium.lookup(person, purpose="HOPERAT"))
    finally:
        consortium.ledger_link.mend()
    assert (treated.status, treated.gap) == ("received", True)
    assert other.status == "unavailable"
    consortium.leaves(treated.request, HANDED_OVER)
    consortium.leaves(other.request, Told([], b=[INTERRUPTED]))
    assert consortium.kept(other.request) == 0
    assert only(consortium.lookup(person)).status == "received"


def test_the_ledger_goes_down_between_request_and_decision(consortium: ScenarioConsortium, person: Person) -> None:
    consortium.grant(person)
    with consortium.recorded("b") as node, pytest.MonkeyPatch.context() as patch:
        post = node.peers.post

        def cutting(org: str, path: str, body: bytes, **more: Any) -> bytes:
            if path == REQUEST_PATH:
                consortium.ledger_link.cut()
            return post(org, path, body, **more)

        patch.setattr(node.peers, "post", cutting)
        try:
            with consortium.asked_once():
                outcome = only(node.exchange.lookup(ID_CARD_SYSTEM, person.number, "HOPERAT"))
        finally:
            consortium.ledger_link.mend()
    assert outcome.status == "unavailable"
    consortium.leaves(outcome.request, Told(ASKED, b=[INTERRUPTED]))
    assert consortium.kept(outcome.request) == 0


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
    consortium.leaves(outcome.request, HANDED_OVER)


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
    consortium.leaves(known.request, HANDED_OVER)
    assert only(consortium.lookup(person)).status == "received"


# --- who is out


def test_a_suspended_member(consortium: ScenarioConsortium, person: Person) -> None:
    """A holder that has just found the ledger silent goes by what it knew for a moment, which is waited for."""
    consortium.grant(person, to=("b", "s"))
    assert only(consortium.lookup(person, org="s")).status == "received"
    consortium.suspend("s")
    wait_for(lambda: turned_away(consortium), "the holder knowing of the suspension", 60)
    before, refusals = consortium.accesses(), consortium.refusals("a")
    with pytest.raises((PeerError, ChainError)):
        consortium.lookup(person, org="s")
    asked = turned_away(consortium)
    assert asked is not None
    with consortium.recorded("s") as node, pytest.raises((PeerError, ChainError)):
        node.chain.state("validators")
    assert consortium.accesses() == before
    consortium.leaves(asked.id, NOTHING)
    assert consortium.audits("s", asked.id) == []
    told = Counter(consortium.refusals("a")) - Counter(refusals)  # none where TLS let nothing through
    assert set(told) <= {(consortium["s"].org, "suspended-member")}


def turned_away(consortium: ScenarioConsortium) -> access_request.SignedRequest | None:
    """Let the suspended member ask "a" for treatment; return the request if it was not even looked at."""
    with consortium.recorded("s") as node:
        asked = access_request.build(
            chain="scenario", requester=node.signer.org, key=node.signer.sign, holder=consortium["a"].org,
            pid="1." + "0" * 64, purpose="TREAT", now=int(time.time()),
        )  # fmt: skip
        with pytest.raises(PeerError) as caught:
            node.peers.post(consortium["a"].org, REQUEST_PATH, asked.dump())
    decided = isinstance(caught.value, PeerRejected) and caught.value.code == "not-permitted"
    return None if decided else asked


# --- what the patient is shown of it


def test_the_patient_sees_who_asked_and_who_saw(consortium: ScenarioConsortium, person: Person) -> None:
    consortium.grant(person)
    request = only(consortium.lookup(person)).request
    consortium.leaves(request, HANDED_OVER)
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
