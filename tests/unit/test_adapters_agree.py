"""One patient, one visit, one bed: the same resource whether HL7 v2 or a view brings it."""

import fhir_adapters
from fhir_adapters.tabular import convert_rows

PROFILE = fhir_adapters.SourceProfile.from_toml('name = "a"\ndefault_authority = "HIS"\n')
MESSAGE = (
    b"MSH|^~\\&|HIS|H|YQ|H|20260101080000||ADT^A01^ADT_A01|1|P|2.5.1|||||CHN|UNICODE UTF-8\r"
    b"EVN|A01|20260101080000\r"
    b"PID|1||00012^^^HIS^MR||X^Y||19900307|M\r"
    b"PV1|1|I|W1^101^12||||D1^Z^W^^^^^^HIS||||||||||||ZY0001^^^HIS^VN\r"
)
ROW = {
    "row_key": "1",
    "updated_at": "20260101",
    "patient_no": "00012",
    "visit_no": "ZY0001",
    "visit_class": "I",
    "ward_code": "W1",
    "room_no": "101",
    "bed_no": "12",
    "attending_code": "D1",
}


def addresses(result: fhir_adapters.ConversionResult, *types: str) -> set[str]:
    return {entry["request"]["url"] for entry in result.bundle["entry"] if entry["resource"]["resourceType"] in types}


def test_the_same_business_numbers_give_the_same_resources():
    message = fhir_adapters.convert(MESSAGE, "hl7v2", PROFILE)
    visit = convert_rows("V_IOP_ENCOUNTER", [ROW], PROFILE)
    patient = convert_rows(
        "V_IOP_PATIENT", [{key: ROW[key] for key in ("row_key", "updated_at", "patient_no")}], PROFILE
    )
    assert addresses(patient, "Patient") == addresses(message, "Patient")
    shared = ("Encounter", "Location", "Practitioner")
    assert addresses(visit, *shared) == addresses(message, *shared)


def test_messages_and_detection_reach_the_hl7v2_adapter():
    assert fhir_adapters.detect_format(b"\xef\xbb\xbf\x0b" + MESSAGE) == "hl7v2"
    assert len(list(fhir_adapters.messages(MESSAGE + MESSAGE, "auto"))) == 2
    assert (
        fhir_adapters.convert(MESSAGE, "auto", PROFILE).to_json()
        == fhir_adapters.convert(MESSAGE, "hl7v2", PROFILE).to_json()
    )
