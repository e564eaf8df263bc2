"""A row of V_IOP_EXAM as a DiagnosticReport; the findings are an Observation, the conclusion stands in the report."""

from fhir_adapters.identifiers import identifier, observation_id
from fhir_adapters.tabular.actors import practitioner
from fhir_adapters.tabular.batch import Batch
from fhir_adapters.tabular.concepts import local_concept, site_concept
from fhir_adapters.tabular.reports import finished_report, started_report
from fhir_adapters.tabular.rows import Json, Row

_OBSERVATION_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_FINDINGS = {"coding": [{"system": "http://loinc.org", "code": "59776-5", "display": "Procedure findings"}]}
_MAX_DICOM_UID = 64


def convert_exam(row: Row, batch: Batch) -> list[str]:
    """Put the DiagnosticReport of a row and what it refers to; returns the references put."""
    report = started_report(row, "exam-report")
    if row.text("accession_no"):
        accession = identifier(row.text("accession_no"), system=row.local_system("accession"), type_code="ACSN")
        report["identifier"].append(accession)
    category = site_concept(row, "exam-class", "exam_class", "exam-class")
    if category is not None:
        report["category"] = [category]
    report["code"] = local_concept(row, "item_code", "item_name", "exam-item") or {"text": "检查报告"}
    row.datetime("examined_at", report, "effectiveDateTime")
    references = finished_report(row, batch, report)
    verifier = practitioner(row, batch, "verifier_code", "verifier_name")
    if verifier:
        report["resultsInterpreter"] = [{"reference": verifier}]
        references.append(verifier)
    if row.text("conclusion"):
        report["conclusion"] = row.text("conclusion")
    _images(row, report)
    references += _findings(row, batch, report)
    return [batch.put(report, owner=True), *references]


def _images(row: Row, report: Json) -> None:
    uid = row.text("study_uid")
    if not uid:
        return
    if len(uid) > _MAX_DICOM_UID or not uid.replace(".", "").isdigit() or not uid.isascii():
        row.remark("warning", "bad-value", "study_uid", "not a DICOM UID; it is left out")
        return
    # The images stay in the PACS; DICOM PS3.18 names a study in FHIR by urn:dicom:uid.
    study = {"type": "ImagingStudy", "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}}
    report["imagingStudy"] = [study]


def _findings(row: Row, batch: Batch, report: Json) -> list[str]:
    flag = row.codeable("interpretation", "flag")
    if not row.text("findings") and flag is None and not row.text("comment_text"):
        return []
    observation: Json = {
        "resourceType": "Observation",
        "id": observation_id(row.profile, row.system(), row.text("report_no"), "findings"),
        "status": report["status"] if report["status"] != "partial" else "preliminary",
        "category": [{"coding": [{"system": _OBSERVATION_CATEGORY, "code": "imaging", "display": "Imaging"}]}],
        "code": {**_FINDINGS, "text": "检查所见"},
        "subject": report["subject"],
    }
    if observation["status"] == "appended":  # a status of reports that results do not have
        observation["status"] = "amended"
    for element in ("encounter", "basedOn", "issued", "effectiveDateTime"):
        if element in report:
            observation[element] = report[element]
    if row.text("findings"):
        observation["valueString"] = row.text("findings")
    if row.text("body_site"):
        observation["bodySite"] = {"text": row.text("body_site")}
    if flag is not None:
        observation["interpretation"] = [flag]
    if row.text("comment_text"):
        observation["note"] = [{"text": row.text("comment_text")}]
    reference = batch.put(observation, owner=True)
    report["result"] = [{"reference": reference}]
    return [reference]
