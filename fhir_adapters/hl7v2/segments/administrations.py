"""RXA: the MedicationAdministration (guide: ORC[MedicationAdministration]); RXA of a vaccine is an Immunization."""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, concepts, places, timestamps
from fhir_adapters.hl7v2.datatypes.quantities import measured
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import dosage, medicines
from fhir_adapters.hl7v2.segments.medications import Prescription
from fhir_adapters.identifiers import medication_administration_id

_MEDICINE = medicines.Fields(5, 8, 13, 14, 23, 24, 15, 16, 17)
# Guide: table 0322 Completion Status.
_STATUS = {"CP": "completed", "PA": "completed", "RE": "not-done", "NA": "not-done"}


def administration(
    conv: Conversion, order: Prescription, rxa: Segment, routes: list[Segment], request: Json | None
) -> Json:
    """The MedicationAdministration of an RXA (added); ``request`` is the order that it carries out."""
    rxa.take(1)
    number = conv.text(rxa.take(2))
    resource: Json = {
        "resourceType": "MedicationAdministration",
        "id": "",
        "status": _status(conv, rxa),
        "subject": order.subject,
    }
    if order.encounter is not None:
        resource["context"] = order.encounter
    medicines.medicine(conv, resource, rxa, _MEDICINE, [])
    when = _when(conv, resource, rxa)
    people = actors.practitioners(conv, rxa, 10) if rxa.peek(10) else []
    if people:
        resource["performer"] = [{"actor": each} for each in people]
    _reasons(conv, resource, rxa)
    _dose(conv, resource, rxa, routes)
    where = places.location(conv, rxa, 27) if rxa.peek(27) else None
    if where is not None:
        resource["supportingInformation"] = [where]
    if request is not None:
        resource["request"] = {"reference": f"MedicationRequest/{request['id']}"}
    system, value = order.numbers.key
    place = "#".join(filter(None, (number, when)))
    times = conv.occurrence(f"administration {system}|{value}|{place}")
    resource["id"] = medication_administration_id(conv.profile, system, value, f"{place}#{times}" if times else place)
    return conv.keep(resource)


def _status(conv: Conversion, rxa: Segment) -> str:
    action, raw = conv.text(rxa.take(21)), conv.text(rxa.take(20))
    if action == "D":
        return "entered-in-error"
    if raw and raw not in _STATUS:
        conv.unmapped_code("completion status", rxa, 20)
        return "unknown"
    return _STATUS.get(raw, "completed")


def _when(conv: Conversion, resource: Json, rxa: Segment) -> str:
    """RXA-3 and 4: a time, or a period when they differ. FHIR requires one."""
    start_raw, end_raw = rxa.peek(3), rxa.peek(4)
    if end_raw and end_raw != start_raw:
        period: Json = {}
        timestamps.put_date_time(conv, period, "start", rxa, 3)
        timestamps.put_date_time(conv, period, "end", rxa, 4)
        timestamps.check_period(conv, period, rxa, 4)
        resource["effectivePeriod"] = period or {"extension": [_UNKNOWN]}
        return str(period.get("start", ""))
    rxa.take(4)
    when = timestamps.put_date_time(conv, resource, "effectiveDateTime", rxa, 3)
    if when is None:
        # FHIR requires one; a period may say that it is not known, with what was written instead
        kept = resource.pop("_effectiveDateTime", None)
        resource["effectivePeriod"] = {"_start": kept} if kept else {"extension": [_UNKNOWN]}
        if kept is None:
            conv.issue("warning", "missing", rxa, 3, "no time of administration")
    return when or ""


_UNKNOWN: Json = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}


def _reasons(conv: Conversion, resource: Json, rxa: Segment) -> None:
    refusals = concepts.concepts(conv, rxa, 18) if rxa.peek(18) else []
    if refusals:
        resource["statusReason"] = refusals
    reasons = concepts.concepts(conv, rxa, 19) if rxa.peek(19) else []
    if reasons:
        resource["reasonCode"] = reasons
    for each in concepts.concepts(conv, rxa, 9) if rxa.peek(9) else ():
        own = each.get("coding", ({},))[0]
        resource.setdefault("note", []).append({"text": each.get("text") or own.get("display") or own["code"]})


def _dose(conv: Conversion, resource: Json, rxa: Segment, routes: list[Segment]) -> None:
    made: Json = {}
    amount = measured(conv, rxa.take(6), rxa.take(7)) if rxa.peek(6) else None
    if amount is not None:
        made["dose"] = amount
    if routes:
        dosage.route(conv, made, routes[0])
    if made and "dose" not in made:
        made["dose"] = {"extension": [_UNKNOWN]}  # mad-1 wants a dose or a rate beside a route
    if made:
        resource["dosage"] = made
