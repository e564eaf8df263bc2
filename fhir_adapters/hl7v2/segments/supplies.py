"""RQD and RQ1: the SupplyRequest (guide: none yet)."""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import concepts, timestamps
from fhir_adapters.hl7v2.datatypes.quantities import measured
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import medicines, order_control
from fhir_adapters.identifiers import numbered_id
from fhir_adapters.json_lexeme import Lexeme

_STATUS = {
    "revoked": "cancelled",
    "completed": "completed",
    "on-hold": "suspended",
    "entered-in-error": "entered-in-error",
    "active": "active",
}


def supply_request(conv: Conversion, orc: Segment, rqd: Segment, rq1: Segment | None, subject: Json) -> Json:
    """The SupplyRequest of an ORC and RQD (added). It has no patient in FHIR R4: who gets it is ``deliverTo``."""
    found = order_control.numbers(conv, orc)
    resource: Json = {
        "resourceType": "SupplyRequest",
        "id": numbered_id(conv.profile, "SupplyRequest", *found.key),
        "status": _STATUS.get(order_control.status(conv, orc), "unknown"),
    }
    if found.known:
        resource["identifier"] = found.known
    rqd.take(1)
    item = next((made for number in (2, 3, 4) if (made := concepts.concept(conv, rqd, number)) is not None), None)
    if item is None:
        conv.issue("warning", "missing", rqd, 2, "no item is named")
        item = {"text": "unknown"}
    resource["itemCodeableConcept"] = item
    amount = measured(conv, rqd.take(5), rqd.take(6)) if rqd.peek(5) else None
    if amount is None:
        conv.issue("warning", "missing", rqd, 5, "no quantity; one is taken, FHIR requires it")
    resource["quantity"] = amount or {"value": Lexeme("1")}
    timestamps.put_date_time(conv, resource, "occurrenceDateTime", rqd, 10)
    who = order_control.requester(conv, orc, None)
    if who is not None:
        resource["requester"] = who
    order_control.describe(conv, resource, orc)
    supplier = medicines.manufacturer(conv, rq1, 4) if rq1 is not None and rq1.peek(4) else None
    if supplier is not None:
        resource["supplier"] = [supplier]
    resource["deliverTo"] = subject
    return conv.keep(resource)
