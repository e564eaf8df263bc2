"""A row of V_IOP_ENCOUNTER as an Encounter with its place, department, physician and main diagnosis."""

from datetime import datetime

from fhir_adapters.identifiers import condition_id, encounter_id, identifier
from fhir_adapters.tabular.actors import department, places, practitioner
from fhir_adapters.tabular.batch import Batch, patient_reference
from fhir_adapters.tabular.concepts import diagnosis_concept
from fhir_adapters.tabular.rows import Json, Row

_NULL_FLAVOR = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_DIAGNOSIS_ROLE = "http://terminology.hl7.org/CodeSystem/diagnosis-role"
_CONDITION_CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"
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


def _department(row: Row, batch: Batch, encounter: Json) -> list[str]:
    """The responsible department is the service provider, part of the institution; without one, the institution is."""
    institution = batch.institution()
    references = [institution["reference"]] if institution else []
    made = department(row, batch)
    if made:
        references.append(made)
    if references:
        encounter["serviceProvider"] = {"reference": references[-1]}
    return references


def _places(row: Row, batch: Batch, encounter: Json, period: Json) -> list[str]:
    """The Encounter is at the smallest place that is told; a place before it is kept as completed."""
    campus = row.text("facility")
    ward = row.text("ward_code") or row.text("ward_name")
    before = [row.text(name) for name in ("prior_ward_code", "prior_room_no", "prior_bed_no")]
    now = places(row, batch, campus, ward, row.text("room_no"), row.text("bed_no"), row.text("ward_name"))
    moved: Json = {}
    row.datetime("moved_at", moved, "at")
    stays: list[Json] = []
    earlier: list[str] = []
    if any(before) and (before[0] or ward):
        earlier = places(row, batch, campus, before[0] or ward, before[1], before[2])
        stays.append(_stay(earlier[-1], "completed", period.get("start", ""), moved.get("at", "")))
    if now:
        ended = encounter["status"] in _ENDED
        status = "completed" if ended else "planned" if encounter["status"] == "planned" else "active"
        stays.append(_stay(now[-1], status, moved.get("at", "") or period.get("start", ""), period.get("end", "")))
    if stays:
        encounter["location"] = stays
    return [*now, *(each for each in earlier if each not in now)]


def _stay(reference: str, status: str, start: str, end: str) -> Json:
    made: Json = {"location": {"reference": reference}, "status": status}
    period = {name: value for name, value in (("start", start), ("end", end)) if value}
    if period:
        made["period"] = period
    return made


def _diagnosis(row: Row, batch: Batch, encounter: Json) -> list[str]:
    code, name = row.text("diagnosis_code"), row.text("diagnosis_name")
    if not code and not name:
        return []
    resource: Json = {
        "resourceType": "Condition",
        "id": condition_id(row.profile, encounter["id"], code or name, "main"),
        "category": [{"coding": [{"system": _CONDITION_CATEGORY, "code": "encounter-diagnosis"}]}],
        "code": diagnosis_concept(code, name),
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
