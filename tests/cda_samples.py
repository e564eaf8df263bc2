"""Small CDA documents for tests: a whole header, and the section or entry that a test is about."""

import json
from typing import Any

from fhir_adapters import cda
from fhir_adapters.profile import SourceProfile
from fhir_adapters.result import ConversionResult

PROFILE = SourceProfile.from_toml(
    'name = "test"\ndefault_authority = "HIS"\n[organization]\nidentifier = "91350100M000100Y43"\nname = "示例医院"\n'
)
NAMESPACES = (
    'xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:sdtc="urn:hl7-org:sdtc"'
)
LOINC = "2.16.840.1.113883.6.1"
SNOMED = "2.16.840.1.113883.6.96"
TEMPLATE = "2.16.840.1.113883.10.20.22."
PATIENT = (
    '<recordTarget><patientRole><id root="1.2.3.4" extension="00012"/><patient><name><given>A</given>'
    "<family>B</family></name></patient></patientRole></recordTarget>"
)
VISIT = (
    '<componentOf><encompassingEncounter><id root="1.2.3.5" extension="V1"/>'
    '<effectiveTime><low value="20260301"/><high value="20260305"/></effectiveTime>'
    "</encompassingEncounter></componentOf>"
)
CUSTODIAN = (
    '<custodian><assignedCustodian><representedCustodianOrganization><id root="1.2.3.6" extension="ORG"/>'
    "<name>示例医院</name></representedCustodianOrganization></assignedCustodian></custodian>"
)


def document(body: str = "", patient: str = PATIENT, visit: str = VISIT, number: str = "1") -> str:
    """A C-CDA document without XML declaration whose structured body holds ``body``."""
    return (
        f'<ClinicalDocument {NAMESPACES}><typeId root="2.16.840.1.113883.1.3" extension="POCD_HD000040"/>'
        f'<templateId root="{TEMPLATE}1.2"/><id root="1.2.3" extension="{number}"/>'
        f'<code code="34133-9" codeSystem="{LOINC}"/><title>T</title><effectiveTime value="20260306120000+0800"/>'
        f'<confidentialityCode code="N"/>{patient}{CUSTODIAN}{visit}'
        f"<component><structuredBody>{body}</structuredBody></component></ClinicalDocument>"
    )


def section(*entries: str, text: str = "<text>Text</text>", code: str = "30954-2") -> str:
    """A section of a LOINC code with statements in entries."""
    held = "".join(f"<entry>{entry}</entry>" for entry in entries)
    return (
        f'<component><section><code code="{code}" codeSystem="{LOINC}"/><title>S</title>{text}{held}'
        "</section></component>"
    )


def observation(inside: str = "", template: str = "4.2", attributes: str = "", number: str = "o1") -> str:
    """A result observation (or another template's) with ``inside`` after its code and time."""
    return (
        f'<observation classCode="OBS" moodCode="EVN" {attributes}><templateId root="{TEMPLATE}{template}"/>'
        f'<id root="1.2.3.7" extension="{number}"/><code code="718-7" codeSystem="{LOINC}" displayName="Hemoglobin"/>'
        f'<statusCode code="completed"/><effectiveTime value="20260302"/>{inside}</observation>'
    )


def convert(text: str, profile: SourceProfile = PROFILE) -> ConversionResult:
    return cda.convert(text.encode(), profile)


def resources(result: ConversionResult, kind: str) -> list[dict[str, Any]]:
    """The resources of a type as plain JSON, numbers as their text."""
    bundle = json.loads(result.to_json(), parse_float=str)
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


def only(result: ConversionResult, kind: str) -> dict[str, Any]:
    (resource,) = resources(result, kind)
    return resource


def codes(result: ConversionResult) -> list[str]:
    return [issue.code for issue in result.issues]
