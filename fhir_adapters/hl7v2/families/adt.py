"""ADT: patients, their visits and what surrounds them (HL7 v2 chapter 3)."""

from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import places
from fhir_adapters.hl7v2.events import ADT_EVENTS, Event
from fhir_adapters.hl7v2.families.family import Family
from fhir_adapters.hl7v2.families.patient_group import Setting, observed, patient_nodes, setting
from fhir_adapters.hl7v2.message import Message
from fhir_adapters.hl7v2.segments import merging
from fhir_adapters.hl7v2.structures import OBSERVATION, Group, Node, patient

_MERGED = Group("MERGE_INFO", ("MRG",), once=frozenset({"PV1", "PV2"}))

STRUCTURE = Group("ADT", ("MSH", "EVN"), groups=(patient(OBSERVATION, _MERGED),))
"""ADT_A01 to ADT_A60 differ in what is left out and in what repeats; one superset reads all."""


def convert(conv: Conversion, message: Message) -> None:
    """Map every patient group of an ADT message.

    Raises:
        ParseError: there is no PID (A20: no NPU), a merge does not say who is merged, a link or unlink names one alone.
    """
    event = ADT_EVENTS[conv.header.trigger]
    if event.place:
        _bed_status(conv, message)
        return
    made = [_patient_group(conv, group, event) for group in patient_nodes(message.segments, STRUCTURE)]
    if event.person in ("link", "unlink"):
        _relate(conv, [each.patient for each in made], event.person == "link")


def _patient_group(conv: Conversion, group: Node, event: Event) -> Setting:
    merged = list(group.groups("MERGE_INFO")) if group.children else []
    for each in merged:
        _lend_visit(group, each)
    at = setting(conv, group, event.status)
    if event.person == "merge" and not merged:
        raise ParseError("a required segment is missing", "MRG")
    if event.person == "delete":
        at.patient["active"] = False
    for number, each in enumerate(merged):
        mrg = each.first("MRG")
        if mrg is not None:
            inner = at if number == 0 or each.first("PV1") is None else _another_visit(conv, at, each, event)
            people = event.person == "merge"
            merging.merge(conv, at.patient, inner.account, inner.visit, mrg, people=people)
    for each in group.groups("OBSERVATION"):
        observed(conv, at.observer, each)
    return at


def _lend_visit(group: Node, merged: Node) -> None:
    """The first PV1 after an MRG (A41, A45) is the visit that the patient group itself is about."""
    if group.first("PV1") is None:
        for name in ("PV1", "PV2"):
            found = merged.first(name)
            if found is not None:
                merged.segments.remove(found)
                merged.names.discard(name)
                group.segments.append(found)
                group.names.add(name)


def _another_visit(conv: Conversion, at: Setting, merged: Node, event: Event) -> Setting:
    """The setting of a further MRG and PV1 pair (A45 moves several visits)."""
    from fhir_adapters.hl7v2.segments import encounters

    pv1 = merged.first("PV1")
    assert pv1 is not None
    visit = encounters.encounter(conv, at.patient, pv1, event.status)
    pv2 = merged.first("PV2")
    if pv2 is not None:
        encounters.additional(conv, visit, pv2)
    return Setting(at.patient, visit, at.account, at.subject, {"reference": f"Encounter/{visit['id']}"}, at.observer)


def _relate(conv: Conversion, made: list[Json], linked: bool) -> None:
    """A24: the records are of one person and neither replaces the other; A37 takes that back."""
    people = list({each["id"]: each for each in made}.values())
    if len(people) < 2:
        raise ParseError("a link needs two different patients", "PID[2]")
    for one in people:
        for other in people:
            if one is other:
                continue
            reference = f"Patient/{other['id']}"
            if linked:
                merging.add_link(one, reference, "seealso")
            else:
                conv.unlinked.setdefault(f"Patient/{one['id']}", []).append(reference)


def _bed_status(conv: Conversion, message: Message) -> None:
    """A20: NPU-1 is a bed, NPU-2 its status (table 0116)."""
    beds = message.all("NPU")
    if not beds:
        raise ParseError("a required segment is missing", "NPU")
    for npu in beds:
        where = places.location(conv, npu, 1)
        if where is None:
            raise ParseError("no bed is named", "NPU-1")
        bed = conv.resources[where["reference"]]
        raw = conv.text(npu.peek(2).split("^")[0])
        status = conv.find("bed-status", raw) if raw else None
        if status is None:
            conv.unmapped_code("bed-status", npu, 2)
            continue
        npu.take(2)
        bed["operationalStatus"] = status.coding()
        conv.amended[where["reference"]] = ("operationalStatus",)


FAMILY = Family(
    convert,
    {"ADT": frozenset(ADT_EVENTS)},
    owns=frozenset({"Patient", "Encounter", "Account", "Coverage", "RelatedPerson"}),
    needs=("PID",),
)
