"""A row of V_IOP_ORDER as a ServiceRequest."""

from fhir_adapters.identifiers import identifier, service_request_id
from fhir_adapters.tabular.actors import department, practitioner
from fhir_adapters.tabular.batch import Batch, patient_reference, visit_reference
from fhir_adapters.tabular.concepts import local_concept, site_concept
from fhir_adapters.tabular.quantities import put_amount
from fhir_adapters.tabular.rows import Json, Row
from fhir_adapters.tabular.timing import period_of, timing_of


def convert_order(row: Row, batch: Batch) -> list[str]:
    """Put the ServiceRequest of a row; returns the references put."""
    system, number = row.system(), row.text("order_no")
    request: Json = {
        "resourceType": "ServiceRequest",
        "id": service_request_id(row.profile, system, number),
        "identifier": [identifier(number, "request-form", system=system)],
        "status": _status(row),
        "intent": "order",
        "code": local_concept(row, "item_code", "item_name", "order-item"),
        "subject": patient_reference(row),
    }
    if row.text("group_no"):
        request["requisition"] = identifier(row.text("group_no"), system=row.local_system("order-group"))
    visit = visit_reference(row)
    if visit is not None:
        request["encounter"] = visit
    kinds = (site_concept(row, "order-class", "order_class", "order-class"),
             site_concept(row, "order-term", "order_term", "order-term"))  # fmt: skip
    categories = [each for each in kinds if each is not None]
    if categories:
        request["category"] = categories
    priority = row.concept("priority", "priority")
    if priority is not None:
        request["priority"] = priority.code
    row.datetime("ordered_at", request, "authoredOn")
    _occurrence(row, request)
    put_amount(row, request, "quantityQuantity", "quantity", "quantity_unit")
    _texts(row, request)
    return [batch.put(request, owner=True), *_actors(row, batch, request)]


def _status(row: Row) -> str:
    found = row.concept("order-status", "status")
    return found.code if found else "unknown" if row.text("status") else "active"


def _occurrence(row: Row, request: Json) -> None:
    """A frequency makes a Timing, a time of stopping a period, a start alone a point in time."""
    timing = timing_of(row)
    if timing:
        request["occurrenceTiming"] = timing
    elif row.text("stop_at"):
        period = period_of(row)
        if period:
            request["occurrencePeriod"] = period
    else:
        row.datetime("start_at", request, "occurrenceDateTime")


def _texts(row: Row, request: Json) -> None:
    if row.text("body_site"):
        request["bodySite"] = [{"text": row.text("body_site")}]
    if row.text("reason"):
        request["reasonCode"] = [{"text": row.text("reason")}]
    if row.text("instruction"):
        request["patientInstruction"] = row.text("instruction")
    if row.text("comment_text"):
        request["note"] = [{"text": row.text("comment_text")}]


def _actors(row: Row, batch: Batch, request: Json) -> list[str]:
    references: list[str] = []
    requester = practitioner(row, batch, "requester_code", "requester_name")
    if requester:
        request["requester"] = {"reference": requester}
        references.append(requester)
    performer = department(row, batch, "performer_dept_code", "performer_dept_name")
    if performer:
        request["performer"] = [{"reference": performer}]
        references.append(performer)
    return references
