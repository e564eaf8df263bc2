"""Points in time and intervals (TS, IVL_TS: HL7 V3 data types R1) as FHIR dateTime, instant and Period.

Precision is kept as sent, the offset too; a time without one gets the site's zone, because FHIR wants an offset with a
time. What is no time stays as text in an extension beside the empty element, and is remarked on.
"""

import re
from functools import lru_cache

from fhir_adapters import date_time
from fhir_adapters.cda.context import Conversion, Json, absent
from fhir_adapters.cda.datatypes.nulls import reason_of
from fhir_adapters.cda.node import child
from fhir_adapters.xml.tree import Element

CACHED = 4096
"""Times kept parsed: those of one document repeat in each of its entries."""

_TIMESTAMP = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,9})\d*)?)?)?)?)?)?([+-]\d{4}|Z)?", re.ASCII
)
# What vendors send instead: 2024-01-31, 2024/1/31 8:05, 2024-01-31T08:05:09.5+08:00
_VENDOR = re.compile(
    r"(\d{4})[-/.](\d{1,2})(?:[-/.](\d{1,2})(?:[T ]+(\d{1,2}):(\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?)?)?"
    r"(Z|[+-]\d\d:?\d\d)?",
    re.ASCII,
)
_NOT_A_TIME = "not a date or time; kept as text"


@lru_cache(maxsize=CACHED)
def parse(raw: str, time_zone: str) -> str | None:
    """FHIR dateTime of a TS value; None when it is none. Hours without minutes get ``:00``."""
    match = _TIMESTAMP.fullmatch(raw) or _VENDOR.fullmatch(raw)
    if match is None:
        return None
    return date_time.from_parts(match.groups(), time_zone)


def read(conv: Conversion, el: Element | None) -> str:
    """FHIR dateTime of a TS element's value; "" when there is none, with an issue when it is not a time."""
    if el is None:
        return ""
    raw = el.get("value", "").strip()
    if not raw:
        return ""
    value = parse(raw, conv.profile.time_zone)
    if value is None:
        conv.issue("warning", "bad-value", el, _NOT_A_TIME)
        return ""
    return value


def put(conv: Conversion, target: Json, element: str, el: Element | None) -> str:
    """Set ``target[element]`` of type dateTime from a TS (or the low or centre of an IVL_TS); returns it or ""."""
    if el is None:
        return ""
    source = el if el.get("value") else _bound_of(el)
    value = read(conv, source)
    if value:
        target[element] = value
    elif source.get("value", "").strip():
        target["_" + element] = absent("error", source.get("value", "").strip())
    return value


def _bound_of(el: Element) -> Element:
    """The low, centre or high of an IVL_TS, whichever says something first; the element itself when none does."""
    bounds = (child(el, name) for name in ("low", "center", "high"))
    return next((each for each in bounds if each is not None and each.get("value")), el)


def put_date(conv: Conversion, target: Json, element: str, el: Element | None) -> str:
    """As ``put`` for an element of type date: a time of day is left off. Returns the full value."""
    value = put(conv, target, element, el)
    if value:
        target[element] = value[:10]
    return value


def instant(value: str) -> str:
    """A dateTime as an instant, "" when it is not told to the second with an offset."""
    return value if len(value) > 10 else ""


def period(conv: Conversion, el: Element) -> Json:
    """The Period of an IVL_TS: its low and high; a single value is both. {} when it says nothing."""
    value = read(conv, el)
    if value:
        return {"start": value, "end": value}
    found: Json = {}
    for name, element in (("low", "start"), ("high", "end")):
        bound = child(el, name)
        if bound is not None:
            text = read(conv, bound)
            if text:
                found[element] = text
            elif bound.get("value", "").strip():
                found["_" + element] = absent("error", bound.get("value", "").strip())
    centre = child(el, "center")
    if centre is not None and not found:
        text = read(conv, centre)
        if text:
            return {"start": text, "end": text}
    width = child(el, "width")
    if width is not None:
        conv.not_mapped(width)
    return checked(conv, found, el)


def checked(conv: Conversion, found: Json, place: Element) -> Json:
    """FHIR per-1: start is not after end. A Period that breaks it keeps its end as text."""
    start, end = found.get("start"), found.get("end")
    if start and end and date_time.is_later(start, end):
        del found["end"]
        found["_end"] = absent("error", end)
        conv.issue("warning", "bad-value", place, "the period ends before it begins; its end is kept as text")
    return found


def put_moment_or_period(conv: Conversion, target: Json, stem: str, el: Element | None) -> None:
    """Set ``<stem>DateTime`` or ``<stem>Period`` from an effectiveTime, whichever it says."""
    if el is None:
        return
    raw = el.get("value", "").strip()
    if raw:
        put(conv, target, stem + "DateTime", el)
        return
    if len(el) == 0:
        reason = reason_of(el)
        if reason:
            target[f"_{stem}DateTime"] = absent(reason)
        return
    found = period(conv, el)
    if not found:
        return
    start, end = found.get("start"), found.get("end")
    if start and start == end:
        target[stem + "DateTime"] = start
    else:
        target[stem + "Period"] = found
