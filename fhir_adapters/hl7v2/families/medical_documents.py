"""MDM: documents written, changed, replaced, cancelled (HL7 v2 chapter 9)."""

from dataclasses import dataclass
from types import MappingProxyType

from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.families.family import Family
from fhir_adapters.hl7v2.families.orders import order
from fhir_adapters.hl7v2.families.patient_group import observed, patient_nodes, setting
from fhir_adapters.hl7v2.message import Message, Segment
from fhir_adapters.hl7v2.segments import documents, orders, participants
from fhir_adapters.hl7v2.segments.notes import note
from fhir_adapters.hl7v2.structures import OBSERVATION, TIMING, Group, Node, many, patient

_DOCUMENT_NOTE = "http://hl7.org/fhir/StructureDefinition/note"


@dataclass(frozen=True, slots=True)
class Event:
    """One MDM event: the status it brings ("" to ask TXA-19), and how the document relates to that of TXA-13."""

    status: str = ""
    relation: str = ""


EVENTS = MappingProxyType(
    {
        "T01": Event(),
        "T02": Event(),
        "T03": Event(),
        "T04": Event(),
        "T05": Event(relation="appends"),
        "T06": Event(relation="appends"),
        "T07": Event(),
        "T08": Event(),
        "T09": Event(relation="replaces"),
        "T10": Event(relation="replaces"),
        "T11": Event("entered-in-error"),
    }
)

_NOTIFIED = ("status", "docStatus", "date", "author", "authenticator", "securityLabel", "relatesTo", "context")
"""What a notice without content (T01, T03, ...) says of a document; pages that came before stay."""

_ORDER = Group("ORDER", ("ORC", "OBR"), many=many("NTE"), groups=(TIMING,))
_DOCUMENT = Group("DOCUMENT", ("TXA",), many=many("CON", "NTE"), groups=(OBSERVATION,))
STRUCTURE = Group("MDM", ("MSH", "EVN"), groups=(patient(_ORDER, _DOCUMENT),))


def convert(conv: Conversion, message: Message) -> None:
    """Map the documents of an MDM message.

    Raises:
        ParseError: there is no PID, or no TXA.
    """
    if not message.all("TXA"):
        raise ParseError("a required segment is missing", "TXA")
    for group in patient_nodes(message.segments, STRUCTURE):
        at = setting(conv, group)
        placed = list(group.groups("ORDER"))
        shared = orders.shared_numbers(
            [(each.first("ORC"), obr) for each in placed if (obr := each.first("OBR")) is not None]
        )
        requests = [made for each in placed if (made := order(conv, at, each, shared)) is not None]
        for each in group.groups("DOCUMENT"):
            txa = each.first("TXA")
            if txa is not None:
                resource = documents.document(conv, txa, at.subject, at.encounter, EVENTS[conv.header.trigger].status)
                documents.relate(conv, resource, txa, EVENTS[conv.header.trigger].relation)
                related = [{"reference": f"{made['resourceType']}/{made['id']}"} for made in requests]
                if related:
                    resource.setdefault("context", {}).setdefault("related", []).extend(related)
                documents.contents(conv, resource, txa, _pages(each))
                for prt in each.all("PRT"):
                    participants.take_part(conv, prt, resource, "author")
                _remarks(conv, resource, each)
                if _pages(each):
                    conv.put(resource)
                else:
                    conv.amend(resource, *_NOTIFIED)
            for inner in each.groups("OBSERVATION"):
                if txa is None or not _is_page(inner.segments[0]):
                    observed(conv, at.observer, inner)


def _pages(group: Node) -> list[Segment]:
    return [each.segments[0] for each in group.groups("OBSERVATION") if _is_page(each.segments[0])]


def _is_page(obx: Segment) -> bool:
    """Whether an OBX is part of the document; once it is read its type is gone, and it stays one."""
    return obx.peek(2).strip() in documents.CONTENTS


def _remarks(conv: Conversion, resource: Json, group: Node) -> None:
    """NTE under TXA, and under the lines of the document."""
    pages = (inner for inner in group.groups("OBSERVATION") if _is_page(inner.segments[0]))
    for nte in [*group.all("NTE"), *(nte for page in pages for nte in page.all("NTE"))]:
        made = note(conv, nte)
        if made is not None:
            resource.setdefault("extension", []).append({"url": _DOCUMENT_NOTE, "valueAnnotation": made})


FAMILY = Family(
    convert,
    {"MDM": frozenset(EVENTS)},
    amends={"ServiceRequest": ("status", "identifier")},
    needs=("PID", "TXA"),
)
