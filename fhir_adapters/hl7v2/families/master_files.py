"""MFN: master files of staff (M02) and places (M05) (HL7 v2 chapter 8).

The only messages that speak of people and places for their own sake: what they say replaces what others mentioned.
"""

from collections.abc import Callable

from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.families.family import Family
from fhir_adapters.hl7v2.message import Message, Segment
from fhir_adapters.hl7v2.segments import staff, wards
from fhir_adapters.hl7v2.structures import Group, Node, group_segments

_STAFF = Group(
    "ENTRY", ("MFE",), once=frozenset({"STF", "PRA"}), many=frozenset({"ORG", "AFF", "LAN", "EDU", "CER", "NTE"})
)
_PLACES = Group(
    "ENTRY",
    ("MFE",),
    once=frozenset({"LOC"}),
    many=frozenset({"LCH", "LRL", "NTE"}),
    groups=(Group("DEPARTMENT", ("LDP",), many=frozenset({"LCH", "LCC"})),),
)
STRUCTURES = {
    "M02": Group("MFN", ("MSH", "MFI"), groups=(_STAFF,)),
    "M05": Group("MFN", ("MSH", "MFI"), groups=(_PLACES,)),
}


def convert(conv: Conversion, message: Message) -> None:
    """Map every entry of a master file.

    Raises:
        ParseError: there is no entry, or one does not say of whom or what it speaks.
    """
    root = group_segments(message.segments, STRUCTURES[conv.header.trigger])
    mfi = root.first("MFI")
    if mfi is not None:
        for number in (1, 2, 3, 4, 5, 6):  # which file, by whom, whether whole or in part: the exchange's
            mfi.take(number)
    entry = _ENTRIES[conv.header.trigger]
    made = 0
    for group in root.groups("ENTRY"):
        mfe = group.first("MFE")
        event = conv.text(mfe.take(1)) if mfe is not None else ""
        if mfe is not None:
            for number in (2, 3, 4, 5):
                mfe.take(number)
            if event not in staff.ACTIVE:
                conv.unmapped_code("record-level event", mfe, 1)
        made += entry(conv, group, event)
    if not made:
        raise ParseError("a required segment is missing", "STF" if conv.header.trigger == "M02" else "LOC")


def _person(conv: Conversion, group: Node, event: str) -> int:
    stf = group.first("STF")
    if stf is None:
        return 0
    person = staff.practitioner(conv, stf, event)
    staff.role(conv, person, stf, group.first("PRA"))
    further: dict[str, Callable[[Conversion, Json, Segment], None]] = {
        "EDU": staff.schooling,
        "CER": staff.certificate,
        "LAN": staff.language,
    }
    for segment in group.segments:
        if segment.name in further:
            further[segment.name](conv, person, segment)
    return 1


def _place(conv: Conversion, group: Node, event: str) -> int:
    loc = group.first("LOC")
    if loc is None:
        return 0
    place = wards.place(conv, loc, event)
    for segment in group.segments:
        if segment.name == "LCH":
            wards.characteristic(conv, place, segment)
        elif segment.name == "LRL":
            wards.relation(conv, place, segment)
    for each in group.groups("DEPARTMENT"):
        ldp = each.first("LDP")
        if ldp is not None:
            wards.department(conv, place, ldp)
    return 1


_ENTRIES: dict[str, Callable[[Conversion, Node, str], int]] = {"M02": _person, "M05": _place}

FAMILY = Family(
    convert,
    {"MFN": frozenset(STRUCTURES)},
    owns=frozenset({"Practitioner", "PractitionerRole"}),
    needs=("MFE",),
)
