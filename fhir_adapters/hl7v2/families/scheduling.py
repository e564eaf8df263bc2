"""SIU: appointments booked, changed, cancelled, and blocked time (HL7 v2 chapter 10)."""

from types import MappingProxyType

from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import timing
from fhir_adapters.hl7v2.families.family import Family
from fhir_adapters.hl7v2.families.patient_group import observed, setting
from fhir_adapters.hl7v2.message import Message, Segment
from fhir_adapters.hl7v2.segments import appointments
from fhir_adapters.hl7v2.segments.notes import joined
from fhir_adapters.hl7v2.structures import OBSERVATION, TIMING, Group, Node, group_segments, many, patient
from fhir_adapters.identifiers import numbered_id

EVENTS = MappingProxyType(
    {
        "S12": "booked",
        "S13": "booked",
        "S14": "",
        "S15": "cancelled",
        "S16": "cancelled",
        "S17": "entered-in-error",
        "S18": "",
        "S19": "",
        "S20": "",
        "S21": "",
        "S22": "",
        "S23": "busy-unavailable",
        "S24": "free",
        "S26": "noshow",
    }
)
"""Event -> the Appointment status it brings ("" to ask SCH-25); S23 and S24 block and free time, which is a Slot."""

_SLOTS = frozenset({"S23", "S24"})
_ENDED = frozenset({"S15", "S16", "S17", "S26"})
"""Events that end an appointment and need not tell it whole: what was booked stays on record."""

_RESOURCES = (
    Group("AIS", ("AIS",), many=many("NTE")),
    Group("AIG", ("AIG",), many=many("NTE")),
    Group("AIL", ("AIL",), many=many("NTE")),
    Group("AIP", ("AIP",), many=many("NTE")),
)
STRUCTURE = Group(
    "SIU",
    ("MSH", "SCH"),
    many=many("NTE"),
    groups=(TIMING, patient(OBSERVATION), Group("RESOURCES", ("RGS",), many=frozenset({"NTE"}), groups=_RESOURCES)),
)
_MAPPINGS = {
    "AIS": appointments.service,
    "AIG": appointments.equipment,
    "AIL": appointments.place,
    "AIP": appointments.person,
}


def convert(conv: Conversion, message: Message) -> None:
    """Map the appointment, or the blocked time, of an SIU message.

    Raises:
        ParseError: there is no SCH.
    """
    root = group_segments(message.segments, STRUCTURE)
    sch = root.first("SCH")
    if sch is None:
        raise ParseError("a required segment is missing", "SCH")
    resource = appointments.appointment(conv, sch, EVENTS[conv.header.trigger])
    occasions = [timing.from_segment(conv, each.segments[0]) for each in root.groups("TIMING")]
    appointments.times(conv, resource, sch, occasions)
    comment = joined(conv, root.all("NTE"))
    if comment:
        appointments.remark(resource, comment)
    for group in root.groups("PATIENT"):
        _participant(conv, resource, group)
    for group in root.groups("RESOURCES"):
        _booked(conv, resource, group)
    appointments.settle(resource)
    if conv.header.trigger in _SLOTS:
        _slot(conv, resource, sch, EVENTS[conv.header.trigger])
        return
    appointments.contacts(conv, resource, sch)
    if "participant" not in resource:
        # FHIR requires one; without a patient and a resource the appointment's own contact has none either
        conv.issue("warning", "missing", sch, 0, "an appointment without a patient or a resource")
        resource["participant"] = [{"actor": {"display": "unknown"}, "status": "needs-action"}]
    if conv.header.trigger in _ENDED:
        conv.amend(resource, "status", "cancelationReason")
    else:
        conv.put(resource)


def _participant(conv: Conversion, resource: Json, group: Node) -> None:
    if group.first("PID") is None:
        return
    pv1 = group.first("PV1")
    at = setting(conv, group, "planned" if pv1 is not None and not pv1.peek(44) else "")
    appointments.participate(resource, at.subject)
    if at.encounter is not None:
        resource.setdefault("supportingInformation", []).append(at.encounter)
    for each in group.groups("OBSERVATION"):
        observed(conv, at.observer, each)


def _booked(conv: Conversion, resource: Json, group: Node) -> None:
    rgs = group.first("RGS")
    if rgs is not None:
        rgs.take(1)
        rgs.take(2)
    for each in group.children:
        segment = each.first(each.group.name)
        if segment is not None:
            _MAPPINGS[each.group.name](conv, resource, segment)
        comment = joined(conv, each.all("NTE"))
        if comment:
            appointments.remark(resource, comment)


def _slot(conv: Conversion, resource: Json, sch: Segment, status: str) -> None:
    """S23 and S24: the Slot of the schedule whose resources RGS names."""
    actors = [each["actor"] for each in resource.get("participant", ())]
    if not actors:
        raise ParseError("no resource whose time is blocked", "RGS")
    key = [str(each["reference"]) for each in actors]
    schedule: Json = {
        "resourceType": "Schedule",
        "id": numbered_id(conv.profile, "Schedule", conv.local_system("schedule"), *key),
        "actor": actors,
    }
    for reference in resource.get("supportingInformation", ()):
        if reference.get("type") == "Schedule":
            schedule["identifier"] = [reference["identifier"]]
    slot: Json = {
        "resourceType": "Slot",
        "id": numbered_id(conv.profile, "Slot", conv.local_system("slot"), str(resource["id"])),
        "schedule": {"reference": conv.put(schedule)},
        "status": status,
    }
    for element in ("identifier", "serviceType", "appointmentType", "start", "_start", "end", "_end", "comment"):
        if element in resource:
            slot[element] = resource[element]
    appointments.contacts(conv, {"status": "booked"}, sch)
    conv.put(slot)


FAMILY = Family(convert, {"SIU": frozenset(EVENTS)}, needs=("SCH",))
