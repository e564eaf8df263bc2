"""Synthetic HL7 v2 messages for tests, built by field number so that no field slips."""

from collections.abc import Iterable
from typing import Any

from fhir_adapters import hl7v2
from fhir_adapters.profile import SourceProfile
from fhir_adapters.result import ConversionResult

PROFILE = SourceProfile(name="tests", base_url="https://tests.example/fhir")
RESIDENT_ID = "330106198005150013"
"""A made-up resident identity number with a right check digit: male, born 1980-05-15."""


def segment(name: str, fields: dict[int, str]) -> str:
    return "|".join([name, *(fields.get(number, "") for number in range(1, max(fields, default=0) + 1))])


def msh(kind: str, charset: str = "UNICODE UTF-8", **changes: str) -> str:
    fields = ["MSH", "^~\\&", "HIS", "HOSP", "NODE", "HOSP", "20240501083000", "", kind, "MSG1", "P", "2.5.1"]
    fields += [""] * 5 + [charset]
    for place, value in changes.items():
        fields[int(place.removeprefix("f")) - 1] = value
    return "|".join(fields)


def pid(**fields: str) -> str:
    known = {1: "1", 3: "P1^^^HIS^MR", 5: "Doe^Jane", 7: "19800515", 8: "F"}
    return segment("PID", {**known, **{int(place.removeprefix("f")): value for place, value in fields.items()}})


def pv1(**fields: str) -> str:
    known = {1: "1", 2: "I", 3: "W3^305^12", 19: "V0001^^^HIS^VN"}
    return segment("PV1", {**known, **{int(place.removeprefix("f")): value for place, value in fields.items()}})


def obr(**fields: str) -> str:
    known = {1: "1", 2: "REQ1", 3: "REP1", 4: "CBC^Blood count^L", 7: "20240501080000", 25: "F"}
    return segment("OBR", {**known, **{int(place.removeprefix("f")): value for place, value in fields.items()}})


def obx(kind: str, value: str, unit: str = "", **fields: str) -> str:
    known = {1: "1", 2: kind, 3: "T1^Test^L", 5: value, 6: unit, 11: "F"}
    return segment("OBX", {**known, **{int(place.removeprefix("f")): value for place, value in fields.items()}})


def raw(lines: Iterable[str], encoding: str = "utf-8") -> bytes:
    return ("\r".join(lines) + "\r").encode(encoding)


def adt(trigger: str, *lines: str, profile: SourceProfile = PROFILE) -> ConversionResult:
    return hl7v2.convert(raw([msh(f"ADT^{trigger}"), f"EVN|{trigger}|20240501083000", *lines]), profile)


def oru(*lines: str, profile: SourceProfile = PROFILE) -> ConversionResult:
    return hl7v2.convert(raw([msh("ORU^R01^ORU_R01"), *lines]), profile)


def resources(result: ConversionResult, kind: str) -> list[dict[str, Any]]:
    found = (entry["resource"] for entry in result.bundle["entry"])
    return [each for each in found if each["resourceType"] == kind]


def one(result: ConversionResult, kind: str) -> dict[str, Any]:
    (found,) = resources(result, kind)
    return found


def remarks(result: ConversionResult) -> set[tuple[str, str]]:
    return {(issue.code, issue.location) for issue in result.issues}
