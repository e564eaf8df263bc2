"""Chinese shared documents and a C-CDA R2.1 CCD of our own, and the exact Bundles they become.

After a wanted change: ``YIQIAO_REGENERATE_GOLDEN=1 pytest tests/golden/test_cda_golden.py`` and read the diff.
"""

import base64
import json
import os
from pathlib import Path
from typing import Any

import fhirkit
import orjson
import pytest

import fhir_adapters
from fhir_adapters import cda
from fhir_adapters.result import ConversionResult
from fhir_adapters.validation import validate, validate_bundle
from fhir_adapters.validation.structure import model_class

FOLDER = Path(__file__).parent / "cda"
DOCUMENTS = sorted(path.stem for path in FOLDER.glob("*.xml"))
PROFILE = fhir_adapters.SourceProfile.from_toml(
    'name = "golden"\ndefault_authority = "HIS"\nbase_url = "https://golden.example/fhir"\n'
    '[organization]\nidentifier = "91350100M000100Y43"\nname = "示例医院"\n'
)


def converted(name: str) -> ConversionResult:
    return cda.convert((FOLDER / f"{name}.xml").read_bytes(), PROFILE)


def of_type(result: ConversionResult, kind: str) -> list[dict[str, Any]]:
    return [e["resource"] for e in result.bundle["entry"] if e["resource"]["resourceType"] == kind]


def readable(result: ConversionResult) -> bytes:
    bundle = json.loads(result.to_json(), parse_float=lambda lexeme: f"\0{lexeme}\0")
    for entry in bundle["entry"]:
        if "data" in entry["resource"]:  # the original is beside this file
            entry["resource"]["data"] = "(the document)"
    text = json.dumps(bundle, ensure_ascii=False, indent=1).replace('"\\u0000', "").replace('\\u0000"', "")
    issues = json.dumps([each.as_dict() for each in result.issues], ensure_ascii=False, indent=1)
    return f'{{"bundle": {text},\n"issues": {issues}}}\n'.encode()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_golden(name: str):
    result = converted(name)
    expected = FOLDER / f"{name}.json"
    if os.environ.get("YIQIAO_REGENERATE_GOLDEN"):
        expected.write_bytes(readable(result))
    assert readable(result) == expected.read_bytes()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_bundles_are_valid_to_us_to_the_models_and_to_an_independent_validator(name: str):
    bundle = orjson.loads(converted(name).to_json())
    assert validate_bundle(bundle) == []
    assert validate(bundle) == []
    model_class("Bundle").model_validate(bundle)
    for entry in bundle["entry"]:
        assert list(fhirkit.validate(json.dumps(entry["resource"]).encode())) == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_document_bundle_begins_with_its_composition(name: str):
    bundle = orjson.loads(cda.document_bundle((FOLDER / f"{name}.xml").read_bytes(), PROFILE).to_json())
    model_class("Bundle").model_validate(bundle)
    assert bundle["type"] == "document"
    assert bundle["entry"][0]["resource"]["resourceType"] == "Composition"
    assert bundle["identifier"]["value"].startswith(("DOC-C", "CCD-"))
    assert bundle["timestamp"]
    kinds = {entry["resource"]["resourceType"] for entry in bundle["entry"]}
    assert not kinds & {"Binary", "Provenance"}
    assert all("request" not in entry for entry in bundle["entry"])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_original_is_kept_with_its_digest(name: str):
    result, raw = converted(name), (FOLDER / f"{name}.xml").read_bytes()
    (binary,) = of_type(result, "Binary")
    assert base64.b64decode(binary["data"]) == raw
    (document,) = of_type(result, "DocumentReference")
    (provenance,) = of_type(result, "Provenance")
    digest = provenance["entity"][0]["what"]["identifier"]["value"]
    attachment = document["content"][0]["attachment"]
    assert attachment["extension"][0]["valueString"] == digest
    assert (attachment["url"], attachment["size"]) == (f"Binary/{binary['id']}", len(raw))


def test_the_documents_of_one_stay_are_about_one_visit():
    stay = ["c0001_summary", "c0006_exam_report", "c0032_front_page", "c0042_transfer", "c0045_consultation"]
    visits = {of_type(converted(name), "Encounter")[0]["id"] for name in [*stay, "c0049_discharge_record"]}
    assert len(visits) == 1
    surgeries = {of_type(converted(n), "Procedure")[0]["id"] for n in ("c0032_front_page", "c0053_discharge_summary")}
    assert len(surgeries) == 1
    papers = ("c0049_discharge_record", "c0053_discharge_summary")
    mains = [{each["id"] for each in of_type(converted(name), "Condition")} for name in papers]
    assert mains[0] == mains[1]


def test_a_laboratory_report_keeps_its_digits_units_and_ranges():
    result = converted("c0007_lab_report_gb")
    found = {each["code"]["text"]: each for each in of_type(result, "Observation") if "coding" in each["code"]}
    white, crp = found["白细胞计数"], found["CRP"]
    assert white["valueQuantity"]["value"].lexeme == "12.80"
    assert white["valueQuantity"]["code"] == "10^9/L"  # UCUM has both 10* and 10^
    assert white["referenceRange"][0]["high"]["value"].lexeme == "9.5"
    assert (crp["valueQuantity"]["value"].lexeme, crp["valueQuantity"]["unit"]) == ("36.40", "mg/L")
    (report,) = of_type(result, "DiagnosticReport")
    assert len(report["result"]) == 5
    assert report["conclusion"].startswith("白细胞")
    (specimen,) = of_type(result, "Specimen")
    assert specimen["collection"]["collectedDateTime"] == "2026-03-01T09:00:00+08:00"


def test_items_of_several_specimens_have_each_their_own():
    text = (FOLDER / "c0007_lab_report_gb.xml").read_bytes().decode("gb18030")
    first, second, rest = text.split(">静脉血<", 2)
    several = f"{first}>静脉血<{second}>尿液<{rest}".encode("gb18030")
    result = cda.convert(several, PROFILE)
    blood, urine = of_type(result, "Specimen")
    assert (blood["type"]["text"], urine["type"]["text"]) == ("静脉血", "尿液")
    assert blood["identifier"][0]["value"] == "BB0001"
    assert "identifier" not in urine
    found = {each["code"]["text"]: each for each in of_type(result, "Observation") if "coding" in each["code"]}
    of = {name: each["specimen"]["reference"] for name, each in found.items() if "specimen" in each}
    assert of["白细胞计数"] == f"Specimen/{blood['id']}"
    assert [name for name, reference in of.items() if reference == f"Specimen/{urine['id']}"] == ["血红蛋白"]
    (report,) = of_type(result, "DiagnosticReport")
    assert [each["reference"] for each in report["specimen"]] == [f"Specimen/{each['id']}" for each in (blood, urine)]
    assert not [each for each in result.issues if each.code == "conflict"]
    assert result.to_json() == cda.convert(several, PROFILE).to_json()


def test_characters_beyond_what_the_declaration_names_survive():
    names = [n["text"] for p in of_type(converted("c0007_lab_report_gb"), "Practitioner") for n in p.get("name", ())]
    assert "示例𠀀" in names  # declared GB2312, written in GB 18030


def test_a_prescription_says_how_much_how_often_and_until_when():
    pills, herbs = of_type(converted("c0005_herbal_prescription"), "MedicationRequest")
    assert pills["dosageInstruction"][0]["timing"]["repeat"] == {"frequency": 3, "period": 1, "periodUnit": "d"}
    assert pills["dispenseRequest"]["validityPeriod"] == {"start": "2026-03-01", "end": "2026-03-03"}
    assert herbs["dispenseRequest"]["quantity"]["unit"] == "剂"
    assert herbs["dosageInstruction"][0]["text"] == "分2次温服"
    assert pills["groupIdentifier"] == herbs["groupIdentifier"]


def test_a_transfer_moves_the_visit_to_the_department_entered():
    result = converted("c0042_transfer")
    (visit,) = of_type(result, "Encounter")
    names = {f"Location/{each['id']}": each["name"] for each in of_type(result, "Location")}
    moves = [(names[each["location"]["reference"]], each["status"]) for each in visit["location"]]
    assert ("普外科", "completed") in moves
    assert ("心内科", "active") in moves


def test_a_new_version_says_what_it_replaces():
    result = converted("c0053_discharge_summary")
    for kind in ("Composition", "DocumentReference"):
        (resource,) = of_type(result, kind)
        assert resource["relatesTo"][0]["code"] == "replaces"


def test_a_continuity_of_care_document_keeps_numbers_causes_and_who_did_it():
    result = converted("ccda_ccd")
    found = {each["code"]["coding"][0]["display"]: each for each in of_type(result, "Observation")}
    assert found["Hemoglobin"]["valueQuantity"]["value"].lexeme == "13.20"
    assert found["Platelets"]["interpretation"][0]["coding"][0]["code"] == "L"
    penicillin = of_type(result, "AllergyIntolerance")[0]
    assert penicillin["code"]["coding"][0]["code"] == "7982"
    assert penicillin["reaction"][0]["severity"] == "moderate"
    assert "note" not in penicillin  # its text only repeats the name
    (pneumonia,) = (
        each for each in of_type(result, "Condition") if each["code"]["coding"][0]["display"] == "Pneumonia"
    )
    assert pneumonia["abatementDateTime"] == "2025-01-17"
    assert {each["code"] for each in pneumonia["code"]["coding"]} == {"233604007", "J18.9"}
    inhaled = of_type(result, "MedicationStatement")[0]
    assert inhaled["dosage"][0]["timing"]["repeat"]["period"].lexeme == "12"
    assert inhaled["dosage"][0]["doseAndRate"][0]["doseQuantity"]["value"].lexeme == "0.125"
    (clinic,) = of_type(result, "Location")
    assert clinic["name"] == "Example Clinic"
    (father,) = of_type(result, "FamilyMemberHistory")
    assert father["condition"][0]["onsetAge"]["value"].lexeme == "57"
    pacemaker = next(each for each in of_type(result, "Device") if "udiCarrier" in each)
    assert pacemaker["serialNumber"] == "BLC200461H"
    plan = {each["code"]["coding"][0]["display"] for each in of_type(result, "ServiceRequest")}
    assert plan == {"Hemoglobin A1c", "Office outpatient visit 15 minutes"}


def test_what_was_over_before_the_visit_is_not_of_the_visit():
    result = converted("ccda_ccd")
    visit, earlier = (f"Encounter/{each['id']}" for each in of_type(result, "Encounter"))
    when = {each["performedDateTime"]: each.get("encounter") for each in of_type(result, "Procedure")}
    assert when["2015-03-02"] is None
    weights = {
        each["effectiveDateTime"][:10]: each.get("encounter")
        for each in of_type(result, "Observation")
        if "effectiveDateTime" in each
    }
    assert weights["2026-02-28"] == {"reference": visit}
    assert weights["2025-11-01"] is None
    asthma = [each for each in of_type(result, "Condition") if each.get("encounter") == {"reference": earlier}]
    assert [each["code"]["coding"][0]["display"] for each in asthma] == ["Asthma"]
