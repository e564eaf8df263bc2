"""Places (PL, DLD: 2.A.53, 2.A.23) as a tree of Locations: facility, building, floor, ward, room, bed.

Guide: PL[Location]. Each level is a Location of its own, part of the next larger one, so that a bed of one ward is the
same resource in every message. The reference returned is to the smallest place named.
"""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.message import NULL, Segment
from fhir_adapters.identifiers import location_id

_PHYSICAL = "http://terminology.hl7.org/CodeSystem/location-physical-type"
_KINDS = {"si": "Site", "bu": "Building", "lvl": "Level", "wa": "Ward", "ro": "Room", "bd": "Bed"}
_V2_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0305"
PL_PARTS = 11


def location(conv: Conversion, segment: Segment, number: int) -> Json | None:
    """Take a PL field as a reference to the Location it names; None when it names none."""
    raw = segment.take(number)
    if not raw:
        return None
    raw, *more = raw.split("~")
    if any(more):
        conv.issue("information", "not-mapped", segment, number, "only the first repetition has a place")
    return location_raw(conv, raw, segment, number)


def location_raw(conv: Conversion, raw: str, segment: Segment, number: int) -> Json | None:
    """A reference to the Location of one PL already taken; None when it names none."""
    known = conv.mention("PL", raw, _location, segment, number)
    return None if known is None else {"reference": known}


def _location(conv: Conversion, raw: str, segment: Segment, number: int) -> list[Json]:
    parts = raw.split("^")
    if len(parts) < PL_PARTS:
        parts += [""] * (PL_PARTS - len(parts))
    ward, room, bed, facility, building, floor = (_name(conv, parts[index]) for index in (0, 1, 2, 3, 6, 7))
    profile = conv.profile
    path = (facility, building, ward, room, bed)
    places: list[Json] = []
    for title, kind, depth in (
        (facility, "si", 1),
        (building, "bu", 2),
        (floor, "lvl", 2),
        (ward, "wa", 3),
        (room, "ro", 4),
        (bed, "bd", 5),
    ):
        if not title:
            continue
        levels = path[:depth] if kind != "lvl" else (facility, building, "level:" + floor)
        place: Json = {
            "resourceType": "Location",
            "id": location_id(profile, *levels),
            "name": title,
            "mode": "instance",
            "physicalType": {"coding": [{"system": _PHYSICAL, "code": kind, "display": _KINDS[kind]}]},
        }
        if places:
            place["partOf"] = {"reference": f"Location/{places[-1]['id']}"}
        places.append(place)
    if places:
        _describe(conv, places[-1], parts, segment, number)
    else:
        conv.leftover(parts, 0, segment, number)
    return places


def _name(conv: Conversion, component: str) -> str:
    """The name of an HD component: its namespace, else its universal id."""
    if "&" not in component:
        return conv.text(component)
    return next((text for piece in component.split("&") if (text := conv.text(piece))), "")


def _describe(conv: Conversion, place: Json, parts: list[str], segment: Segment, number: int) -> None:
    """PL-5 status, PL-6 kind of place, PL-9 description and PL-10 identifier belong to the smallest place."""
    status, kind, description, comprehensive = (conv.text(parts[index]) for index in (4, 5, 8, 9))
    if status:
        known = conv.find("bed-status", status)
        if known is not None:
            place["operationalStatus"] = known.coding()
        else:
            conv.unmapped_code("bed-status", segment, number)
    if kind:
        place["type"] = [{"coding": [{"system": _V2_TYPE, "code": " ".join(kind.split())}]}]
    if description:
        place["description"] = description
    if comprehensive:
        value, _, authority = comprehensive.partition("&")
        if value:
            place["identifier"] = [{"system": conv.system(authority), "value": value}]
    for index in range(10, len(parts)):
        if parts[index] and parts[index] != NULL:
            conv.not_mapped(segment, number, index + 1)


def discharge_destination(conv: Conversion, segment: Segment, number: int) -> Json | None:
    """Take a DLD field (where the patient was discharged to): a code or name of a place elsewhere."""
    raw = segment.take(number)
    if not raw:
        return None
    first, *rest = raw.split("^")
    conv.leftover(["", *rest], 1, segment, number)
    pieces = [text for piece in first.split("&") if (text := conv.text(piece))]
    if not pieces:
        return None
    resource: Json = {
        "resourceType": "Location",
        "id": location_id(conv.profile, "destination:" + pieces[0]),
        "name": pieces[1] if len(pieces) > 1 else pieces[0],
        "mode": "instance",
    }
    if len(pieces) > 1:
        resource["identifier"] = [{"system": conv.local_system("discharge-destination"), "value": pieces[0]}]
    return {"reference": conv.put(resource)}
