"""How a medicine is to be taken: RXR and the amounts of RXO, RXE and RXD as Dosage (guide: RXR[MedicationRequest])."""

from dataclasses import dataclass

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import concepts
from fhir_adapters.hl7v2.datatypes.quantities import composite, measured
from fhir_adapters.hl7v2.datatypes.timing import Occasions, unit_of_time
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.json_lexeme import Lexeme
from fhir_adapters.units import UCUM

_KIND = "http://terminology.hl7.org/CodeSystem/dose-rate-type"
_ORDERED: Json = {"coding": [{"system": _KIND, "code": "ordered", "display": "Ordered"}]}


@dataclass(frozen=True, slots=True)
class Fields:
    """Where a segment has the dose; 0 where it does not."""

    low: int = 0
    high: int = 0
    units: int = 0
    per: int = 0
    rate: int = 0
    rate_units: int = 0
    daily: int = 0
    instructions: int = 0


def dosage(
    conv: Conversion, segment: Segment, at: Fields, routes: list[Segment], occasions: list[Occasions]
) -> list[Json]:
    """The Dosages of an order: one for each time of its timing, each with the route and the dose."""
    shared: Json = {}
    if routes:
        route(conv, shared, routes[0])
        for more in routes[1:]:
            conv.issue("information", "not-mapped", more, 0, "an alternative route; only the first has a place")
    amounts = _amounts(conv, segment, at)
    if at.daily and segment.peek(at.daily):
        total = composite(conv, segment.take(at.daily))
        if total is not None:
            shared["maxDosePerPeriod"] = {
                "numerator": total,
                "denominator": {"value": Lexeme("1"), "unit": "d", "system": UCUM, "code": "d"},
            }
    text = _instructions(conv, segment, at)
    if text:
        shared["text"] = text
    made = [_occasion(each, shared, amounts) for each in occasions] or [_joined(shared, amounts)]
    if len(made) > 1:
        for number, each in enumerate(made, start=1):
            each["sequence"] = number
    return [each for each in made if each]


def route(conv: Conversion, target: Json, rxr: Segment) -> None:
    """RXR: route (1), site (2, modified by 6), device (3) and method (4) of administration."""
    for number, concept in ((1, "route"), (2, "site"), (4, "method")):
        value = concepts.concept(conv, rxr, number)
        if value is not None:
            target[concept] = value


def _amounts(conv: Conversion, segment: Segment, at: Fields) -> Json:
    made: Json = {}
    units = segment.take(at.units) if at.units else ""
    low = measured(conv, segment.take(at.low), units) if at.low and segment.peek(at.low) else None
    high = measured(conv, segment.take(at.high), units) if at.high and segment.peek(at.high) else None
    if low is not None and high is not None and high["value"] != low["value"]:
        made["doseRange"] = {"low": low, "high": high}
    elif low is not None or high is not None:
        made["doseQuantity"] = low or high
    if at.rate and segment.peek(at.rate):
        rate = measured(conv, segment.take(at.rate), segment.take(at.rate_units))
        if rate is not None:
            made["rateQuantity"] = rate
    elif at.per and segment.peek(at.per) and "doseQuantity" in made:
        _per_time(conv, made, segment, at)
    if made:
        made["type"] = _ORDERED
    return made


def _per_time(conv: Conversion, made: Json, segment: Segment, at: Fields) -> None:
    """RXO-17, RXE-22: so much per S, M, H, D, W or L and a number (H1: each hour)."""
    raw = conv.text(segment.peek(at.per)).upper()
    unit = unit_of_time({"S": "s", "M": "min", "H": "h", "D": "d", "W": "wk", "L": "mo"}.get(raw[:1], ""))
    if not unit or not raw[1:].isdigit() or not int(raw[1:]):
        return  # it stays behind and is remarked on
    segment.take(at.per)
    period = {"value": Lexeme(str(int(raw[1:]))), "unit": unit, "system": UCUM, "code": unit}
    made["rateRatio"] = {"numerator": made["doseQuantity"], "denominator": period}


def _instructions(conv: Conversion, segment: Segment, at: Fields) -> str:
    found: list[str] = []
    for each in concepts.concepts(conv, segment, at.instructions) if at.instructions else ():
        own = each.get("coding", ({},))[0]
        found.append(each.get("text") or own.get("display") or own["code"])
    return "\n".join(found)


def _occasion(occasion: Occasions, shared: Json, amounts: Json) -> Json:
    own = dict(amounts)
    if occasion.quantity is not None and "doseQuantity" not in own and "doseRange" not in own:
        own = {"type": _ORDERED, **own, "doseQuantity": occasion.quantity}
    made = _joined(shared, own)
    if occasion.timing:
        made["timing"] = occasion.timing
    if occasion.as_needed:
        made["asNeededBoolean"] = True
    remarks = [{"text": text} for text in (occasion.condition,) if text]
    if remarks:
        made["additionalInstruction"] = remarks
    if occasion.text:
        made["text"] = "\n".join(filter(None, (made.get("text"), occasion.text)))
    return made


def _joined(shared: Json, amounts: Json) -> Json:
    made = dict(shared)
    if amounts:
        made["doseAndRate"] = [dict(amounts)]
    return made
