"""RXO, RXE and RXG: the MedicationRequest (guide: RXO[MedicationRequest], ORC[MedicationRequest]).

What the prescriber wrote (RXO) and what the pharmacy made of it (RXE) are one order and one resource, the pharmacy's
wording first; where they name different medicines there are two, the pharmacy's based on the prescriber's.
"""

from dataclasses import dataclass

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, concepts, demographics, timestamps
from fhir_adapters.hl7v2.datatypes.quantities import measured, quantity, unit_of, whole_number
from fhir_adapters.hl7v2.datatypes.timing import Occasions
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import dosage, medicines, order_control
from fhir_adapters.identifiers import medication_request_id

_SUBSTITUTION = "http://terminology.hl7.org/CodeSystem/v3-substanceAdminSubstitution"
# Guide: table 0161 Allow Substitution.
_ALLOWED = {
    "N": ("N", "none"),
    "G": ("G", "generic composition"),
    "T": ("TE", "therapeutic alternative"),
    "Y": ("E", "equivalent"),
}
_STATUS = {
    "active": "active",
    "revoked": "stopped",
    "completed": "completed",
    "on-hold": "on-hold",
    "entered-in-error": "entered-in-error",
}
_CANCELLED = frozenset({"CA", "OC", "CR", "UA"})
"""Order controls that end an order before it began; DC and OD stop a running one."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a detail segment has what an order of a medicine says; 0 where it does not."""

    medicine: medicines.Fields
    dose: dosage.Fields
    pharmacy_notes: int = 0
    substitution: int = 0
    dispense: int = 0
    dispense_units: int = 0
    refills: int = 0
    prescriber: int = 0
    indication: int = 0
    number: int = 0
    pharmacy: int = 0
    pharmacy_address: int = 0
    pharmacy_phone: int = 0
    interval: int = 0
    initial: int = 0


LAYOUTS = {
    "RXO": Layout(
        medicines.Fields(1, 5, 18, 19, 25, 26),
        dosage.Fields(2, 3, 4, 17, 21, 22, 23, 7),
        6,
        9,
        11,
        12,
        13,
        14,
        20,
        0,
        32,
        33,
        36,
        interval=28,
    ),
    "RXE": Layout(
        medicines.Fields(2, 6, 25, 26, 33, 34),
        dosage.Fields(3, 4, 5, 22, 23, 24, 19, 7),
        21,
        9,
        10,
        11,
        12,
        13,
        27,
        15,
        40,
        41,
        45,
        initial=39,
    ),
    "RXG": Layout(
        medicines.Fields(4, 8, 17, 18, 23, 24, 19, 20, 21),
        dosage.Fields(5, 6, 7, 14, 15, 16, 0, 13),
        indication=22,
    ),
}


@dataclass(slots=True)
class Prescription:
    """An order of a medicine being mapped: its control segment, its numbers and what they lead to."""

    orc: Segment
    numbers: order_control.Numbers
    status: str
    subject: Json
    encounter: Json | None


def prescription(conv: Conversion, orc: Segment, subject: Json, encounter: Json | None) -> Prescription:
    """Read what ORC says of an order of a medicine."""
    control = conv.text(orc.peek(1).split("^")[0])
    found = order_control.numbers(conv, orc)
    status = _STATUS.get(order_control.status(conv, orc), "unknown")
    if status == "stopped" and control in _CANCELLED:
        status = "cancelled"
    return Prescription(orc, found, status, subject, encounter)


def request(
    conv: Conversion,
    order: Prescription,
    detail: Segment,
    routes: list[Segment],
    parts: list[Segment],
    occasions: list[Occasions],
    *,
    intent: str = "order",
    suffix: str = "",
) -> Json:
    """The MedicationRequest of a detail segment (added). ``suffix`` tells apart what shares the order's number."""
    at = LAYOUTS[detail.name]
    system, value = order.numbers.key
    times = conv.occurrence(f"medication {system}|{value}{suffix}")
    resource: Json = {
        "resourceType": "MedicationRequest",
        "id": medication_request_id(conv.profile, system, f"{value}{suffix}" + (f"#{times}" if times else "")),
        "status": order.status,
        "intent": intent,
        "subject": order.subject,
    }
    if order.numbers.known:
        resource["identifier"] = list(order.numbers.known)
    if order.encounter is not None:
        resource["encounter"] = order.encounter
    medicines.medicine(conv, resource, detail, at.medicine, parts)
    doses = dosage.dosage(conv, detail, at.dose, routes, occasions)
    if doses:
        resource["dosageInstruction"] = doses
    priority = next((each.priority for each in occasions if each.priority), "")
    if priority:
        resource["priority"] = priority
    _supply(conv, resource, detail, at)
    _context(conv, resource, order, detail, at)
    return conv.keep(resource)


def _first_and_next(conv: Conversion, supply: Json, detail: Segment, at: Layout) -> None:
    """RXE-39: how much of it first; RXO-28: after how many days again."""
    if at.initial and (amount := measured(conv, detail.peek(at.initial), detail.peek(at.dispense_units))) is not None:
        detail.take(at.initial)
        supply["initialFill"] = {"quantity": amount}
    if at.interval and (days := quantity(conv.text(detail.peek(at.interval)), unit_of("d"))) is not None:
        detail.take(at.interval)
        supply["dispenseInterval"] = days


def _supply(conv: Conversion, resource: Json, detail: Segment, at: Layout) -> None:
    """How much to dispense, how often again, by which pharmacy, and whether something else will do."""
    supply: Json = {}
    if at.dispense and detail.peek(at.dispense):
        amount = measured(conv, detail.take(at.dispense), detail.take(at.dispense_units))
        if amount is not None:
            supply["quantity"] = amount
    _first_and_next(conv, supply, detail, at)
    refills = whole_number(conv, detail.peek(at.refills)) if at.refills and detail.peek(at.refills) else None
    if refills is not None:
        detail.take(at.refills)
        supply["numberOfRepeatsAllowed"] = refills
    pharmacy = _pharmacy(conv, detail, at)
    if pharmacy is not None:
        supply["performer"] = pharmacy
    if supply:
        resource["dispenseRequest"] = supply
    raw = conv.text(detail.peek(at.substitution).split("^")[0]) if at.substitution else ""
    if raw in _ALLOWED:
        detail.take(at.substitution)
        code, display = _ALLOWED[raw]
        coding = {"system": _SUBSTITUTION, "code": code, "display": display}
        resource["substitution"] = {"allowedCodeableConcept": {"coding": [coding]}}
    elif raw:
        conv.unmapped_code("substitution", detail, at.substitution)


def _pharmacy(conv: Conversion, detail: Segment, at: Layout) -> Json | None:
    if not at.pharmacy or not detail.peek(at.pharmacy):
        return None
    made = medicines.manufacturer(conv, detail, at.pharmacy)  # a coded field that names an organization
    if made is None:
        return None
    organization = conv.resources[made["reference"]]
    where = demographics.addresses(conv, detail, at.pharmacy_address) if detail.peek(at.pharmacy_address) else []
    if where:
        organization.setdefault("address", where)
    points = demographics.telecoms(conv, detail, at.pharmacy_phone, "work") if detail.peek(at.pharmacy_phone) else []
    if points:
        organization.setdefault("telecom", points)
    return made


def _context(conv: Conversion, resource: Json, order: Prescription, detail: Segment, at: Layout) -> None:
    """Who prescribed it, when, why, in which group of orders, and what the pharmacy is to know."""
    asked = actors.practitioner(conv, detail, at.prescriber) if at.prescriber and detail.peek(at.prescriber) else None
    who = order_control.requester(conv, order.orc, asked)
    if who is not None:
        resource["requester"] = who
    if order.orc.fields[4]:
        group = order_control.group_number(conv, order.orc)
        if group is not None:
            resource["groupIdentifier"] = group
    order_control.describe(conv, resource, order.orc)
    if detail.name == "RXE" and detail.peek(32) and "authoredOn" not in resource:
        timestamps.put_date_time(conv, resource, "authoredOn", detail, 32)
    reasons = concepts.concepts(conv, detail, at.indication) if at.indication and detail.peek(at.indication) else []
    if reasons:
        resource["reasonCode"] = reasons
    for each in concepts.concepts(conv, detail, at.pharmacy_notes) if at.pharmacy_notes else ():
        own = each.get("coding", ({},))[0]
        resource.setdefault("note", []).append({"text": each.get("text") or own.get("display") or own["code"]})
    number = conv.text(detail.take(at.number)) if at.number and detail.peek(at.number) else ""
    if number:
        made = {"type": {"text": "prescription number"}, "system": conv.local_system("prescription"), "value": number}
        resource.setdefault("identifier", []).append(made)
