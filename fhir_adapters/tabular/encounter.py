"""A row of V_IOP_ENCOUNTER as an Encounter with its place, department, physician and main diagnosis."""

from datetime import datetime

from fhir_adapters.identifiers import (
    condition_id,
    encounter_id,
    identifier,
    location_id,
    organization_id,
    practitioner_id,
)
from fhir_adapters.tabular.batch import Batch, patient_reference
from fhir_adapters.tabular.rows import Json, Row

_PHYSICAL = "http://terminology.hl7.org/CodeSystem/location-physical-type"
_NULL_FLAVOR = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_DIAGNOSIS_ROLE = "http://terminology.hl7.org/CodeSystem/diagnosis-role"
_CONDITION_CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"
_ICD10_CN = "urn:oid:2.16.156.10011.2.3.3.11"
_ICD10_WHO = "http://hl7.org/fhir/sid/icd-10"
_ENDED = frozenset({"finished", "cancelled", "entered-in-error"})


def convert_encounter(row: Row, batch: Batch) -> list[str]:
    """Put the Encounter of a row and what it refers to; returns the references put."""
    system, number = row.system(), row.text("visit_no")
    encounter: Json = {
        "resourceType": "Encounter",
        "id": encounter_id(row.profile, system, number),
        "identifier": [identifier(number, "visit", system=system)],
    }
    period: Json = {}
    row.datetime("start_at", period, "start")
    row.datetime("end_at", period, "end")
    _check_period(row, period)
    encounter["status"] = _status(row, period)
    found = row.concept("encounter-class", "visit_class")
    encounter["class"] = (
        found.coding()
        if found
        else {"system": _NULL_FLAVOR, "code": "UNK", "display": f"unknown ({row.text('visit_class')})"}
    )
    admission = row.codeable("admission-type", "admission_type")
    if admission:
        encounter["type"] = [admission]
    encounter["subject"] = patient_reference(row)
    if period:
        encounter["period"] = period
    if row.text("reason"):
        encounter["reasonCode"] = [{"text": row.text("reason")}]
    references = [*_attending(row, batch, encounter), *_department(row, batch, encounter)]
    references += [*_places(row, batch, encounter, period), *_diagnosis(row, batch, encounter)]
    stay = _hospitalization(row)
    if stay:
        encounter["hospitalization"] = stay
    return [batch.put(encounter, owner=True), *references]


def _status(row: Row, period: Json) -> str:
    found = row.concept("encounter-status", "status")
    if found is not None:
        return found.code
    if row.text("status"):
        return "unknown"
    return "finished" if "end" in period else "in-progress" if "start" in period else "unknown"


def _check_period(row: Row, period: Json) -> None:
    start, end = period.get("start", ""), period.get("end", "")
    # per-1: comparable only when both have a time of day
    if "T" in start and "T" in end and datetime.fromisoformat(end) < datetime.fromisoformat(start):
        row.remark("warning", "conflict", "end_at", "before start_at; it is left out")
        del period["end"]


def _attending(row: Row, batch: Batch, encounter: Json) -> list[str]:
    made = practitioner(row, batch, "attending_code", "attending_name")
    if not made:
        return []
    coding = {"system": _PARTICIPATION, "code": "ATND", "display": "attender"}
    encounter["participant"] = [{"type": [{"coding": [coding]}], "individual": {"reference": made}}]
    return [made]


def practitioner(row: Row, batch: Batch, code_column: str, name_column: str) -> str:
    """Put the Practitioner that two columns name; its reference, "" when they are empty."""
    code, name = row.text(code_column), row.text(name_column)
    if not code and not name:
        return ""
    system = row.system()
    resource: Json = {
        "resourceType": "Practitioner",
        "id": practitioner_id(row.profile, system, code or "name:" + name),
    }
    if code:
        resource["identifier"] = [identifier(code, "staff", system=system)]
    if name:
        resource["name"] = [{"text": name}]
    return batch.put(resource)


def _department(row: Row, batch: Batch, encounter: Json) -> list[str]:
    """The responsible department is the service provider, part of the institution; without one, the institution is."""
    institution = batch.institution()
    references = [institution["reference"]] if institution else []
    code, name = row.text("dept_code"), row.text("dept_name")
    if code or name:
        system = row.system()
        resource: Json = {
            "resourceType": "Organization",
            "id": organization_id(row.profile, system, code or "name:" + name),
        }
        if code:
            resource["identifier"] = [identifier(code, system=system)]
        if name:
            resource["name"] = name
        if institution:
            resource["partOf"] = institution
        institution = {"reference": batch.put(resource)}
        references.append(institution["reference"])
    if institution:
        encounter["serviceProvider"] = institution
    return references


def _places(row: Row, batch: Batch, encounter: Json, period: Json) -> list[str]:
    """Campus, ward, room and bed as a tree of Locations; the Encounter is at the smallest."""
    campus, ward, room, bed = (row.text(name) for name in ("facility", "ward_code", "room_no", "bed_no"))
    ward = ward or row.text("ward_name")
    levels = (
        (campus, "si", "Site", (campus, "", "", "", "")),
        (ward, "wa", "Ward", (campus, "", ward, "", "")),
        (room, "ro", "Room", (campus, "", ward, room, "")),
        (bed, "bd", "Bed", (campus, "", ward, room, bed)),
    )
    references: list[str] = []
    for title, kind, display, path in levels:
        if not title:
            continue
        place: Json = {
            "resourceType": "Location",
            "id": location_id(row.profile, *path),
            "name": (row.text("ward_name") or title) if kind == "wa" else title,
            "mode": "instance",
            "physicalType": {"coding": [{"system": _PHYSICAL, "code": kind, "display": display}]},
        }
        if references:
            place["partOf"] = {"reference": references[-1]}
        references.append(batch.put(place))
    if references:
        at: Json = {"location": {"reference": references[-1]}}
        at["status"] = "completed" if encounter["status"] in _ENDED else "active"
        if encounter["status"] == "planned":
            at["status"] = "planned"
        if period:
            at["period"] = period
        encounter["location"] = [at]
    return references


def _diagnosis(row: Row, batch: Batch, encounter: Json) -> list[str]:
    code, name = row.text("diagnosis_code"), row.text("diagnosis_name")
    if not code and not name:
        return []
    concept: Json = {}
    if code:
        coding: Json = {"system": _ICD10_CN, "code": code}
        if name:
            coding["display"] = name
        concept["coding"] = [coding]
        if len(code) >= 5 and code[3:4] == ".":
            # The Chinese editions extend the WHO's four characters; the first five of "I10.x00" name its category.
            concept["coding"].append({"system": _ICD10_WHO, "code": code[:5] if code[4].isdigit() else code[:3]})
    if name:
        concept["text"] = name
    resource: Json = {
        "resourceType": "Condition",
        "id": condition_id(row.profile, encounter["id"], code or name, "main"),
        "category": [{"coding": [{"system": _CONDITION_CATEGORY, "code": "encounter-diagnosis"}]}],
        "code": concept,
        "subject": encounter["subject"],
        "encounter": {"reference": f"Encounter/{encounter['id']}"},
    }
    reference = batch.put(resource)
    main: Json = {"condition": {"reference": reference}, "rank": 1}
    if encounter["class"]["code"] == "IMP":
        code, display = ("DD", "Discharge") if encounter["status"] == "finished" else ("AD", "Admission")
        coding = {"system": _DIAGNOSIS_ROLE, "code": code, "display": f"{display} diagnosis"}
        main["use"] = {"coding": [coding]}
    encounter["diagnosis"] = [main]
    return [reference]


def _hospitalization(row: Row) -> Json:
    built: Json = {}
    source = row.codeable("admit-source", "admit_source")
    if source:
        built["admitSource"] = source
    disposition = row.codeable("discharge-disposition", "discharge_disposition")
    if disposition:
        built["dischargeDisposition"] = disposition
    return built
