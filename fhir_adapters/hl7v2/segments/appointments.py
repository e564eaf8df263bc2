"""SCH, AIS, AIG, AIL and AIP: the Appointment (guide: SCH[Appointment], AIS[Appointment] to AIP[Appointment])."""

from datetime import datetime, timedelta

from fhir_adapters.hl7v2.context import Conversion, Json, keep_original
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, places, timestamps, timing
from fhir_adapters.hl7v2.datatypes.quantities import whole_number
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.identifiers import appointment_id, device_id

_REASON_TABLES = ("0276", "v2-0276")
_TYPE_TABLES = ("0277", "v2-0277")
# Guide: table 0278 Filler Status Codes, as Appointment.status; lower case as senders differ.
STATUS = {
    "pending": "pending",
    "waitlist": "waitlist",
    "booked": "booked",
    "started": "arrived",
    "complete": "fulfilled",
    "completed": "fulfilled",
    "cancelled": "cancelled",
    "canceled": "cancelled",
    "dc": "cancelled",
    "deleted": "entered-in-error",
    "overbook": "booked",
    "noshow": "noshow",
    "no show": "noshow",
    "arrived": "arrived",
    "confirmed": "booked",
}
_UNSETTLED = frozenset({"pending", "waitlist", "proposed"})
_NOT_HELD = frozenset({"cancelled", "noshow"})


def appointment(conv: Conversion, sch: Segment, status: str) -> Json:
    """Make the Appointment of an SCH (not added: it needs participants and times yet); ``status`` is the event's."""
    placer, filler = (
        business_ids.entity(conv, sch.take(number).split("~")[0], kind) for number, kind in ((1, "PLAC"), (2, "FILL"))
    )
    resource: Json = {"resourceType": "Appointment", "id": "", "status": _status(conv, sch, status)}
    known = [each for each in (placer, filler) if each is not None]
    if known:
        resource["identifier"] = known
        resource["id"] = appointment_id(conv.profile, *business_ids.key_of(known[0]))
    else:
        conv.issue("warning", "no-identifier", sch, 1, "no appointment number; the id holds for this message only")
        resource["id"] = appointment_id(conv.profile, conv.local_system("message"), conv.message_key(sch.where(1)))
    _reasons(conv, resource, sch)
    _based_on(conv, resource, sch)
    schedule = concepts.concept(conv, sch, 5) if sch.peek(5) else None
    if schedule is not None:
        own = schedule.get("coding", ({"code": schedule.get("text", "")},))[0]
        made = {"system": own.get("system") or conv.local_system("schedule"), "value": own["code"]}
        resource.setdefault("supportingInformation", []).append({"type": "Schedule", "identifier": made})
    return resource


def _status(conv: Conversion, sch: Segment, status: str) -> str:
    raw = conv.text(sch.peek(25).split("^")[0])
    known = STATUS.get(raw.lower(), "")
    if raw and not known:
        conv.unmapped_code("filler status", sch, 25)
    elif raw:
        sch.take(25)
    # An event that ends an appointment says so whatever state SCH-25 still has; the others only stand in for it.
    return status if status in ("cancelled", "noshow", "entered-in-error") else known or status or "pending"


def _reasons(conv: Conversion, resource: Json, sch: Segment) -> None:
    """SCH-6 why the event, SCH-7 why the appointment, SCH-8 its kind; by the table that SCH-7 names (guide)."""
    event = concepts.concept(conv, sch, 6)
    if event is not None:
        if resource["status"] in _NOT_HELD:
            resource["cancelationReason"] = event
        else:
            resource["reasonCode"] = [event]
    reason, kind = concepts.concept(conv, sch, 7), concepts.concept(conv, sch, 8)
    if reason is not None and _of_table(reason, _TYPE_TABLES) and kind is None:
        reason, kind = None, reason
    if reason is not None:
        resource.setdefault("reasonCode", []).append(reason)
    if kind is not None:
        resource["appointmentType"] = kind


def _of_table(concept: Json, tables: tuple[str, ...]) -> bool:
    return any(str(each.get("system", "")).endswith(tables) for each in concept.get("coding", ()))


def _based_on(conv: Conversion, resource: Json, sch: Segment) -> None:
    """SCH-26 and 27: the orders that it carries out, by their numbers."""
    for number, kind in ((26, "PLAC"), (27, "FILL")):
        for raw in sch.take(number).split("~") if sch.peek(number) else ():
            made = business_ids.entity(conv, raw, kind)
            if made is not None:
                entry = {"type": "ServiceRequest", "identifier": made}
                resource.setdefault("basedOn", []).append(entry)


def contacts(conv: Conversion, resource: Json, sch: Segment) -> None:
    """SCH-12 and 16: whom to ask at the placer's and the filler's; SCH-20 who entered it goes to the Provenance."""
    for number, text in ((12, "placer contact"), (16, "filler contact")):
        for actor in actors.practitioners(conv, sch, number) if sch.peek(number) else ():
            participate(resource, actor, {"text": text})
    for reference in actors.practitioners(conv, sch, 20) if sch.peek(20) else ():
        conv.agents.setdefault(("enterer", str(reference["reference"])), reference)


def participate(resource: Json, actor: Json, kind: Json | None = None, period: Json | None = None) -> None:
    """Add a participant, once. Whether they will come is known of the appointment as a whole only."""
    settled = resource["status"]
    answer = "needs-action" if settled in _UNSETTLED else "declined" if settled in _NOT_HELD else "accepted"
    entry: Json = {"actor": actor, "status": answer}
    if kind is not None:
        entry["type"] = [kind]
    if period:
        entry["period"] = period
    known = resource.setdefault("participant", [])
    if all(each["actor"] != actor or each.get("type") != entry.get("type") for each in known):
        known.append(entry)


def service(conv: Conversion, resource: Json, ais: Segment) -> None:
    """AIS: a service; its time stands in for the appointment's."""
    _common(conv, ais)
    kind = concepts.concept(conv, ais, 3)
    if kind is not None:
        known = resource.setdefault("serviceType", [])
        if kind not in known:
            known.append(kind)
    _resource_time(conv, resource, ais, 4, (7, 8))
    _resource_status(conv, resource, ais, 10)


def equipment(conv: Conversion, resource: Json, aig: Segment) -> None:
    """AIG: any other resource: a Device of the kind that AIG-4 says."""
    _common(conv, aig)
    what, kind = concepts.concept(conv, aig, 3), concepts.concept(conv, aig, 4)
    period = _resource_time(conv, resource, aig, 8, (11, 12))
    _resource_status(conv, resource, aig, 14)
    if what is None:
        return
    own = what.get("coding", ({"code": what.get("text", "")},))[0]
    system = own.get("system") or conv.local_system("equipment")
    device: Json = {"resourceType": "Device", "id": device_id(conv.profile, system, own["code"])}
    device["identifier"] = [{"system": system, "value": own["code"]}]
    title = what.get("text") or own.get("display")
    if title:
        device["deviceName"] = [{"name": title, "type": "user-friendly-name"}]
    if kind is not None:
        device["type"] = kind
    participate(resource, {"reference": conv.put(device)}, period=period)


def place(conv: Conversion, resource: Json, ail: Segment) -> None:
    """AIL: a place."""
    _common(conv, ail)
    where = places.location(conv, ail, 3)
    kind = concepts.concept(conv, ail, 4)
    period = _resource_time(conv, resource, ail, 6, (9, 10))
    _resource_status(conv, resource, ail, 12)
    if where is None:
        return
    if kind is not None:
        conv.resources[where["reference"]].setdefault("type", [kind])
    participate(resource, where, period=period)


def person(conv: Conversion, resource: Json, aip: Segment) -> None:
    """AIP: a person, in the role that AIP-4 says."""
    _common(conv, aip)
    people = actors.practitioners(conv, aip, 3)
    kind = concepts.concept(conv, aip, 4)
    period = _resource_time(conv, resource, aip, 6, (9, 10))
    _resource_status(conv, resource, aip, 12)
    for who in people:
        participate(resource, who, kind, period)


def _common(conv: Conversion, segment: Segment) -> None:
    segment.take(1)
    if conv.text(segment.take(2)) == "D":
        conv.issue("information", "participation", segment, 2, "deleted from the appointment; kept as it was booked")


def _resource_status(conv: Conversion, resource: Json, segment: Segment, number: int) -> None:
    """The state of one resource, where SCH-25 says nothing of the whole."""
    raw = conv.text(segment.peek(number).split("^")[0]) if segment.peek(number) else ""
    known = STATUS.get(raw.lower(), "")
    if known:
        segment.take(number)
        if resource["status"] == "pending":
            resource["status"] = known


def _resource_time(
    conv: Conversion, resource: Json, segment: Segment, start: int, duration: tuple[int, int]
) -> Json | None:
    """When a resource is needed: a start, and a duration in minutes or what can be told in minutes."""
    holder: Json = {}
    begins = timestamps.put_date_time(conv, holder, "start", segment, start)
    amount = whole_number(conv, segment.peek(duration[0])) if segment.peek(duration[0]) else None
    unit = conv.text(segment.peek(duration[1]).split("^")[0])
    lasts = timing.minutes(amount, unit) if amount else None
    if lasts is not None:
        segment.take(duration[0])
        segment.take(duration[1])
    if begins is None:
        if lasts is not None:
            resource.setdefault("minutesDuration", lasts)
        return None
    period: Json = {"start": begins}
    if lasts is not None and len(begins) > 10:
        period["end"] = (datetime.fromisoformat(begins) + timedelta(minutes=lasts)).isoformat()
    if len(begins) > 10:
        resource.setdefault("start", begins)
        if "end" in period:
            resource.setdefault("end", period["end"])
    return period


def times(conv: Conversion, resource: Json, sch: Segment, occasions: list[timing.Occasions]) -> None:
    """TQ1, SCH-11 and SCH-9: when it is, and for how long. Start and end are instants: a day alone is kept as text."""
    old = timing.from_field(conv, sch, 11) if sch.peek(11) else None
    for each in [*occasions, *([old] if old is not None else [])]:
        bounds = each.timing.get("repeat", {}).get("boundsPeriod", {})
        for element in ("start", "end"):
            value = bounds.get(element)
            if value and element not in resource:
                if len(value) > 10:
                    resource[element] = value
                else:
                    keep_original(resource, element, value, "unknown")
        if each.priority and "priority" not in resource:
            resource["priority"] = {"stat": 1, "asap": 2, "urgent": 3, "routine": 5}.get(each.priority, 5)
        if each.text:
            remark(resource, each.text)
    amount = whole_number(conv, sch.peek(9)) if sch.peek(9) else None
    lasts = timing.minutes(amount, conv.text(sch.peek(10).split("^")[0])) if amount else None
    if lasts is None:
        return
    sch.take(9)
    if not sch.take(10) and lasts != _minutes_between(resource, lasts):
        conv.issue("warning", "conflict", sch, 9, "a duration without a unit that is not the time from start to end")
        return
    resource["minutesDuration"] = lasts


def _minutes_between(resource: Json, unknown: int) -> int:
    """Whole minutes from start to end; ``unknown`` where one of them is not told."""
    if "start" not in resource or "end" not in resource:
        return unknown
    return (
        int((datetime.fromisoformat(resource["end"]) - datetime.fromisoformat(resource["start"])).total_seconds()) // 60
    )


def settle(resource: Json) -> None:
    """FHIR app-2 and app-3: a start has an end, and only what is not settled may lack both."""
    lasts = resource.get("minutesDuration")
    if "start" in resource and "end" not in resource and lasts:
        resource["end"] = (datetime.fromisoformat(resource["start"]) + timedelta(minutes=lasts)).isoformat()
        resource.pop("_end", None)
    needed = resource["status"] not in ("proposed", "cancelled", "waitlist") or "start" in resource or "end" in resource
    for element in ("start", "end"):
        if needed and element not in resource and "_" + element not in resource:
            keep_original(resource, element, "", "unknown")


def remark(resource: Json, text: str) -> None:
    """Add to the comment, which is one text in R4."""
    resource["comment"] = "\n".join(filter(None, (resource.get("comment", ""), text)))
