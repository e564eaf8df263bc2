"""ODS and ODT: the NutritionOrder (guide: none yet)."""

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import concepts, timestamps
from fhir_adapters.hl7v2.datatypes.timing import Occasions
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments import order_control
from fhir_adapters.identifiers import numbered_id

_STATUS = {"revoked": "revoked", "completed": "completed", "on-hold": "on-hold", "entered-in-error": "entered-in-error"}


def nutrition_order(
    conv: Conversion,
    orc: Segment,
    subject: Json,
    encounter: Json | None,
    lines: list[Segment],
    occasions: list[Occasions],
) -> Json:
    """The NutritionOrder of an ORC with its ODS and ODT lines (added)."""
    found = order_control.numbers(conv, orc)
    status = order_control.status(conv, orc)
    resource: Json = {
        "resourceType": "NutritionOrder",
        "id": numbered_id(conv.profile, "NutritionOrder", *found.key),
        "status": _STATUS.get(status, status or "active"),
        "intent": "order",
        "patient": subject,
    }
    if found.known:
        resource["identifier"] = found.known
    if encounter is not None:
        resource["encounter"] = encounter
    timestamps.put_date_time(conv, resource, "dateTime", orc, 9)
    _since(conv, resource, orc, occasions)
    who = order_control.requester(conv, orc, None)
    if who is not None:
        resource["orderer"] = who
    order_control.describe(conv, resource, orc, "")
    for line in lines:
        _line(conv, resource, line, occasions)
    return conv.keep(resource)


def _since(conv: Conversion, resource: Json, orc: Segment, occasions: list[Occasions]) -> None:
    """FHIR requires a time: that of the order, else when it begins, else when the message was sent."""
    if "dateTime" in resource or "_dateTime" in resource:
        return
    starts = [each.timing.get("repeat", {}).get("boundsPeriod", {}).get("start") for each in occasions]
    sent = timestamps.parse(conv.header.timestamp.split("^")[0].strip(), conv.time_zone)
    found = next((each for each in starts if each), sent[0] if sent else None)
    if found is not None:
        resource["dateTime"] = found
        conv.issue("information", "missing", orc, 9, "no time of the order; when it begins or was sent stands in")
    else:
        resource["_dateTime"] = {
            "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]
        }


def _line(conv: Conversion, resource: Json, line: Segment, occasions: list[Occasions]) -> None:
    """ODS-1: D a diet, S a supplement, P a preference; ODT a tray instruction."""
    kind = conv.text(line.take(1).split("^")[0])
    services = concepts.concepts(conv, line, 2)
    codes = concepts.concepts(conv, line, 3) if line.name == "ODS" else []
    text = "\n".join(text for raw in line.take(4 if line.name == "ODS" else 3).split("~") if (text := conv.text(raw)))
    if line.name == "ODS" and kind == "S":
        for code in codes or ([{"text": text}] if text else []):
            resource.setdefault("supplement", []).append({"type": code})
        return
    if codes and kind == "P":
        resource.setdefault("foodPreferenceModifier", []).extend(codes)
    elif codes:
        diet = resource.setdefault("oralDiet", {})
        diet.setdefault("type", []).extend(codes)
        timings = [each.timing for each in occasions if each.timing]
        if timings:
            diet.setdefault("schedule", timings)
    for service in services:
        own = service.get("coding", ({},))[0]
        meal = service.get("text") or own.get("display") or own["code"]
        text = "\n".join(filter(None, (text, meal)))
    if text:
        resource.setdefault("note", []).append({"text": text})
