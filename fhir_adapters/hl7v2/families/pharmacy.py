"""OMP, RDE, RDS, RGV and RAS: medicines ordered, encoded, dispensed, to be given and given (HL7 v2 chapter 4A).

One ORC is one order. What the prescriber wrote (RXO), what the pharmacy made of it (RXE), what it handed out (RXD) and
what was given (RXA) stand under it, each with its own routes and components, and refer to the order.
"""

from collections.abc import Iterator

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import timing
from fhir_adapters.hl7v2.families.charging import charged
from fhir_adapters.hl7v2.families.family import Family
from fhir_adapters.hl7v2.families.patient_group import Setting, observed, patient_nodes, setting
from fhir_adapters.hl7v2.message import Message, Segment
from fhir_adapters.hl7v2.segments import administrations, dispenses, medications
from fhir_adapters.hl7v2.segments.allergies import key_of
from fhir_adapters.hl7v2.segments.notes import add_notes
from fhir_adapters.hl7v2.structures import OBSERVATION, TIMING, Group, Node, many, patient

_DETAIL = many("RXR", "RXC", "NTE", "CDO", "RXV")
DETAILS = (
    Group("RXO", ("RXO",), many=_DETAIL, groups=(TIMING,)),
    Group("RXE", ("RXE",), many=_DETAIL, groups=(TIMING,)),
    Group("RXD", ("RXD",), many=_DETAIL, groups=(OBSERVATION,)),
    Group("RXG", ("RXG",), many=_DETAIL, groups=(TIMING, OBSERVATION)),
    Group("RXA", ("RXA",), many=_DETAIL, groups=(OBSERVATION,)),
)
"""The detail segments of an order of a medicine, each with what belongs to it."""

STRUCTURE = Group(
    "PHARMACY",
    ("MSH",),
    groups=(
        patient(
            Group(
                "ORDER",
                ("ORC",),
                many=many("NTE", "FT1", "BLG", "CTI"),
                groups=(TIMING, *DETAILS, OBSERVATION),
            ),
        ),
    ),
)


def convert(conv: Conversion, message: Message) -> None:
    """Map every patient group of a pharmacy message.

    Raises:
        ParseError: there is no PID.
    """
    for group in patient_nodes(message.segments, STRUCTURE):
        at = setting(conv, group)
        for order in group.groups("ORDER"):
            orc = order.first("ORC")
            if orc is None:
                segment = next(iter(order.segments), None) or order.children[0].segments[0]
                conv.issue("warning", "missing", segment, 0, "a medicine without the ORC that it belongs to")
                continue
            medicine_order(conv, at, orc, order)


def medicine_order(conv: Conversion, at: Setting, orc: Segment, group: Node) -> Json | None:
    """An order of a medicine with all that was done about it; returns the MedicationRequest that stands for it."""
    order = medications.prescription(conv, orc, at.subject, at.encounter)
    occasions = _occasions(conv, orc, group)
    written = _requests(conv, order, group, occasions)
    for each, rxg in _details(group, "RXG"):
        suffix = f"|give{conv.text(rxg.take(1))}"
        own = [timing.from_segment(conv, inner.segments[0]) for inner in each.groups("TIMING")]
        made = _request(conv, order, each, rxg, own or occasions, intent="instance-order", suffix=suffix)
        _based_on(made, written)
        _observe(conv, at, each, made)
    for each, rxd in _details(group, "RXD"):
        dispensed = dispenses.dispense(conv, order, rxd, list(each.all("RXR")), list(each.all("RXC")), written)
        add_notes(conv, dispensed, each.all("NTE"))
        _observe(conv, at, each, dispensed)
    for each, rxa in _details(group, "RXA"):
        given = administrations.administration(conv, order, rxa, list(each.all("RXR")), written)
        add_notes(conv, given, each.all("NTE"))
        _observe(conv, at, each, given)
    if written is not None:
        add_notes(conv, written, group.all("NTE"))
        _observe(conv, at, group, written)
    charged(conv, at, group, written)
    return written


def _details(group: Node, name: str) -> Iterator[tuple[Node, Segment]]:
    """The groups of a detail segment that have it; one opened by an RXR alone has none and is left to be reported."""
    for each in group.groups(name):
        segment = each.first(name)
        if segment is not None:
            yield each, segment


def _requests(
    conv: Conversion, order: medications.Prescription, group: Node, occasions: list[timing.Occasions]
) -> Json | None:
    """RXO and RXE: one MedicationRequest, or two where they name different medicines."""
    asked, encoded = (next(_details(group, name), None) for name in ("RXO", "RXE"))
    if asked is None or encoded is None:
        only = asked or encoded
        return _request(conv, order, *only, _own(conv, *only) or occasions) if only is not None else None
    later = _own(conv, *encoded) or occasions
    earlier = _own(conv, *asked) or occasions
    if _names_the_same(asked[1], encoded[1]):
        kept = _request(conv, order, *encoded, later)
        return _joined(conv, kept, _request(conv, order, *asked, earlier, suffix="|asked"))
    first = _request(conv, order, *asked, earlier, intent="original-order")
    second = _request(conv, order, *encoded, later, intent="filler-order", suffix="|encoded")
    _based_on(second, first)
    return second


def _names_the_same(asked: Segment, encoded: Segment) -> bool:
    """Whether RXO-1 and RXE-2 name one medicine, or one of them names none."""
    first, second = (raw.split("^")[0].strip() for raw in (asked.peek(1), encoded.peek(2)))
    return not first or not second or first == second


def _joined(conv: Conversion, kept: Json, earlier: Json) -> Json:
    """Complete the pharmacy's wording of an order by what only the prescriber's said."""
    del conv.resources[f"MedicationRequest/{earlier['id']}"]
    for name, value in earlier.items():
        if name == "identifier":
            kept.setdefault(name, []).extend(each for each in value if each not in kept.get(name, ()))
        elif name.startswith("medication"):
            if key_of(kept.get("medicationCodeableConcept", {"text": ""})) == "unknown":
                kept.pop("medicationCodeableConcept")
                kept[name] = value
        elif name == "dosageInstruction":
            _complete_dosage(kept, value)
        else:
            kept.setdefault(name, value)
    return kept


def _complete_dosage(kept: Json, asked: list[Json]) -> None:
    known = kept.setdefault("dosageInstruction", asked)
    if known is not asked and len(known) == 1 and len(asked) == 1:
        for name, value in asked[0].items():
            known[0].setdefault(name, value)


def _request(
    conv: Conversion,
    order: medications.Prescription,
    group: Node,
    detail: Segment,
    occasions: list[timing.Occasions],
    *,
    intent: str = "order",
    suffix: str = "",
) -> Json:
    parts, routes = list(group.all("RXC")), list(group.all("RXR"))
    made = medications.request(conv, order, detail, routes, parts, occasions, intent=intent, suffix=suffix)
    add_notes(conv, made, group.all("NTE"))
    return made


def _own(conv: Conversion, group: Node, detail: Segment) -> list[timing.Occasions]:
    """The timing under a detail segment: TQ1, and RXE-1 of earlier versions."""
    found = [timing.from_segment(conv, each.segments[0]) for each in group.groups("TIMING")]
    old = timing.from_field(conv, detail, 1) if detail.name == "RXE" and detail.peek(1) else None
    if old is not None and not found:
        found.append(old)
    return found


def _occasions(conv: Conversion, orc: Segment, group: Node) -> list[timing.Occasions]:
    """The timing of the order as a whole: TQ1 after ORC, else ORC-7."""
    found = [timing.from_segment(conv, each.segments[0]) for each in group.groups("TIMING")]
    if orc.peek(7):
        old = timing.from_field(conv, orc, 7)
        if old is not None and not found:
            found.append(old)
    return found


def _based_on(made: Json, order: Json | None) -> None:
    if order is not None and order["id"] != made["id"]:
        reference = {"reference": f"MedicationRequest/{order['id']}"}
        if reference not in made.setdefault("basedOn", []):
            made["basedOn"].append(reference)


def _observe(conv: Conversion, at: Setting, group: Node, resource: Json) -> None:
    for each in group.groups("OBSERVATION"):
        made = observed(conv, at.observer, each)
        if made is not None:
            resource.setdefault("supportingInformation", []).append({"reference": f"Observation/{made['id']}"})


ORDERS = Family(convert, {"OMP": frozenset({"O09", ""}), "RDE": frozenset({"O11", "O01", "O25", "O49", ""})})
"""OMP and RDE speak of the order itself."""

DEEDS = Family(
    convert,
    {
        "RDS": frozenset({"O13", "O01", ""}),
        "RGV": frozenset({"O15", "O01", ""}),
        "RAS": frozenset({"O17", "O01", ""}),
    },
    names=frozenset({"MedicationRequest"}),
)
"""RDS, RGV and RAS speak of what was done about an order and repeat the order in passing."""
