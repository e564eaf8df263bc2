"""What every message about a patient begins with: PID and the visit, and the segments that surround them."""

from collections.abc import Iterator
from dataclasses import dataclass

from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import (
    accounts,
    allergies,
    diagnoses,
    encounters,
    insurance,
    kin,
    observations,
    participants,
    patients,
    procedures,
)
from fhir_adapters.hl7v2.segments.notes import note
from fhir_adapters.hl7v2.structures import Group, Node, group_segments

PATIENT_NOTE = "http://hl7.org/fhir/StructureDefinition/note"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_GENERAL_PRACTITIONER = frozenset({"PP", "PCP", "FHCP"})
"""Roles (tables 0443 and 0912) that make somebody the patient's general practitioner."""


@dataclass(slots=True)
class Setting:
    """Whom a message is about and during which visit, as resources and as references to them."""

    patient: Json
    visit: Json | None
    account: Json | None
    subject: Json
    encounter: Json | None
    observer: observations.Owner
    """Whose observations are those that belong to no order: the message's own."""


def patient_nodes(segments: list[Segment], structure: Group) -> Iterator[Node]:
    """The PATIENT groups of a message, each with its PID.

    Raises:
        ParseError: the first has none, or there is no group at all.
    """
    groups = list(group_segments(segments, structure).groups("PATIENT"))
    if not groups or groups[0].first("PID") is None:
        raise ParseError("a required segment is missing", "PID")
    return _named(groups)


def _named(groups: list[Node]) -> Iterator[Node]:
    """Give a group without a PID the one before it: another visit, or prior results, of the same patient."""
    sent: tuple[Segment, list[str]] | None = None
    for place, group in enumerate(groups):
        own = group.first("PID")
        if own is not None and place + 1 < len(groups):
            sent = own, list(own.fields)  # mapping takes the fields
        elif own is None and sent is not None:
            pid, fields = sent
            group.segments.insert(0, Segment(pid.name, pid.index, list(fields), pid.sent))
            group.names.add("PID")
        yield group


def setting(conv: Conversion, group: Node, status: str = "") -> Setting:
    """Map the patient, the visit and what surrounds them; ``status`` is what the event says of the visit."""
    pid = group.first("PID")
    assert pid is not None
    pv1 = group.first("PV1")
    patient = patients.patient(conv, pid, pv1)
    account = accounts.of_patient(conv, patient, pid) if pid.fields[18] else None
    pd1 = group.first("PD1")
    if pd1 is not None:
        patients.additional(conv, patient, pd1)
    visit = _visit(conv, group, patient, pv1, status)
    accounts.charge_visit(account, visit)
    made = _setting(conv, patient, visit, account)
    if len(group.names) > (2 if pv1 is not None else 1) or group.children:
        _surroundings(conv, group, made)
    return made


def _setting(conv: Conversion, patient: Json, visit: Json | None, account: Json | None) -> Setting:
    subject = {"reference": f"Patient/{patient['id']}"}
    encounter = {"reference": f"Encounter/{visit['id']}"} if visit is not None else None
    observer = observations.Owner(subject, encounter, conv.local_system("message"), conv.header.control_id)
    return Setting(patient, visit, account, subject, encounter, observer)


def _visit(conv: Conversion, group: Node, patient: Json, pv1: Segment | None, status: str) -> Json | None:
    """The Encounter of the group's PV1, None when there is none or it says nothing.

    An event about a visit makes one of a patient class alone; in person events and results such a PV1 is a formality.
    """
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


def _surroundings(conv: Conversion, group: Node, at: Setting) -> None:
    """Relatives, allergies, diagnoses, procedures, insurance, guarantors, participants and notes of the group."""
    in_visit = False
    for segment in group.segments:
        name = segment.name
        if name == "NK1":
            kin.next_of_kin(conv, at.patient, segment)
        elif name == "AL1":
            allergies.allergy(conv, at.patient, segment)
        elif name == "IAM":
            allergies.adverse_reaction(conv, at.patient, segment)
        elif name == "DG1":
            diagnoses.diagnosis(conv, at.patient, at.visit, segment)
        elif name == "GT1":
            guaranteed(conv, at, segment)
        elif name == "NTE":
            _patient_note(conv, at.patient, segment)
        elif name in ("PRT", "ROL"):
            _participant(conv, at, segment, in_visit)
        elif name in ("PV1", "PV2"):
            in_visit = True
    for child in group.children:
        if child.group.name == "PROCEDURE":
            performed(conv, at, child)
        elif child.group.name == "INSURANCE":
            insured(conv, at, child)


def guaranteed(conv: Conversion, at: Setting, gt1: Segment) -> None:
    """GT1: the guarantor of the account; where none is named, of the visit's or the patient's."""
    if at.account is None:
        at.account = accounts.for_charges(conv, at.patient, at.visit)
        accounts.charge_visit(at.account, at.visit)
    accounts.guarantor(conv, at.patient, at.account, gt1)


def insured(conv: Conversion, at: Setting, group: Node) -> None:
    """IN1, IN2, IN3: a Coverage, which also covers the account."""
    in1 = group.first("IN1")
    if in1 is None:
        return
    made = insurance.coverage(conv, at.patient, in1, group.first("IN2"), list(group.all("IN3")))
    if at.account is not None:
        entry = {"coverage": {"reference": made}}
        covered = at.account.setdefault("coverage", [])
        if entry not in covered:
            covered.append(entry)


def performed(conv: Conversion, at: Setting, group: Node) -> Json | None:
    """PR1 with those who took part in it."""
    pr1 = group.first("PR1")
    resource = procedures.procedure(conv, at.patient, at.visit, pr1) if pr1 is not None else None
    if resource is None:
        return None
    for segment in group.segments:
        if segment.name in ("PRT", "ROL"):
            participants.take_part(conv, segment, resource, as_actor=True, place="location", device="usedReference")
    return resource


def _patient_note(conv: Conversion, patient: Json, nte: Segment) -> None:
    made = note(conv, nte)
    if made is not None:
        patient.setdefault("extension", []).append({"url": PATIENT_NOTE, "valueAnnotation": made})


def _participant(conv: Conversion, at: Setting, segment: Segment, in_visit: bool) -> None:
    """PRT or ROL: after PV1 a participant of the visit, before it somebody of the patient's own."""
    found = participants.participation(conv, segment)
    if found is None or found.who is None:
        return
    kind = str(found.who["reference"]).partition("/")[0]
    codes = {each["code"] for each in (found.role or {}).get("coding", ())}
    if kind == "Location":
        if in_visit and at.visit is not None:
            at.visit.setdefault("location", []).append({"location": found.who})
    elif in_visit and at.visit is not None and kind != "Organization":
        entry: Json = {"individual": found.who}
        if found.role is not None:
            entry["type"] = [found.role]
        if found.period is not None:
            entry["period"] = found.period
        at.visit.setdefault("participant", []).append(entry)
    elif kind == "Organization" and in_visit and at.visit is not None:
        at.visit.setdefault("serviceProvider", found.who)
    elif codes & _GENERAL_PRACTITIONER or not codes:
        known = at.patient.setdefault("generalPractitioner", [])
        if found.who not in known:
            known.append(found.who)


def observed(conv: Conversion, owner: observations.Owner, group: Node, category: str = "") -> Json | None:
    """The Observation of an OBX group with its notes and those who took part."""
    obx = group.segments[0]
    if obx.name != "OBX":
        return None
    resource = observations.observation(conv, owner, obx, category)
    if len(group.segments) > 1:
        notes = [made for nte in group.all("NTE") if (made := note(conv, nte)) is not None]
        if notes:
            resource["note"] = notes
        for prt in group.all("PRT"):
            participants.take_part(conv, prt, resource, device="device")
    return resource
