"""ORC: what an order of any kind has: its numbers, its status, who asked for it, when (guide: ORC[ServiceRequest])."""

from dataclasses import dataclass

from fhir_adapters.hl7v2.context import Conversion, Json, add_extension
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, demographics, timestamps
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments.participants import practitioner_role
from fhir_adapters.identifiers import identifier_type

STATUS_REASON = "http://hl7.org/fhir/StructureDefinition/request-statusReason"
_CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
_V2_CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v2-0177"
_LEVELS = {"V": ("V", "very restricted"), "R": ("R", "restricted"), "U": ("N", "normal")}
_AGENTS = ((10, "enterer"), (11, "verifier"), (19, "performer"))


@dataclass(slots=True)
class Numbers:
    """An order's numbers: of who asked (placer) and of who does (filler), and what names it for lack of both."""

    placer: Json | None
    filler: Json | None
    fallback: tuple[str, str]

    @property
    def known(self) -> list[Json]:
        """Those that were sent, the placer's first."""
        return [each for each in (self.placer, self.filler) if each is not None]

    @property
    def key(self) -> tuple[str, str]:
        """System and value: an order is known by the placer's number before a filler has seen it."""
        known = self.known
        return business_ids.key_of(known[0]) if known else self.fallback


def numbers(conv: Conversion, orc: Segment, stand_in: Segment | None = None) -> Numbers:
    """Take ORC-2 and 3. ``stand_in`` is a segment whose place names an order without numbers (else ORC's own)."""
    placer, filler = (
        business_ids.entity(conv, orc.take(number).split("~")[0], kind) for number, kind in ((2, "PLAC"), (3, "FILL"))
    )
    place = (stand_in or orc).where(0)
    if placer is None and filler is None:
        conv.issue("warning", "no-identifier", orc, 2, "no order number; the id holds for this message only")
    return Numbers(placer, filler, (conv.local_system("message"), conv.message_key(place)))


def status(conv: Conversion, orc: Segment) -> str:
    """Take ORC-5 and ORC-1 as a FHIR request status; "" when neither has a meaning."""
    for number, concept in ((5, "order-status"), (1, "order-control")):
        raw = conv.text(orc.take(number).split("^")[0])
        known = conv.find(concept, raw) if raw else None
        if known is not None:
            orc.take(1)
            return known.code
        if raw:
            conv.unmapped_code(concept, orc, number)
    return ""


def group_number(conv: Conversion, orc: Segment) -> Json | None:
    """Take ORC-4, which orders placed together share; EIP since v2.8.2, of which the placer's half counts."""
    raw = orc.take(4).split("~")[0]
    if not raw:
        return None
    made = business_ids.entity(conv, raw.split("^")[0].replace("&", "^") if "&" in raw else raw)
    return {**made, "type": identifier_type("PGN")} if made is not None else None


def requester(conv: Conversion, orc: Segment | None, asked: Json | None) -> Json | None:
    """ORC-12 and 21 to 24: who asked, at which facility. ``asked`` is whom a detail segment named already.

    A person at a facility is a PractitionerRole (guide); one of both alone is a Practitioner or an Organization.
    """
    if orc is None:
        return asked
    fields = orc.fields
    if fields[12]:
        named = actors.practitioners(conv, orc, 12)
        if asked is None and named:
            asked = named[0]
        elif asked is not None and named and named[0] != asked:
            conv.issue("information", "not-mapped", orc, 12, "another ordering provider than the one carried")
    if fields[24] and asked is not None:
        where = demographics.addresses(conv, orc, 24)
        if where:
            conv.resources[asked["reference"]].setdefault("address", where)
    facility = _facility(conv, orc) if fields[21] else None
    if facility is None or asked is None:
        return asked or facility
    return practitioner_role(conv, asked, facility)


def _facility(conv: Conversion, orc: Segment) -> Json | None:
    where = demographics.addresses(conv, orc, 22) if orc.peek(22) else None
    made = actors.organization(conv, orc, 21, where)
    if made is not None and orc.peek(23):
        points = demographics.telecoms(conv, orc, 23, "work")
        if points:
            conv.resources[made["reference"]].setdefault("telecom", points)
    return made


def describe(conv: Conversion, resource: Json, orc: Segment, authored: str = "authoredOn") -> None:
    """ORC-9 when (else 15), ORC-16 why, ORC-28 how confidential, ORC-10, 11, 19 who had a hand in it."""
    fields = orc.fields
    if authored and fields[9]:
        timestamps.put_date_time(conv, resource, authored, orc, 9)
    if authored and fields[15] and authored not in resource:
        resource.pop("_" + authored, None)
        timestamps.put_date_time(conv, resource, authored, orc, 15)
    if fields[16]:
        reason = concepts.concept(conv, orc, 16)
        if reason is not None:
            add_extension(resource, STATUS_REASON, "valueCodeableConcept", reason)
    if fields[28]:
        label = _label(conv, orc)
        if label is not None:
            resource.setdefault("meta", {}).setdefault("security", []).append(label)
    for number, kind in _AGENTS:
        for reference in actors.practitioners(conv, orc, number) if fields[number] else ():
            conv.agents.setdefault((kind, str(reference["reference"])), reference)
    for number in (33, 38):
        if fields[number]:
            _other_numbers(conv, resource, orc, number)


def _label(conv: Conversion, orc: Segment) -> Json | None:
    sent = concepts.concept(conv, orc, 28)
    own = (sent or {}).get("coding", [None])[0]
    if own is None:
        return None
    level = _LEVELS.get(own["code"])
    if level is not None:
        return {"system": _CONFIDENTIALITY, "code": level[0], "display": level[1]}
    return {"system": _V2_CONFIDENTIALITY, **own}


def _other_numbers(conv: Conversion, resource: Json, orc: Segment, number: int) -> None:
    """ORC-33: alternate placer numbers; ORC-38: the filler's group number."""
    if number == 33:
        for made in business_ids.identifiers(conv, orc, 33, "PLAC"):
            business_ids.add_identifier(resource, made)
    else:
        made_group = business_ids.entity(conv, orc.take(38), "FGN")
        business_ids.add_identifier(resource, made_group)
