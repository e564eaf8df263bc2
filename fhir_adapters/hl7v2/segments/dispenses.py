"""RXD: the MedicationDispense (guide: none yet; the fields follow RXO and RXA)."""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, concepts, demographics, timestamps
from fhir_adapters.hl7v2.datatypes.quantities import measured
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import dosage, medicines
from fhir_adapters.hl7v2.segments.medications import Prescription
from fhir_adapters.identifiers import numbered_id

_MEDICINE = medicines.Fields(2, 6, 16, 17, 27, 28, 18, 19, 20)
_DOSE = dosage.Fields(daily=12, instructions=15)
_STATUS = {"cancelled": "cancelled", "stopped": "stopped", "on-hold": "on-hold", "entered-in-error": "entered-in-error"}
_SUBSTITUTED = frozenset({"1", "2", "3", "4", "5", "7", "8", "G", "T"})  # table 0167; 0 and N: as ordered


def dispense(
    conv: Conversion,
    order: Prescription,
    rxd: Segment,
    routes: list[Segment],
    parts: list[Segment],
    request: Json | None,
) -> Json:
    """The MedicationDispense of an RXD (added); ``request`` is the order that it fulfils."""
    counter = conv.text(rxd.take(1))
    resource: Json = {
        "resourceType": "MedicationDispense",
        "id": "",
        "status": _STATUS.get(order.status, "completed"),
        "subject": order.subject,
    }
    if order.encounter is not None:
        resource["context"] = order.encounter
    number = conv.text(rxd.take(7)) if rxd.peek(7) else ""
    if number:
        made = {"type": {"text": "prescription number"}, "system": conv.local_system("prescription"), "value": number}
        resource["identifier"] = [made]
    medicines.medicine(conv, resource, rxd, _MEDICINE, parts)
    when = timestamps.put_date_time(conv, resource, "whenHandedOver", rxd, 3)
    amount = measured(conv, rxd.take(4), rxd.take(5)) if rxd.peek(4) else None
    if amount is not None:
        resource["quantity"] = amount
    notes = [{"text": text} for raw in rxd.take(9).split("~") if (text := conv.text(raw))]
    if notes:
        resource["note"] = notes
    people = actors.practitioners(conv, rxd, 10) if rxd.peek(10) else []
    if people:
        resource["performer"] = [{"actor": each} for each in people]
    _substituted(conv, resource, rxd)
    doses = dosage.dosage(conv, rxd, _DOSE, routes, [])
    if doses:
        resource["dosageInstruction"] = doses
    _pharmacy(conv, resource, rxd)
    if request is not None:
        resource["authorizingPrescription"] = [{"reference": f"MedicationRequest/{request['id']}"}]
    system, value = order.numbers.key
    place = counter or number or when or ""
    times = conv.occurrence(f"dispense {system}|{value}|{place}")
    resource["id"] = numbered_id(conv.profile, "MedicationDispense", system, value, place, str(times))
    return conv.keep(resource)


def _substituted(conv: Conversion, resource: Json, rxd: Segment) -> None:
    raw = conv.text(rxd.peek(11).split("^")[0])
    if raw in ("0", "N") or raw in _SUBSTITUTED:
        rxd.take(11)
        resource["substitution"] = {"wasSubstituted": raw in _SUBSTITUTED}
    elif raw:
        conv.unmapped_code("substitution", rxd, 11)


def _pharmacy(conv: Conversion, resource: Json, rxd: Segment) -> None:
    """RXD-30 and 31 the pharmacy, RXD-33 the kind of dispense."""
    pharmacy = medicines.manufacturer(conv, rxd, 30) if rxd.peek(30) else None
    if pharmacy is not None:
        where = demographics.addresses(conv, rxd, 31) if rxd.peek(31) else []
        if where:
            conv.resources[pharmacy["reference"]].setdefault("address", where)
        resource.setdefault("performer", []).append({"actor": pharmacy})
    kind = concepts.concept(conv, rxd, 33) if rxd.peek(33) else None
    if kind is not None:
        resource["type"] = kind
