"""What the compiled validator takes and refuses, rule by rule."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fhir_adapters.errors import ValidationError
from fhir_adapters.json_lexeme import Lexeme
from fhir_adapters.validation import require_valid, validate, validate_bundle
from fhir_adapters.validation.structure import EMITTED_TYPES, pack, structure

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [{"system": "urn:oid:1.2.3", "value": "1"}],
    "name": [{"use": "official", "text": "张三"}],
    "gender": "male",
    "birthDate": "1990-03-07",
}
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "code": {"text": "Glucose"},
    "subject": {"reference": "Patient/p1"},
    "effectiveDateTime": "2026-01-02T08:00:00+08:00",
    "valueQuantity": {"value": Lexeme("6.10"), "unit": "mmol/L"},
}
REASON = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "error"}]}


def entry(resource: dict[str, Any]) -> dict[str, Any]:
    address = f"{resource['resourceType']}/{resource['id']}"
    return {
        "fullUrl": f"https://node.invalid/fhir/{address}",
        "resource": resource,
        "request": {"method": "PUT", "url": address},
    }


def bundle(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "transaction", "entry": [entry(each) for each in resources]}


@pytest.mark.parametrize(
    "resource",
    [
        pytest.param(PATIENT, id="patient"),
        pytest.param(OBSERVATION, id="observation with a lexeme"),
        pytest.param({**OBSERVATION, "valueQuantity": {"value": 6}}, id="whole number as decimal"),
        pytest.param({**PATIENT, "birthDate": "2020-02-29"}, id="leap day"),
        pytest.param({**PATIENT, "birthDate": "2000-02-29"}, id="leap day of a century"),
        pytest.param({**PATIENT, "birthDate": "1990"}, id="year"),
        pytest.param({**OBSERVATION, "effectiveDateTime": "2016-12-31T23:59:60Z"}, id="leap second"),
        pytest.param({**OBSERVATION, "effectiveDateTime": "2026-01-02T08:00:00.123456789+08:00"}, id="nanoseconds"),
        pytest.param({k: v for k, v in {**PATIENT, "_gender": REASON}.items() if k != "gender"}, id="primitive absent"),
        pytest.param(
            {k: v for k, v in {**OBSERVATION, "_status": REASON}.items() if k != "status"},
            id="required, absent with reason",
        ),
        pytest.param({**PATIENT, "name": [{"given": ["a", None], "_given": [None, REASON]}]}, id="hole in a list"),
        pytest.param({**PATIENT, "link": [{"other": {"reference": "Patient/x"}, "type": "seealso"}]}, id="link"),
        pytest.param(
            {**OBSERVATION, "subject": {"reference": "#p"}, "contained": [{**PATIENT, "id": "p"}]}, id="contained"
        ),
        pytest.param({**OBSERVATION, "subject": {"reference": "https://b.example/fhir/Patient/1"}}, id="absolute"),
        pytest.param({**OBSERVATION, "subject": {"reference": "Patient/p1/_history/2"}}, id="version"),
        pytest.param({**OBSERVATION, "subject": {"reference": "Patient/" + "a" * 64}}, id="longest id"),
        pytest.param(
            {**OBSERVATION, "subject": {"reference": f"Location/{'a' * 64}/_history/{'1' * 64}"}}, id="longest version"
        ),
        pytest.param({**OBSERVATION, "subject": {"identifier": {"value": "1"}}}, id="by identifier"),
        pytest.param({**PATIENT, "name": [{"text": "张　三"}]}, id="ideographic space inside"),
        pytest.param(
            {**PATIENT, "extension": [{"url": "urn:x", "extension": [{"url": "y", "valueString": "z"}]}]},
            id="extensions",
        ),
    ],
)
def test_valid(resource: dict[str, Any]):
    assert validate(resource) == []


@pytest.mark.parametrize(
    ("resource", "location"),
    [
        pytest.param({**PATIENT, "gender": "masculine"}, "Patient.gender", id="code outside its value set"),
        pytest.param({**OBSERVATION, "status": "done"}, "Observation.status", id="status outside its value set"),
        pytest.param({**PATIENT, "nickname": "x"}, "Patient.nickname", id="unknown element"),
        pytest.param({**PATIENT, "name": {"text": "x"}}, "Patient.name", id="object for a list"),
        pytest.param({**PATIENT, "gender": ["male"]}, "Patient.gender", id="list for a code"),
        pytest.param({**PATIENT, "active": "true"}, "Patient.active", id="text for a boolean"),
        pytest.param({**PATIENT, "active": 1}, "Patient.active", id="number for a boolean"),
        pytest.param(
            {**PATIENT, "multipleBirthInteger": True}, "Patient.multipleBirthInteger", id="boolean for a number"
        ),
        pytest.param({**PATIENT, "multipleBirthInteger": 2**31}, "Patient.multipleBirthInteger", id="out of range"),
        pytest.param(
            {**OBSERVATION, "valueQuantity": {"value": "6.1"}},
            "Observation.valueQuantity.value",
            id="text for a decimal",
        ),
        pytest.param(
            {**OBSERVATION, "valueQuantity": {"value": float("nan")}}, "Observation.valueQuantity.value", id="NaN"
        ),
        pytest.param(
            {**OBSERVATION, "valueQuantity": {"value": 1, "comparator": "~"}},
            "Observation.valueQuantity.comparator",
            id="comparator",
        ),
        pytest.param({**PATIENT, "birthDate": "2021-02-29"}, "Patient.birthDate", id="no leap year"),
        pytest.param({**PATIENT, "birthDate": "1900-02-29"}, "Patient.birthDate", id="no leap century"),
        pytest.param({**PATIENT, "birthDate": "2021-04-31"}, "Patient.birthDate", id="31 April"),
        pytest.param({**PATIENT, "birthDate": "19900307"}, "Patient.birthDate", id="date without dashes"),
        pytest.param({**PATIENT, "birthDate": "1990-03-07T00:00:00Z"}, "Patient.birthDate", id="time in a date"),
        pytest.param(
            {**OBSERVATION, "effectiveDateTime": "2026-01-02T08:00:00"}, "Observation.effectiveDateTime", id="no offset"
        ),
        pytest.param(
            {**OBSERVATION, "effectiveDateTime": "2026-01-02T24:00:00Z"}, "Observation.effectiveDateTime", id="24:00"
        ),
        pytest.param({**OBSERVATION, "issued": "2026-01-02"}, "Observation.issued", id="date for an instant"),
        pytest.param({**PATIENT, "id": "a b"}, "Patient.id", id="blank in an id"),
        pytest.param({**PATIENT, "id": "a" * 65}, "Patient.id", id="id over 64 characters"),
        pytest.param({**PATIENT, "language": " zh"}, "Patient.language", id="code with a leading blank"),
        pytest.param({**PATIENT, "implicitRules": "a b"}, "Patient.implicitRules", id="blank in a URI"),
        pytest.param({**PATIENT, "name": []}, "Patient.name", id="empty list"),
        pytest.param({**PATIENT, "name": [{}]}, "Patient.name[0]", id="empty object"),
        pytest.param({**PATIENT, "name": [None]}, "Patient.name", id="null in a list of objects"),
        pytest.param({**PATIENT, "name": [{"text": ""}]}, "Patient.name[0].text", id="empty text"),
        pytest.param({**PATIENT, "name": [{"text": " \t"}]}, "Patient.name[0].text", id="blanks only"),
        pytest.param({**PATIENT, "name": [{"text": "　"}]}, "Patient.name[0].text", id="ideographic space only"),
        pytest.param({**PATIENT, "name": [{"text": "a\x01"}]}, "Patient.name[0].text", id="control character"),
        pytest.param({**PATIENT, "name": [{"text": "a\ud800"}]}, "Patient.name[0].text", id="half a character"),
        pytest.param({**PATIENT, "name": [{"text": None}]}, "Patient.name[0].text", id="null"),
        pytest.param({**PATIENT, "deceasedBoolean": True, "deceasedDateTime": "2020"}, "Patient", id="two of a choice"),
        pytest.param(
            {**PATIENT, "deceasedBoolean": True, "_deceasedDateTime": REASON}, "Patient", id="choice and sibling"
        ),
        pytest.param(
            {k: v for k, v in OBSERVATION.items() if k != "code"}, "Observation.code", id="required object missing"
        ),
        pytest.param(
            {k: v for k, v in OBSERVATION.items() if k != "status"}, "Observation", id="required code missing"
        ),
        pytest.param(
            {**OBSERVATION, "subject": {"reference": "Practitioner/1"}},
            "Observation.subject.reference",
            id="target type",
        ),
        pytest.param(
            {**OBSERVATION, "subject": {"reference": "Patient/" + "a" * 65}},
            "Observation.subject.reference",
            id="reference to an id over 64 characters",
        ),
        pytest.param(
            {**OBSERVATION, "subject": {"reference": "Patient/a/_history/" + "1" * 65}},
            "Observation.subject.reference",
            id="reference to a version over 64 characters",
        ),
        pytest.param(
            {**OBSERVATION, "subject": {"reference": "Patient/a/b"}}, "Observation.subject.reference", id="no address"
        ),
        pytest.param({**OBSERVATION, "subject": {}}, "Observation.subject", id="empty reference"),
        pytest.param(
            {**PATIENT, "extension": [{"valueString": "x"}]}, "Patient.extension[0].url", id="extension without url"
        ),
        pytest.param({**PATIENT, "extension": [{"url": "x"}]}, "Patient.extension[0]", id="extension without value"),
        pytest.param({**PATIENT, "fhir_comments": ["x"]}, "Patient.fhir_comments", id="comments of DSTU2"),
        pytest.param(
            {**PATIENT, "contained": [{"resourceType": "Nothing"}]}, "Patient.contained[0]", id="unknown contained"
        ),
        pytest.param({"resourceType": "Practitionr"}, "resourceType", id="unknown type"),
        pytest.param({"resourceType": "HumanName", "text": "x"}, "resourceType", id="data type as a resource"),
        pytest.param({"resourceType": "DomainResource/../x"}, "resourceType", id="path as a type"),
        pytest.param({"resourceType": ["Patient"]}, "resourceType", id="list as a type"),
        pytest.param({}, "resourceType", id="no type"),
    ],
)
def test_invalid_is_located(resource: dict[str, Any], location: str):
    issues = validate(resource)
    assert issues
    assert location in [each.location for each in issues]
    assert all(each.severity == "error" and each.code == "invalid" and each.text for each in issues)


@pytest.mark.parametrize("value", [None, [], "Patient", 1, True])
def test_what_is_no_object_is_refused(value: Any):
    assert validate(value)


def test_an_issue_never_repeats_content():
    issues = validate({**PATIENT, "gender": "secret-a", "birthDate": "secret-b", "name": [{"text": "secret-c\x00"}]})
    assert len(issues) == 3
    assert "secret" not in json.dumps([each.as_dict() for each in issues])


def test_the_number_of_issues_is_bounded():
    assert len(validate({**PATIENT, "name": [{"x": 1}] * 1000})) == 50


def test_deep_nesting_is_refused_not_crashed():
    extension: dict[str, Any] = {"url": "u", "valueString": "x"}
    for _ in range(5000):
        extension = {"url": "u", "extension": [extension]}
    assert validate({**PATIENT, "extension": [extension]})


def test_a_bundle_that_closes_over_its_references():
    assert validate_bundle(bundle(PATIENT, OBSERVATION)) == []
    require_valid(bundle(PATIENT, OBSERVATION))


@pytest.mark.parametrize(
    ("subject", "valid"),
    [
        pytest.param({"reference": "Patient/elsewhere"}, False, id="dangling"),
        pytest.param({"reference": "Patient/elsewhere", "identifier": {"value": "1"}}, True, id="with identifier"),
        pytest.param({"identifier": {"value": "1"}}, True, id="identifier alone"),
        pytest.param({"reference": "Patient/p1/_history/1"}, True, id="a version of an entry"),
        pytest.param({"reference": "https://node.invalid/fhir/Patient/p1"}, True, id="by full URL"),
        pytest.param({"reference": "https://other.invalid/fhir/Patient/9"}, True, id="on another server"),
        pytest.param({"reference": "urn:uuid:27b6e988-ee0b-441b-9e01-47c741578b36"}, False, id="unknown UUID"),
    ],
)
def test_references_of_a_bundle(subject: dict[str, Any], valid: bool):
    issues = validate_bundle(bundle(PATIENT, {**OBSERVATION, "subject": subject}))
    assert [each.code for each in issues] == ([] if valid else ["dangling-reference"])


def test_references_inside_extensions_and_of_the_full_check_are_seen_too():
    extension = {"url": "urn:x", "valueReference": {"reference": "Patient/elsewhere"}}
    resource = {**PATIENT, "extension": [extension]}
    assert [each.code for each in validate_bundle(bundle(resource))] == ["dangling-reference"]
    del resource["gender"]
    resource["_gender"] = REASON
    assert [each.code for each in validate_bundle(bundle(resource))] == ["dangling-reference"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        pytest.param({"fullUrl": "https://node.invalid/fhir/Patient/other"}, "Bundle.entry[0]", id="fullUrl"),
        pytest.param({"request": {"method": "POST", "url": "Patient/p1"}}, "Bundle.entry[0]", id="POST"),
        pytest.param({"request": {"method": "PUT", "url": "Patient"}}, "Bundle.entry[0]", id="url"),
        pytest.param({"resource": None}, "Bundle.entry[0]", id="no resource"),
        pytest.param({"resource": {**PATIENT, "gender": "m"}}, "Patient.gender", id="invalid resource"),
        pytest.param({"resource": {"resourceType": ["x"], "id": "1"}}, "resourceType", id="strange type"),
    ],
)
def test_entries_of_a_bundle(change: dict[str, Any], place: str):
    whole = bundle(PATIENT)
    whole["entry"][0] |= change
    assert place in [each.location for each in validate_bundle(whole)]
    with pytest.raises(ValidationError):
        require_valid(whole)


def test_one_resource_twice_is_refused():
    assert [each.text for each in validate_bundle(bundle(PATIENT, PATIENT))] == ["two entries are one resource"]


@pytest.mark.parametrize("entries", [None, "x", {}, [None], [[]], 5], ids=str)
def test_a_bundle_of_nonsense_is_refused(entries: Any):
    assert validate_bundle({"resourceType": "Bundle", "type": "transaction", "entry": entries})


def test_the_kept_structures_are_those_of_the_installed_models():
    kept = json.loads(json.dumps(pack(EMITTED_TYPES)))
    file = __import__("importlib.resources").resources.files("fhir_adapters.validation").joinpath("structures.json")
    assert json.loads(file.read_bytes()) == kept, "make it again: python -m fhir_adapters.validation.structure"


def test_every_type_of_the_expected_bundles_is_kept():
    golden = Path(__file__).parents[1] / "golden"
    texts = [each.read_text("utf-8") for each in golden.rglob("*.json")]
    found = {name for text in texts for name in re.findall(r'"resourceType": ?"(\w+)"', text)}
    assert "Appointment" in found
    assert found - set(EMITTED_TYPES) == set()


def test_a_type_outside_the_kept_ones_is_read_from_the_models():
    assert "DetectedIssue" not in EMITTED_TYPES
    assert structure("DetectedIssue").resource
    issue = {"resourceType": "DetectedIssue", "status": "final", "severity": "high"}
    assert validate(issue) == []
    assert validate({**issue, "severity": "vacant"})
