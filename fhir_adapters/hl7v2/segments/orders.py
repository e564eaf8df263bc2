"""ORC and OBR: the ServiceRequest that asked and the DiagnosticReport that answers.

Guide: ORC[ServiceRequest], OBR[ServiceRequest], OBR[DiagnosticReport].
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fhir_adapters.hl7v2.context import Conversion, Json, add_extension
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, demographics, timestamps
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.identifiers import identifier_type, report_id, service_request_id

NOTE = "http://hl7.org/fhir/5.0/StructureDefinition/extension-DiagnosticReport.note"
CALLBACK = "http://hl7.org/fhir/StructureDefinition/servicerequest-order-callback-phone-number"
_V2_SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"


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
        "status": _request_status(conv, orc, obr),
        "intent": "reflex-order" if obr.take(11) == "G" else "order",
        "code": order.code,
        "subject": subject,
    }
    numbers = [each for each in (order.placer, order.filler) if each is not None]
    if numbers:
        resource["identifier"] = numbers
    if encounter is not None:
        resource["encounter"] = encounter
    _requester(conv, resource, orc, obr)
    priority, _ = concepts.mapped(conv, "priority", obr, 5)
    if priority is not None:
        resource["priority"] = priority.code
    timestamps.put_date_time(conv, resource, "occurrenceDateTime", obr, 6)
    reasons = concepts.concepts(conv, obr, 31)
    if reasons:
        resource["reasonCode"] = reasons
    details = [each for number in (46, 47) if obr.peek(number) for each in concepts.concepts(conv, obr, number)]
    if details:
        resource["orderDetail"] = details
    clinical = "\n".join(text for raw in obr.take(13).split("~") if (text := _plain(conv, raw)))
    if clinical:
        resource["note"] = [{"text": clinical}]
    _callback(conv, resource, orc, obr)
    _parent(conv, resource, orc, obr)
    if orc is not None:
        _from_order_control(conv, resource, orc)
    return conv.keep(resource)


def _plain(conv: Conversion, raw: str) -> str:
    """OBR-13 is text up to v2.6 and coded after: what a person reads of it."""
    parts = raw.split("^")
    return conv.text(parts[1] if len(parts) > 1 and parts[1] else parts[0])


def _request_status(conv: Conversion, orc: Segment | None, obr: Segment) -> str:
    if orc is not None:
        for number, concept in ((5, "order-status"), (1, "order-control")):
            raw = conv.text(orc.take(number).split("^")[0])
            known = conv.find(concept, raw) if raw else None
            if known is not None:
                orc.take(1)
                # A final result completes the order even when the control code only says that results follow (RE).
                if known.code == "active" and obr.peek(25) in ("F", "C"):
                    return "completed"
                return known.code
            if raw:
                conv.unmapped_code(concept, orc, number)
    return "completed" if obr.peek(25) in ("F", "C") else "unknown" if not obr.peek(25) else "active"


def _requester(conv: Conversion, resource: Json, orc: Segment | None, obr: Segment) -> None:
    asked = actors.practitioners(conv, obr, 16)
    if orc is not None:
        raw = orc.peek(12)
        by_order = actors.practitioners(conv, orc, 12) if raw else []
        if not asked:
            asked = by_order
        elif by_order and by_order[0] != asked[0]:
            conv.issue("information", "not-mapped", orc, 12, "another ordering provider than OBR-16, which is carried")
    if asked:
        resource["requester"] = asked[0]
    facility = None
    if orc is not None and orc.peek(21):
        where = demographics.addresses(conv, orc, 22) if orc.peek(22) else None
        facility = actors.organization(conv, orc, 21, where)
    if facility is not None and not asked:
        resource["requester"] = facility
    elif facility is not None and orc is not None:
        conv.issue(
            "information", "not-mapped", orc, 21, "the ordering facility is kept as an Organization without a link"
        )


def _callback(conv: Conversion, resource: Json, orc: Segment | None, obr: Segment) -> None:
    points = demographics.telecoms(conv, obr, 17) if obr.peek(17) else []
    if orc is not None and orc.peek(14):
        others = demographics.telecoms(conv, orc, 14)
        points += [each for each in others if each not in points]
    for point in points:
        add_extension(resource, CALLBACK, "valueContactPoint", point)


def _parent(conv: Conversion, resource: Json, orc: Segment | None, obr: Segment) -> None:
    """OBR-29 (else ORC-8): the order this one came out of, by its numbers; it need not be in the message."""
    raw = obr.take(29) or (orc.take(8) if orc is not None else "")
    if orc is not None and raw and orc.peek(8) == raw:
        orc.take(8)
    found: list[Json] = []
    for repetition in raw.split("~"):
        for half, kind in zip(repetition.split("^"), ("PLAC", "FILL"), strict=False):
            number = business_ids.entity(conv, half.replace("&", "^"), kind) if half else None
            if number is not None:
                found.append({"type": "ServiceRequest", "identifier": number})
    if found:
        resource["basedOn"] = found


def _from_order_control(conv: Conversion, resource: Json, orc: Segment) -> None:
    if orc.peek(4):
        group = business_ids.entity(conv, orc.take(4).split("~")[0])
        if group is not None:
            group["type"] = identifier_type("PGN")
            resource["requisition"] = group
    timestamps.put_date_time(conv, resource, "authoredOn", orc, 9)


def report(conv: Conversion, order: Order, obr: Segment, subject: Json, encounter: Json | None, request: Json) -> Json:
    """Make the DiagnosticReport of an OBR and return it (already added); its results are put in by the caller."""
    resource: Json = {
        "resourceType": "DiagnosticReport",
        "id": report_id(conv.profile, *order.key),
        "status": _report_status(conv, obr),
        "code": order.code,
        "subject": subject,
        "basedOn": [{"reference": f"ServiceRequest/{request['id']}"}],
    }
    numbers = [each for each in (order.filler, order.placer) if each is not None]
    if numbers:
        resource["identifier"] = numbers
    if encounter is not None:
        resource["encounter"] = encounter
    if obr.peek(24):
        section, sent = concepts.mapped(conv, "section", obr, 24)
        if section is not None:
            resource["category"] = [{"coding": [section.coding()]}]
        elif sent is not None:
            resource["category"] = [sent]
    _effective(conv, resource, obr)
    timestamps.put_instant(conv, resource, "issued", obr, 22)
    _interpreters(conv, resource, obr)
    return conv.keep(resource)


def _report_status(conv: Conversion, obr: Segment) -> str:
    raw = conv.text(obr.take(25))
    if not raw:
        conv.issue("warning", "missing", obr, 25, "no result status")
        return "unknown"
    known = conv.find("report-status", raw)
    if known is None:
        conv.unmapped_code("report-status", obr, 25)
        return "unknown"
    return known.code


def _effective(conv: Conversion, resource: Json, obr: Segment) -> None:
    if not obr.peek(8):
        timestamps.put_date_time(conv, resource, "effectiveDateTime", obr, 7)
        return
    period: Json = {}
    timestamps.put_date_time(conv, period, "start", obr, 7)
    timestamps.put_date_time(conv, period, "end", obr, 8)
    if period:
        timestamps.check_period(conv, period, obr, 8)
        resource["effectivePeriod"] = period


def _interpreters(conv: Conversion, resource: Json, obr: Segment) -> None:
    for numbers, element in (((32, 33), "resultsInterpreter"), ((34, 35), "performer")):
        found: list[Json] = []
        for number in numbers:
            for raw in obr.take(number).split("~") if obr.peek(number) else ():
                reference = actors.named_practitioner(conv, raw, obr, number)
                if reference is not None and reference not in found:
                    found.append(reference)
        if found:
            resource[element] = found
