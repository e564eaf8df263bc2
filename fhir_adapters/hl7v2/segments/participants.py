"""PRT and ROL: who else takes part, in what, and with which device.

Guide: PRT[PractitionerRole], PRT[Device], ROL[CareTeam]. A person with an organization, a place or a time becomes a
PractitionerRole; a person alone a Practitioner. The caller knows what they take part in.
"""

from dataclasses import dataclass

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, demographics, places, timestamps
from fhir_adapters.hl7v2.message import NULL, Segment
from fhir_adapters.hl7v2.segments import kin
from fhir_adapters.identifiers import device_id, practitioner_role_id

ROLE_SYSTEM = "http://terminology.hl7.org/CodeSystem/v2-0912"
_V2_ROLE = "http://terminology.hl7.org/CodeSystem/v2-0443"
_UDI_ISSUERS = {
    "2.51.1.1": "http://hl7.org/fhir/NamingSystem/gs1-di",
    "1.0.15961.10.816": "http://hl7.org/fhir/NamingSystem/hibcc-diI",
    "2.16.840.1.113883.6.18.1.34": "http://hl7.org/fhir/NamingSystem/iccbba-other-di",
}


@dataclass(slots=True)
class Participation:
    """One PRT or ROL: a reference to who takes part (None: a device alone), as what, when, and the device."""

    who: Json | None
    role: Json | None
    period: Json | None
    device: Json | None


def participation(conv: Conversion, segment: Segment) -> Participation | None:
    """Read a PRT or ROL; None when it names nobody or takes the participation back (action D)."""
    layout = _ROL if segment.name == "ROL" else _PRT
    segment.take(layout.set_id)
    action = conv.text(segment.take(layout.action))
    role = concepts.concept(conv, segment, layout.role)
    for each in (role or {}).get("coding", ()):
        each.setdefault("system", _V2_ROLE if segment.name == "ROL" else ROLE_SYSTEM)
    holder: Json = {}
    kin.period(conv, holder, segment, layout.start, layout.end)
    who = _who(conv, segment, layout, role, holder.get("period"))
    device = _device(conv, segment) if segment.name == "PRT" else None
    if action == "D":
        conv.issue("information", "participation", segment, layout.action, "a participation that ended is not carried")
        return None
    if who is None and device is None:
        return None
    return Participation(who, role, holder.get("period"), device)


def take_part(
    conv: Conversion,
    segment: Segment,
    resource: Json,
    people: str = "performer",
    *,
    as_actor: bool = False,
    place: str = "",
    device: str = "",
) -> None:
    """Add whoever a PRT or ROL names to a resource: persons and organizations to ``people``.

    ``as_actor``: that element holds an ``actor`` with a ``function``, not a reference. ``place`` and ``device`` are the
    elements for a location and a device, "" when the resource has none; one whose name ends in "Reference" repeats.
    """
    found = participation(conv, segment)
    if found is None:
        return
    if found.who is not None and str(found.who["reference"]).startswith("Location/"):
        _put(resource, place, found.who)
    elif found.who is not None:
        entry: Json = found.who
        if as_actor:
            entry = {"actor": found.who, **({"function": found.role} if found.role is not None else {})}
        known = resource.setdefault(people, [])
        if entry not in known:
            known.append(entry)
    if found.device is not None:
        _put(resource, device, found.device)


def _put(resource: Json, element: str, reference: Json) -> None:
    if element.endswith("Reference"):
        known = resource.setdefault(element, [])
        if reference not in known:
            known.append(reference)
    elif element:
        resource.setdefault(element, reference)


@dataclass(frozen=True, slots=True)
class _Layout:
    set_id: int
    action: int
    role: int
    person: int
    organization: int
    place: int
    start: int
    end: int
    telecom: int
    address: int
    specialty: int


_PRT = _Layout(1, 2, 4, 5, 8, 9, 11, 12, 15, 14, 6)
_ROL = _Layout(1, 2, 3, 4, 14, 13, 5, 6, 12, 11, 9)


def _who(conv: Conversion, segment: Segment, layout: _Layout, role: Json | None, period: Json | None) -> Json | None:
    people = actors.practitioners(conv, segment, layout.person) if segment.peek(layout.person) else []
    person = people[0] if people else None
    if len(people) > 1:
        conv.issue("information", "not-mapped", segment, layout.person, "only the first repetition has a place")
    organization = (
        actors.organization(conv, segment, layout.organization) if segment.peek(layout.organization) else None
    )
    where = places.location(conv, segment, layout.place) if segment.peek(layout.place) else None
    specialty = concepts.concept(conv, segment, layout.specialty) if segment.peek(layout.specialty) else None
    points = demographics.telecoms(conv, segment, layout.telecom, "work") if segment.peek(layout.telecom) else []
    address = demographics.addresses(conv, segment, layout.address) if segment.peek(layout.address) else []
    if person is None:
        if organization is not None:
            _complete(conv, organization, telecom=points, address=address)
        return organization or where
    if address:
        _complete(conv, person, address=address)
    if organization is None and where is None and period is None and specialty is None and not points:
        return person
    return practitioner_role(
        conv, person, organization, role=role, place=where, period=period, specialty=specialty, telecom=points
    )


def _complete(conv: Conversion, reference: Json, **elements: list[Json]) -> None:
    for name, value in elements.items():
        if value:
            conv.resources[reference["reference"]].setdefault(name, value)


def practitioner_role(
    conv: Conversion,
    person: Json,
    organization: Json | None,
    *,
    role: Json | None = None,
    place: Json | None = None,
    period: Json | None = None,
    specialty: Json | None = None,
    telecom: list[Json] | None = None,
) -> Json:
    """A reference to the PractitionerRole of a person at an organization (added)."""
    resource: Json = {"resourceType": "PractitionerRole", "id": "", "practitioner": person}
    if organization is not None:
        resource["organization"] = organization
    if role is not None:
        resource["code"] = [role]
    if specialty is not None:
        resource["specialty"] = [specialty]
    if place is not None:
        resource["location"] = [place]
    if telecom:
        resource["telecom"] = telecom
    if period:
        resource["period"] = period
    parts = [str(each["reference"]) if each else "" for each in (person, organization, place)]
    parts.append(str(((role or {}).get("coding") or [{"code": (role or {}).get("text", "")}])[0]["code"]))
    resource["id"] = practitioner_role_id(conv.profile, *parts)
    return {"reference": conv.put(resource)}


def _device(conv: Conversion, prt: Segment) -> Json | None:
    """PRT-10 and 16 to 22: a Device, by its own number, its UDI or its serial number."""
    if not any(prt.peek(number) for number in (10, 16, 19, 20, 21, 22)):
        return None
    resource: Json = {"resourceType": "Device", "id": ""}
    for raw in prt.take(10).split("~"):
        business_ids.add_identifier(resource, business_ids.entity(conv, raw) if raw else None)
    key = _udi(conv, resource, prt)
    for number, element in ((19, "lotNumber"), (20, "serialNumber")):
        value = conv.text(prt.take(number)) if prt.peek(number) else ""
        if value:
            resource[element] = value
    donation = business_ids.entity(conv, prt.take(21)) if prt.peek(21) else None
    business_ids.add_identifier(resource, donation)
    for number, element in ((17, "manufactureDate"), (18, "expirationDate")):
        if prt.peek(number):
            timestamps.put_date_time(conv, resource, element, prt, number)
    kind = concepts.concept(conv, prt, 22) if prt.peek(22) else None
    if kind is not None:
        resource["type"] = kind
    known = resource.get("identifier")
    if known:
        key = business_ids.key_of(known[0])
    elif not key:
        serial = resource.get("serialNumber") or resource.get("lotNumber", "")
        key = (conv.local_system("device"), str(serial or conv.message_key(prt.where(10))))
    resource["id"] = device_id(conv.profile, *key)
    return {"reference": conv.put(resource)}


def _udi(conv: Conversion, resource: Json, prt: Segment) -> tuple[str, str] | None:
    """PRT-16: the UDI as scanned; the device identifier in it is not taken apart here."""
    raw = prt.take(16)
    carrier, _, issuer, *_ = [*raw.split("^"), "", "", ""]
    value = conv.text(carrier)
    if not value or raw == NULL:
        return None
    made: Json = {"carrierHRF": value}
    agency = _UDI_ISSUERS.get(conv.text(issuer), "")
    if agency:
        made["issuer"] = agency
    resource["udiCarrier"] = [made]
    return agency or conv.local_system("udi"), value
