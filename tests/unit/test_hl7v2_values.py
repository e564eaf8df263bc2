"""OBX-5 by OBX-2: every value type, what is wrong with it, and that no digit is rewritten."""
# ruff: noqa: E501 - one case stands on one line

import json
from typing import Any

import pytest

from tests.hl7v2_samples import obr, obx, one, oru, pid, remarks, resources

ATTACHMENT = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.value"
ORIGINAL = "http://hl7.org/fhir/StructureDefinition/originalText"
MG = {"unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}


def observed(*fields: Any, **more: str) -> tuple[dict[str, Any], set[tuple[str, str]]]:
    result = oru(pid(), obr(), obx(*fields, **more))
    written = json.loads(result.to_json(), parse_float=str, parse_int=str)
    (found,) = (each["resource"] for each in written["entry"] if each["resource"]["resourceType"] == "Observation")
    return found, remarks(result)


VALUES = [
    pytest.param("NM", "5.40", "mg/dL", {"valueQuantity": {"value": "5.40", **MG}}, id="NM"),
    pytest.param("NM", "-0.10", "", {"valueQuantity": {"value": "-0.10"}}, id="NM negative"),
    pytest.param("NM", "1e3", "", {"valueQuantity": {"value": "1e3"}}, id="NM exponent"),
    pytest.param("NM", "12345678901234567890.123456789", "", {"valueQuantity": {"value": "12345678901234567890.123456789"}}, id="NM long"),
    pytest.param("NM", "5", "furlong", {"valueQuantity": {"value": "5", "unit": "furlong"}}, id="NM other unit"),
    pytest.param("NM", "5", "g^gram^UCUM", {"valueQuantity": {"value": "5", "unit": "gram", "system": MG["system"], "code": "g"}}, id="NM unit CWE"),
    pytest.param("NM", "5", "×10^9/L", {"valueQuantity": {"value": "5", "unit": "×10^9/L", "system": MG["system"], "code": "10*9/L"}}, id="NM unit power"),
    pytest.param("NM", "5", "X1^Units^99LAB", {"valueQuantity": {"value": "5", "unit": "Units", "system": "https://tests.example/fhir/CodeSystem/99LAB", "code": "X1"}}, id="NM local unit"),
    pytest.param("NM", "<0.50", "mg/dL", {"valueQuantity": {"value": "0.50", "comparator": "<", **MG}}, id="NM below"),
    pytest.param("NM", "≥ 100", "", {"valueQuantity": {"value": "100", "comparator": ">="}}, id="NM at least"),
    pytest.param("SN", "^100", "", {"valueQuantity": {"value": "100"}}, id="SN number"),
    pytest.param("SN", "<^10", "mg/dL", {"valueQuantity": {"value": "10", "comparator": "<", **MG}}, id="SN below"),
    pytest.param("SN", "^1^:^128", "", {"valueRatio": {"numerator": {"value": "1"}, "denominator": {"value": "128"}}}, id="SN titre"),
    pytest.param("SN", "^3^-^5", "", {"valueRange": {"low": {"value": "3"}, "high": {"value": "5"}}}, id="SN range"),
    pytest.param("SN", "^2^+", "", {"valueString": "2 +"}, id="SN plus"),
    pytest.param("SN", "<>^5", "", {"valueString": "<> 5"}, id="SN not equal"),
    pytest.param("NR", "1^5", "mg/dL", {"valueRange": {"low": {"value": "1", **MG}, "high": {"value": "5", **MG}}}, id="NR"),
    pytest.param("CWE", "A^Type A^L", "", {"valueCodeableConcept": {"coding": [{"system": "https://tests.example/fhir/CodeSystem/local", "code": "A", "display": "Type A"}]}}, id="CWE"),
    pytest.param("CE", "1^One^LN^2^Two^SCT", "", {"valueCodeableConcept": {"coding": [{"system": "http://loinc.org", "code": "1", "display": "One"}, {"system": "http://snomed.info/sct", "code": "2", "display": "Two"}]}}, id="CE alternate"),
    pytest.param("CNE", "^only words", "", {"valueCodeableConcept": {"text": "only words"}}, id="CNE text"),
    pytest.param("CF", "X", "", {"valueCodeableConcept": {"coding": [{"code": "X"}]}}, id="CF"),
    pytest.param("IS", "Y", "", {"valueCodeableConcept": {"coding": [{"code": "Y"}]}}, id="IS"),
    pytest.param("ID", "Y", "", {"valueCodeableConcept": {"coding": [{"code": "Y"}]}}, id="ID"),
    pytest.param("ST", "5.40", "", {"valueString": "5.40"}, id="ST keeps digits"),
    pytest.param("ST", r"a\T\b", "", {"valueString": "a&b"}, id="ST escaped"),
    pytest.param("TX", r"one~two\.br\three", "", {"valueString": "one\ntwo\nthree"}, id="TX lines"),
    pytest.param("FT", r"\H\big\N\ text", "", {"valueString": "big text"}, id="FT"),
    pytest.param("TS", "202405010830", "", {"valueDateTime": "2024-05-01T08:30:00+08:00"}, id="TS"),
    pytest.param("DTM", "20240501", "", {"valueDateTime": "2024-05-01"}, id="DTM"),
    pytest.param("DT", "202405", "", {"valueDateTime": "2024-05"}, id="DT"),
    pytest.param("TM", "0830", "", {"valueTime": "08:30:00"}, id="TM"),
    pytest.param("DR", "20240501^20240503", "", {"valuePeriod": {"start": "2024-05-01", "end": "2024-05-03"}}, id="DR"),
    pytest.param("CQ", "2^mL", "", {"valueQuantity": {"value": "2", "unit": "mL", "system": MG["system"], "code": "mL"}}, id="CQ"),
    pytest.param("CP", "12.50&CNY^UP", "", {"valueQuantity": {"value": "12.50", "unit": "CNY", "system": "urn:iso:std:iso:4217", "code": "CNY"}}, id="CP"),
    pytest.param("ED", "^AP^PDF^Base64^JVBERi0=", "", {"extension": [{"url": ATTACHMENT, "valueAttachment": {"data": "JVBERi0=", "contentType": "application/pdf"}}]}, id="ED"),
    pytest.param("ED", "^TEXT^plain^A^hello", "", {"extension": [{"url": ATTACHMENT, "valueAttachment": {"data": "aGVsbG8=", "contentType": "text/plain"}}]}, id="ED text"),
    pytest.param("ED", "^IM^JPEG^Hex^FFD8", "", {"extension": [{"url": ATTACHMENT, "valueAttachment": {"data": "/9g=", "contentType": "image/jpeg"}}]}, id="ED hex"),
    pytest.param("RP", "https://pacs.example/1^PACS^IM^JPEG", "", {"extension": [{"url": ATTACHMENT, "valueAttachment": {"url": "https://pacs.example/1", "title": "PACS", "contentType": "image/jpeg"}}]}, id="RP"),
    pytest.param("NM", "1~2", "", {"component": [{"valueQuantity": {"value": "1"}}, {"valueQuantity": {"value": "2"}}]}, id="NM repeated"),
    pytest.param("NA", "1^2~3", "", {"component": [{"valueQuantity": {"value": "1"}}, {"valueQuantity": {"value": "2"}}, {"valueQuantity": {"value": "3"}}]}, id="NA"),
    pytest.param("EI", "123", "", {"valueString": "123"}, id="EI plain"),
    *(
        pytest.param(kind, "a^b&c", "", {"valueString": "a b c", "_valueString": {"extension": [{"url": ORIGINAL, "valueString": "a^b&c"}]}}, id=kind)
        for kind in ("HD", "CX", "XAD", "XCN", "XPN", "XTN", "XON", "EI", "PL")
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "raw", "unit", "expected"), VALUES)
def test_values(kind: str, raw: str, unit: str, expected: dict[str, Any]) -> None:
    resource, _ = observed(kind, raw, unit)
    for component in resource.get("component", ()):
        assert component.pop("code") == resource["code"]
    assert {key: value for key, value in resource.items() if key in expected} == expected
    assert "dataAbsentReason" not in resource


@pytest.mark.parametrize(
    ("written", "value"),
    [("+5.90", "5.90"), ("007", "7"), (".50", "0.50"), ("5.", "5"), ("00.40", "0.40")],
)
def test_a_number_json_forbids_keeps_its_own_form_beside(written: str, value: str) -> None:
    quantity = observed("NM", written)[0]["valueQuantity"]
    assert quantity["value"] == value
    assert quantity["_value"]["extension"] == [{"url": ORIGINAL, "valueString": written}]


WRONG = [
    pytest.param("NM", "clotted", ("bad-value", "OBX[1]-5"), "clotted", id="NM text"),
    pytest.param("NM", "1,5", ("bad-value", "OBX[1]-5"), "1,5", id="NM comma"),
    pytest.param("NM", "NaN", ("bad-value", "OBX[1]-5"), "NaN", id="NM not a number"),
    pytest.param("NM", "1" * 400, ("bad-value", "OBX[1]-5"), "1" * 400, id="NM absurd"),
    pytest.param("SN", "^x", ("value-form", "OBX[1]-5"), "x", id="SN text"),
    pytest.param("DT", "20240231", ("bad-value", "OBX[1]-5"), "20240231", id="DT"),
    pytest.param("TM", "2575", ("bad-value", "OBX[1]-5"), "2575", id="TM"),
    pytest.param("CQ", "much", ("bad-value", "OBX[1]-5"), "much", id="CQ"),
    pytest.param("CP", "dear", ("bad-value", "OBX[1]-5"), "dear", id="CP"),
    pytest.param("ED", "^AP^PDF^Base64^not base64!", ("bad-value", "OBX[1]-5"), "not base64!", id="ED"),
    pytest.param("QQ", "something", ("unknown-value-type", "OBX[1]-2"), "something", id="unknown type"),
    pytest.param("", "something", ("missing", "OBX[1]-2"), "something", id="no type"),
]


@pytest.mark.parametrize(("kind", "raw", "remark", "text"), WRONG)
def test_a_wrong_value_is_kept_as_text_and_remarked_on(kind: str, raw: str, remark: tuple[str, str], text: str) -> None:
    resource, found = observed(kind, raw)
    assert resource["valueString"] == text
    assert remark in found


@pytest.mark.parametrize(
    ("status", "reason"), [("F", "unknown"), ("X", "not-performed"), ("N", "not-asked"), ("I", "temp-unknown")]
)
def test_no_value_has_a_reason(status: str, reason: str) -> None:
    resource, _ = observed("NM", "", f11=status)
    assert resource["dataAbsentReason"]["coding"][0]["code"] == reason


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("3.5-5.10", "3.5", "5.10"),
        ("3.5 ~ 5.1", "3.5", "5.1"),
        ("120～160", "120", "160"),
        ("3.5--5.1", "3.5", "5.1"),
        ("-2.0-1.0", "-2.0", "1.0"),
        ("-2.0--1.0", None, None),  # two readings: none is taken
        ("<10", None, "10"),
        (">=0.5", "0.5", None),
        ("negative", None, None),
        ("3.5-5.1 (adults)", None, None),
    ],
)
def test_reference_ranges(text: str, low: str | None, high: str | None) -> None:
    (made,) = observed("NM", "5", "mg/dL", f7=text)[0]["referenceRange"]
    assert made["text"] == text
    assert made.get("low", {}).get("value") == low
    assert made.get("high", {}).get("value") == high


@pytest.mark.parametrize(
    ("flag", "code", "text"), [("H", "H", None), ("↑", "H", "↑"), ("LL", "LL", None), ("H^High^HL70078", "H", None)]
)
def test_abnormal_flags(flag: str, code: str, text: str | None) -> None:
    (made,) = observed("NM", "5", f8=flag)[0]["interpretation"]
    assert made["coding"][0]["code"] == code
    assert made["coding"][0]["system"].endswith("v3-ObservationInterpretation")
    assert made.get("text") == text


def test_an_unknown_flag_is_kept_and_remarked_on() -> None:
    resource, found = observed("NM", "5", f8="H~??")
    assert [each["coding"][0]["code"] for each in resource["interpretation"]] == ["H", "??"]
    assert ("unmapped-code", "OBX[1]-8") in found


def test_every_common_field_of_obx_has_its_place() -> None:
    resource, found = observed(
        "NM", "5", "mg/dL", f4="1.2", f9="", f10="A", f14="20240501", f15="LAB1^Lab^L", f16="9^Smith^Ann",
        f17="M1^ELISA^L", f18="DEV1^LIS", f19="20240501083000", f20="ARM^Arm^L", f21="OBS1^LIS", f23="Big Lab^^L1",
        f24="Street 1^^City",
    )  # fmt: skip
    assert resource["effectiveDateTime"] == "2024-05-01"
    assert resource["method"]["coding"][0]["code"] == "M1"
    assert resource["bodySite"]["coding"][0]["code"] == "ARM"
    assert resource["device"]["identifier"]["value"] == "DEV1"
    assert resource["identifier"][0]["value"] == "OBS1"
    assert len(resource["performer"]) == 3
    assert {each["url"].rsplit("/", 1)[-1] for each in resource["extension"]} == {
        "observation-v2-subid", "observation-nature-of-abnormal-test", "observation-analysis-date-time",
    }  # fmt: skip
    assert found == set()


def test_status_comes_from_the_report_where_obx_has_none() -> None:
    result = oru(pid(), obr(f25="P"), obx("NM", "1", f11=""))
    assert one(result, "Observation")["status"] == "preliminary"


def test_one_code_twice_gives_two_observations() -> None:
    result = oru(pid(), obr(), obx("NM", "1"), obx("NM", "2", f1="2"), obx("NM", "3", f1="3", f4="b"))
    found = resources(result, "Observation")
    assert len({each["id"] for each in found}) == 3
    assert len(one(result, "DiagnosticReport")["result"]) == 3
