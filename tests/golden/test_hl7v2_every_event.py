"""One message of each family and event that HIS vendors send: what it becomes, valid and with nothing left unsaid."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from fhir_adapters import hl7v2
from fhir_adapters.errors import UnsupportedMessage
from fhir_adapters.validation import validate_bundle
from tests.hl7v2_samples import PROFILE, msh, obr, obx, pid, pv1, raw

PERSON = [pid(), pv1()]
OTHER = pid(f3="P2^^^HIS^MR", f5="Roe^Jo")
MERGED = "MRG|P9^^^HIS^MR||||V9^^^HIS^VN"
ORDER = "ORC|NW|O1|F1"
MEDICINE = "RXE||M1^Amoxicillin^L|500||mg"
ROUTE = "RXR|PO^oral^HL70162"
DISPENSED = "RXD|1|M1^Amoxicillin^L|20240501|10|mg"
GIVEN = "RXA|0|1|20240501||V1^Vaccine^L|0.5|mL"
BOOKING = ["SCH|1|2|||||CHECKUP^^L|NORMAL^^HL70277|30|min|^^^20240601090000^20240601093000|||||D1^Doe^Jo|||||D1^Doe^Jo"]
SCHEDULE = [*BOOKING, pid(), pv1(), "RGS|1", "AIS|1||CHECKUP^^L|20240601090000", "AIP|1||D1^Doe^Jo"]
TEXT = ["TXA|1|DS|TX|20240501||20240501||||||DOC1|||||AU", obx("TX", "text")]
CHARGE = "FT1|1|||20240501||CG|C1^Bed^L|||1"
REFERRAL = ["RF1|P|R|MED^^L|RP^^L||REF1", "PRD|RP^^HL70286|Doe^Jo"]
MASTER = "MFI|STF^^HL70175||UPD|||NE"
PROBLEM = "PRB|AD|20240501|I10^Hypertension^I10|PR1"

EVENTS: list[tuple[str, list[str], dict[str, int]]] = [
    *((f"ADT^{event}", PERSON, {"Patient": 1, "Encounter": 1}) for event in ("A01", "A02", "A03", "A04", "A05", "A08")),
    ("ADT^A06", [pid(), pv1(f2="I")], {"Patient": 1, "Encounter": 1}),
    ("ADT^A07", [pid(), pv1(f2="O")], {"Patient": 1, "Encounter": 1}),
    ("ADT^A11", PERSON, {"Patient": 1, "Encounter": 1}),
    ("ADT^A12", PERSON, {"Patient": 1, "Encounter": 1}),
    ("ADT^A13", PERSON, {"Patient": 1, "Encounter": 1}),
    ("ADT^A18", [pid(), MERGED, pv1()], {"Patient": 2}),
    ("ADT^A24", [pid(), OTHER], {"Patient": 2}),
    ("ADT^A28", [pid()], {"Patient": 1}),
    ("ADT^A31", [pid()], {"Patient": 1}),
    ("ADT^A34", [pid(), MERGED], {"Patient": 2}),
    ("ADT^A40", [pid(), MERGED], {"Patient": 2}),
    ("ADT^A41", [pid(f18="K1^^^HIS^AN"), "MRG|P1^^^HIS^MR||K9^^^HIS^AN"], {"Patient": 1, "Account": 2}),
    ("ADT^A45", [pid(), MERGED, pv1(f19="V9^^^HIS^VN")], {"Patient": 1, "Encounter": 2}),
    ("ADT^A47", [pid(), "MRG|P9^^^HIS^MR"], {"Patient": 2}),
    ("ADT^A60", [pid(), "IAM|1|DA^^HL70127|P1^Penicillin^L|SV^^HL70128||A^^HL70206|K1"], {"AllergyIntolerance": 1}),
    ("ORU^R01", [pid(), ORDER, obr(), obx("NM", "1")], {"DiagnosticReport": 1, "Observation": 1}),
    ("ORM^O01", [*PERSON, ORDER, obr()], {"ServiceRequest": 1}),
    ("OML^O21", [*PERSON, ORDER, obr(), "SPM|1|||BLD^blood^HL70487"], {"ServiceRequest": 1, "Specimen": 1}),
    ("OMG^O19", [*PERSON, ORDER, obr()], {"ServiceRequest": 1}),
    ("RDE^O11", [*PERSON, ORDER, MEDICINE, ROUTE], {"MedicationRequest": 1}),
    ("RDS^O13", [*PERSON, ORDER, MEDICINE, ROUTE, DISPENSED, ROUTE], {"MedicationDispense": 1}),
    ("RAS^O17", [*PERSON, ORDER, MEDICINE, ROUTE, GIVEN, ROUTE], {"MedicationAdministration": 1}),
    ("VXU^V04", [pid(), "ORC|RE|O1|F1", GIVEN, ROUTE], {"Immunization": 1}),
    *((f"SIU^S{number}", SCHEDULE, {"Appointment": 1}) for number in (*range(12, 23), 26)),
    *((f"SIU^S{number}", SCHEDULE, {}) for number in (23, 24)),
    *((f"MDM^{event}", [*PERSON, *TEXT], {"DocumentReference": 1}) for event in ("T02", "T04", "T06", "T08", "T10")),
    *((f"MDM^{event}", [*PERSON, TEXT[0]], {"DocumentReference": 1}) for event in ("T01", "T03", "T11")),
    ("DFT^P03", [*PERSON, CHARGE], {"ChargeItem": 1}),
    ("BAR^P01", [pid(f18="K1^^^HIS^AN"), pv1()], {"Account": 1}),
    ("BAR^P06", [pid(f18="K1^^^HIS^AN"), pv1()], {"Account": 1}),
    *((f"REF^I{number}", [*REFERRAL, pid()], {"ServiceRequest": 1, "Task": 1}) for number in (12, 13, 14, 15)),
    *((f"PPR^PC{number}", [*PERSON, PROBLEM], {"Condition": 1}) for number in (1, 2, 3)),
    ("MFN^M02", [MASTER, "MFE|MAD|1|20240501|D1|CWE", "STF|D1|D1^^^HIS|Doe^Jo"], {"Practitioner": 1}),
    ("MFN^M05", [MASTER, "MFE|MAD|1|20240501|W3|PL", "LOC|W3|Ward 3"], {"Location": 1}),
]  # fmt: skip
"""Message type, what follows the header (and EVN in ADT, BAR and DFT), and how many of which resources it makes."""


def message(kind: str, lines: list[str]) -> bytes:
    family, event = kind.split("^")
    evn = [f"EVN|{event}|20240501083000"] if family in ("ADT", "BAR", "DFT", "MDM") else []
    return raw([msh(kind), *evn, *lines])


def entries(content: bytes) -> tuple[list[dict[str, Any]], Any]:
    result = hl7v2.convert(content, PROFILE)
    bundle = json.loads(result.to_json())
    assert validate_bundle(bundle) == []
    return [each["resource"] for each in bundle["entry"]], result


@pytest.mark.parametrize(("kind", "lines", "expected"), EVENTS, ids=[kind for kind, _, _ in EVENTS])
def test_an_event_becomes_its_resources(kind: str, lines: list[str], expected: dict[str, int]) -> None:
    made, _ = entries(message(kind, lines))
    counts = Counter(each["resourceType"] for each in made)
    assert {name: counts[name] for name in expected} == expected
    assert counts["Provenance"] == 1


def test_an_event_that_is_none_is_refused_by_name() -> None:
    """S25 is a query's (SQM), not a notification's."""
    with pytest.raises(UnsupportedMessage, match="SIU\\^S25") as refused:
        hl7v2.convert(message("SIU^S25", SCHEDULE), PROFILE)
    assert refused.value.location == "MSH-9"


def test_a_batch_is_its_messages() -> None:
    """FHS, BHS, their trailers and the messages between: each message by itself, in order."""
    kinds = [("ADT^A01", PERSON), ("ORU^R01", [pid(), ORDER, obr(), obx("NM", "1")]), ("SIU^S12", SCHEDULE)]
    inside = b"".join(message(kind, lines) for kind, lines in kinds)
    batch = b"FHS|^~\\&|HIS\rBHS|^~\\&|HIS\r" + inside + b"BTS|3\rFTS|1\r"
    pieces = list(hl7v2.messages(batch))
    assert [piece.split(b"|")[8].decode() for piece in pieces] == [kind for kind, _ in kinds]
    for piece, (kind, lines) in zip(pieces, kinds, strict=True):
        assert entries(piece)[0] == entries(message(kind, lines))[0]
