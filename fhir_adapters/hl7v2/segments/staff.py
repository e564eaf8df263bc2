"""STF, PRA, ORG, EDU, LAN and CER of a staff master file: Practitioner and PractitionerRole (guide: none yet)."""

from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, demographics, timestamps
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import kin
from fhir_adapters.hl7v2.segments.participants import practitioner_role
from fhir_adapters.identifiers import identifier_type, practitioner_id

ACTIVE = {"MAD": True, "MUP": True, "MAC": True, "MDC": False, "MDL": False}
"""MFE-1, table 0180: added, updated, reactivated; deactivated, deleted."""


def practitioner(conv: Conversion, stf: Segment, event: str) -> Json:
    """Make the Practitioner of an STF (added); ``event`` is MFE-1.

    Raises:
        ParseError: neither STF-1 nor STF-2 holds a number, so that it is not known of whom it speaks.
    """
    resource: Json = {"resourceType": "Practitioner", "id": ""}
    for made in business_ids.identifiers(conv, stf, 2, "EI"):
        business_ids.add_identifier(resource, made)
    primary = concepts.concept(conv, stf, 1)
    own = (primary or {}).get("coding", [None])[0]
    if own is not None:
        made_primary = {"type": identifier_type("EI"), "system": conv.system(""), "value": own["code"]}
        if all(each["value"] != own["code"] for each in resource.get("identifier", ())):
            business_ids.add_identifier(resource, made_primary)
    known = resource.get("identifier")
    if not known:
        raise ParseError("a member of staff without a number", f"STF[{stf.index}]-1")
    # The number that messages name people by (XCN-1) has the default authority or its own; the first one listed.
    resource["id"] = practitioner_id(conv.profile, *business_ids.key_of(known[0]))
    resource["active"] = _active(conv, stf, event)
    names = demographics.names(conv, stf, 3)
    if names:
        resource["name"] = names
    kin.sex(conv, resource, stf, 5)
    if stf.peek(6):
        kin.birth_date(conv, resource, stf, 6)
    points = demographics.telecoms(conv, stf, 10)
    for address in stf.take(15).split("~") if stf.peek(15) else ():
        value = conv.text(address.split("^")[0])
        if value and all(each["value"] != value for each in points):
            points.append({"system": "email", "value": value})
    if points:
        resource["telecom"] = points
    where = demographics.addresses(conv, stf, 11)
    if where:
        resource["address"] = where
    languages = concepts.concepts(conv, stf, 27) if stf.peek(27) else []
    if languages:
        resource["communication"] = languages
    return conv.keep(resource)


def _active(conv: Conversion, stf: Segment, event: str) -> bool:
    flag = conv.text(stf.take(7).split("^")[0]).upper()
    return ACTIVE.get(event, True) and flag not in ("I", "N")


def role(conv: Conversion, person: Json, stf: Segment, pra: Segment | None) -> Json | None:
    """The PractitionerRole of somebody's department (STF-8), kind (STF-4), title (18) and specialty (PRA-5)."""
    reference = {"reference": f"Practitioner/{person['id']}"}
    if pra is not None:
        pra.take(1)  # whose it is, as in STF-1
        _licences(conv, person, pra)
    department = _department(conv, stf)
    kinds = [*concepts.concepts(conv, stf, 4), *(concepts.concepts(conv, stf, 19) if stf.peek(19) else [])]
    title = conv.text(stf.take(18)) if stf.peek(18) else ""
    specialty = _specialty(conv, pra) if pra is not None else None
    holder: Json = {}
    kin.period(conv, holder, stf, 12, 13)
    if department is None and not kinds and specialty is None and not title:
        return None
    first = kinds[0] if kinds else {"text": title} if title else None
    made = practitioner_role(conv, reference, department, role=first, specialty=specialty, period=holder.get("period"))
    resource = conv.resources[made["reference"]]
    resource["active"] = person["active"]
    for more in [*kinds[1:], *([{"text": title}] if title and kinds else [])]:
        if more not in resource.setdefault("code", []):
            resource["code"].append(more)
    conv.owned.add(made["reference"])
    return resource


def _department(conv: Conversion, stf: Segment) -> Json | None:
    """STF-8, else STF-9 the hospital service: the department as an Organization."""
    for number in (8, 9):
        made = concepts.concept(conv, stf, number) if stf.peek(number) else None
        if made is not None:
            own = made.get("coding", ({"code": "", "display": made.get("text", "")},))[0]
            system = own.get("system") or conv.system("")
            return actors.coded_organization(conv, own["code"], own.get("display", "") or made.get("text", ""), system)
    return None


def _specialty(conv: Conversion, pra: Segment) -> Json | None:
    """PRA-5 (SPD: name, board, eligibility, date): the first specialty in words."""
    raw = pra.take(5).split("~")[0]
    name = conv.text(raw.split("^")[0])
    return {"text": name} if name else None


def _licences(conv: Conversion, person: Json, pra: Segment) -> None:
    """PRA-6 (PLN: number, type, qualification, expiry): further identifiers; PRA-3 the category."""
    for raw in pra.take(6).split("~") if pra.peek(6) else ():
        parts = [*raw.split("^"), "", "", "", ""]
        value = conv.text(parts[0])
        if not value:
            continue
        kind = conv.text(parts[1])
        known = conv.find("identifier-type", kind) if kind else None
        made: Json = {
            "type": {"coding": [known.coding()]} if known is not None else {"text": kind or "licence"},
            "system": conv.local_system("licence"),
            "value": value,
        }
        if parts[3]:
            period: Json = {}
            timestamps.put_raw(conv, period, "end", parts[3], pra, 6)
            if period:
                made["period"] = period
        business_ids.add_identifier(person, made)


def schooling(conv: Conversion, person: Json, edu: Segment) -> None:
    """EDU: a degree (2), when it was earned (3 or 4) and the school (6)."""
    edu.take(1)
    degree = concepts.concept(conv, edu, 2)
    entry: Json = {"code": degree or {"text": "education"}}
    period: Json = {}
    raw = edu.take(3)
    if raw:
        timestamps.put_period(conv, entry, "period", raw, edu, 3)
    elif edu.peek(4):
        timestamps.put_period(conv, entry, "period", edu.take(4), edu, 4)
    earned: Json = {}
    timestamps.put_date_time(conv, earned, "end", edu, 5)
    if earned and "period" not in entry:
        entry["period"] = earned
    school = actors.organization(conv, edu, 6) if edu.peek(6) else None
    if school is not None:
        entry["issuer"] = school
    if degree is not None or school is not None or period:
        person.setdefault("qualification", []).append(entry)


def certificate(conv: Conversion, person: Json, cer: Segment) -> None:
    """CER: a certificate: serial number (2), issuer (4 or 5), kind (10 or 6), from when to when (13 to 16)."""
    cer.take(1)
    number = conv.text(cer.take(2))
    kind = next(
        (made for at in (10, 6) if cer.peek(at) and (made := concepts.concept(conv, cer, at)) is not None), None
    )
    issuer = actors.organization(conv, cer, 4) if cer.peek(4) else None
    entry: Json = {"code": kind or {"text": "certificate"}}
    if number:
        entry["identifier"] = [{"system": conv.local_system("certificate"), "value": number}]
    period: Json = {}
    for element, numbers in (("start", (15, 14, 13)), ("end", (16,))):
        for at in numbers:
            if cer.peek(at) and element not in period:
                timestamps.put_date_time(conv, period, element, cer, at)
    if period:
        timestamps.check_period(conv, period, cer, 16)
        entry["period"] = period
    if issuer is not None:
        entry["issuer"] = issuer
    if number or kind is not None:
        person.setdefault("qualification", []).append(entry)


def language(conv: Conversion, person: Json, lan: Segment) -> None:
    """LAN: a language that somebody speaks or reads."""
    lan.take(1)
    made = concepts.concept(conv, lan, 2)
    if made is not None and made not in person.setdefault("communication", []):
        person["communication"].append(made)
