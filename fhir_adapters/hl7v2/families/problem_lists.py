"""PPR: the patient's problems with their goals, pathways and orders (HL7 v2 chapter 12)."""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.families.family import Family
from fhir_adapters.hl7v2.families.orders import order
from fhir_adapters.hl7v2.families.patient_group import Setting, observed, patient_nodes, setting
from fhir_adapters.hl7v2.families.pharmacy import DETAILS
from fhir_adapters.hl7v2.message import Message
from fhir_adapters.hl7v2.segments import orders, participants, problems
from fhir_adapters.hl7v2.segments.notes import add_notes
from fhir_adapters.hl7v2.structures import OBSERVATION, TIMING, Group, Node, many, patient

_OBSERVED = Group("OBSERVATION", ("OBX",), many=many("NTE", "VAR"))
_GOAL = Group("GOAL", ("GOL",), many=many("NTE", "VAR", "ROL"), groups=(_OBSERVED,))
_PATHWAY = Group("PATHWAY", ("PTH",), many=frozenset({"VAR"}))
_ORDER = Group("ORDER", ("ORC", "OBR"), many=many("NTE", "VAR"), groups=(TIMING, _OBSERVED, *DETAILS))
_PROBLEM = Group("PROBLEM", ("PRB",), many=many("NTE", "VAR", "ROL"), groups=(_OBSERVED, _GOAL, _PATHWAY, _ORDER))
STRUCTURE = Group("PPR", ("MSH",), groups=(patient(_PROBLEM, OBSERVATION),))


def convert(conv: Conversion, message: Message) -> None:
    """Map every patient's problems.

    Raises:
        ParseError: there is no PID.
    """
    for group in patient_nodes(message.segments, STRUCTURE):
        at = setting(conv, group)
        for each in group.groups("PROBLEM"):
            _problem(conv, at, each)
        for each in group.groups("OBSERVATION"):
            observed(conv, at.observer, each)


def _problem(conv: Conversion, at: Setting, group: Node) -> None:
    prb = group.first("PRB")
    made = problems.problem(conv, at.patient, at.encounter, prb).resource if prb is not None else None
    if made is not None:
        add_notes(conv, made, group.all("NTE"))
        for segment in group.segments:
            if segment.name in ("ROL", "PRT"):
                _reported(conv, made, participants.participation(conv, segment))
        _evidence(conv, at, group, made)
    for each in group.groups("GOAL"):
        gol = each.first("GOL")
        if gol is not None:
            target = problems.goal(conv, at.patient, gol, made)
            add_notes(conv, target, each.all("NTE"))
            _outcome(conv, at, each, target)
    for each in group.groups("PATHWAY"):
        pth = each.first("PTH")
        if pth is not None:
            problems.pathway(conv, at.patient, at.encounter, pth, made)
    placed = list(group.groups("ORDER"))
    shared = orders.shared_numbers(
        [(each.first("ORC"), obr) for each in placed if (obr := each.first("OBR")) is not None]
    )
    for each in placed:
        ordered = order(conv, at, each, shared)
        if ordered is not None and made is not None and ordered["resourceType"] != "NutritionOrder":
            _because(ordered, {"reference": f"Condition/{made['id']}"})


def _reported(conv: Conversion, made: Json, found: participants.Participation | None) -> None:
    """The first person named is the one who asserts the problem."""
    if found is not None and found.who is not None and found.who["reference"].startswith("Practitioner"):
        made.setdefault("asserter", found.who)
    elif found is not None:
        conv.agents.setdefault(("performer", str((found.who or {}).get("reference"))), found.who or {})


def _evidence(conv: Conversion, at: Setting, group: Node, made: Json) -> None:
    for each in group.groups("OBSERVATION"):
        found = observed(conv, at.observer, each)
        if found is not None:
            detail = {"detail": [{"reference": f"Observation/{found['id']}"}]}
            made.setdefault("evidence", []).append(detail)


def _outcome(conv: Conversion, at: Setting, group: Node, target: Json) -> None:
    for each in group.groups("OBSERVATION"):
        found = observed(conv, at.observer, each)
        if found is not None:
            target.setdefault("outcomeReference", []).append({"reference": f"Observation/{found['id']}"})


def _because(ordered: Json, reason: Json) -> None:
    known = ordered.setdefault("reasonReference", [])
    if reason not in known:
        known.append(reason)


FAMILY = Family(convert, {"PPR": frozenset({"PC1", "PC2", "PC3"})}, needs=("PID", "PRB"))
