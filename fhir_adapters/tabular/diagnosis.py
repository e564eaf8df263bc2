"""A row of V_IOP_DIAGNOSIS as a Condition."""

from fhir_adapters.identifiers import condition_id, encounter_id, patient_id
from fhir_adapters.tabular.actors import practitioner
from fhir_adapters.tabular.batch import Batch, patient_reference, visit_reference
from fhir_adapters.tabular.concepts import diagnosis_concept
from fhir_adapters.tabular.rows import Json, Row

DIAGNOSIS_RANK = "https://yiqiao.example/fhir/StructureDefinition/condition-rank"
"""Extension of Condition: its place among the diagnoses of the visit, 1 the main one."""

_CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"
_CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"


def convert_diagnosis(row: Row, batch: Batch) -> list[str]:
    """Put the Condition of a row; returns the references put."""
    system, code, name = row.system(), row.text("diagnosis_code"), row.text("diagnosis_name")
    visit = visit_reference(row)
    owner = (
        encounter_id(row.profile, system, row.text("visit_no"))
        if visit is not None
        else patient_id(row.profile, system, row.text("patient_no"))
    )
    kind = row.codeable("diagnosis-use", "diagnosis_kind")
    role = kind["coding"][0]["code"] if kind and "coding" in kind else row.text("diagnosis_kind")
    condition: Json = {
        "resourceType": "Condition",
        "id": condition_id(row.profile, owner, code or name, role),
        "category": [{"coding": [{"system": _CATEGORY, "code": "encounter-diagnosis"}]}],
        "code": diagnosis_concept(code, name),
        "subject": patient_reference(row),
    }
    if kind is not None:
        condition["category"].append(kind)
    if visit is not None:
        condition["encounter"] = visit
    _rank(row, condition)
    _statuses(row, condition)
    row.datetime("onset_at", condition, "onsetDateTime")
    row.datetime("diagnosed_at", condition, "recordedDate")
    if row.text("comment_text"):
        condition["note"] = [{"text": row.text("comment_text")}]
    doctor = practitioner(row, batch, "doctor_code", "doctor_name")
    if doctor:
        condition["asserter"] = {"reference": doctor}
    return [batch.put(condition, owner=True), *([doctor] if doctor else [])]


def _rank(row: Row, condition: Json) -> None:
    rank = row.text("seq_no")
    if rank.isascii() and rank.isdigit() and 0 < int(rank[:6]) < 1000:
        condition["extension"] = [{"url": DIAGNOSIS_RANK, "valuePositiveInt": int(rank)}]
    elif rank:
        row.remark("warning", "bad-value", "seq_no", "not a place among the diagnoses; it is left out")


def _statuses(row: Row, condition: Json) -> None:
    if row.flag("active_flag") is False:
        # con-5: what was entered in error has no clinical status
        condition["verificationStatus"] = {"coding": [{"system": _VERIFICATION, "code": "entered-in-error"}]}
        return
    certainty = row.codeable("diagnosis-certainty", "certainty")
    if certainty is not None:
        condition["verificationStatus"] = certainty
    outcome = row.codeable("diagnosis-outcome", "outcome")
    if outcome is not None and "coding" in outcome:
        condition["clinicalStatus"] = {**outcome, "text": row.text("outcome")}
    elif outcome is not None:
        condition["clinicalStatus"] = {"coding": [{"system": _CLINICAL, "code": "active"}], **outcome}
