"""ORM, OML, OMG, OMI, OMD and OMS: orders (HL7 v2 chapter 4).

An order is told by the segment after its ORC: OBR a service, RXO a medicine, ODS a diet, RQD supplies. What stands with
it (diagnoses, observations, specimens, charges) is mapped once and referred to.
"""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import timing
from fhir_adapters.hl7v2.families.charging import charged
from fhir_adapters.hl7v2.families.family import Family
from fhir_adapters.hl7v2.families.patient_group import Setting, observed, patient_nodes, setting
from fhir_adapters.hl7v2.families.pharmacy import DETAILS, medicine_order
from fhir_adapters.hl7v2.message import Message, Segment
from fhir_adapters.hl7v2.segments import (
    diagnoses,
    diets,
    imaging,
    observations,
    orders,
    participants,
    specimens,
    supplies,
)
from fhir_adapters.hl7v2.segments.notes import add_notes
from fhir_adapters.hl7v2.structures import OBSERVATION, TIMING, Group, Node, many, patient

_TOLD_WHOLE = frozenset({"NW", "XO", "XX", "RO", "RP", "RU", "CN", "CH", "PA", "SN", "NA", ""})
"""Order controls (table 0119) of messages that tell an order whole; the others report a change of its status."""

_SPECIMEN = Group("SPECIMEN", ("SPM",), many=many("NTE", "SAC", "SID"), groups=(OBSERVATION,))
_ORDER = Group(
    "ORDER",
    ("ORC", "OBR"),
    once=frozenset({"RQ1"}),
    many=many("NTE", "DG1", "FT1", "CTI", "BLG", "CTD", "TCD", "ODS", "ODT", "RQD", "IPC", "SAC"),
    groups=(TIMING, OBSERVATION, _SPECIMEN, *DETAILS),
)
_SPECIMEN_FIRST = Group("SPECIMEN", ("SPM",), many=many("NTE", "SAC", "SID"), groups=(OBSERVATION, _ORDER))

STRUCTURE = Group("ORDER", ("MSH",), groups=(patient(_ORDER, OBSERVATION),))
BY_SPECIMEN = Group("ORDER", ("MSH",), groups=(patient(OBSERVATION, _SPECIMEN_FIRST, _ORDER),))
"""OML_O33 and O35: orders under the specimen, or its container, that they are for."""


def convert(conv: Conversion, message: Message) -> None:
    """Map every patient group of an order message.

    Raises:
        ParseError: there is no PID.
    """
    structure = BY_SPECIMEN if conv.header.trigger in ("O33", "O35") else STRUCTURE
    for group in patient_nodes(message.segments, structure):
        _patient_group(conv, group)


def _patient_group(conv: Conversion, group: Node) -> None:
    at = setting(conv, group)
    for each in group.groups("OBSERVATION"):
        observed(conv, at.observer, each)
    placed: list[tuple[Node, Json | None]] = []
    for above in group.groups("SPECIMEN"):
        spm = above.first("SPM")
        specimen = _specimen(conv, at, above, spm, at.observer.key) if spm is not None else None
        placed += [(each, specimen) for each in above.groups("ORDER")]
    placed += [(each, None) for each in group.groups("ORDER")]
    shared = orders.shared_numbers(
        [(each.first("ORC"), obr) for each, _ in placed if (obr := each.first("OBR")) is not None]
    )
    for each, specimen in placed:
        order(conv, at, each, shared, specimen)


def order(
    conv: Conversion, at: Setting, group: Node, shared: frozenset[tuple[str, str]], above: Json | None = None
) -> Json | None:
    """Map one order; ``above`` is the Specimen that it stands under. Returns the resource that stands for it."""
    orc, obr = group.first("ORC"), group.first("OBR")
    if obr is not None:
        return _service(conv, at, group, orc, obr, shared, above)
    if orc is None:
        segment = group.segments[0] if group.segments else group.children[0].segments[0]
        conv.issue("warning", "missing", segment, 0, "part of an order without the ORC or OBR that it belongs to")
        for each in group.groups("OBSERVATION"):
            observed(conv, at.observer, each)
        return None
    if any(child.group.name.startswith("RX") for child in group.children):
        return medicine_order(conv, at, orc, group)
    made: Json
    occasions = [timing.from_segment(conv, each.segments[0]) for each in group.groups("TIMING")]
    lines = [segment for segment in group.segments if segment.name in ("ODS", "ODT")]
    supply = group.first("RQD")
    if lines:
        made = diets.nutrition_order(conv, orc, at.subject, at.encounter, lines, occasions)
    elif supply is not None:
        made = supplies.supply_request(conv, orc, supply, group.first("RQ1"), at.subject)
    else:
        made = orders.of_control(conv, orc, at.subject, at.encounter)
        conv.amended[f"ServiceRequest/{made['id']}"] = ("status", "identifier", "extension")
    if made["resourceType"] != "SupplyRequest":
        add_notes(conv, made, group.all("NTE"))
    _surroundings(conv, at, group, made)
    return made


def _service(
    conv: Conversion,
    at: Setting,
    group: Node,
    orc: Segment | None,
    obr: Segment,
    shared: frozenset[tuple[str, str]],
    above: Json | None,
) -> Json:
    control = conv.text(orc.peek(1).split("^")[0]) if orc is not None else ""
    found = orders.identify(conv, orc, obr, shared)
    request = orders.service_request(conv, found, orc, obr, at.subject, at.encounter)
    if control not in _TOLD_WHOLE:
        conv.amended[f"ServiceRequest/{request['id']}"] = ("status", "identifier", "extension")
    for each in group.groups("TIMING"):
        orders.scheduled(request, timing.from_segment(conv, each.segments[0]))
    orders.observed_when(conv, request, obr)
    orders.of_section(conv, request, obr)
    taken = [above] if above is not None else []
    taken += [
        made
        for each in group.groups("SPECIMEN")
        if (spm := each.first("SPM")) is not None
        and (made := _specimen(conv, at, each, spm, found.request_key)) is not None
    ]
    if taken:
        specimens.collected_by(conv, taken[0], obr)
        for sac in group.all("SAC"):
            specimens.container(conv, taken[0], sac)
    else:
        described = specimens.from_order(conv, at.subject, obr, found.request_key)
        taken = [described] if described is not None else []
    if taken:
        request["specimen"] = [{"reference": f"Specimen/{each['id']}"} for each in taken]
    for ipc in group.all("IPC"):
        imaging.procedure_step(conv, request, ipc)
    add_notes(conv, request, group.all("NTE"))
    _surroundings(conv, at, group, request)
    return request


def _specimen(conv: Conversion, at: Setting, group: Node, spm: Segment, key: tuple[str, str]) -> Json:
    made = specimens.specimen(conv, at.subject, spm, key)
    for sac in group.all("SAC"):
        specimens.container(conv, made, sac)
    add_notes(conv, made, group.all("NTE"))
    owner = observations.Owner(at.subject, at.encounter, *at.observer.key)
    owner.specimen = {"reference": f"Specimen/{made['id']}"}
    for each in group.groups("OBSERVATION"):
        observed(conv, owner, each, "laboratory")
    return made


def _surroundings(conv: Conversion, at: Setting, group: Node, made: Json) -> None:
    """Diagnoses, observations, participants and charges of an order."""
    service = made["resourceType"] == "ServiceRequest"
    for segment in group.segments:
        if segment.name == "DG1":
            reference = diagnoses.diagnosis(conv, at.patient, at.visit, segment)
            if reference and made["resourceType"] in ("ServiceRequest", "SupplyRequest"):
                known = made.setdefault("reasonReference", [])
                if {"reference": reference} not in known:
                    known.append({"reference": reference})
        elif segment.name == "PRT" and service:
            participants.take_part(conv, segment, made, place="locationReference")
    for each in group.groups("OBSERVATION"):
        found = observed(conv, at.observer, each)
        if found is not None and service:
            made.setdefault("supportingInfo", []).append({"reference": f"Observation/{found['id']}"})
    charged(conv, at, group, made)


FAMILY = Family(
    convert,
    {
        "ORM": frozenset({"O01", ""}),
        "OML": frozenset({"O21", "O33", "O35", "O39", ""}),
        "OMG": frozenset({"O19", ""}),
        "OMI": frozenset({"O23", ""}),
        "OMD": frozenset({"O03", ""}),
        "OMS": frozenset({"O05", ""}),
        "OMN": frozenset({"O07", ""}),
    },
)
