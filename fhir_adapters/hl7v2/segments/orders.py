"""ORC and OBR: the ServiceRequest that asks for something to be done.

Guide: ORC[ServiceRequest], OBR[ServiceRequest], TQ1[ServiceRequest].
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fhir_adapters.hl7v2.context import Conversion, Json, add_extension
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, demographics, timestamps, timing
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import order_control
from fhir_adapters.identifiers import service_request_id

CALLBACK = "http://hl7.org/fhir/StructureDefinition/servicerequest-order-callback-phone-number"


@dataclass(slots=True)
class Order:
    """An order being mapped: its identifiers and what names it."""

    placer: Json | None
    filler: Json | None
    code: Json
    key: tuple[str, str]
    """System and value of the filler's number, else the placer's, else of the place in the message."""
    request_key: tuple[str, str]
    """The same, the placer's number first: an order is known by it before a filler has seen it."""


def shared_numbers(pairs: Iterable[tuple[Segment | None, Segment]]) -> frozenset[tuple[str, str]]:
    """Order numbers (with "FILL" or "PLAC") that several OBRs of one patient have: a panel sent under one number."""
    counts: Counter[tuple[str, str]] = Counter()
    for orc, obr in pairs:
        for number, kind in ((2, "PLAC"), (3, "FILL")):
            value = obr.peek(number).split("^")[0] or (orc.peek(number).split("^")[0] if orc is not None else "")
            counts[(kind, value.strip())] += 1
    return frozenset(key for key, count in counts.items() if count > 1)


def identify(conv: Conversion, orc: Segment | None, obr: Segment, shared: frozenset[tuple[str, str]]) -> Order:
    """Read the numbers and the service of an order. OBR-2 and 3 count before ORC-2 and 3, which usually repeat them."""
    obr.take(1)
    placer, filler = (_number(conv, orc, obr, number, kind) for number, kind in ((2, "PLAC"), (3, "FILL")))
    code = concepts.concept(conv, obr, 4)
    if code is None:
        conv.issue("warning", "missing", obr, 4, "no service is named")
        code = {"text": "unknown"}
    named = code["coding"][0]["code"] if "coding" in code else code["text"]
    answer, question = filler or placer, placer or filler
    if answer is None or question is None:
        conv.issue("warning", "no-identifier", obr, 3, "no order number; the id holds for this message only")
        key = (conv.local_system("message"), conv.message_key(obr.where(3)))
        return Order(None, None, code, key, key)
    return Order(
        placer,
        filler,
        code,
        _key(conv, "report", answer, named, shared),
        _key(conv, "request", question, named, shared),
    )


def _number(conv: Conversion, orc: Segment | None, obr: Segment, number: int, kind: str) -> Json | None:
    own = business_ids.entity(conv, obr.take(number).split("~")[0], kind)
    if orc is None:
        return own
    other = business_ids.entity(conv, orc.peek(number).split("~")[0], kind)
    if own is None or (other is not None and other["value"] == own["value"]):
        orc.take(number)  # else it differs, is not carried and stays behind to be remarked on
    return own or other


def _key(
    conv: Conversion, purpose: str, number: Json, service: str, shared: frozenset[tuple[str, str]]
) -> tuple[str, str]:
    """What names the order: its number, with the service where the number is shared by several OBRs."""
    system, value = business_ids.key_of(number)
    kind = number["type"]["coding"][0]["code"]
    key = f"{value}|{service}" if (kind, value) in shared else value
    times = conv.occurrence(f"{purpose} {system}|{key}")
    return system, f"{key}#{times}" if times else key


def service_request(
    conv: Conversion, order: Order, orc: Segment | None, obr: Segment, subject: Json, encounter: Json | None
) -> Json:
    """Make the ServiceRequest of an order and return it (already added)."""
    resource: Json = {
        "resourceType": "ServiceRequest",
        "id": service_request_id(conv.profile, *order.request_key),
        "status": _status(conv, orc, obr),
        "intent": "reflex-order" if obr.take(11) == "G" else "order",
        "code": order.code,
        "subject": subject,
    }
    numbers = [each for each in (order.placer, order.filler) if each is not None]
    if numbers:
        resource["identifier"] = numbers
    if encounter is not None:
        resource["encounter"] = encounter
    fields = obr.fields
    asked = actors.practitioners(conv, obr, 16) if fields[16] else []
    who = order_control.requester(conv, orc, asked[0] if asked else None)
    if who is not None:
        resource["requester"] = who
    if fields[5]:
        priority, _ = concepts.mapped(conv, "priority", obr, 5)
        if priority is not None:
            resource["priority"] = priority.code
    for number in (6, 36):
        if fields[number] and "occurrenceDateTime" not in resource and "_occurrenceDateTime" not in resource:
            timestamps.put_date_time(conv, resource, "occurrenceDateTime", obr, number)
    _details(conv, resource, obr)
    _callback(conv, resource, orc, obr)
    _parent(conv, resource, orc, obr)
    if fields[27]:
        scheduled(resource, timing.from_field(conv, obr, 27))
    if orc is not None:
        _from_order_control(conv, resource, orc)
    return conv.keep(resource)


def of_control(conv: Conversion, orc: Segment, subject: Json, encounter: Json | None) -> Json:
    """The ServiceRequest of an ORC without any detail segment: that there is an order, and its status (added)."""
    found = order_control.numbers(conv, orc)
    resource: Json = {
        "resourceType": "ServiceRequest",
        "id": service_request_id(conv.profile, *found.key),
        "status": order_control.status(conv, orc) or "unknown",
        "intent": "order",
        "subject": subject,
    }
    if found.known:
        resource["identifier"] = found.known
    if encounter is not None:
        resource["encounter"] = encounter
    who = order_control.requester(conv, orc, None)
    if who is not None:
        resource["requester"] = who
    _from_order_control(conv, resource, orc)
    conv.issue("information", "missing", orc, 0, "an order control without the segment that says what is ordered")
    return conv.keep(resource)


def scheduled(resource: Json, occasions: timing.Occasions | None) -> None:
    """TQ1, ORC-7 or OBR-27: when, how urgent, how much (guide: TQ1[ServiceRequest])."""
    if occasions is None:
        return
    if occasions.timing:
        _occurs(resource, occasions.timing)
    if occasions.priority:
        resource.setdefault("priority", occasions.priority)
    if occasions.quantity is not None and "quantityQuantity" not in resource:
        resource["quantityQuantity"] = occasions.quantity
    if occasions.as_needed:
        resource["asNeededBoolean"] = True
    for text in (occasions.condition, occasions.text):
        if text:
            resource.setdefault("note", []).append({"text": text})


def of_section(conv: Conversion, resource: Json, obr: Segment) -> None:
    """OBR-24: which service is to do it. OBR-25, the state of a result, is not the order's."""
    if obr.fields[24]:
        section, sent = concepts.mapped(conv, "section", obr, 24)
        if section is not None:
            resource["category"] = [{"coding": [section.coding()]}]
        elif sent is not None:
            resource["category"] = [sent]
    obr.take(25)


def observed_when(conv: Conversion, resource: Json, obr: Segment) -> None:
    """OBR-7 and 8 of an order: when it is to be done, or the specimen was taken, where nothing else says."""
    if any(name.lstrip("_").startswith("occurrence") for name in resource) or not obr.peek(7):
        return
    if not obr.peek(8) or obr.peek(8) == obr.peek(7):
        obr.take(8)
        timestamps.put_date_time(conv, resource, "occurrenceDateTime", obr, 7)
        return
    period: Json = {}
    timestamps.put_date_time(conv, period, "start", obr, 7)
    timestamps.put_date_time(conv, period, "end", obr, 8)
    if period:
        timestamps.check_period(conv, period, obr, 8)
        resource["occurrencePeriod"] = period


def _occurs(resource: Json, timing: Json) -> None:
    """A Timing as the occurrence; one time that another field said of it becomes its event or its bounds."""
    repeat = timing.get("repeat", {})
    plain = set(timing) == {"repeat"} and set(repeat) == {"boundsPeriod"}
    if not any(name.lstrip("_").startswith("occurrence") for name in resource):
        if plain:
            _between(resource, repeat["boundsPeriod"])
        else:
            resource["occurrenceTiming"] = timing
    elif not plain and "occurrenceDateTime" in resource:
        resource["occurrenceTiming"] = {"event": [resource.pop("occurrenceDateTime")], **timing}
    elif not plain and "occurrencePeriod" in resource and "boundsPeriod" not in repeat:
        bounds = resource.pop("occurrencePeriod")
        resource["occurrenceTiming"] = {**timing, "repeat": {**repeat, "boundsPeriod": bounds}}


def _between(resource: Json, period: Json) -> None:
    """A start alone is the time of the service, a start and an end its period."""
    if set(period) == {"start"}:
        resource["occurrenceDateTime"] = period["start"]
    else:
        resource["occurrencePeriod"] = period


def _details(conv: Conversion, resource: Json, obr: Segment) -> None:
    fields = obr.fields
    if fields[31]:
        reasons = concepts.concepts(conv, obr, 31)
        if reasons:
            resource["reasonCode"] = reasons
    details = [each for number in (44, 46, 47) if fields[number] for each in concepts.concepts(conv, obr, number)]
    if details:
        resource["orderDetail"] = details
    if fields[13]:
        clinical = "\n".join(text for raw in obr.take(13).split("~") if (text := _plain(conv, raw)))
        if clinical:
            resource["note"] = [{"text": clinical}]
    for made in business_ids.identifiers(conv, obr, 53, "PLAC") if fields[53] else ():
        business_ids.add_identifier(resource, made)


def _plain(conv: Conversion, raw: str) -> str:
    """OBR-13 is text up to v2.6 and coded after: what a person reads of it."""
    parts = raw.split("^")
    return conv.text(parts[1] if len(parts) > 1 and parts[1] else parts[0])


def _status(conv: Conversion, orc: Segment | None, obr: Segment) -> str:
    done = obr.peek(25) in ("F", "C")
    known = order_control.status(conv, orc) if orc is not None else ""
    if known:
        # A final result completes the order even when the control code only says that results follow (RE).
        return "completed" if done and known == "active" else known
    return "completed" if done else "unknown" if not obr.peek(25) else "active"


def _callback(conv: Conversion, resource: Json, orc: Segment | None, obr: Segment) -> None:
    points = demographics.telecoms(conv, obr, 17) if obr.fields[17] else []
    if orc is not None and orc.fields[14]:
        others = demographics.telecoms(conv, orc, 14)
        points += [each for each in others if each not in points]
    for point in points:
        add_extension(resource, CALLBACK, "valueContactPoint", point)


def _parent(conv: Conversion, resource: Json, orc: Segment | None, obr: Segment) -> None:
    """OBR-29 (else OBR-54, ORC-8): the order this one came out of, by its numbers; OBR-50 and ORC-31: its service."""
    raw = obr.take(29) or obr.take(54) or (orc.take(8) if orc is not None else "")
    if not raw:
        return
    for segment, number in ((obr, 54), (orc, 8)):
        if segment is not None and segment.peek(number) == raw:
            segment.take(number)
    found: list[Json] = []
    for repetition in raw.split("~"):
        for half, kind in zip(repetition.split("^"), ("PLAC", "FILL"), strict=False):
            number_made = business_ids.entity(conv, half.replace("&", "^"), kind) if half else None
            if number_made is not None:
                found.append({"type": "ServiceRequest", "identifier": number_made})
    if not found:
        return
    resource["basedOn"] = found
    for segment, number in ((obr, 50), (orc, 31)):
        if segment is not None and segment.fields[number]:
            service = concepts.concept(conv, segment, number)
            if service is not None:
                own = service.get("coding", ({},))[0]
                found[0]["display"] = service.get("text") or own.get("display") or own["code"]


def _from_order_control(conv: Conversion, resource: Json, orc: Segment) -> None:
    if orc.fields[4]:
        group = order_control.group_number(conv, orc)
        if group is not None:
            resource["requisition"] = group
    if orc.fields[7]:
        scheduled(resource, timing.from_field(conv, orc, 7))
    if orc.fields[29]:
        kind = concepts.concept(conv, orc, 29)
        if kind is not None:
            resource["locationCode"] = [kind]
    order_control.describe(conv, resource, orc)
