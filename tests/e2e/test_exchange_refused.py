"""Lookups that bring nothing, or only what may be taken without the ledger; and what each leaves behind."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from anchor import canonical
from anchor.errors import ChainUnavailable, TransactionRejected
from bridge.errors import DisclosureRefused, Overloaded, PeerError, PeerRejected
from bridge.services import access_request
from bridge.services.exchange import REQUEST_PATH
from bridge.services.record_signature import signed_provenance
from tests.exchange_world import AUTHORITY, CHAIN, OTHER, PERSON, A, B, World, keys, observation, patient, resident


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("bridge.services.exchange.RETRY_SECONDS", 0.01)
    directory = tmp_path / "consortium"
    directory.mkdir()
    made = World(directory)
    made[A].store(patient(), observation("o1"))
    made[A].parts.register()
    yield made
    made.close()


def nothing_stored(world: World) -> bool:
    return world[B].scalars("SELECT count(*) FROM received_record") == [0]


def rules(world: World) -> list[str]:
    return world[A].scalars("SELECT reason FROM disclosure ORDER BY created, request_id")


def revoked(world: World) -> None:
    world[A].parts.consent.revoke(world.grant().id)


def expired(world: World) -> None:
    world.grant(seconds=100)
    world.tick(101)


def to_another(world: World) -> None:
    world.grant(to=(AUTHORITY,))


def for_research(world: World) -> None:
    world.grant(purposes=("HRESCH",))


def later(world: World) -> None:
    world.grant(valid_from=int(world.clock()) + 600)


def nothing(_: World) -> None:
    pass


@pytest.mark.parametrize(
    ("before", "asked", "rule"),
    [
        pytest.param(nothing, {}, "no-grant", id="no grant"),
        pytest.param(revoked, {}, "grant-revoked", id="revoked"),
        pytest.param(expired, {}, "grant-expired", id="expired"),
        pytest.param(later, {}, "grant-not-yet-valid", id="not yet valid"),
        pytest.param(to_another, {}, "wrong-grantee", id="granted to another"),
        pytest.param(for_research, {}, "wrong-purpose", id="another purpose"),
        pytest.param(nothing, {"emergency": "BTG", "reason": "急诊抢救", "role": "clerk"}, "emergency-role", id="role"),
    ],
)
def test_denied(world: World, before: Callable[[World], None], asked: dict[str, Any], rule: str) -> None:
    before(world)
    (outcome,) = world.lookup(**asked).holders
    assert (outcome.status, outcome.code) == ("denied", "not-permitted")
    assert nothing_stored(world)
    assert rules(world) == [rule]
    assert rule not in outcome.message

    state = world[A].chain.state(f"request/{outcome.request}")
    assert (state["status"], state["deny"]["reason"]) == ("denied", "not-permitted")
    (at_a,) = world[A].audits()
    assert at_a["outcome"] == "8"
    assert at_a["outcomeDesc"].startswith(f"denied: {rule}")
    (at_b,) = world[B].audits()
    assert at_b["outcome"] == "8"


def test_no_such_patient_and_not_allowed_are_one_answer(world: World) -> None:
    """A member that guesses a pseudonym learns nothing from the holder."""
    (refused,) = world.lookup().holders
    (pid,) = world[B].parts.pseudonyms.compute(B, "default", [("urn:oid:2.16.156.10011.1.3", resident(31999))])
    world.tick()
    answers = []
    for asked in (refused.request, None):
        if asked is None:
            asked = _asked(world, pid=pid).id
        state = world[B].chain.state(f"request/{asked}")
        answers.append({name: state[name] for name in ("status", "grant", "release")} | {"r": state["deny"]["reason"]})
    assert answers[0] == answers[1]
    assert rules(world) == ["no-grant", "no-patient"]


def _asked(world: World, *, key: Any = None, commit: bool = True, **changes: Any) -> access_request.SignedRequest:
    """Send a request made by hand; expects a refusal."""
    values = {
        "chain": CHAIN,
        "requester": B,
        "key": key or keys(B)[0],
        "holder": A,
        "pid": "1." + "0" * 64,
        "purpose": "TREAT",
        "now": int(world.clock()),
    } | changes
    asked = access_request.build(**values)
    if commit:
        body = {"request": asked.id, "holder": A, "purpose": values["purpose"], "commitment": asked.commitment}
        world[B].submitter.submit("access.request", body)
    with pytest.raises(PeerRejected) as caught:
        world[B].peers.post(A, REQUEST_PATH, asked.dump())
    assert caught.value.code == "not-permitted"
    return asked


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"commit": False}, "not-on-ledger", id="never put on the ledger"),
        pytest.param({"key": keys(A)[0]}, "unknown-key", id="signed by another's key"),
        pytest.param({"requester": AUTHORITY}, "wrong-party", id="in another's name"),
        pytest.param({"holder": AUTHORITY}, "wrong-party", id="meant for another holder"),
        pytest.param({"chain": "other"}, "wrong-party", id="of another chain"),
    ],
)
def test_forged_requests_are_refused_before_anything_is_decided(world: World, changes: Any, code: str) -> None:
    asked = _asked(world, **changes)
    assert world[A].scalars("SELECT count(*) FROM disclosure") == [0]
    with pytest.raises(DisclosureRefused) as caught:
        world[A].parts.exchange.answer(asked.dump(), B)
    assert caught.value.code == code


def test_a_stale_request_is_refused(world: World) -> None:
    asked = access_request.build(
        chain=CHAIN,
        requester=B,
        key=keys(B)[0],
        holder=A,
        pid="1." + "0" * 64,
        purpose="TREAT",
        now=int(world.clock()),
    )
    world.tick(access_request.MAX_AGE_SECONDS + 1)
    with pytest.raises(DisclosureRefused) as caught:
        world[A].parts.exchange.answer(asked.dump(), B)
    assert caught.value.code == "stale"


def test_a_suspended_member_gets_nowhere(world: World) -> None:
    world.grant()
    world.suspend(B)
    world.tick(5)
    with pytest.raises(PeerError):
        world.lookup()
    assert nothing_stored(world)


def test_after_revocation_a_repetition_is_refused_too(world: World) -> None:
    grant = world.grant()
    post, sent = world[B].peers.post, _remembering(world)
    assert world.lookup().received
    world[A].parts.consent.revoke(grant.id)
    world.tick()
    with pytest.raises(PeerRejected) as caught:
        post(A, REQUEST_PATH, sent[-1])
    assert caught.value.code == "not-permitted"
    assert any("repeated request denied" in event.get("outcomeDesc", "") for event in world[A].audits())


def test_a_grant_revoked_between_permission_and_release_stops_it(world: World) -> None:
    grant = world.grant()
    content = world[A].parts.exchange._release._sealer._content  # type: ignore[attr-defined]
    pages = content.pages

    def revoking(*arguments: Any) -> Any:
        world[A].submitter.submit("consent.revoke", {"grant": grant.id})
        return pages(*arguments)

    content.pages = revoking
    (outcome,) = world.lookup().holders
    assert outcome.code == "not-permitted"
    assert rules(world) == ["ledger:grant-revoked"]
    assert world[A].scalars("SELECT count(*) FROM release_page") == [0]
    assert world[A].chain.state(f"request/{outcome.request}")["release"] is None
    assert nothing_stored(world)


# --- what arrives is not what left


def _meddled(world: World, change: Callable[[dict[str, Any]], None]) -> Any:
    post = world[B].peers.post

    def meddling(org: str, path: str, body: bytes, **more: Any) -> bytes:
        answer = post(org, path, body, **more)
        if path != REQUEST_PATH:
            return answer
        value = json.loads(answer)
        change(value)
        return json.dumps(value).encode()

    world[B].peers.post = meddling  # type: ignore[method-assign]
    world.grant()
    (outcome,) = world.lookup().holders
    return outcome


def _flip(value: dict[str, Any]) -> None:
    envelope = bytearray(base64.b64decode(value["envelope"]))
    envelope[len(envelope) // 2] ^= 1
    value["envelope"] = base64.b64encode(envelope).decode()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(_flip, "envelope-does-not-open", id="a bit flipped"),
        pytest.param(lambda v: v.update(envelope="AAAA"), "envelope-malformed", id="no envelope"),
        pytest.param(lambda v: v.update(request="0" * 32), "bad-answer", id="another request's answer"),
        pytest.param(lambda v: v.pop("envelope"), "bad-answer", id="nothing"),
    ],
)
def test_an_altered_answer_is_rejected_and_said_so(world: World, change: Any, code: str) -> None:
    outcome = _meddled(world, change)
    assert (outcome.status, outcome.code) == ("rejected", code)
    assert nothing_stored(world)
    assert world[A].chain.state(f"request/{outcome.request}")["receive"]["status"] == "rejected"
    assert world[B].scalars("SELECT state FROM exchange_request") == ["rejected"]


def _sealing(world: World, change: Callable[[dict[str, Any]], None]) -> Any:
    """Let the holder seal a content that was changed after its receipts were made."""
    builder = world[A].parts.exchange._release._sealer._content  # type: ignore[attr-defined]
    pages = builder.pages

    def changed(*arguments: Any) -> Any:
        for content in pages(*arguments):
            value = canonical.load(content.plaintext)
            change(value)
            yield replace(content, plaintext=canonical.dump(value))

    builder.pages = changed
    world.grant()
    (outcome,) = world.lookup().holders
    return outcome


def _alter_value(value: dict[str, Any]) -> None:
    for entry in value["bundle"]["entry"]:
        if entry["resource"]["resourceType"] == "Observation":
            entry["resource"]["valueQuantity"]["value"] = 50


def _drop_record(value: dict[str, Any]) -> None:
    value["bundle"]["entry"].pop(0)
    value["receipts"].pop(0)


def _signed(value: dict[str, Any], org: str) -> None:
    targets = [
        (each["what"]["reference"], each["what"]["identifier"]["value"]) for each in value["provenance"]["entity"]
    ]
    kept = [entry["resource"] for entry in value["bundle"]["entry"]]
    refs = [f"{each['resourceType']}/{each['id']}/_history/{each['meta']['versionId']}" for each in kept]
    value["provenance"] = signed_provenance(
        [target for target in targets if target[0] in refs],
        id=value["provenance"]["id"],
        org=A,
        name="A",
        chain=CHAIN,
        key=keys(org)[0],
        now=1_790_000_000,
    )


def _drop_and_sign(value: dict[str, Any]) -> None:
    _drop_record(value)
    _signed(value, A)


def _signed_by_another(value: dict[str, Any]) -> None:
    _signed(value, B)


def _signature_altered(value: dict[str, Any]) -> None:
    signature = value["provenance"]["signature"][0]
    data = bytearray(base64.b64decode(signature["data"]))
    data[-1] ^= 1
    signature["data"] = base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(_alter_value, "receipt-invalid", id="a value altered"),
        pytest.param(lambda v: v["receipts"].reverse(), "receipt-invalid", id="receipts swapped"),
        pytest.param(lambda v: v["receipts"].pop(), "receipt-missing", id="a receipt left out"),
        pytest.param(_drop_record, "signature-of-other-records", id="a record left out with its receipt"),
        pytest.param(_drop_and_sign, "release-differs", id="and signed for"),
        pytest.param(lambda v: v.update(provenance=None), "signature-missing", id="not signed"),
        pytest.param(_signed_by_another, "signature-invalid", id="signed by another member"),
        pytest.param(_signature_altered, "signature-invalid", id="the signature altered"),
        pytest.param(lambda v: v.update(request="0" * 32), "content-of-another-request", id="of another request"),
        pytest.param(lambda v: v["bundle"]["entry"].reverse(), "receipt-invalid", id="order changed"),
    ],
)
def test_a_holder_that_cheats_is_found_out(world: World, change: Any, code: str) -> None:
    outcome = _sealing(world, change)
    assert (outcome.status, outcome.code) == ("rejected", code)
    assert nothing_stored(world)
    assert [event["outcome"] for event in world[B].audits()] == ["8"]


# --- the ledger does not answer in time


def _deaf(world: World, *types: str) -> None:
    submit = world[A].submitter.submit

    def deaf(type: str, body: Any, *more: Any) -> Any:
        if type in types:
            raise ChainUnavailable("no answer")
        return submit(type, body, *more)

    world[A].submitter.submit = deaf  # type: ignore[method-assign]


def test_treatment_goes_on_without_the_ledger_and_the_gap_is_reported(world: World) -> None:
    world.grant()
    submit = world[A].submitter.submit
    _deaf(world, "access.release")
    (outcome,) = world.lookup().holders
    assert (outcome.status, outcome.gap, outcome.release_tx) == ("received", True, None)
    (gap,) = world[A].parts.events.gaps()
    assert (gap["type"], gap["state"], gap["request"]) == ("access.release", "queued", outcome.request)
    assert world[B].parts.settle() == 0  # the release is not there yet: nothing to confirm

    world[A].submitter.submit = submit  # type: ignore[method-assign]
    world.tick(60)
    assert world[A].parts.settle() == 1
    assert world[B].parts.settle() == 1
    assert world[A].parts.events.gaps() == []
    state = world[A].chain.state(f"request/{outcome.request}")
    assert (state["status"], state["receive"]["status"]) == ("received", "verified")
    assert state["release"]["disclosed"] == outcome.disclosed


def test_what_is_not_treatment_waits_for_the_ledger(world: World) -> None:
    world.grant(purposes=("HRESCH",))
    _deaf(world, "access.release")
    (outcome,) = world.lookup(purpose="HRESCH").holders
    assert outcome.status == "unavailable"
    assert nothing_stored(world)
    assert world[A].parts.events.gaps() == []


def test_a_forged_statement_of_a_queued_release_is_not_believed(world: World) -> None:
    _deaf(world, "access.release")
    outcome = _meddled(world, lambda value: value["gap"].update(sig="0" * 128))
    assert (outcome.status, outcome.code) == ("rejected", "release-missing")
    assert nothing_stored(world)


def _remembering(world: World) -> list[bytes]:
    """Keep what B sends."""
    sent: list[bytes] = []
    post = world[B].peers.post

    def remembering(org: str, path: str, body: bytes, **more: Any) -> bytes:
        sent.append(body)
        return post(org, path, body, **more)

    world[B].peers.post = remembering  # type: ignore[method-assign]
    return sent


@pytest.mark.parametrize(
    ("step", "state"),
    [
        pytest.param("_release", "sealed", id="before the release"),
        pytest.param("_seal", "permitted", id="before sealing"),
        pytest.param("_basis.judge", "deciding", id="before the decision"),
    ],
)
def test_a_request_left_half_way_is_finished_by_its_repetition(world: World, step: str, state: str) -> None:
    world.grant()
    post, sent = world[B].peers.post, _remembering(world)
    owner, _, step = f"_release.{step}".rpartition(".")
    release = attrgetter(owner)(world[A].parts.exchange)
    finish = getattr(release, step)

    def fail(*_: Any, **__: Any) -> Any:
        raise Overloaded("something gave way here")

    setattr(release, step, fail)
    assert world.lookup().holders[0].status == "unavailable"
    assert world[A].scalars("SELECT state FROM disclosure") == [state]

    setattr(release, step, finish)
    answer = json.loads(post(A, REQUEST_PATH, sent[-1]))
    assert answer["release"]
    assert world[A].scalars("SELECT state FROM disclosure") == ["released"]
    assert world.ledger_bytes().count(b'"type":"access.release"') == 1


def test_a_request_in_hand_is_not_decided_twice(world: World) -> None:
    world.grant()
    asked = access_request.build(
        chain=CHAIN,
        requester=B,
        key=keys(B)[0],
        holder=A,
        pid="1." + "0" * 64,
        purpose="TREAT",
        now=int(world.clock()),
    )
    body = {"request": asked.id, "holder": A, "purpose": "TREAT", "commitment": asked.commitment}
    world[B].submitter.submit("access.request", body)
    facts = {"requester": B, "purpose": "TREAT", "digest": _digest(asked), "raw": asked.dump()}
    store: Any = world[A].parts.exchange._release._store  # type: ignore[attr-defined]
    with world[A].engine.begin() as connection:
        store.begin(connection, asked.id, **facts, now=int(world.clock()))
    with pytest.raises(Overloaded):
        world[A].parts.exchange.answer(asked.dump(), B)
    world.tick(91)  # the process that had it is gone
    with pytest.raises(DisclosureRefused):
        world[A].parts.exchange.answer(asked.dump(), B)
    assert rules(world) == ["no-patient"]


def _digest(asked: access_request.SignedRequest) -> str:
    from anchor.gm import sm3

    return sm3(asked.dump()).hex()


# --- finding whom to ask


def test_nobody_holds_records_of_a_stranger(world: World) -> None:
    assert world.lookup(person=OTHER).holders == ()


def test_a_withdrawn_patient_is_not_found(world: World) -> None:
    from anchor.gm import sm3
    from bridge.storage.records import Lineage

    with world[A].engine.begin() as connection:
        world[A].records.delete(connection, "Patient", "p1", Lineage("his", sm3(b"gone"), "hl7v2/1.0"))
    world.tick()
    assert world[A].parts.register() == 1
    assert world.lookup().holders == ()
    assert world[AUTHORITY].scalars("SELECT count(*) FROM localisation") == [0]


def test_a_hospital_is_no_card_authority(world: World) -> None:
    for path, body in (("/exchange/v1/locate", {"pid": "1." + "0" * 64}), ("/exchange/v1/pseudonyms", {})):
        with pytest.raises(PeerRejected) as caught:
            world[B].peers.post(A, path, canonical.dump(body))
        assert caught.value.code == "not-offered"


def test_the_ledgers_refusal_of_a_request_ends_the_lookup(world: World) -> None:
    def refusing(*_: Any, **__: Any) -> Any:
        raise TransactionRejected("not-authorised", "this role may not ask")

    world[B].parts.events.commit = refusing  # type: ignore[method-assign]
    (outcome,) = world.lookup().holders
    assert (outcome.status, outcome.code) == ("denied", "not-authorised")


def test_a_grant_that_is_not_of_a_holder_of_the_patient_finds_nobody(world: World) -> None:
    grant = world.grant()
    assert world.lookup(person=PERSON, grant=grant.id).received
    assert world.lookup(person=OTHER, grant=grant.id).holders == ()


def test_every_refusal_is_in_the_holders_audit(world: World) -> None:
    """A denied request that comes again, an id that is used for another request, a request in another's name."""
    sent: list[bytes] = []
    post = world[B].peers.post

    def keeping(org: str, path: str, body: bytes, **more: Any) -> bytes:
        if path == REQUEST_PATH:
            sent.append(body)
        return post(org, path, body, **more)

    world[B].peers.post = keeping  # type: ignore[method-assign]
    world.lookup()
    exchange, (raw,) = world[A].parts.exchange, sent
    asked = access_request.parse(raw)
    other = canonical.load(raw)["statement"] | {"reason": "another"}
    forged = access_request.SignedRequest(other, asked.key, keys(B)[0].sign(canonical.dump(other)))
    for body, caller in ((raw, B), (forged.dump(), B), (raw, AUTHORITY)):
        with pytest.raises(DisclosureRefused):
            exchange.answer(body, caller)
    told = [each.get("outcomeDesc", "") for each in world[A].audits()]
    for expected in ("denied: no-grant", "repeated request denied: no-grant", "request refused: not-on-ledger",
                     "request refused: wrong-party"):  # fmt: skip
        assert sum(each.startswith(expected) for each in told) == 1, (expected, told)
