"""A row of V_IOP_MEDICATION: a MedicationRequest, and the MedicationAdministration that a row may tell of."""

from fhir_adapters.identifiers import identifier, medication_administration_id, medication_request_id
from fhir_adapters.identifiers.build import PROJECT_SYSTEMS
from fhir_adapters.tabular.actors import practitioner
from fhir_adapters.tabular.batch import Batch, patient_reference, visit_reference
from fhir_adapters.tabular.concepts import local_concept, site_concept
from fhir_adapters.tabular.quantities import put_amount, quantity
from fhir_adapters.tabular.rows import Json, Row, absent
from fhir_adapters.tabular.timing import period_of, timing_of
from fhir_adapters.units import UCUM

_NHSA_DRUG = PROJECT_SYSTEMS + "nhsa-drug"


def convert_medication(row: Row, batch: Batch) -> list[str]:
    """Put the MedicationRequest of a row and the administration it tells of; returns the references put."""
    system, number = row.system(), row.text("order_no")
    request: Json = {
        "resourceType": "MedicationRequest",
        "id": medication_request_id(row.profile, system, number),
        "identifier": [identifier(number, system=system, type_code="PLAC")],
        "status": _status(row),
        "intent": "order",
        "medicationCodeableConcept": _medicine(row),
        "subject": patient_reference(row),
    }
    visit = visit_reference(row)
    if visit is not None:
        request["encounter"] = visit
    if row.text("prescription_no"):
        request["groupIdentifier"] = identifier(row.text("prescription_no"), "prescription", system=system)
    kind = site_concept(row, "medication-order-kind", "order_kind", "medication-order-kind")
    if kind is not None:
        request["category"] = [kind]
    priority = row.concept("priority", "priority")
    if priority is not None:
        request["priority"] = priority.code
    row.datetime("ordered_at", request, "authoredOn")
    if row.text("reason"):
        request["reasonCode"] = [{"text": row.text("reason")}]
    if row.text("comment_text"):
        request["note"] = [{"text": row.text("comment_text")}]
    dosage = _dosage(row)
    if dosage:
        request["dosageInstruction"] = [dosage]
    supply = _supply(row)
    if supply:
        request["dispenseRequest"] = supply
    references: list[str] = []
    requester = practitioner(row, batch, "requester_code", "requester_name")
    if requester:
        request["requester"] = {"reference": requester}
        references.append(requester)
    reference = batch.put(request, owner=True)
    return [reference, *references, *_administration(row, batch, request, reference)]


def _status(row: Row) -> str:
    found = row.concept("medication-order-status", "status")
    return found.code if found else "unknown" if row.text("status") else "active"


def _medicine(row: Row) -> Json:
    """The medicine with its codes; strength and form stand in its text, for a coded medicine has no place for them."""
    concept = local_concept(row, "drug_code", "drug_name", "drug")
    if row.text("drug_nhsa_code"):
        concept.setdefault("coding", []).append({"system": _NHSA_DRUG, "code": row.text("drug_nhsa_code")})
    described = (row.text(name) for name in ("drug_name", "drug_spec", "drug_form"))
    concept["text"] = " ".join(filter(None, described))
    return concept


def _dosage(row: Row) -> Json:
    built: Json = {}
    if row.text("instruction"):
        built["text"] = row.text("instruction")
    timing = timing_of(row)
    if not timing:
        period = period_of(row)
        timing = {"repeat": {"boundsPeriod": period}} if period else {}
    if timing:
        built["timing"] = timing
    route = site_concept(row, "medication-route", "route", "medication-route")
    if route is not None:
        built["route"] = route
    rate: Json = {}
    if put_amount(row, rate, "doseQuantity", "dose", "dose_unit"):
        built["doseAndRate"] = [rate]
    return built


def _supply(row: Row) -> Json:
    built: Json = {}
    put_amount(row, built, "quantity", "quantity", "quantity_unit")
    days = quantity(row.text("days"), "") if row.text("days") else None
    if days is not None and "comparator" not in days:
        built["expectedSupplyDuration"] = {**days, "unit": "d", "system": UCUM, "code": "d"}
    elif row.text("days"):
        row.remark("warning", "bad-value", "days", "not a number; it is left out")
    return built


def _administration(row: Row, batch: Batch, request: Json, reference: str) -> list[str]:
    number = row.text("administration_no")
    if not number:
        for column in ("administered_at", "administration_status", "administered_dose"):
            if row.text(column):
                row.remark("warning", "missing", "administration_no", f"{column} needs it; no administration is made")
        return []
    system = row.system()
    made: Json = {
        "resourceType": "MedicationAdministration",
        "id": medication_administration_id(row.profile, system, row.text("order_no"), number),
        "identifier": [identifier(number, system=system)],
        "status": _administration_status(row),
        "medicationCodeableConcept": request["medicationCodeableConcept"],
        "subject": request["subject"],
        "request": {"reference": reference},
    }
    if "encounter" in request:
        made["context"] = request["encounter"]
    if row.text("administered_until"):
        made["effectivePeriod"] = period_of(row, "administered_at", "administered_until") or absent("unknown")
    elif not row.datetime("administered_at", made, "effectiveDateTime"):
        # Required (1..1), and a primitive without a value would not do: a record that cannot say when says so.
        made["effectivePeriod"] = made.pop("_effectiveDateTime", None) or absent("unknown")
    references: list[str] = []
    performer = practitioner(row, batch, "administrator_code", "administrator_name")
    if performer:
        made["performer"] = [{"actor": {"reference": performer}}]
        references.append(performer)
    dosage: Json = {}
    put_amount(row, dosage, "dose", "administered_dose" if row.text("administered_dose") else "dose", "dose_unit")
    if dosage:  # mad-1: a dosage without dose or rate must not be
        if "dosageInstruction" in request and "route" in request["dosageInstruction"][0]:
            dosage["route"] = request["dosageInstruction"][0]["route"]
        made["dosage"] = dosage
    return [batch.put(made, owner=True), *references]


def _administration_status(row: Row) -> str:
    found = row.concept("medication-administration-status", "administration_status")
    return found.code if found else "unknown" if row.text("administration_status") else "completed"
