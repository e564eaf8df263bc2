"""DFT and BAR: what is charged, and the accounts it is charged to (HL7 v2 chapter 6).

No Claim is made: these messages tell a billing system what happened, they do not ask a payor for money.
"""

from types import MappingProxyType

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.families.charging import charge
from fhir_adapters.hl7v2.families.family import Family
from fhir_adapters.hl7v2.families.orders import order
from fhir_adapters.hl7v2.families.patient_group import (
    Setting,
    guaranteed,
    insured,
    observed,
    patient_nodes,
    performed,
    setting,
)
from fhir_adapters.hl7v2.message import Message
from fhir_adapters.hl7v2.segments import accounts, diagnoses, orders, participants
from fhir_adapters.hl7v2.segments.notes import add_notes
from fhir_adapters.hl7v2.structures import INSURANCE, OBSERVATION, PROCEDURE, TIMING, Group, Node, many, patient

BAR_EVENTS = MappingProxyType(
    {"P01": "active", "P02": "inactive", "P05": "active", "P06": "inactive", "P10": "active", "P12": "active"}
)
"""Event -> the status of the account: added, purged, updated, ended, coded for payment, recoded."""

DFT_EVENTS = frozenset({"P03", "P11"})

_ORDER = Group("ORDER", ("ORC", "OBR"), many=many("NTE"), groups=(TIMING, OBSERVATION))
_FINANCIAL = Group("FINANCIAL", ("FT1",), many=many("NTE", "DG1", "GT1"), groups=(PROCEDURE, INSURANCE))
STRUCTURE = Group("FINANCIAL", ("MSH", "EVN"), groups=(patient(_ORDER, _FINANCIAL, OBSERVATION),))


def convert_charges(conv: Conversion, message: Message) -> None:
    """Map a DFT: orders, charges and what they are for.

    Raises:
        ParseError: there is no PID.
    """
    for group in patient_nodes(message.segments, STRUCTURE):
        at = setting(conv, group)
        placed = list(group.groups("ORDER"))
        shared = orders.shared_numbers(
            [(each.first("ORC"), obr) for each in placed if (obr := each.first("OBR")) is not None]
        )
        for each in placed:
            order(conv, at, each, shared)
        for each in group.groups("OBSERVATION"):
            observed(conv, at.observer, each)
        for each in group.groups("FINANCIAL"):
            _transaction(conv, at, each)


def _transaction(conv: Conversion, at: Setting, group: Node) -> None:
    """FT1 with its procedures, diagnoses, guarantors and insurance."""
    ft1 = group.first("FT1")
    item = charge(conv, at, ft1) if ft1 is not None else None
    for segment in group.segments:
        if segment.name == "DG1":
            reference = diagnoses.diagnosis(conv, at.patient, at.visit, segment)
            if reference and item is not None:
                _add(item, "supportingInformation", {"reference": reference})
        elif segment.name == "GT1":
            guaranteed(conv, at, segment)
        elif segment.name == "PRT" and item is not None:
            participants.take_part(conv, segment, item, as_actor=True, place="supportingReference")
    for child in group.children:
        if child.group.name == "PROCEDURE":
            procedure = performed(conv, at, child)
            if procedure is not None and item is not None:
                _add(item, "service", {"reference": f"Procedure/{procedure['id']}"})
        else:
            insured(conv, at, child)
    if item is not None:
        for reference in item.pop("supportingReference", ()):
            _add(item, "supportingInformation", reference)
        add_notes(conv, item, group.all("NTE"))


def _add(item: Json, element: str, reference: Json) -> None:
    known = item.setdefault(element, [])
    if reference not in known:
        known.append(reference)


def convert_accounts(conv: Conversion, message: Message) -> None:
    """Map a BAR: every patient's account with the visit, diagnoses, procedures and insurance that it is billed by.

    Raises:
        ParseError: there is no PID.
    """
    status = BAR_EVENTS[conv.header.trigger]
    for group in patient_nodes(message.segments, STRUCTURE):
        at = setting(conv, group)
        if at.account is None:
            at.account = accounts.for_charges(conv, at.patient, at.visit)
            accounts.charge_visit(at.account, at.visit)
            for child in group.groups("INSURANCE"):
                insured(conv, at, child)
        at.account["status"] = status
        if status == "inactive":
            conv.amended[f"Account/{at.account['id']}"] = ("status", "servicePeriod")
        if at.visit is not None and "period" in at.visit:
            at.account["servicePeriod"] = at.visit["period"]
        for each in group.groups("OBSERVATION"):
            observed(conv, at.observer, each)


DFT = Family(convert_charges, {"DFT": DFT_EVENTS}, owns=frozenset({"Account", "Coverage", "RelatedPerson"}))
BAR = Family(convert_accounts, {"BAR": frozenset(BAR_EVENTS)}, owns=frozenset({"Account", "Coverage", "RelatedPerson"}))
