"""RF1, PRD, CTD and AUT: the referral as a ServiceRequest and the Task that carries it (guide: none yet).

As in IHE and BSeR: the ServiceRequest says what is asked for, the Task how far it has come and between whom it passes.
"""

from fhir_adapters.extensions import REFERRAL_AUTHORIZATION
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, demographics, places, timestamps
from fhir_adapters.hl7v2.datatypes.quantities import money, whole_number
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import kin
from fhir_adapters.hl7v2.segments.participants import practitioner_role
from fhir_adapters.identifiers import identifier_type, numbered_id, practitioner_id, service_request_id

_REFERRAL: Json = {
    "coding": [{"system": "http://snomed.info/sct", "code": "3457005", "display": "Patient referral (procedure)"}]
}
# RF1-1, table 0283: status of the request and of the task.
STATUS = {
    "A": ("active", "accepted"),
    "P": ("active", "requested"),
    "R": ("revoked", "rejected"),
    "E": ("completed", "completed"),
}
# RF1-2, table 0280.
_PRIORITY = {"S": "stat", "A": "asap", "R": "routine"}
# PRD-1, table 0286: who asks, who is asked.
ASKING, ASKED = frozenset({"RP"}), frozenset({"RT"})


def referral(conv: Conversion, rf1: Segment, subject: Json, encounter: Json | None, status: str) -> Json:
    """Make the ServiceRequest of an RF1 (not added: it needs requester and performer); ``status`` is the event's."""
    resource: Json = {"resourceType": "ServiceRequest", "id": ""}
    for number, kind in ((6, "PLAC"), (11, "FILL")):
        for raw in rf1.take(number).split("~") if rf1.peek(number) else ():
            business_ids.add_identifier(resource, business_ids.entity(conv, raw, kind))
    known = resource.get("identifier")
    if known:
        resource["id"] = service_request_id(conv.profile, *business_ids.key_of(known[0]))
    else:
        conv.issue("warning", "no-identifier", rf1, 6, "no referral number; the id holds for this message only")
        key = (conv.local_system("message"), conv.message_key(rf1.where(6)))
        resource["id"] = service_request_id(conv.profile, *key)
    resource["status"] = status or STATUS.get(_state(conv, rf1), ("unknown", ""))[0]
    resource["intent"] = "order"
    resource["category"] = [_REFERRAL, *concepts.concepts(conv, rf1, 5)]
    priority = concepts.concept(conv, rf1, 2)
    code = ((priority or {}).get("coding") or [{"code": ""}])[0]["code"]
    if code in _PRIORITY:
        resource["priority"] = _PRIORITY[code]
    elif code:
        conv.unmapped_code("referral priority", rf1, 2)
    service = concepts.concept(conv, rf1, 3)
    if service is not None:
        resource["code"] = service
    details = concepts.concepts(conv, rf1, 4)
    if details and "code" in resource:
        resource["orderDetail"] = details
    resource["subject"] = subject
    if encounter is not None:
        resource["encounter"] = encounter
    _times(conv, resource, rf1)
    reasons = concepts.concepts(conv, rf1, 10)
    if reasons:
        resource["reasonCode"] = reasons
    text = "\n".join(text for raw in rf1.take(22).split("~") if (text := conv.text(raw))) if rf1.peek(22) else ""
    if text:
        resource["note"] = [{"text": text}]
    return resource


def _state(conv: Conversion, rf1: Segment) -> str:
    raw = conv.text(rf1.peek(1).split("^")[0])
    if raw and raw not in STATUS:
        conv.unmapped_code("referral status", rf1, 1)
    return raw


def _times(conv: Conversion, resource: Json, rf1: Segment) -> None:
    """RF1-7 from when, RF1-8 until when, RF1-9 when it was made out."""
    period: Json = {}
    timestamps.put_date_time(conv, period, "start", rf1, 7)
    timestamps.put_date_time(conv, period, "end", rf1, 8)
    if period:
        timestamps.check_period(conv, period, rf1, 8)
        resource["occurrencePeriod"] = period
    timestamps.put_date_time(conv, resource, "authoredOn", rf1, 9)


def task(conv: Conversion, rf1: Segment, request: Json, status: str) -> Json:
    """Make the Task of a referral (not added); ``status`` is the event's, "" to ask RF1-1."""
    raw = conv.text(rf1.take(1).split("^")[0])
    made: Json = {
        "resourceType": "Task",
        "id": numbered_id(conv.profile, "Task", "ServiceRequest", str(request["id"])),
        "status": status or STATUS.get(raw, ("", "requested"))[1],
        "intent": "order",
        "focus": {"reference": f"ServiceRequest/{request['id']}"},
        "for": request["subject"],
    }
    for element in ("priority", "encounter", "authoredOn"):
        if element in request:
            made[element] = request[element]
    return made


def provider(conv: Conversion, prd: Segment) -> tuple[frozenset[str], Json | None]:
    """PRD: the codes of the provider's role in the referral, and a reference to them (added)."""
    roles = concepts.concepts(conv, prd, 1)
    codes = frozenset(coding["code"] for each in roles for coding in each.get("coding", ()))
    organization = _organization(conv, prd)
    person = _person(conv, prd, organization)
    where = _place(conv, prd)
    points = demographics.telecoms(conv, prd, 5, "work") if prd.peek(5) else []
    if person is None:
        if organization is not None and points:
            conv.resources[organization["reference"]].setdefault("telecom", points)
        return codes, organization
    if organization is None and where is None and not points:
        return codes, person
    return codes, practitioner_role(conv, person, organization, place=where, telecom=points)


def _person(conv: Conversion, prd: Segment, organization: Json | None) -> Json | None:
    """PRD-2 and 7 (PLN: number, type, state, expiry): a Practitioner."""
    human = demographics.names(conv, prd, 2)
    numbers = [each for raw in prd.take(7).split("~") if (each := _licence(conv, raw, prd)) is not None]
    if not human and not numbers:
        return None
    resource: Json = {"resourceType": "Practitioner", "id": ""}
    if numbers:
        resource["identifier"] = numbers
        resource["id"] = practitioner_id(conv.profile, *business_ids.key_of(numbers[0]))
    else:
        first = human[0]
        written = "^".join((first.get("text", ""), first.get("family", ""), *first.get("given", ())))
        resource["id"] = practitioner_id(conv.profile, conv.system(""), "name:" + written)
    if human:
        resource["name"] = human
    where = demographics.addresses(conv, prd, 3)
    if where and organization is None:
        resource["address"] = where
    elif where:
        assert organization is not None
        conv.resources[organization["reference"]].setdefault("address", where)
    return {"reference": conv.put(resource)}


def _licence(conv: Conversion, raw: str, prd: Segment) -> Json | None:
    parts = [*raw.split("^"), "", "", "", ""]
    value = conv.text(parts[0])
    if not value:
        return None
    made: Json = {"system": conv.local_system("provider"), "value": value}
    kind = conv.text(parts[1])
    known = conv.find("identifier-type", kind) if kind else None
    if known is not None:
        made["type"] = {"coding": [known.coding()]}
    elif kind:
        made["type"] = {"text": kind}
    if parts[3]:
        period: Json = {}
        timestamps.put_raw(conv, period, "end", parts[3], prd, 7)
        if period:
            made["period"] = period
    return made


def _organization(conv: Conversion, prd: Segment) -> Json | None:
    """PRD-10 to 13: the provider's organization and how to reach it."""
    if not prd.peek(10):
        return None
    where = demographics.addresses(conv, prd, 11) if prd.peek(11) else None
    made = actors.organization(conv, prd, 10, where)
    points = demographics.telecoms(conv, prd, 13, "work") if prd.peek(13) else []
    if made is not None and points:
        conv.resources[made["reference"]].setdefault("telecom", points)
    return made


def _place(conv: Conversion, prd: Segment) -> Json | None:
    return places.location(conv, prd, 4) if prd.peek(4) else None


def authorization(conv: Conversion, request: Json, aut: Segment) -> None:
    """AUT: that a payor authorized it: by whom (2, 3), number (6), from when to when (4, 5), how much and often."""
    parts: list[Json] = []
    for number, url in ((1, "plan"), (2, "company")):
        value = concepts.concept(conv, aut, number) if aut.peek(number) else None
        if value is not None:
            parts.append({"url": url, "valueCodeableConcept": value})
    name = conv.text(aut.take(3).split("^")[0])
    if name:
        parts.append({"url": "companyName", "valueString": name})
    made = business_ids.entity(conv, aut.take(6)) if aut.peek(6) else None
    if made is not None:
        parts.append({"url": "number", "valueIdentifier": {"type": identifier_type("RI"), **made}})
    holder: Json = {}
    kin.period(conv, holder, aut, 4, 5)
    if "period" in holder:
        parts.append({"url": "period", "valuePeriod": holder["period"]})
    amount = money(conv, aut.peek(7)) if aut.peek(7) else None
    if amount is not None:
        aut.take(7)
        parts.append({"url": "reimbursement", "valueMoney": amount})
    for number, url in ((8, "requestedTreatments"), (9, "authorizedTreatments")):
        count = whole_number(conv, aut.peek(number)) if aut.peek(number) else None
        if count is not None:
            aut.take(number)
            parts.append({"url": url, "valueUnsignedInt": count})
    if parts:
        made_extension = {"url": REFERRAL_AUTHORIZATION, "extension": parts}
        request.setdefault("extension", []).append(made_extension)


def contact(conv: Conversion, request: Json, ctd: Segment) -> None:
    """CTD: whom to ask about it; FHIR has no place for a contact of a request, so it is a note."""
    names = demographics.names(conv, ctd, 2)
    points = demographics.telecoms(conv, ctd, 5) if ctd.peek(5) else []
    words = [each.get("text") or " ".join([*each.get("given", ()), each.get("family", "")]) for each in names]
    text = ", ".join([*words, *(point["value"] for point in points)])
    if text:
        request.setdefault("note", []).append({"text": f"Contact: {text}"})


def complete(request: Json, made: Json, roles: list[tuple[frozenset[str], Json]]) -> None:
    """Say who asks and who is asked. Others (a family doctor, a payor) are kept as resources and not linked."""
    for codes, reference in roles:
        if codes & ASKING:
            request.setdefault("requester", reference)
            made.setdefault("requester", reference)
        elif codes & ASKED:
            known = request.setdefault("performer", [])
            if reference not in known:
                known.append(reference)
            made.setdefault("owner", reference)
