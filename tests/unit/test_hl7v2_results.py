"""ORU: orders, reports, specimens, notes, several patients; Provenance; what is left over."""

import pytest

from fhir_adapters import hl7v2
from fhir_adapters.errors import ParseError
from tests.hl7v2_samples import PROFILE, adt, msh, obr, obx, one, oru, pid, pv1, raw, remarks, resources, segment


@pytest.mark.parametrize("trigger", ["R01", "R30", "R31", "R32"])
def test_result_events(trigger: str) -> None:
    result = hl7v2.convert(raw([msh(f"ORU^{trigger}"), pid(), obr(), obx("NM", "1")]), PROFILE)
    assert one(result, "Observation")["valueQuantity"]


def test_report_request_and_results_hang_together() -> None:
    result = oru(pid(), pv1(), obr(f22="20240501093000", f24="HM"), obx("NM", "1"), obx("NM", "2", f1="2"))
    report, request = one(result, "DiagnosticReport"), one(result, "ServiceRequest")
    assert report["basedOn"] == [{"reference": f"ServiceRequest/{request['id']}"}]
    assert [each["reference"] for each in report["result"]] == [
        f"Observation/{each['id']}" for each in resources(result, "Observation")
    ]
    assert report["issued"] == "2024-05-01T09:30:00+08:00"
    assert report["encounter"] == one(result, "ServiceRequest")["encounter"]
    assert {each["value"] for each in report["identifier"]} == {"REQ1", "REP1"}


@pytest.mark.parametrize(
    ("code", "status"), [("F", "final"), ("P", "preliminary"), ("C", "corrected"), ("X", "cancelled")]
)
def test_report_status(code: str, status: str) -> None:
    assert one(oru(pid(), obr(f25=code)), "DiagnosticReport")["status"] == status


def test_a_report_without_a_status_is_unknown_and_remarked_on() -> None:
    result = oru(pid(), obr(f25=""))
    assert one(result, "DiagnosticReport")["status"] == "unknown"
    assert ("missing", "OBR[1]-25") in remarks(result)


def test_several_patients_and_orders() -> None:
    result = oru(
        pid(),
        obr(),
        obx("NM", "1"),
        pid(f3="P2^^^HIS^MR"),
        obr(f2="", f3="R2"),
        obx("NM", "2"),
        obr(f2="", f3="R3"),
        obx("NM", "3"),
    )
    first, second = resources(result, "Patient")
    subjects = [each["subject"]["reference"].split("/")[1] for each in resources(result, "Observation")]
    assert subjects == [first["id"], second["id"], second["id"]]
    assert len(resources(result, "DiagnosticReport")) == 3


def test_the_report_of_one_number_has_one_id_in_every_adapter() -> None:
    from fhir_adapters.identifiers import assigning_system, report_id

    result = oru(pid(), obr(f3="REP1^HIS"))
    assert one(result, "DiagnosticReport")["id"] == report_id(PROFILE, assigning_system(PROFILE, "HIS"), "REP1")


def test_a_number_shared_by_a_panels_services_gives_a_report_each() -> None:
    result = oru(pid(), obr(), obr(f4="LIP^Lipids^L"), obr(f4="LIP^Lipids^L"))
    assert len({each["id"] for each in resources(result, "DiagnosticReport")}) == 3


def test_an_order_without_a_number_is_named_by_the_message() -> None:
    result = oru(pid(), obr(f2="", f3=""))
    assert ("no-identifier", "OBR[1]-3") in remarks(result)
    assert one(result, "DiagnosticReport")["id"] == one(oru(pid(), obr(f2="", f3="")), "DiagnosticReport")["id"]


def test_orc_completes_obr() -> None:
    orc = {1: "RE", 2: "REQ9", 3: "REP9", 5: "CM", 9: "20240501", 12: "7^Li^Si", 14: "555", 21: "Ward 3^^W3"}
    result = oru(pid(), segment("ORC", orc), obr(f2="", f3=""))
    request = one(result, "ServiceRequest")
    assert [each["value"] for each in request["identifier"]] == ["REQ9", "REP9"]
    assert (request["status"], request["authoredOn"]) == ("completed", "2024-05-01")
    # who asked, at which facility
    assert request["requester"]["reference"].startswith("PractitionerRole/")
    role = one(result, "PractitionerRole")
    assert set(role) == {"resourceType", "id", "practitioner", "organization"}
    assert request["extension"][0]["valueContactPoint"]["value"] == "555"


def test_a_number_of_orc_that_differs_is_remarked_on() -> None:
    result = oru(pid(), "ORC|RE|OTHER|REP1", obr())
    assert ("not-mapped", "ORC[1]-2") in remarks(result)


def test_orders_begin_with_orc_or_obr() -> None:
    result = oru(
        pid(), "ORC|RE|A|A1", obr(f2="", f3=""), obx("NM", "1"), "ORC|RE|B|B1", obr(f2="", f3=""), obx("NM", "2")
    )
    assert [each["identifier"][0]["value"] for each in resources(result, "ServiceRequest")] == ["A", "B"]


def test_specimens() -> None:
    spm = {
        1: "1",
        2: "P1&HIS^F1&LIS",
        4: "BLD^Blood^HL70487",
        8: "ARM^Arm^L",
        12: "5^mL",
        14: "haemolysed",
        17: "20240501080000^20240501081000",
        18: "20240501090000",
        20: "Y",
        24: "LIVE^Live^L",
        27: "T1^Tube^L",
    }
    result = oru(pid(), obr(f10="9^Ann"), obx("NM", "1"), segment("SPM", spm))
    found = one(result, "Specimen")
    assert [each["value"] for each in found["identifier"]] == ["F1", "P1"]
    assert found["collection"].keys() == {"bodySite", "quantity", "collectedPeriod", "collector"}
    assert found["note"] == [{"text": "haemolysed"}]
    reference = {"reference": f"Specimen/{found['id']}"}
    assert one(result, "Observation")["specimen"] == reference
    assert one(result, "DiagnosticReport")["specimen"] == [reference]


def test_the_specimen_of_an_old_obr() -> None:
    result = oru(pid(), obr(f9="10^mL", f14="20240501090000", f15="SER&Serum&HL70070^^left over^ARM&Arm"))
    found = one(result, "Specimen")
    assert found["type"]["coding"][0]["code"] == "SER"
    assert found["collection"]["bodySite"]["coding"][0]["code"] == "ARM"
    assert found["note"] == [{"text": "left over"}]


def test_notes_stay_with_what_they_follow() -> None:
    result = oru(
        pid(), "NTE|1||of the patient", obr(), "NTE|1||of the order~two", obx("NM", "1"), "NTE|1||of the result"
    )
    assert one(result, "Patient")["extension"][0]["valueAnnotation"] == {"text": "of the patient"}
    assert one(result, "DiagnosticReport")["extension"][0]["valueAnnotation"] == {"text": "of the order\ntwo"}
    assert one(result, "Observation")["note"] == [{"text": "of the result"}]


def test_results_without_an_order_are_kept() -> None:
    result = oru(pid(), obx("NM", "1"), obx("NM", "2", f1="2"))
    assert len(resources(result, "Observation")) == 2
    assert ("missing", "OBX[1]") in remarks(result)


def test_results_without_a_patient_are_refused() -> None:
    with pytest.raises(ParseError) as caught:
        oru(obr(), obx("NM", "1"))
    assert caught.value.location == "PID"


def test_observations_in_an_admission() -> None:
    result = adt("A01", pid(), pv1(), obx("NM", "170", "cm"))
    found = one(result, "Observation")
    assert found["encounter"]["reference"] == f"Encounter/{one(result, 'Encounter')['id']}"


def test_provenance_names_source_time_and_people() -> None:
    result = adt("A01", pid())
    found = one(result, "Provenance")
    assert found["recorded"] == result.bundle["timestamp"] == "2024-05-01T08:30:00+08:00"
    assert found["target"] == [{"reference": f"Patient/{one(result, 'Patient')['id']}"}]
    assert found["entity"][0]["what"]["identifier"]["system"].endswith("source-digest-sm3")
    assert len(found["entity"][0]["what"]["identifier"]["value"]) == 64
    assert [each["type"]["coding"][0]["code"] for each in found["agent"]] == ["author", "assembler"]


def test_a_message_without_a_time_says_so() -> None:
    result = hl7v2.convert(raw([msh("ADT^A28", f7=""), pid()]), PROFILE)
    assert "recorded" not in one(result, "Provenance")
    assert "timestamp" not in result.bundle
    assert ("missing", "MSH[1]-7") in remarks(result)


def test_a_message_without_a_control_id_is_named_by_its_digest() -> None:
    result = hl7v2.convert(raw([msh("ADT^A28", f10=""), pid()]), PROFILE)
    assert ("missing", "MSH-10") in remarks(result)


def test_what_no_mapping_takes_is_listed_by_its_place() -> None:
    result = adt("A01", pid(f27="VET", f5="Doe^J^^^^^L^^ctx"), "ZZZ|1|own|data", "DB1|1|PT")
    assert {
        ("not-mapped", "PID[1]-27"),
        ("not-mapped", "PID[1]-5.9"),
        ("local-segment", "ZZZ[1]"),
        ("not-mapped", "DB1[1]-2"),
    } <= remarks(result)


def test_issues_never_hold_content() -> None:
    secret = "Geheim"
    lines = [pid(f5=f"{secret}^{secret}^^^^^{secret}", f7=secret, f8=secret, f16=secret, f27=secret), f"ZZZ|{secret}"]
    result = adt("A01", *lines, pv1(f2=secret, f3=f"{secret}^^^^{secret}"), obx(secret, secret, f8=secret, f11=secret))
    assert len(result.issues) > 8
    assert secret not in repr(result.issues)


def test_mllp_bytes_and_marks_around_a_message_do_not_matter() -> None:
    message = raw([msh("ADT^A28"), pid()])
    plain = hl7v2.convert(message, PROFILE).bundle["entry"][0]
    for dressed in (b"\x0b" + message + b"\x1c\r", b"\xef\xbb\xbf" + message, b"\r\n" + message):
        assert hl7v2.convert(dressed, PROFILE).bundle["entry"][0] == plain


def test_control_characters_are_removed_and_remarked_on() -> None:
    result = adt("A28", pid(f5="Do\x00e\x01^Jane"))
    assert one(result, "Patient")["name"][0]["family"] == "Doe"
    assert ("control-characters", "MSH") in remarks(result)


def test_a_wrong_character_set_is_remarked_on() -> None:
    result = hl7v2.convert(raw([msh("ADT^A28", "GBK"), pid(f5="张^三")]), PROFILE)
    assert one(result, "Patient")["name"][0]["text"] == "张三"
    assert ("charset", "MSH-18") in remarks(result)
