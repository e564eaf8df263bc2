"""FHIR that a source sends: ids of this node, references resolved, refusals by FHIRPath without content."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters import SourceProfile, convert, detect_format, messages
from fhir_adapters.errors import AdapterError
from fhir_adapters.fhir_json.bundle import UNRESOLVED
from fhir_adapters.fhir_json.naming import local_id, local_system

PROFILE = SourceProfile(name="t", base_url="https://node.example/fhir", default_authority="EMR")
MRN = {"system": "urn:oid:2.16.156.10011.1.13", "value": "SECRET-77"}
PATIENT = {"resourceType": "Patient", "id": "p1", "identifier": [MRN], "gender": "female"}
NAMELESS = {"resourceType": "Patient", "id": "p1", "gender": "female"}


def observation(subject: str = "Patient/p1", **more: Any) -> dict[str, Any]:
    made = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": subject}}
    return {**made, **more}


def bundle(kind: str, *entries: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def post(resource: dict[str, Any], full_url: str = "", **request: Any) -> dict[str, Any]:
    made = {"resource": resource, "request": {"method": "POST", "url": resource["resourceType"], **request}}
    return {"fullUrl": full_url, **made} if full_url else made


def put(resource: dict[str, Any], **request: Any) -> dict[str, Any]:
    url = f"{resource['resourceType']}/{resource.get('id')}"
    return {"resource": resource, "request": {"method": "PUT", "url": url, **request}}


def converted(value: Any) -> tuple[list[dict[str, Any]], list[Any]]:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    result = convert(raw, "fhir", PROFILE)
    made = json.loads(result.to_json()).get("entry", [])
    assert all(
        each["request"]["url"] == f"{each['resource']['resourceType']}/{each['resource']['id']}" for each in made
    )
    return [each for each in made if each["resource"]["resourceType"] != "Provenance"], list(result.issues)


def test_an_identifier_gives_the_id_that_other_adapters_give() -> None:
    hl7 = b"MSH|^~\\&|H|A|||20260101||ADT^A28|1|P|2.4\rPID|1||SECRET-77^^^&2.16.156.10011.1.13&ISO||A\r"
    made = json.loads(convert(hl7, "hl7v2", PROFILE).to_json())["entry"]
    of_hl7 = next(each["resource"]["id"] for each in made if each["resource"]["resourceType"] == "Patient")
    [sent], _ = converted(PATIENT)
    assert sent["resource"]["id"] == of_hl7
    assert {"system": local_system(PROFILE, "Patient"), "value": "p1"} in sent["resource"]["identifier"]


def test_a_sources_own_ids_are_put_into_a_namespace() -> None:
    [sent], _ = converted(NAMELESS)
    assert sent["resource"]["id"] == local_id(PROFILE, "Patient", "p1") != "p1"
    other = SourceProfile(name="t", base_url=PROFILE.base_url, default_authority="OTHER")
    elsewhere = json.loads(convert(json.dumps(NAMELESS).encode(), "fhir", other).to_json())["entry"][0]
    assert elsewhere["resource"]["id"] != sent["resource"]["id"]


def test_an_id_that_this_node_gave_stays() -> None:
    own = local_id(PROFILE, "Patient", "p1")
    [sent], _ = converted({**PATIENT, "id": own})
    assert sent["resource"] == {**PATIENT, "id": own}


@pytest.mark.parametrize("kind", ["transaction", "batch", "collection", "document"])
@pytest.mark.parametrize(
    ("full_url", "reference"),
    [
        pytest.param("urn:uuid:11111111-1111-1111-1111-111111111111", None, id="urn"),
        pytest.param("https://emr.example/fhir/Patient/p1", None, id="absolute"),
        pytest.param("https://emr.example/fhir/Patient/p1", "Patient/p1", id="relative to the same server"),
        pytest.param("https://emr.example/fhir/Patient/p1", "Patient/p1/_history/3", id="a version"),
    ],
)
def test_references_within_a_bundle_are_resolved(kind: str, full_url: str, reference: str | None) -> None:
    entries = (post(PATIENT, full_url), post(observation(reference or full_url)))
    sent, issues = converted(bundle(kind, *entries))
    assert sent[1]["resource"]["subject"]["reference"] == sent[0]["request"]["url"]
    assert not issues


def test_a_reference_beyond_the_bundle_stays_and_is_remarked_on() -> None:
    [sent], issues = converted(observation("Patient/other"))
    assert sent["resource"]["subject"]["reference"] == "Patient/other"
    assert [issue.code for issue in issues] == [UNRESOLVED]


def test_numbers_keep_their_digits_and_versions_of_another_server_go() -> None:
    raw = json.dumps({**observation(), "meta": {"versionId": "9", "lastUpdated": "x", "source": "urn:s"}})
    raw = raw[:-1] + ',"valueQuantity":{"value":0.40}}'
    result = convert(raw.encode(), "fhir", PROFILE).to_json()
    assert b'"value":0.40' in result
    assert b'"meta":{"source":"urn:s"}' in result


def test_the_same_bytes_give_the_same_bundle() -> None:
    raw = json.dumps(bundle("collection", {"resource": PATIENT}, {"resource": observation()})).encode()
    assert convert(raw, "fhir", PROFILE).to_json() == convert(raw, "fhir", PROFILE).to_json()


def test_entries_of_one_identifier_that_say_different_things_are_kept_apart() -> None:
    same = [{"system": "urn:s", "value": "1"}]
    first = {**observation(), "id": "a", "identifier": same}
    second = {**observation(), "id": "b", "identifier": same, "valueString": "y"}
    sent, issues = converted(bundle("collection", {"resource": PATIENT}, {"resource": first}, {"resource": second}))
    assert len({each["resource"]["id"] for each in sent}) == 3
    assert [issue.code for issue in issues] == ["repeated-identifier"]


def test_conditions_are_kept_for_the_store() -> None:
    condition = "identifier=urn:oid:2.16.156.10011.1.13|SECRET-77"
    sent, _ = converted(bundle("transaction", post(PATIENT, ifNoneExist=condition)))
    assert sent[0]["request"]["ifNoneExist"] == condition
    sent, _ = converted(bundle("transaction", put(NAMELESS, ifNoneMatch="*")))
    assert sent[0]["request"]["ifNoneMatch"] == "*"


BAD_DATE = {**PATIENT, "birthDate": "SECRET-77"}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        pytest.param(BAD_DATE, "Patient.birthDate", id="a resource"),
        pytest.param(bundle("transaction", put(BAD_DATE)), "Bundle.entry[0].resource.birthDate", id="an entry"),
        pytest.param({**observation(), "status": "SECRET-77"}, "Observation.status", id="a code outside its value set"),
        pytest.param({**PATIENT, "SECRET-77": 1}, "Patient.SECRET-77", id="an element that does not exist"),
        pytest.param({"resourceType": "SECRET-77"}, "Resource.resourceType", id="no type"),
        pytest.param(bundle("searchset"), "Bundle.type", id="a searchset"),
        pytest.param(bundle("transaction", {"resource": PATIENT}), "Bundle.entry[0]", id="no request"),
        pytest.param(
            bundle("transaction", {**put(PATIENT), "request": {"method": "DELETE", "url": "Patient/p1"}}),
            "Bundle.entry[0].request.method",
            id="a deletion",
        ),
        pytest.param(
            bundle("transaction", {**put(PATIENT), "request": {"method": "PUT", "url": "Patient/p2"}}),
            "Bundle.entry[0].resource.id",
            id="another id than the url",
        ),
        pytest.param(
            bundle("transaction", post(PATIENT, ifNoneExist="name=SECRET-77")),
            "Bundle.entry[0].request.ifNoneExist",
            id="a condition that is not offered",
        ),
        pytest.param(
            bundle("transaction", post(observation("urn:uuid:11111111-1111-1111-1111-111111111111"))),
            "Bundle.entry[0].resource",
            id="a urn that nothing has",
        ),
        pytest.param(bundle("transaction", post({"resourceType": "Consent"})), "Bundle.entry[0].resource", id="a type"),
        pytest.param(b'{"resourceType":"Patient","id":"a","id":"b"}', "", id="a property twice"),
        pytest.param(b'{"resourceType":"Patient","x":NaN}', "", id="NaN"),
        pytest.param(b"[" * 5000, "", id="deep"),
        pytest.param(b'{"a":' * 300 + b"1" + b"}" * 300, "", id="deep objects"),
        pytest.param(b"\xff{}", "byte 0", id="not UTF-8"),
        pytest.param(b"{", "line 1", id="cut off"),
    ],
)
def test_a_refusal_names_the_path_and_not_the_data(value: Any, place: str) -> None:
    with pytest.raises(AdapterError) as refused:
        converted(value)
    assert refused.value.location == place or (place.endswith("SECRET-77") and refused.value.location)
    assert "SECRET" not in str(refused.value) or place == "Patient.SECRET-77"


def test_a_batch_goes_without_the_entries_at_fault() -> None:
    sent, issues = converted(bundle("batch", put(PATIENT), put({**BAD_DATE, "id": "p2"})))
    assert len(sent) == 1
    assert [(each.severity, each.location) for each in issues] == [("error", "Bundle.entry[1].resource.birthDate")]


def test_a_document_goes_without_what_no_client_writes() -> None:
    sent, issues = converted(bundle("document", {"resource": PATIENT}, {"resource": {"resourceType": "Consent"}}))
    assert len(sent) == 1
    assert [issue.code for issue in issues] == ["not-taken"]


def test_ndjson_is_one_resource_a_line() -> None:
    lines = [json.dumps(each).encode() for each in (PATIENT, NAMELESS)]
    assert messages_of(b"\n".join(lines)) == lines
    assert messages_of(json.dumps(PATIENT, indent=2).encode()) == [json.dumps(PATIENT, indent=2).encode()]
    assert detect_format(b'\xef\xbb\xbf {"resourceType"') == "fhir"


def messages_of(raw: bytes) -> list[bytes]:
    return list(messages(raw, "fhir"))


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["resourceType", "type", "entry", "resource", "request", "url", "method", "id",
                                       "fullUrl", "identifier", "reference", "subject", "system", "value"]),
                      inner, max_size=6),
    max_leaves=20,
), st.sampled_from(["transaction", "batch", "collection", "Request"]))  # fmt: skip
def test_any_json_is_converted_or_refused(value: Any, kind: str) -> None:
    for each in (
        value,
        {"resourceType": "Bundle", "type": kind, "entry": [value], "resource": value, "request": value},
    ):
        try:
            convert(json.dumps(each).encode(), "fhir", PROFILE)
        except AdapterError:
            continue


def test_real_samples_are_taken_or_refused_by_path() -> None:
    folder = Path(os.environ.get("YIQIAO_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "fhir-r4"
    if not folder.is_dir():
        pytest.skip("no samples: set YIQIAO_SHARED")
    taken, places = 0, []
    for file in sorted(folder.glob("*.json")):
        try:
            convert(file.read_bytes(), "fhir", PROFILE)
            taken += 1
        except AdapterError as error:
            places.append(error.location)
    assert taken >= 200
    assert all(places)
