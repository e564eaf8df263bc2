"""When something is to be done (PIVL_TS, EIVL_TS, IVL_TS in effectiveTime) as Timing."""

from types import MappingProxyType

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.cda.datatypes import quantities, times
from fhir_adapters.cda.node import XSI_TYPE, child, said
from fhir_adapters.json_lexeme import from_source
from fhir_adapters.xml.tree import Element

# UCUM units of time -> http://hl7.org/fhir/ValueSet/units-of-time
_UNITS = MappingProxyType(
    {"s": "s", "min": "min", "h": "h", "d": "d", "wk": "wk", "mo": "mo", "a": "a"}
    | {"天": "d", "日": "d", "小时": "h", "周": "wk", "月": "mo", "分钟": "min"}
)
# V3 TimingEvent codes that FHIR's event-timing has too
_EVENTS = frozenset(["HS", "WAKE", "C", "CM", "CD", "CV", "AC", "ACM", "ACD", "ACV", "PC", "PCM", "PCD", "PCV"])
_MINUTES = MappingProxyType({"s": 0, "min": 1, "h": 60, "d": 1440})


def timing(conv: Conversion, elements: list[Element]) -> tuple[Json, Json]:
    """The Timing and the Period that several effectiveTime elements say; {} for what they do not.

    The IVL_TS is the time over which it was or is to be done, PIVL_TS and EIVL_TS say how often within it.
    """
    repeat: Json = {}
    events: list[str] = []
    when: Json = {}
    for el in elements:
        kind = el.get(XSI_TYPE, "").rpartition(":")[2]
        if kind == "PIVL_TS":
            _periodic(conv, repeat, el)
        elif kind == "EIVL_TS":
            _event_related(conv, repeat, el)
        elif el.get("value") and kind != "IVL_TS":
            moment = times.read(conv, el)
            if moment:
                events.append(moment)
        else:
            found = times.period(conv, el)
            if found and when:
                conv.not_mapped(el)
            when = when or found
    made: Json = {}
    if events and not when and not repeat and len(events) == 1:
        when = {"start": events[0], "end": events[0]}
    elif events:
        made["event"] = events
    if repeat:
        made["repeat"] = repeat
    return made, when


def _periodic(conv: Conversion, repeat: Json, el: Element) -> None:
    period = child(el, "period")
    if period is not None:
        _every(conv, repeat, period, el)
    phase = child(el, "phase")
    if phase is not None and said(phase):
        width = child(phase, "width")
        number = from_source(width.get("value", "")) if width is not None else None
        unit = _UNITS.get(width.get("unit", "")) if width is not None else None
        if number is not None and unit:
            repeat["duration"], repeat["durationUnit"] = number, unit
        else:
            conv.not_mapped(phase)
    frequency = child(el, "frequency")  # R2 data types, seen in the wild
    if frequency is not None and said(frequency):
        conv.not_mapped(frequency)


def _every(conv: Conversion, repeat: Json, period: Element, el: Element) -> None:
    low, high = child(period, "low"), child(period, "high")
    first = low if low is not None else period
    number = from_source(first.get("value", ""))
    unit = _UNITS.get(first.get("unit", "").strip())
    if number is None or unit is None or number < 0:
        if said(period):
            conv.not_mapped(period)
        return
    if "period" in repeat:
        conv.not_mapped(el)
        return
    repeat["frequency"] = 1
    repeat["period"] = number
    if high is not None:
        most = from_source(high.get("value", ""))
        if most is not None and _UNITS.get(high.get("unit", "").strip()) == unit and most >= number:
            repeat["periodMax"] = most
        elif said(high):
            conv.not_mapped(high)
    repeat["periodUnit"] = unit


def _event_related(conv: Conversion, repeat: Json, el: Element) -> None:
    event = child(el, "event")
    code = event.get("code", "") if event is not None else ""
    if code not in _EVENTS:
        if said(el):
            conv.not_mapped(el)
        return
    repeat.setdefault("when", []).append(code)
    offset = child(el, "offset")
    if offset is None or not said(offset):
        return
    bound = child(offset, "low")
    bound = bound if bound is not None else offset
    number = from_source(bound.get("value", ""))
    scale = _MINUTES.get(bound.get("unit", ""))
    if number is None or not scale or number < 0:
        conv.not_mapped(offset)
    elif code not in ("C", "CM", "CD", "CV"):  # tim-9: an offset goes with before and after, not with a meal itself
        repeat["offset"] = int(number * scale)


def quantity_per_time(conv: Conversion, el: Element) -> Json:
    """A SimpleQuantity for doses and rates: PQ, or the one value of an IVL_PQ; {} when it says none."""
    if el.get("value"):
        return quantities.quantity(conv, el)
    low, high = quantities.bounds(conv, el)
    return low or high
