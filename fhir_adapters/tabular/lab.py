"""Rows of V_IOP_LAB: a DiagnosticReport per report, an Observation per row, their request and specimen."""

import re

from fhir_adapters.identifiers import (
    encounter_id,
    full_width_to_ascii,
    identifier,
    observation_id,
    report_id,
    service_request_id,
    specimen_id,
)
from fhir_adapters.json_lexeme import from_source
from fhir_adapters.tabular.batch import Batch, patient_reference
from fhir_adapters.tabular.encounter import practitioner
from fhir_adapters.tabular.rows import Json, Row

_LOINC = "http://loinc.org"
_UCUM = "http://unitsofmeasure.org"
_OBSERVATION_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"
_COMPARED = re.compile(r"(<=|>=|<|>|≤|≥)?\s*([+-]?[0-9.][0-9.eE+-]*)")
_COMPARATORS = {"≤": "<=", "≥": ">="}
_LOINC_FORM = re.compile(r"[0-9]{1,7}-[0-9]")

# Units that mean the same in UCUM as they read; any other unit is kept as text, without a code.
_SAME = """% g/L mg/L mmol/L umol/L nmol/L pmol/L U/L IU/L fL pg mg/dL g/dL 10*9/L 10*12/L mm/h ng/mL pg/mL ug/L s L/L
mm[Hg] kPa mL mL/min"""
_UCUM_SAME = frozenset(_SAME.split())
_UCUM_FOR = {"10^9/L": "10*9/L", "10^12/L": "10*12/L", "×10^9/L": "10*9/L", "×10^12/L": "10*12/L", "mmHg": "mm[Hg]"} | {
    "μmol/L": "umol/L",
    "µmol/L": "umol/L",
    "μg/L": "ug/L",
    "µg/L": "ug/L",
    "秒": "s",
}


def convert_lab(row: Row, batch: Batch) -> list[str]:
    """Put the Observation of a row and add it to its report; returns the references put."""
    system, number = row.system(), row.text("report_no")
    report_reference = f"DiagnosticReport/{report_id(row.profile, system, number)}"
    report = batch.get(report_reference)
    references: list[str] = []
    if report is None:
        report, references = _report(row, batch, system, number)
        references.append(batch.put(report))
    elif report["subject"]["identifier"]["value"] != row.text("patient_no"):
        row.remark("error", "conflict", "patient_no", "another patient than in an earlier row of this report")
        return []
    observation = _observation(row, report, system, number)
    reference = f"Observation/{observation['id']}"
    if batch.get(reference) is not None:
        row.remark("warning", "conflict", "item_code", "the report has this item already; give the rows a sub_id")
    reference = batch.put(observation, owner=True)
    if row.text("item_count"):
        batch.expected[report_reference] = (row, row.text("item_count"))
    results = report.setdefault("result", [])
    if {"reference": reference} not in results:
        results.append({"reference": reference})
    return [*references, reference]


def check_complete(batch: Batch) -> None:
    """Remark on reports that say they have more rows than the batch brought: the poller cut one in two."""
    for reference, (row, count) in batch.expected.items():
        report = batch.get(reference)
        if report is not None and count != str(len(report["result"])):
            row.remark("warning", "incomplete", "item_count", "the report came with another number of rows")


def _report(row: Row, batch: Batch, system: str, number: str) -> tuple[Json, list[str]]:
    found = row.concept("report-status", "report_status")
    report: Json = {
        "resourceType": "DiagnosticReport",
        "id": report_id(row.profile, system, number),
        "identifier": [identifier(number, "lab-report", system=system)],
        "status": found.code if found else "unknown" if row.text("report_status") else "final",
        "category": [{"coding": [{"system": _SECTION, "code": "LAB", "display": "Laboratory"}]}],
        "code": _code(row, "panel_code", "panel_name", "lab-panel") or {"text": "检验报告"},
        "subject": patient_reference(row),
    }
    references: list[str] = []
    visit = row.text("visit_no")
    if visit:
        reference = f"Encounter/{encounter_id(row.profile, system, visit)}"
        report["encounter"] = {"reference": reference, "identifier": {"system": system, "value": visit}}
    row.datetime("collected_at", report, "effectiveDateTime")
    issued = row.instant("reported_at")
    if issued:
        report["issued"] = issued
    elif row.text("reported_at"):
        row.remark("warning", "bad-value", "reported_at", "not a point in time; it is left out")
    performer = practitioner(row, batch, "performer_code", "performer_name")
    if performer:
        report["performer"] = [{"reference": performer}]
        references.append(performer)
    references += [*_request(row, batch, report, system), *_specimen(row, batch, report, system, number)]
    return report, references


def _request(row: Row, batch: Batch, report: Json, system: str) -> list[str]:
    number = row.text("request_no")
    if not number:
        return []
    request: Json = {
        "resourceType": "ServiceRequest",
        "id": service_request_id(row.profile, system, number),
        "identifier": [identifier(number, "request-form", system=system)],
        "status": "completed" if report["status"] in ("final", "corrected", "amended") else "active",
        "intent": "order",
        "code": report["code"],
        "subject": report["subject"],
    }
    if "encounter" in report:
        request["encounter"] = report["encounter"]
    reference = batch.put(request)
    report["basedOn"] = [{"reference": reference}]
    return [reference]


def _specimen(row: Row, batch: Batch, report: Json, system: str, report_no: str) -> list[str]:
    number = row.text("specimen_no")
    kind = row.codeable("specimen", "specimen_type")
    if not number and not kind:
        return []
    specimen: Json = {
        "resourceType": "Specimen",
        "id": specimen_id(row.profile, system, number or f"report:{report_no}"),
        "subject": report["subject"],
    }
    if number:
        specimen["identifier"] = [identifier(number, "specimen", system=system)]
    if kind:
        specimen["type"] = kind
    collection: Json = {}
    row.datetime("collected_at", collection, "collectedDateTime")
    if collection:
        specimen["collection"] = collection
    row.datetime("received_at", specimen, "receivedTime")
    reference = batch.put(specimen)
    report["specimen"] = [{"reference": reference}]
    return [reference]


def _observation(row: Row, report: Json, system: str, number: str) -> Json:
    found = row.concept("observation-status", "item_status")
    code = row.text("item_code")
    observation: Json = {
        "resourceType": "Observation",
        "id": observation_id(row.profile, system, number, code, row.text("sub_id")),
        "status": found.code if found else "unknown" if row.text("item_status") else "final",
        "category": [{"coding": [{"system": _OBSERVATION_CATEGORY, "code": "laboratory", "display": "Laboratory"}]}],
        "code": _code(row, "item_code", "item_name", "lab-item"),
        "subject": report["subject"],
    }
    for element in ("encounter", "basedOn", "issued"):
        if element in report:
            observation[element] = report[element]
    if "specimen" in report:
        observation["specimen"] = report["specimen"][0]
    when = "observed_at" if row.text("observed_at") else "collected_at"
    row.datetime(when, observation, "effectiveDateTime")
    _value(row, observation)
    flag = row.codeable("interpretation", "flag")
    if flag:
        observation["interpretation"] = [flag]
    reference_range = _range(row)
    if reference_range:
        observation["referenceRange"] = [reference_range]
    if row.text("comment_text"):
        observation["note"] = [{"text": row.text("comment_text")}]
    return observation


def _code(row: Row, code_column: str, name_column: str, kind: str) -> Json:
    code, name = row.text(code_column), row.text(name_column)
    concept: Json = {}
    if code:
        coding: Json = {"system": row.local_system(kind), "code": code}
        if name:
            coding["display"] = name
        concept["coding"] = [coding]
    if kind == "lab-item" and row.text("item_loinc"):
        loinc = row.text("item_loinc")
        if _LOINC_FORM.fullmatch(loinc):
            concept.setdefault("coding", []).append({"system": _LOINC, "code": loinc})
        else:
            row.remark("warning", "bad-value", "item_loinc", "not a LOINC code; it is left out")
    if name or code:
        concept["text"] = name or code
    return concept


def _value(row: Row, observation: Json) -> None:
    text = row.text("result")
    if not text:
        observation["dataAbsentReason"] = {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "unknown"}]
        }
        return
    match = _COMPARED.fullmatch(full_width_to_ascii(text))
    number = from_source(match[2]) if match else None
    if match is None or number is None:
        observation["valueString"] = text
        if row.text("unit"):
            observation["valueString"] = f"{text} {row.text('unit')}"
        return
    quantity: Json = {"value": number}
    if match[1]:
        quantity["comparator"] = _COMPARATORS.get(match[1], match[1])
    observation["valueQuantity"] = quantity | _unit(row)


def _unit(row: Row) -> Json:
    unit = row.text("unit")
    if not unit:
        return {}
    ucum = unit if unit in _UCUM_SAME else _UCUM_FOR.get(unit)
    return {"unit": unit, "system": _UCUM, "code": ucum} if ucum else {"unit": unit}


def _range(row: Row) -> Json:
    built: Json = {}
    for column, element in (("range_low", "low"), ("range_high", "high")):
        text = row.text(column)
        number = from_source(text) if text else None
        if number is not None:
            built[element] = {"value": number} | _unit(row)
        elif text:
            row.remark("warning", "bad-value", column, "not a number; give it in range_text")
    if row.text("range_text"):
        built["text"] = row.text("range_text")
    return built
