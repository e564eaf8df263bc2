"""Rows of V_IOP_LAB: a DiagnosticReport per report, an Observation per row, their request and specimen."""

from fhir_adapters.identifiers import identifier, observation_id, report_id, specimen_id
from fhir_adapters.json_lexeme import from_source
from fhir_adapters.tabular.batch import Batch
from fhir_adapters.tabular.concepts import add_loinc, local_concept
from fhir_adapters.tabular.quantities import put_value, units
from fhir_adapters.tabular.reports import SECTION, finished_report, started_report
from fhir_adapters.tabular.rows import Json, Row

_OBSERVATION_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"


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
    report = started_report(row, "lab-report")
    report["category"] = [{"coding": [{"system": SECTION, "code": "LAB", "display": "Laboratory"}]}]
    report["code"] = local_concept(row, "panel_code", "panel_name", "lab-panel") or {"text": "检验报告"}
    row.datetime("collected_at", report, "effectiveDateTime")
    references = finished_report(row, batch, report)
    return report, [*references, *_specimen(row, batch, report, system, number)]


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
        "code": local_concept(row, "item_code", "item_name", "lab-item"),
        "subject": report["subject"],
    }
    for element in ("encounter", "basedOn", "issued"):
        if element in report:
            observation[element] = report[element]
    if "specimen" in report:
        observation["specimen"] = report["specimen"][0]
    add_loinc(row, observation["code"])
    when = "observed_at" if row.text("observed_at") else "collected_at"
    row.datetime(when, observation, "effectiveDateTime")
    put_value(row, observation)
    flag = row.codeable("interpretation", "flag")
    if flag:
        observation["interpretation"] = [flag]
    reference_range = _range(row)
    if reference_range:
        observation["referenceRange"] = [reference_range]
    if row.text("comment_text"):
        observation["note"] = [{"text": row.text("comment_text")}]
    return observation


def _range(row: Row) -> Json:
    built: Json = {}
    for column, element in (("range_low", "low"), ("range_high", "high")):
        text = row.text(column)
        number = from_source(text) if text else None
        if number is not None:
            built[element] = {"value": number} | units(row.text("unit"))
        elif text:
            row.remark("warning", "bad-value", column, "not a number; give it in range_text")
    if row.text("range_text"):
        built["text"] = row.text("range_text")
    return built
