"""What a permitted lookup brings, and what both sides and the ledger know of it afterwards. Real HTTP, real ledger."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class

from anchor import canonical
from anchor.gm import sm3
from anchor.trust import Trust
from anchor.verify import verify_receipt
from bridge.services.release_pages import manifest_digest
from tests.exchange_world import (
    AUTHORITY,
    CHAIN,
    LINEAGE,
    NAME,
    OTHER,
    PERSON,
    A,
    B,
    World,
    observation,
    patient,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    directory = tmp_path / "consortium"
    directory.mkdir()
    made = World(directory)
    made[A].store(patient(), observation("o1", valueQuantity={"value": 5}), observation("o2", day="2025-12-31"))
    assert made[A].parts.register() == 1
    yield made
    made.close()


def originals(result: Any) -> set[str]:
    return {record.original.split("/_history")[0] for outcome in result.holders for record in outcome.records}


def test_a_granted_lookup_brings_every_record_with_its_receipt(world: World) -> None:
    grant = world.grant()
    result = world.lookup(grant=grant.id)
    (outcome,) = result.holders
    assert (outcome.status, outcome.holder, outcome.gap) == ("received", A, False)
    assert originals(result) == {"Patient/p1", "Observation/o1", "Observation/o2"}
    assert {record.receipt for record in outcome.records} <= {"committed", "witnessed"}

    state = world[B].chain.state(f"request/{outcome.request}")
    assert (state["status"], state["grant"], state["receive"]["status"]) == ("received", grant.id, "verified")
    assert state["release"]["disclosed"] == outcome.disclosed
    assert (state["release"]["tx"], state["receive"]["tx"]) == (outcome.release_tx, outcome.receive_tx)


def test_copies_keep_their_origin_and_never_collide(world: World) -> None:
    world[B].store(patient(number=OTHER), observation("o1", valueQuantity={"value": 9}))  # B's own p1 and o1
    world.grant()
    (outcome,) = world.lookup().holders
    own = world[B].records.read("Observation", "o1").resource()
    assert own["valueQuantity"]["value"] == 9

    local = {record.original: record for record in outcome.records}
    record = local["Observation/o1/_history/1"]
    kind, id, _, version = record.local.split("/")
    copy = world[B].records.vread(kind, id, int(version)).resource()
    assert copy["meta"]["source"] == f"urn:yiqiao:org:{A}"
    assert {"system": "urn:yiqiao:original", "code": record.original} in copy["meta"]["tag"]
    patient_ref = local["Patient/p1/_history/1"].local.split("/_history")[0]
    assert copy["subject"]["reference"] == patient_ref

    original = world[A].records.read("Observation", "o1")
    assert record.digest == original.digest.hex()
    with world[B].engine.connect() as connection:
        row = connection.exec_driver_sql(
            "SELECT * FROM received_record WHERE original_ref = ?", (record.original,)
        ).one()
        place = f"{A}|{record.original}".encode()
        kept = world[B].keyring.open(connection, row.subject, row.content_sealed, b"received|" + place)
    assert kept == original.content

    provenance = world[B].records.read("Provenance", f"received-{outcome.request}").resource()
    assert {each["reference"] for each in provenance["target"]} == {each.local for each in outcome.records}
    assert provenance["agent"][0]["who"]["identifier"]["value"] == A


def test_numbers_and_bytes_survive_the_journey(world: World) -> None:
    exact = json.dumps(observation("o9", valueQuantity={"value": 1})).replace('"value": 1', '"value": 0.40')
    with world[A].engine.begin() as connection:
        world[A].records.put(connection, exact.encode(), LINEAGE, "Patient/p1")
    world.grant()
    (outcome,) = world.lookup().holders
    record = next(each for each in outcome.records if each.original.startswith("Observation/o9"))
    kind, id, _, version = record.local.split("/")
    assert b'"value":0.40' in world[B].records.vread(kind, id, int(version)).content


def test_both_sides_audit_what_happened(world: World) -> None:
    grant = world.grant()
    (outcome,) = world.lookup().holders
    at_a, at_b = world[A].audits(), world[B].audits()
    codes_a = sorted(event["type"]["code"] for event in at_a)
    assert codes_a == ["110106", "110113"]
    decision = next(event for event in at_a if event["type"]["code"] == "110113")
    assert decision["outcome"] == "0"
    assert grant.consent in json.dumps(decision)
    (received,) = at_b
    assert received["type"]["code"] == "110107"
    assert received["outcome"] == "0"
    for event in [*at_a, *at_b]:
        assert outcome.request in json.dumps(event)
        get_fhir_model_class("AuditEvent").model_validate(event)
        assert NAME not in json.dumps(event, ensure_ascii=False)
        assert PERSON not in json.dumps(event)


def test_the_disclosure_is_proven_offline(world: World) -> None:
    grant = world.grant()
    (outcome,) = world.lookup(grant=grant.id).holders
    members = world[A].chain.state_with_prefix("member/").values()
    trust = Trust.from_members(CHAIN, 1, (), members).dump()
    with world[A].engine.connect() as connection:
        sealed = connection.exec_driver_sql("SELECT request_sealed FROM disclosure").scalar_one()
        raw = world[A].keyring.open(connection, "node", sealed, f"request|{outcome.request}".encode())
    statement = canonical.load(raw)["statement"]
    from bridge.services.receipts import ReceiptService

    for org in (A, B):  # twin evidence: either side can make it
        site = world[org]
        service = ReceiptService(
            site.engine, site.keyring, site.chain, site.signer, org, world.clock, chain_id=CHAIN, records=site.records
        )
        receipt = service.for_disclosure(outcome.request, statement)
        report = verify_receipt(receipt, trust, minimum="committed")
        assert report.kind == "disclosure"


@pytest.mark.parametrize(
    ("granted", "asked", "expected"),
    [
        pytest.param({"categories": ("Observation",)}, {}, {"Observation/o1", "Observation/o2"}, id="by type"),
        pytest.param({"categories": ("laboratory",)}, {}, {"Observation/o1", "Observation/o2"}, id="by category"),
        pytest.param({"categories": ("condition",)}, {}, set(), id="a category without records"),
        pytest.param({"period": ("2026-01-01", None)}, {}, {"Observation/o1"}, id="by period"),
        pytest.param({}, {"categories": frozenset({"encounter"})}, set(), id="asked for less"),
        pytest.param({"purposes": ("TREAT", "HRESCH")}, {"purpose": "HRESCH"}, None, id="another granted purpose"),
    ],
)
def test_only_what_the_grant_covers_leaves(
    world: World, granted: dict[str, Any], asked: dict[str, Any], expected: set[str] | None
) -> None:
    world.grant(**granted)
    result = world.lookup(**asked)
    assert result.received
    everything = {"Observation/o1", "Observation/o2"}
    assert originals(result) == {"Patient/p1"} | (everything if expected is None else expected)


def test_labelled_records_stay_unless_granted(world: World) -> None:
    restricted = {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}]}
    world[A].store(observation("o3", meta=restricted))
    world.grant()
    assert "Observation/o3" not in originals(world.lookup())
    world.grant(labels=("R",))
    assert "Observation/o3" in originals(world.lookup())


def test_organisations_that_records_refer_to_come_along(world: World) -> None:
    organisation = {"resourceType": "Organization", "id": "o1", "name": "测试医院"}
    with world[A].engine.begin() as connection:
        world[A].records.put(connection, organisation, LINEAGE, "node")
    world.grant()
    assert "Organization/o1" in originals(world.lookup())


def test_a_repeated_request_gets_the_same_envelope_and_one_release(world: World) -> None:
    world.grant()
    sent: list[tuple[bytes, bytes]] = []
    peers = world[B].peers
    post = peers.post

    def twice(org: str, path: str, body: bytes, **more: Any) -> bytes:
        first = post(org, path, body, **more)
        if path.endswith("/requests"):
            sent.append((first, post(org, path, body, **more)))
        return first

    peers.post = twice  # type: ignore[method-assign]
    (outcome,) = world.lookup().holders
    assert outcome.status == "received"
    first, second = (base64.b64decode(json.loads(answer)["envelope"]) for answer in sent[0])
    assert first == second
    releases = world.ledger_bytes().count(b'"type":"access.release"')
    assert releases == 1
    released = world[B].chain.state(f"request/{outcome.request}")["release"]
    assert released["commitment"] == manifest_digest(outcome.request, [sm3(first).hex()])


def test_an_updated_record_arrives_as_a_new_version(world: World) -> None:
    world.grant()
    world.lookup()
    world[A].store(observation("o1", valueQuantity={"value": 6}))
    (outcome,) = world.lookup().holders
    versions = {record.original: record.local for record in outcome.records}
    assert versions["Observation/o1/_history/2"].endswith("/_history/2")
    assert versions["Observation/o2/_history/1"].endswith("/_history/1")  # unchanged: no new version here either


def test_an_emergency_needs_no_grant_and_opens_a_review(world: World) -> None:
    (outcome,) = world.lookup(emergency="BTG", reason="昏迷，无法取得同意", practitioner="值班医师").holders
    assert outcome.status == "received"
    state = world[A].chain.state(f"request/{outcome.request}")
    assert state["kind"] == "emergency"
    assert state["review"]["outcome"] is None
    task = world[A].records.read("Task", f"review-{outcome.request}").resource()
    get_fhir_model_class("Task").model_validate(task)
    assert task["reasonCode"]["text"] == "昏迷，无法取得同意"
    decision = next(event for event in world[A].audits() if event["type"]["code"] == "110113")
    assert "BTG" in json.dumps(decision)


def test_no_one_else_is_a_holder_of_copies(world: World) -> None:
    """B does not register or release what it received."""
    world.grant()
    world.lookup()
    assert world[B].parts.register() == 0
    assert world[A].parts.exchange.lookup("urn:oid:2.16.156.10011.1.3", PERSON, "TREAT").holders == ()


def test_nothing_about_the_patient_is_on_the_ledger(world: World) -> None:
    world.grant()
    world.lookup()
    world.lookup(emergency="BTG", reason="昏迷，无法取得同意")
    world.lookup(purpose="HRESCH")
    ledger = world.ledger_bytes()
    assert b"access.release" in ledger
    pids = world[AUTHORITY].scalars("SELECT pid FROM localisation")
    for secret in (PERSON, NAME, "葡萄糖", "昏迷", "Patient/", *pids, *(pid.split(".")[1] for pid in pids)):
        assert secret.encode() not in ledger, secret
    for text in (PERSON, NAME):
        assert sm3(text.encode()).hex().encode() not in ledger
    digests = {world[A].records.read(kind, id).digest.hex() for kind, id in (("Patient", "p1"), ("Observation", "o1"))}
    assert not any(digest.encode() in ledger for digest in digests)


def test_the_consent_is_a_valid_resource_with_its_limits(world: World) -> None:
    grant = world.grant(categories=("laboratory", "Encounter"), labels=("R",), period=("2026-01-01", "2026-12-31"))
    consent = world[A].records.read("Consent", grant.consent.split("/")[1]).resource()
    get_fhir_model_class("Consent").model_validate(consent)
    provision = consent["provision"]["provision"][0]
    assert provision["class"][0]["code"] == "Encounter"
    assert provision["dataPeriod"] == {"start": "2026-01-01", "end": "2026-12-31"}
    world[A].parts.consent.revoke(grant.id)
    assert world[A].records.read("Consent", grant.consent.split("/")[1]).resource()["status"] == "inactive"
