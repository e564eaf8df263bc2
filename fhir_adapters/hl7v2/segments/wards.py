"""LOC, LCH, LRL, LDP and LCC of a location master file: the Location (guide: none yet)."""

from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, concepts, demographics, places
from fhir_adapters.hl7v2.datatypes.timestamps import read_time
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments.staff import ACTIVE

_V2_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0260"
_DAYS = {"MON": "mon", "TUE": "tue", "WED": "wed", "THU": "thu", "FRI": "fri", "SAT": "sat", "SUN": "sun"}


def place(conv: Conversion, loc: Segment, event: str) -> Json:
    """Make the Location of an LOC and those that it is part of (added); ``event`` is MFE-1.

    Raises:
        ParseError: LOC-1 names no place.
    """
    reference = places.location(conv, loc, 1)
    if reference is None:
        raise ParseError("no place is named", f"LOC[{loc.index}]-1")
    resource = conv.resources[reference["reference"]]
    conv.owned.add(reference["reference"])
    resource["status"] = "active" if ACTIVE.get(event, True) else "inactive"
    described = conv.text(loc.take(2))
    if described:
        resource["description"] = described
    kinds = concepts.concepts(conv, loc, 3)
    for each in kinds:
        for coding in each.get("coding", ()):
            coding.setdefault("system", _V2_TYPE)
    if kinds:
        resource["type"] = kinds
    owner = actors.organization(conv, loc, 4) if loc.peek(4) else None
    if owner is not None:
        resource["managingOrganization"] = owner
    where = demographics.addresses(conv, loc, 5) if loc.peek(5) else []
    if where:
        resource["address"] = where[0]
    points = demographics.telecoms(conv, loc, 6, "work") if loc.peek(6) else []
    if points:
        resource["telecom"] = points
    return resource


def characteristic(conv: Conversion, resource: Json, lch: Segment) -> None:
    """LCH: a property of the place (4) and its value (5), such as isolation or oxygen: part of its description."""
    for number in (1, 2, 3):
        lch.take(number)
    name, value = (_words(concepts.concept(conv, lch, number)) for number in (4, 5))
    text = ": ".join(filter(None, (name, value)))
    if text:
        resource["description"] = "\n".join(filter(None, (resource.get("description", ""), text)))


def _words(concept: Json | None) -> str:
    if concept is None:
        return ""
    own = concept.get("coding", ({},))[0]
    return str(concept.get("text") or own.get("display") or own["code"])


def relation(conv: Conversion, resource: Json, lrl: Segment) -> None:
    """LRL: another place that this one relates to; the parent (LRL-4 P or PART) is the one that it is part of."""
    for number in (1, 2, 3):
        lrl.take(number)
    kind = _words(concepts.concept(conv, lrl, 4)).upper()
    if kind not in ("P", "PAR", "PARENT", "PART"):
        return
    parent = places.location(conv, lrl, 6) if lrl.peek(6) else None
    if parent is not None:
        resource["partOf"] = parent


def department(conv: Conversion, resource: Json, ldp: Segment) -> None:
    """LDP: the department that runs the place (2), its specialty (4), whether it works (6) and when (11)."""
    ldp.take(1)
    made = concepts.concept(conv, ldp, 2)
    own = (made or {}).get("coding", [None])[0]
    if own is not None:
        system = own.get("system") or conv.system("")
        owner = actors.coded_organization(conv, own["code"], own.get("display", ""), system)
        if owner is not None:
            resource.setdefault("managingOrganization", owner)
    if conv.text(ldp.take(6)).upper() == "I":
        resource["status"] = "suspended"
    hours = [made_hours for raw in ldp.take(11).split("~") if (made_hours := _hours(conv, raw)) is not None]
    if hours:
        resource["hoursOfOperation"] = hours


def _hours(conv: Conversion, raw: str) -> Json | None:
    """VH: from day to day, from hour to hour."""
    first, last, begins, ends = [conv.text(part) for part in [*raw.split("^"), "", "", "", ""][:4]]
    days = list(_DAYS)
    if first.upper() not in _DAYS:
        return None
    start = days.index(first.upper())
    stop = days.index(last.upper()) if last.upper() in _DAYS else start
    length = (stop - start) % 7 + 1
    made: Json = {"daysOfWeek": [_DAYS[days[(start + step) % 7]] for step in range(length)]}
    for element, text in (("openingTime", begins), ("closingTime", ends)):
        parsed = read_time(text.replace(":", "")) if text else None
        if parsed is not None:
            made[element] = parsed[0]
    return made
