"""REF: referrals between institutions (HL7 v2 chapter 11)."""

from types import MappingProxyType

from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.families.family import Family
from fhir_adapters.hl7v2.families.orders import order
from fhir_adapters.hl7v2.families.patient_group import Setting, observed, setting
from fhir_adapters.hl7v2.message import Message
from fhir_adapters.hl7v2.segments import orders, referrals
from fhir_adapters.hl7v2.segments.notes import add_notes
from fhir_adapters.hl7v2.structures import OBSERVATION, TIMING, Group, Node, group_segments, many, patient

EVENTS = MappingProxyType({"I12": ("", ""), "I13": ("", ""), "I14": ("revoked", "cancelled"), "I15": ("", "")})
"""Event -> status of the request and of the task, "" to ask RF1-1: referral, change, cancellation, inquiry."""

_ABOUT_STATUS = frozenset({"I14", "I15"})
"""Events that say how a referral stands and need not tell it whole."""

_ORDER = Group("ORDER", ("ORC", "OBR"), many=many("NTE"), groups=(TIMING, OBSERVATION))
# REF_I12: an authorization stands before the patient, or with the procedure that was authorized.
_PROCEDURE = Group("PROCEDURE", ("PR1",), many=many("ROL", "AUT", "CTD"))
_PROVIDER = Group("PROVIDER", ("PRD",), many=frozenset({"CTD"}))
STRUCTURE = Group(
    "REF",
    ("MSH", "RF1"),
    many=frozenset({"AUT", "CTD", "NTE"}),
    groups=(_PROVIDER, patient(_ORDER, OBSERVATION, _PROCEDURE)),
)


def convert(conv: Conversion, message: Message) -> None:
    """Map a referral: the patient and all that is sent along, then the request and its task.

    Raises:
        ParseError: there is no RF1, or no PID.
    """
    root = group_segments(message.segments, STRUCTURE)
    rf1 = root.first("RF1")
    group = next(iter(root.groups("PATIENT")), None)
    if rf1 is None or group is None or group.first("PID") is None:
        raise ParseError("a required segment is missing", "RF1" if rf1 is None else "PID")
    for_request, for_task = EVENTS[conv.header.trigger]
    at = setting(conv, group)
    request = referrals.referral(conv, rf1, at.subject, at.encounter, for_request)
    task = referrals.task(conv, rf1, request, for_task)
    roles = [
        (codes, reference)
        for each in root.groups("PROVIDER")
        if (prd := each.first("PRD")) is not None
        for codes, reference in [referrals.provider(conv, prd)]
        if reference is not None
    ]
    referrals.complete(request, task, roles)
    _sent_along(conv, at, group, request)
    for aut in message.all("AUT"):
        referrals.authorization(conv, request, aut)
    for ctd in message.all("CTD"):
        referrals.contact(conv, request, ctd)
    insured = [reference for reference in conv.resources if reference.startswith("Coverage/")]
    if insured:
        request["insurance"] = [{"reference": reference} for reference in insured]
    reasons = [reference for reference in conv.resources if reference.startswith("Condition/")]
    if reasons:
        request["reasonReference"] = [{"reference": reference} for reference in reasons]
    add_notes(conv, request, root.all("NTE"))
    if conv.header.trigger in _ABOUT_STATUS:
        conv.amend(request, "status")
        conv.amend(task, "status")
    else:
        conv.put(request)
        conv.put(task)


def _sent_along(conv: Conversion, at: Setting, group: Node, request: Json) -> None:
    """Orders, results and procedures that the referral tells of."""
    placed = list(group.groups("ORDER"))
    shared = orders.shared_numbers(
        [(each.first("ORC"), obr) for each in placed if (obr := each.first("OBR")) is not None]
    )
    for each in placed:
        order(conv, at, each, shared)
    for each in group.groups("OBSERVATION"):
        observed(conv, at.observer, each)
    told = [
        reference
        for reference in conv.resources
        if reference.startswith(("Observation/", "ServiceRequest/", "Procedure/", "AllergyIntolerance/"))
    ]
    if told:
        request["supportingInfo"] = [{"reference": reference} for reference in told]


FAMILY = Family(convert, {"REF": frozenset(EVENTS)}, needs=("RF1", "PID"))
