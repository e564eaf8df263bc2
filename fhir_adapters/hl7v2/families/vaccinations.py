"""VXU, and the answers of an immunization registry (RSP): vaccinations (HL7 v2 chapter 4A)."""

from fhir_adapters.hl7v2.context import Conversion
from fhir_adapters.hl7v2.families.family import Family
from fhir_adapters.hl7v2.families.patient_group import Setting, observed, patient_nodes, setting
from fhir_adapters.hl7v2.message import Message
from fhir_adapters.hl7v2.segments import immunizations, observations, participants
from fhir_adapters.hl7v2.segments.notes import add_notes
from fhir_adapters.hl7v2.structures import OBSERVATION, TIMING, Group, Node, many, patient

STRUCTURE = Group(
    "VXU",
    ("MSH",),
    groups=(
        patient(
            Group(
                "ORDER",
                ("ORC", "RXA"),
                many=many("RXR", "NTE"),
                groups=(TIMING, OBSERVATION),
            ),
            OBSERVATION,
        ),
    ),
)


def convert(conv: Conversion, message: Message) -> None:
    """Map every patient group of a VXU message.

    Raises:
        ParseError: there is no PID.
    """
    for group in patient_nodes(message.segments, STRUCTURE):
        at = setting(conv, group)
        for each in group.groups("OBSERVATION"):
            observed(conv, at.observer, each)
        for order in group.groups("ORDER"):
            vaccination(conv, at, order)


def vaccination(conv: Conversion, at: Setting, group: Node) -> None:
    """An ORC and RXA with the route, the observations and the participants of the vaccination."""
    rxa = group.first("RXA")
    if rxa is None:
        segment = group.segments[0] if group.segments else group.children[0].segments[0]
        conv.issue("warning", "missing", segment, 0, "a vaccination without RXA")
        for each in group.groups("OBSERVATION"):
            observed(conv, at.observer, each)
        return
    resource = immunizations.immunization(conv, at.patient, at.encounter, group.first("ORC"), rxa)
    for rxr in group.all("RXR"):
        immunizations.applied(conv, resource, rxr)
    owner = observations.Owner(at.subject, at.encounter, conv.local_system("immunization"), str(resource["id"]))
    if "occurrenceDateTime" in resource:
        owner.effective = {"effectiveDateTime": resource["occurrenceDateTime"]}
    for each in group.groups("OBSERVATION"):
        made = observed(conv, owner, each)
        if made is not None:
            immunizations.told_by(resource, made)
    immunizations.tidy(resource)
    add_notes(conv, resource, group.all("NTE"))
    for prt in group.all("PRT"):
        participants.take_part(conv, prt, resource, as_actor=True, place="location")


FAMILY = Family(convert, {"VXU": frozenset({"V04", ""})})
