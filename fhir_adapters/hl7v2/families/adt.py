"""ADT: patients, their visits and what surrounds them (HL7 v2 chapter 3)."""

from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.events import ADT_EVENTS, Event
from fhir_adapters.hl7v2.message import Message
from fhir_adapters.hl7v2.segments import encounters, observations, patients, related
from fhir_adapters.hl7v2.structures import ADT, Node, group_segments

PATIENT_NOTE = "http://hl7.org/fhir/StructureDefinition/note"


def convert(conv: Conversion, message: Message) -> None:
    """Map every patient group of an ADT message.

    Raises:
        ParseError: there is no PID, or a merge does not name who is merged.
    """
    event = ADT_EVENTS[conv.header.trigger]
    root = group_segments(message.segments, ADT)
    groups = list(root.groups("PATIENT"))
    if not groups or groups[0].first("PID") is None:
        raise ParseError("a required segment is missing", "PID")
    made = [each for group in groups if (each := _patient_group(conv, group, event)) is not None]
    if event.person == "link":
        _link(made)


def _patient_group(conv: Conversion, group: Node, event: Event) -> Json | None:
    pid = group.first("PID")
    if pid is None:
        return None  # what stands before the next PID without one of its own is remarked on as not mapped
    patient = patients.patient(conv, pid)
    person_details(conv, group, patient)
    mrg = group.first("MRG")
    if event.person == "merge":
        if mrg is None:
            raise ParseError("a required segment is missing", "MRG")
        patients.merge(conv, patient, mrg)
    elif event.person == "delete":
        patient["active"] = False
    visit = visit_of(conv, group, patient, event.status)
    surroundings(conv, group, patient, visit)
    owner = observations.Owner(
        {"reference": f"Patient/{patient['id']}"},
        {"reference": f"Encounter/{visit['id']}"} if visit is not None else None,
        conv.local_system("message"),
        conv.header.control_id,
    )
    for each in group.groups("OBSERVATION"):
        observed(conv, owner, each, "")
    return patient


def person_details(conv: Conversion, group: Node, patient: Json) -> None:
    """PD1 and the notes that stand in the patient group."""
    pd1 = group.first("PD1")
    if pd1 is not None:
        patients.additional(conv, patient, pd1)
    for nte in group.all("NTE"):
        note = related.note(conv, nte)
        if note is not None:
            patient.setdefault("extension", []).append({"url": PATIENT_NOTE, "valueAnnotation": note})


def visit_of(conv: Conversion, group: Node, patient: Json, status: str) -> Json | None:
    """The Encounter of the group's PV1, None when there is none or it says nothing.

    An event about a visit makes one of a patient class alone; in person events and results such a PV1 is a formality.
    """
    pv1 = group.first("PV1")
    if pv1 is None:
        return None
    if not status and not encounters.worth_mapping(pv1):
        pv1.take(1)
        if pv1.peek(2) in encounters.NO_CLASS:
            pv1.take(2)
        return None
    visit = encounters.encounter(conv, patient, pv1, status)
    pv2 = group.first("PV2")
    if pv2 is not None:
        encounters.additional(conv, visit, pv2)
    return visit


def surroundings(conv: Conversion, group: Node, patient: Json, visit: Json | None) -> None:
    """NK1, AL1, DG1 and the insurance groups of a patient group."""
    for nk1 in group.all("NK1"):
        related.next_of_kin(conv, patient, nk1)
    for al1 in group.all("AL1"):
        related.allergy(conv, patient, al1)
    for dg1 in group.all("DG1"):
        related.diagnosis(conv, patient, visit, dg1)
    for insurance in group.groups("INSURANCE"):
        in1 = insurance.first("IN1")
        if in1 is not None:
            related.coverage(conv, patient, in1)


def observed(conv: Conversion, owner: observations.Owner, group: Node, category: str) -> Json | None:
    """The Observation of an OBX group with its notes."""
    obx = group.first("OBX")
    if obx is None:
        return None
    resource = observations.observation(conv, owner, obx, category)
    notes = [note for nte in group.all("NTE") if (note := related.note(conv, nte)) is not None]
    if notes:
        resource["note"] = notes
    return resource


def _link(made: list[Json]) -> None:
    """A24: both records are of one person; neither replaces the other."""
    for one in made:
        for other in made:
            if one["id"] != other["id"]:
                entry = {"other": {"reference": f"Patient/{other['id']}"}, "type": "seealso"}
                if entry not in one.setdefault("link", []):
                    one["link"].append(entry)
