"""What laboratory reports and reports of examinations have in common."""

from fhir_adapters.identifiers import identifier, report_id, service_request_id
from fhir_adapters.tabular.actors import practitioner
from fhir_adapters.tabular.batch import Batch, patient_reference, visit_reference
from fhir_adapters.tabular.rows import Json, Row

SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"
_COMPLETE = frozenset({"final", "corrected", "amended", "appended"})


def started_report(row: Row, kind: str) -> Json:
    """A DiagnosticReport of a row with its number (an identifier of ``kind``), status, patient and visit."""
    system, number = row.system(), row.text("report_no")
    found = row.concept("report-status", "report_status")
    report: Json = {
        "resourceType": "DiagnosticReport",
        "id": report_id(row.profile, system, number),
        "identifier": [identifier(number, kind, system=system)],
        "status": found.code if found else "unknown" if row.text("report_status") else "final",
        "subject": patient_reference(row),
    }
    visit = visit_reference(row)
    if visit is not None:
        report["encounter"] = visit
    return report


def finished_report(row: Row, batch: Batch, report: Json) -> list[str]:
    """Add the time of issue, who reports and the request; returns the references put."""
    references: list[str] = []
    issued = row.instant("reported_at")
    if issued:
        report["issued"] = issued
    elif row.text("reported_at"):
        row.remark("warning", "bad-value", "reported_at", "not a point in time; it is left out")
    performer = practitioner(row, batch, "performer_code", "performer_name")
    if performer:
        report["performer"] = [{"reference": performer}]
        references.append(performer)
    return [*references, *_request(row, batch, report)]


def _request(row: Row, batch: Batch, report: Json) -> list[str]:
    number = row.text("request_no")
    if not number:
        return []
    system = row.system()
    request: Json = {
        "resourceType": "ServiceRequest",
        "id": service_request_id(row.profile, system, number),
        "identifier": [identifier(number, "request-form", system=system)],
        "status": "completed" if report["status"] in _COMPLETE else "active",
        "intent": "order",
        "code": report["code"],
        "subject": report["subject"],
    }
    if "encounter" in report:
        request["encounter"] = report["encounter"]
    reference = batch.put(request)
    report["basedOn"] = [{"reference": reference}]
    return [reference]
