"""ORU and OUL: results (HL7 v2 chapter 7). Several patients, each with several orders, each with results and specimens.

OUL tells the same from the specimen's or the container's side (R22 to R24); each of its orders is mapped as an order of
an ORU is, with the specimen that it stands under.
"""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import timing
from fhir_adapters.hl7v2.families.family import Family
from fhir_adapters.hl7v2.families.patient_group import Setting, observed, patient_nodes, setting
from fhir_adapters.hl7v2.message import Message, Segment
from fhir_adapters.hl7v2.segments import observations, orders, participants, reports, specimens
from fhir_adapters.hl7v2.segments.notes import note
from fhir_adapters.hl7v2.structures import OBSERVATION, SPECIMEN, TIMING, Group, Node, many, patient

ORU_EVENTS = frozenset({"R01", "R30", "R31", "R32", "R40", "W01", ""})
"""Triggers of unsolicited results: one structure. Before v2.3 senders left the trigger out."""

OUL_EVENTS = frozenset({"R21", "R22", "R23", "R24"})
"""Results by visit (R21), specimen (R22), container (R23) and order (R24)."""

_CONTAINER = frozenset({"SAC", "INV", "SID", "TCD", "CTI", "CTD"})
_ORU = Group(
    "ORU",
    ("MSH",),
    groups=(
        patient(
            Group("ORDER", ("ORC", "OBR"), many=many("NTE", *_CONTAINER), groups=(TIMING, OBSERVATION, SPECIMEN)),
            OBSERVATION,
        ),
    ),
)
"""ORU_R01 (2.3 to 2.9), the point-of-care results ORU_R30 to R32, and OUL_R21."""

_BY_ORDER = Group(
    "ORDER",
    ("OBR",),
    once=frozenset({"ORC"}),
    many=many("NTE", "TXA", *_CONTAINER),
    groups=(TIMING, OBSERVATION, SPECIMEN),
)
# The patient's own observations come first, so that an OBX before any SPM or OBR is one of them.
_OUL_BY_SPECIMEN = Group(
    "OUL",
    ("MSH",),
    groups=(
        patient(
            OBSERVATION, Group("SPECIMEN", ("SPM",), many=many("NTE", *_CONTAINER), groups=(OBSERVATION, _BY_ORDER))
        ),
    ),
)
"""OUL_R22 and R23: a specimen with its own observations, containers and orders."""

_OUL_BY_ORDER = Group("OUL", ("MSH",), groups=(patient(OBSERVATION, _BY_ORDER),))
"""OUL_R24: an order with its specimens and results."""

_STRUCTURES = {"R22": _OUL_BY_SPECIMEN, "R23": _OUL_BY_SPECIMEN, "R24": _OUL_BY_ORDER}


def convert(conv: Conversion, message: Message) -> None:
    """Map every patient group of an ORU or OUL message.

    Raises:
        ParseError: there is no PID.
    """
    structure = _STRUCTURES.get(conv.header.trigger, _ORU)
    for group in patient_nodes(message.segments, structure):
        _patient_group(conv, group)


def _patient_group(conv: Conversion, group: Node) -> None:
    at = setting(conv, group)
    alone = [each for each in group.groups("OBSERVATION") if observed(conv, at.observer, each) is not None]
    if alone and not any(child.group.name in ("ORDER", "SPECIMEN") for child in group.children):
        _without_order(conv, alone[0].segments[0])
    placed: list[tuple[Node, Json | None]] = [(each, None) for each in group.groups("ORDER")]
    for above in group.groups("SPECIMEN"):
        made = _specimen(conv, at, above, *at.observer.key)
        if made is not None:
            _about_specimen(conv, at, above, made)
        placed += [(each, made) for each in above.groups("ORDER")]
    shared = orders.shared_numbers(
        [(each.first("ORC"), obr) for each, _ in placed if (obr := each.first("OBR")) is not None]
    )
    for each, specimen in placed:
        _order(conv, at, each, shared, specimen)


def _specimen(conv: Conversion, at: Setting, group: Node, system: str, value: str) -> Json | None:
    """The Specimen of a group with its notes and containers; None when the group's SPM is missing."""
    spm = group.first("SPM")
    if spm is None:
        return None
    made = specimens.specimen(conv, at.subject, spm, (system, value))
    for nte in group.all("NTE"):
        found = note(conv, nte)
        if found is not None:
            made.setdefault("note", []).append(found)
    for sac in group.all("SAC"):
        specimens.container(conv, made, sac)
    return made


def _about_specimen(conv: Conversion, at: Setting, group: Node, specimen: Json) -> None:
    """Observations on the specimen itself."""
    owner = observations.Owner(at.subject, at.encounter, *at.observer.key)
    owner.specimen = {"reference": f"Specimen/{specimen['id']}"}
    for each in group.groups("OBSERVATION"):
        observed(conv, owner, each, "laboratory")


def _order(
    conv: Conversion, at: Setting, group: Node, shared: frozenset[tuple[str, str]], above: Json | None = None
) -> None:
    obr = group.first("OBR")
    if obr is None:
        _results_alone(conv, at, group)
        return
    orc = group.first("ORC")
    order = orders.identify(conv, orc, obr, shared)
    request = orders.service_request(conv, order, orc, obr, at.subject, at.encounter)
    for each in group.groups("TIMING"):
        orders.scheduled(request, timing.from_segment(conv, each.segments[0]))
    report = reports.report(conv, order, obr, at.subject, at.encounter, request)
    taken = _specimens(conv, at, group, above, order, obr)
    if taken:
        references = [{"reference": f"Specimen/{each['id']}"} for each in taken]
        report["specimen"] = references
        request["specimen"] = references
    owner = _owner(order, report, at)
    if len(taken) == 1:
        owner.specimen = {"reference": f"Specimen/{taken[0]['id']}"}
    category = reports.category(report)
    results = [made for each in group.groups("OBSERVATION") if (made := observed(conv, owner, each, category))]
    if results:
        report["result"] = [{"reference": f"Observation/{each['id']}"} for each in results]
    if obr.fields[26]:
        observations.derive(conv, obr, request, results)
    for number in (order.filler, order.placer):
        if number is not None:
            conv.panels.setdefault(number["value"], []).extend(results)
    _remarks(conv, group, request, report)


def _specimens(
    conv: Conversion, at: Setting, group: Node, above: Json | None, order: orders.Order, obr: Segment
) -> list[Json]:
    """What an order was done on: ``above``, the Specimen that it stands under, those of its own, or what OBR says."""
    taken = [above] if above is not None else []
    for each in group.groups("SPECIMEN"):
        made = _specimen(conv, at, each, *order.key)
        if made is not None:
            taken.append(made)
            _about_specimen(conv, at, each, made)
    if taken:
        for sac in group.all("SAC"):
            specimens.container(conv, taken[0], sac)
        specimens.collected_by(conv, taken[0], obr)
        return taken
    described = specimens.from_order(conv, at.subject, obr, order.key)
    return [described] if described is not None else []


def _remarks(conv: Conversion, group: Node, request: Json, report: Json) -> None:
    for segment in group.segments:
        if segment.name == "NTE":
            found = note(conv, segment)
            if found is not None:
                report.setdefault("extension", []).append({"url": reports.NOTE, "valueAnnotation": found})
        elif segment.name == "PRT":
            participants.take_part(conv, segment, request, place="locationReference")


def _results_alone(conv: Conversion, at: Setting, group: Node) -> None:
    """OBX without an OBR: the results are kept; no report and no order can be made up for them."""
    for each in group.groups("OBSERVATION"):
        observed(conv, at.observer, each)
    _without_order(conv, group.children[0].segments[0] if group.children else group.segments[0])


def _without_order(conv: Conversion, segment: Segment) -> None:
    conv.issue("warning", "missing", segment, 0, "results or an order control without the OBR that they belong to")


def _owner(order: orders.Order, report: Json, at: Setting) -> observations.Owner:
    owner = observations.Owner(at.subject, at.encounter, *order.key)
    # A report's status words that an observation knows too stand in where OBX-11 is empty.
    owner.status = "preliminary" if report["status"] == "partial" else str(report["status"])
    owner.effective = {
        name: report[name] for name in ("effectiveDateTime", "_effectiveDateTime", "effectivePeriod") if name in report
    }
    return owner


FAMILY = Family(
    convert,
    {"ORU": ORU_EVENTS, "OUL": OUL_EVENTS},
    amends={"ServiceRequest": ("status", "identifier", "specimen")},
)
