"""Rows of the views of care: beds, orders, medicines, examinations, vital signs, diagnoses, documents, critical values,
staff and departments."""

import base64
import hashlib
from typing import Any

import pytest

from fhir_adapters.errors import ParseError
from fhir_adapters.profile import SourceProfile
from fhir_adapters.result import ConversionResult
from fhir_adapters.tabular import VIEWS, convert_rows, view_of
from fhir_adapters.validation import validate_bundle

PROFILE = SourceProfile.from_toml(
    'name = "his"\ndefault_authority = "HIS"\n[organization]\nidentifier = "91350100M000100Y43"\nname = "示例医院"\n'
    '[code_maps.order-class]\n"7" = "urn:test:classes|nursing"\n'
)
COMMON = {"row_key": "1", "updated_at": "2026-01-01 08:00:00"}
VISIT = COMMON | {"patient_no": "00012", "visit_no": "ZY1"}
ORDER = VISIT | {"order_no": "O1", "item_name": "头颅CT平扫"}
DRUG = VISIT | {"order_no": "M1", "drug_name": "阿莫西林胶囊"}
BED = COMMON | {"ward_code": "W1", "bed_no": "１２"}
VITAL = VISIT | {"measured_at": "2026-01-01 06:00", "item_code": "T", "result": "36.50", "unit": "℃"}
DIAGNOSIS = VISIT | {"diagnosis_code": "J18.900", "diagnosis_name": "肺炎"}
DOCUMENT = VISIT | {"document_no": "D1", "content": "患者于三日前"}
CRITICAL = VISIT | {"critical_no": "C1", "item_name": "钾", "item_code": "K", "result": "7.10", "unit": "mmol/L"}
EXAM = VISIT | {"report_no": "E1", "exam_class": "CT", "item_name": "头颅CT平扫", "conclusion": "未见异常"}
STAFF = COMMON | {"staff_no": "1001", "name": "赵医生"}


def convert(view: str, *rows: dict[str, Any]) -> ConversionResult:
    result = convert_rows(view, rows, PROFILE)
    assert validate_bundle(result.bundle) == []
    return result


def resources(result: ConversionResult, type_name: str) -> list[dict[str, Any]]:
    every = (entry["resource"] for entry in result.bundle.get("entry", []))
    return [each for each in every if each["resourceType"] == type_name]


def only(result: ConversionResult, type_name: str) -> dict[str, Any]:
    found = resources(result, type_name)
    assert len(found) == 1
    return found[0]


def remarks(result: ConversionResult) -> list[tuple[str, str]]:
    return [(each.code, each.location) for each in result.issues]


def codes(concept: dict[str, Any]) -> list[str]:
    return [each["code"] for each in concept.get("coding", ())]


@pytest.mark.parametrize(
    ("cells", "status", "operational", "extensions"),
    [
        pytest.param({}, "active", None, [], id="nothing told"),
        pytest.param({"bed_status": "O"}, "active", "O", [], id="HL7"),
        pytest.param({"bed_status": "占床"}, "active", "O", [], id="Chinese"),
        pytest.param({"bed_status": "预占"}, "active", "U", ["bed-reserved"], id="promised is unoccupied and says so"),
        pytest.param({"bed_status": "维修"}, "suspended", "C", [], id="closed"),
        pytest.param({"bed_status": "U", "active_flag": "0"}, "inactive", "U", [], id="no longer in use"),
        pytest.param({"sex_limit": "2"}, "active", None, ["bed-sex-limit"], id="for women"),
        pytest.param({"lent_dept_code": "03"}, "active", None, ["bed-lent-to"], id="lent"),
    ],
)
def test_a_bed(cells: dict[str, Any], status: str, operational: str | None, extensions: list[str]):
    beds = [each for each in resources(convert("V_IOP_BED", BED | cells), "Location") if each["name"] == "12"]
    assert len(beds) == 1
    assert beds[0]["status"] == status
    assert beds[0].get("operationalStatus", {}).get("code") == operational
    assert [each["url"].rpartition("/")[2] for each in beds[0].get("extension", ())] == extensions


def test_a_bed_is_the_place_that_visits_name_and_holds_no_patient():
    bed = convert("V_IOP_BED", BED | {"bed_status": "O", "dept_code": "01", "dept_name": "内科"})
    visit = VISIT | {"visit_class": "I", "ward_code": "W1", "bed_no": "12"}
    encounter = only(convert("V_IOP_ENCOUNTER", visit), "Encounter")
    found = next(each for each in resources(bed, "Location") if each["name"] == "12")
    assert encounter["location"][0]["location"] == {"reference": f"Location/{found['id']}"}
    departments = {f"Organization/{each['id']}": each["name"] for each in resources(bed, "Organization")}
    assert departments[found["managingOrganization"]["reference"]] == "内科"
    assert b"00012" not in bed.to_json()


def test_an_unknown_state_of_a_bed_is_reported():
    assert ("unmapped-code", "row 1, column bed_status") in remarks(convert("V_IOP_BED", BED | {"bed_status": "??"}))


def test_a_transfer_keeps_both_places():
    row = VISIT | {
        "visit_class": "I",
        "start_at": "2026-01-01 08:00",
        "moved_at": "2026-01-03 10:00",
        "ward_code": "W2",
        "bed_no": "5",
        "prior_ward_code": "W1",
        "prior_bed_no": "12",
    }
    result = convert("V_IOP_ENCOUNTER", row)
    earlier, now = only(result, "Encounter")["location"]
    assert (earlier["status"], now["status"]) == ("completed", "active")
    assert earlier["period"] == {"start": "2026-01-01T08:00:00+08:00", "end": "2026-01-03T10:00:00+08:00"}
    assert now["period"] == {"start": "2026-01-03T10:00:00+08:00"}
    assert {each["name"] for each in resources(result, "Location")} == {"W1", "W2", "12", "5"}


def test_an_order():
    row = ORDER | {
        "item_code": "CT01",
        "order_class": "检查",
        "order_term": "临时",
        "status": "执行",
        "priority": "急",
        "ordered_at": "2026010108:00:00",
        "start_at": "20260101",
        "quantity": "1",
        "quantity_unit": "次",
        "requester_code": "1001",
        "performer_dept_code": "CT",
        "performer_dept_name": "CT室",
        "reason": "头痛",
        "group_no": "G1",
    }
    result = convert("V_IOP_ORDER", row)
    request = only(result, "ServiceRequest")
    assert (request["status"], request["priority"], request["intent"]) == ("active", "urgent", "order")
    assert request["occurrenceDateTime"] == "2026-01-01"
    assert [each["text"] for each in request["category"]] == ["检查", "临时"]
    assert request["performer"][0]["reference"].startswith("Organization/")
    assert remarks(result) == []
    report = VISIT | {"report_no": "E1", "request_no": "O1"}
    assert only(convert("V_IOP_EXAM", report), "DiagnosticReport")["basedOn"] == [
        {"reference": f"ServiceRequest/{request['id']}"}
    ]


def test_a_request_that_a_report_mentions_does_not_replace_the_order():
    result = convert("V_IOP_EXAM", EXAM | {"request_no": "O1"})
    entry = next(each for each in result.bundle["entry"] if each["resource"]["resourceType"] == "ServiceRequest")
    assert entry["request"]["ifNoneMatch"] == "*"
    entry = convert("V_IOP_ORDER", ORDER).bundle["entry"][0]
    assert "ifNoneMatch" not in entry["request"]


@pytest.mark.parametrize(
    ("cells", "element"),
    [
        pytest.param({"frequency": "bid", "start_at": "20260101"}, "occurrenceTiming", id="frequency"),
        pytest.param({"start_at": "20260101", "stop_at": "20260105"}, "occurrencePeriod", id="period"),
        pytest.param({"start_at": "20260101"}, "occurrenceDateTime", id="once"),
    ],
)
def test_when_an_order_holds(cells: dict[str, Any], element: str):
    request = only(convert("V_IOP_ORDER", ORDER | cells), "ServiceRequest")
    assert [name for name in request if name.startswith("occurrence")] == [element]


@pytest.mark.parametrize(
    ("value", "coding"),
    [
        pytest.param("护理", None, id="a name stays a name"),
        pytest.param("3", "https://node.invalid/fhir/NamingSystem/HIS/order-class|3", id="a code of the site"),
        pytest.param("7", "urn:test:classes|nursing", id="mapped by the profile"),
    ],
)
def test_kinds_that_have_no_common_codes(value: str, coding: str | None):
    result = convert("V_IOP_ORDER", ORDER | {"order_class": value})
    category = only(result, "ServiceRequest")["category"][0]
    assert [f"{each['system']}|{each['code']}" for each in category.get("coding", ())] == ([coding] if coding else [])
    assert remarks(result) == []


def test_an_order_of_a_medicine():
    row = DRUG | {
        "drug_code": "AMX",
        "drug_nhsa_code": "XJ01CAA040E001010100001",
        "drug_spec": "0.25g*24粒",
        "drug_form": "胶囊剂",
        "dose": "0.50",
        "dose_unit": "g",
        "route": "口服",
        "frequency": "tid",
        "days": "3",
        "quantity": "1",
        "quantity_unit": "盒",
        "order_kind": "出院带药",
        "status": "停止",
        "prescription_no": "CF1",
        "instruction": "饭后",
        "start_at": "2026-01-01 08:00",
        "stop_at": "2026-01-04 08:00",
    }
    result = convert("V_IOP_MEDICATION", row)
    request = only(result, "MedicationRequest")
    assert request["status"] == "stopped"
    assert request["medicationCodeableConcept"]["text"] == "阿莫西林胶囊 0.25g*24粒 胶囊剂"
    assert codes(request["medicationCodeableConcept"]) == ["AMX", "XJ01CAA040E001010100001"]
    dosage = request["dosageInstruction"][0]
    assert (codes(dosage["route"]), codes(dosage["timing"]["code"])) == (["PO"], ["TID"])
    dose = dosage["doseAndRate"][0]["doseQuantity"]
    assert (dose["value"].lexeme, dose["code"]) == ("0.50", "g")
    assert request["dispenseRequest"]["quantity"]["unit"] == "盒"
    assert codes(request["category"][0]) == ["discharge"]
    assert remarks(result) == []


def test_an_administration_names_its_order():
    row = DRUG | {
        "dose": "1",
        "dose_unit": "g",
        "route": "静滴",
        "administration_no": "A7",
        "administered_at": "2026-01-01 09:00",
        "administered_until": "2026-01-01 09:30",
        "administration_status": "已执行",
        "administrator_code": "2001",
    }
    result = convert("V_IOP_MEDICATION", row)
    given, request = only(result, "MedicationAdministration"), only(result, "MedicationRequest")
    assert given["request"] == {"reference": f"MedicationRequest/{request['id']}"}
    assert given["status"] == "completed"
    assert set(given["effectivePeriod"]) == {"start", "end"}
    assert codes(given["dosage"]["route"]) == ["IV"]
    other = only(convert("V_IOP_MEDICATION", row | {"administration_no": "A8"}), "MedicationAdministration")
    assert other["id"] != given["id"]


@pytest.mark.parametrize(
    ("cells", "code", "column"),
    [
        pytest.param({"administered_at": "20260101"}, "missing", "administration_no", id="given, and no number"),
        pytest.param({"dose": "半"}, "bad-value", "dose", id="dose in words"),
        pytest.param({"days": "几"}, "bad-value", "days", id="days in words"),
        pytest.param({"status": "??"}, "unmapped-code", "status", id="status"),
        pytest.param(
            {"start_at": "2026-01-02 08:00", "stop_at": "2026-01-01 08:00"}, "conflict", "stop_at", id="ends before"
        ),
    ],
)
def test_doubts_about_a_medicine_are_reported(cells: dict[str, Any], code: str, column: str):
    assert (code, f"row 1, column {column}") in remarks(convert("V_IOP_MEDICATION", DRUG | cells))


def test_an_administration_without_a_time_says_so():
    given = only(convert("V_IOP_MEDICATION", DRUG | {"administration_no": "A7"}), "MedicationAdministration")
    assert given["effectivePeriod"]["extension"][0]["valueCode"] == "unknown"


def test_a_report_of_an_examination():
    row = EXAM | {
        "findings": "双肺纹理清晰",
        "flag": "阴性",
        "body_site": "头部",
        "study_uid": "1.2.840.113619.2.1",
        "performer_code": "3001",
        "verifier_name": "钱主任",
        "accession_no": "ACC1",
        "examined_at": "2026-01-01 10:00",
        "reported_at": "2026-01-01 11:00",
    }
    result = convert("V_IOP_EXAM", row)
    report, finding = only(result, "DiagnosticReport"), only(result, "Observation")
    assert (codes(report["category"][0]), report["conclusion"]) == (["CT"], "未见异常")
    assert report["result"] == [{"reference": f"Observation/{finding['id']}"}]
    assert finding["valueString"] == "双肺纹理清晰"
    assert report["imagingStudy"][0]["identifier"]["value"] == "urn:oid:1.2.840.113619.2.1"
    assert remarks(result) == []


def test_a_study_uid_that_is_none_is_reported():
    result = convert("V_IOP_EXAM", EXAM | {"study_uid": "x.y"})
    assert ("bad-value", "row 1, column study_uid") in remarks(result)
    assert "imagingStudy" not in only(result, "DiagnosticReport")


@pytest.mark.parametrize(
    ("cells", "loinc", "value"),
    [
        pytest.param({}, "8310-5", ("36.50", "Cel"), id="temperature keeps its digits"),
        pytest.param({"item_code": "脉搏", "result": "80", "unit": "次/分"}, "8893-0", ("80", "/min"), id="pulse"),
        pytest.param({"item_code": "心率", "result": "80", "unit": "次/分"}, "8867-4", ("80", "/min"), id="heart rate"),
        pytest.param({"item_code": "X9", "item_name": "身高", "result": "170", "unit": "cm"}, "8302-2",
                     ("170", "cm"), id="by its name"),
        pytest.param({"item_code": "血氧饱和度", "result": "98", "unit": "%"}, "2708-6", ("98", "%"), id="saturation"),
    ],
)  # fmt: skip
def test_vital_signs(cells: dict[str, Any], loinc: str, value: tuple[str, str]):
    result = convert("V_IOP_VITAL", VITAL | cells)
    observation = only(result, "Observation")
    assert observation["category"][0]["coding"][0]["code"] == "vital-signs"
    assert codes(observation["code"])[0] == loinc
    quantity = observation["valueQuantity"]
    assert (quantity["value"].lexeme, quantity["code"]) == value
    assert remarks(result) == []


def test_a_blood_pressure_has_two_components():
    observation = only(
        convert("V_IOP_VITAL", VITAL | {"item_code": "BP", "result": "１２０／80", "unit": "mmHg"}), "Observation"
    )
    parts = [(codes(each["code"])[0], each["valueQuantity"]["value"].lexeme) for each in observation["component"]]
    assert parts == [("8480-6", "120"), ("8462-4", "80")]
    assert "valueQuantity" not in observation
    assert "valueString" not in observation


def test_a_measurement_is_named_by_its_number_or_by_whom_what_and_when():
    first = only(convert("V_IOP_VITAL", VITAL), "Observation")["id"]
    assert only(convert("V_IOP_VITAL", VITAL | {"result": "37"}), "Observation")["id"] == first
    assert only(convert("V_IOP_VITAL", VITAL | {"measured_at": "2026-01-01 10:00"}), "Observation")["id"] != first
    numbered = VITAL | {"record_no": "9"}
    moved = numbered | {"measured_at": "2026-01-01 10:00"}
    ids = {only(convert("V_IOP_VITAL", row), "Observation")["id"] for row in (numbered, moved)}
    assert len(ids) == 1


def test_a_vital_sign_that_nobody_knows_is_kept_and_reported():
    result = convert("V_IOP_VITAL", VITAL | {"item_code": "ZZ", "result": "拒测"})
    assert ("unmapped-code", "row 1, column item_code") in remarks(result)
    assert only(result, "Observation")["valueString"] == "拒测 ℃"


@pytest.mark.parametrize(
    ("cells", "clinical", "verification"),
    [
        pytest.param({}, [], [], id="nothing told"),
        pytest.param({"certainty": "疑似"}, [], ["provisional"], id="suspected"),
        pytest.param({"outcome": "治愈", "certainty": "确诊"}, ["resolved"], ["confirmed"], id="cured"),
        pytest.param({"outcome": "治愈", "active_flag": "0"}, [], ["entered-in-error"], id="con-5: entered in error"),
    ],
)
def test_a_diagnosis(cells: dict[str, Any], clinical: list[str], verification: list[str]):
    condition = only(convert("V_IOP_DIAGNOSIS", DIAGNOSIS | cells), "Condition")
    assert codes(condition["code"]) == ["J18.900", "J18.9"]
    assert codes(condition.get("clinicalStatus", {})) == clinical
    assert codes(condition.get("verificationStatus", {})) == verification


def test_a_diagnosis_keeps_its_kind_and_place():
    result = convert("V_IOP_DIAGNOSIS", DIAGNOSIS | {"diagnosis_kind": "出院", "seq_no": "１"})
    condition = only(result, "Condition")
    assert [codes(each) for each in condition["category"]] == [["encounter-diagnosis"], ["DD"]]
    assert condition["extension"][0]["valuePositiveInt"] == 1
    other = only(convert("V_IOP_DIAGNOSIS", DIAGNOSIS | {"diagnosis_kind": "A"}), "Condition")
    assert other["id"] != condition["id"]
    assert ("bad-value", "row 1, column seq_no") in remarks(convert("V_IOP_DIAGNOSIS", DIAGNOSIS | {"seq_no": "x"}))


@pytest.mark.parametrize(
    ("cells", "raw", "kind"),
    [
        pytest.param({}, "患者于三日前".encode(), "text/plain; charset=utf-8", id="text"),
        pytest.param({"content": "病程".encode("gb18030")}, "病程".encode("gb18030"), "text/plain; charset=gb18030",
                     id="bytes of the source's character set stay"),
        pytest.param({"content": b"%PDF-1.7\xff", "content_type": "pdf"}, b"%PDF-1.7\xff", "application/pdf", id="PDF"),
        pytest.param({"content": "<a/>", "content_type": "text/xml"}, b"<a/>", "text/xml; charset=utf-8", id="XML"),
    ],
)  # fmt: skip
def test_a_document_keeps_its_content(cells: dict[str, Any], raw: bytes, kind: str):
    result = convert("V_IOP_DOCUMENT", DOCUMENT | cells)
    reference, binary = only(result, "DocumentReference"), only(result, "Binary")
    attachment = reference["content"][0]["attachment"]
    assert base64.b64decode(binary["data"]) == raw
    assert attachment["contentType"] == binary["contentType"] == kind
    assert attachment["url"] == f"Binary/{binary['id']}"
    assert attachment["hash"] == base64.b64encode(hashlib.sha1(raw).digest()).decode()
    assert binary["securityContext"] == reference["subject"]


def test_a_document_of_the_shared_kinds_and_its_states():
    row = DOCUMENT | {"type_code": "C0049", "type_name": "出院记录", "status": "作废", "replaces_no": "D0"}
    reference = only(convert("V_IOP_DOCUMENT", row), "DocumentReference")
    assert reference["type"]["coding"][0]["system"] == "urn:oid:2.16.156.10011.2.4"
    assert (reference["status"], reference["docStatus"]) == ("entered-in-error", "entered-in-error")
    assert reference["relatesTo"][0]["target"]["identifier"]["value"] == "D0"


@pytest.mark.parametrize(
    ("cells", "code", "column"),
    [
        pytest.param({"content": None}, "missing", "content", id="without content"),
        pytest.param({"content_type": "某格式"}, "unmapped-code", "content_type", id="format nobody knows"),
        pytest.param({"signed_at": "昨天"}, "bad-value", "signed_at", id="time"),
    ],
)
def test_doubts_about_a_document_are_reported(cells: dict[str, Any], code: str, column: str):
    assert (code, f"row 1, column {column}") in remarks(convert("V_IOP_DOCUMENT", DOCUMENT | cells))


def test_a_document_that_is_too_large_comes_without_its_content(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fhir_adapters.tabular.document.MAX_DOCUMENT_BYTES", 8)
    result = convert("V_IOP_DOCUMENT", DOCUMENT)
    assert [each.severity for each in result.issues] == ["error"]
    assert resources(result, "Binary") == []


def test_the_life_of_a_critical_value():
    found = CRITICAL | {"found_at": "2026-01-01 08:00", "notifier_code": "4001"}
    told = found | {"notified_at": "2026-01-01 08:05", "receiver_code": "2001", "receiver_dept_code": "01"}
    confirmed = told | {"confirmed_at": "2026-01-01 08:07", "confirmer_code": "2001"}
    handled = confirmed | {"handled_at": "2026-01-01 08:30", "handler_code": "1001", "action_text": "静推葡萄糖酸钙"}
    states = []
    ids = set()
    for row in (found, told, confirmed, handled):
        result = convert("V_IOP_CRITICAL", row)
        flag, said, task = (only(result, kind) for kind in ("Flag", "Communication", "Task"))
        states.append((flag["status"], said["status"], task["status"]))
        ids |= {flag["id"], said["id"], task["id"]}
        assert task["focus"] == {"reference": f"Communication/{said['id']}"}
        assert remarks(result) == []
    assert states == [
        ("active", "in-progress", "requested"),
        ("active", "completed", "requested"),
        ("active", "completed", "received"),
        ("inactive", "completed", "completed"),
    ]
    assert len(ids) == 3
    assert said["payload"][0]["contentString"] == "危急值: 钾 7.10 mmol/L"
    assert task["owner"]["reference"] != task["requester"]["reference"]


def test_a_critical_value_names_the_result_of_its_report():
    lab = VISIT | {"report_no": "R1", "item_code": "K", "item_name": "钾", "result": "7.10", "unit": "mmol/L"}
    observation = only(convert("V_IOP_LAB", lab), "Observation")
    result = convert("V_IOP_CRITICAL", CRITICAL | {"report_no": "R1"})
    assert only(result, "Communication")["about"] == [{"reference": f"Observation/{observation['id']}"}]
    entry = next(each for each in result.bundle["entry"] if each["resource"]["resourceType"] == "Observation")
    assert entry["request"]["ifNoneMatch"] == "*"


def test_staff_with_a_role_in_each_department():
    rows = [STAFF | {"row_key": dept, "dept_code": dept, "role": "医师", "title": "主任医师", "license_no": "L1"}
            for dept in ("01", "02")]  # fmt: skip
    result = convert("V_IOP_STAFF", *rows)
    person = only(result, "Practitioner")
    roles = resources(result, "PractitionerRole")
    assert len(roles) == len({each["id"] for each in roles}) == 2
    assert {each["practitioner"]["reference"] for each in roles} == {f"Practitioner/{person['id']}"}
    assert codes(roles[0]["code"][0]) == ["doctor"]
    assert person["qualification"][0]["identifier"][0]["value"] == "L1"
    visit = VISIT | {"visit_class": "I", "attending_code": "1001"}
    assert only(convert("V_IOP_ENCOUNTER", visit), "Practitioner")["id"] == person["id"]


def test_departments_form_a_tree():
    rows = [
        COMMON | {"dept_code": "01", "dept_name": "内科"},
        COMMON
        | {"row_key": "2", "dept_code": "0101", "dept_name": "心内科", "parent_code": "01", "active_flag": "停用"},
    ]
    result = convert("V_IOP_DEPARTMENT", *rows)
    hospital, whole, part = (
        next(each for each in resources(result, "Organization") if each.get("name") == name)
        for name in ("示例医院", "内科", "心内科")
    )
    assert whole["partOf"] == {"reference": f"Organization/{hospital['id']}"}
    assert part["partOf"]["reference"] == f"Organization/{whole['id']}"
    assert (whole["active"], part["active"]) == (True, False)


def test_rows_about_no_patient_share_one_provenance():
    result = convert("V_IOP_STAFF", STAFF, STAFF | {"row_key": "2", "staff_no": "1002", "name": "钱护士"})
    assert len(only(result, "Provenance")["target"]) == 2


@pytest.mark.parametrize("view", list(VIEWS.values()), ids=lambda view: view.name)
def test_a_header_finds_its_view(view: Any):
    assert view_of(list(view.columns)) is view
    assert view_of([name for name in view.columns if name not in ("row_key", "updated_at")]) is view


def test_a_name_decides_between_views_that_fit():
    header = ["patient_no", "diagnosis_name", "visit_no"]
    assert view_of(header).name == "V_IOP_DIAGNOSIS"
    assert view_of(header, "v_iop_patient_2026.csv").name == "V_IOP_PATIENT"
    with pytest.raises(ParseError):
        view_of(["a", "b"], "V_IOP_LAB.csv")
