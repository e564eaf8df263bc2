"""HL7 timestamps (TS, DTM, DT, TM: 2.A.20-22, 2.A.75) as FHIR dateTime, date, instant and time.

Precision is kept as sent, the offset too; a time without one gets the site's zone, because FHIR wants an offset with a
time. A value that is not a date is not guessed: it stays as text in an extension beside the empty element.
"""

import re
from functools import lru_cache

from fhir_adapters import date_time
from fhir_adapters.hl7v2.context import Conversion, Json, add_extension, keep_original
from fhir_adapters.hl7v2.message import Segment

_TIMESTAMP = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,9}))?)?)?)?)?)?([+-]\d{4})?", re.ASCII
)
# What vendors send instead: 2024-01-31, 2024/1/31 8:05, 2024-01-31T08:05:09.5+08:00
_VENDOR = re.compile(
    r"(\d{4})[-/.](\d{1,2})(?:[-/.](\d{1,2})(?:[T ]+(\d{1,2}):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?)?"
    r"(Z|[+-]\d\d:?\d\d)?",
    re.ASCII,
)
_MILLISECONDS = re.compile(
    r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d{1,3})([+-]\d{4})?", re.ASCII
)  # the point left out
_TIME = re.compile(r"(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,9}))?)?)?([+-]\d{4})?", re.ASCII)

CACHED = 4096
"""Timestamps kept parsed: the times of one report repeat in each of its segments."""

_NOT_A_DATE = "not a date or time; kept as text"


@lru_cache(maxsize=CACHED)
def parse(raw: str, time_zone: str) -> tuple[str, str] | None:
    """FHIR dateTime of an HL7 timestamp and a remark on it ("" for none); None when it is not one.

    The remark is ``hour`` (minutes had to be added, FHIR knows no hour precision) or ``form`` (not HL7's notation).
    """
    match = _TIMESTAMP.fullmatch(raw)
    remark = ""
    if match is None:
        match = _VENDOR.fullmatch(raw) or _MILLISECONDS.fullmatch(raw)
        if match is None:
            return None
        remark = "form"
    value = date_time.from_parts(match.groups(), time_zone)
    if value is None:
        return None
    hour, minute = match[4], match[5]
    return value, "hour" if hour and not minute else remark


def read(conv: Conversion, raw: str, segment: Segment, number: int) -> str | None:
    """FHIR dateTime of a raw component, with the remarks it deserves; None (and an issue) when it is no date."""
    parsed = parse(raw, conv.time_zone)
    if parsed is None:
        conv.issue("warning", "bad-value", segment, number, _NOT_A_DATE)
        return None
    value, remark = parsed
    if remark:
        text = "minutes were added to a time in hours" if remark == "hour" else "not in HL7 notation, read as a date"
        conv.issue("information", "timestamp-form", segment, number, text)
    return value


def put_date_time(conv: Conversion, target: Json, element: str, segment: Segment, number: int) -> str | None:
    """Take a field as ``target[element]`` of type dateTime; what is no date is kept as text beside it."""
    if not segment.fields[number]:
        return None
    raw = segment.take(number)
    if not raw:
        return None
    return put_raw(conv, target, element, raw, segment, number)


def put_raw(conv: Conversion, target: Json, element: str, raw: str, segment: Segment, number: int) -> str | None:
    """As ``put_date_time`` for text already taken; components after the first (degree of precision) are remarked on."""
    if "^" in raw:
        parts = raw.split("^")
        conv.leftover(parts, 1, segment, number)
        raw = parts[0]
    raw = raw.strip()
    if not raw or raw == '""':
        return None
    value = read(conv, raw, segment, number)
    if value is None:
        keep_original(target, element, conv.text(raw))
    else:
        target[element] = value
    return value


def put_instant(conv: Conversion, target: Json, element: str, segment: Segment, number: int) -> str | None:
    """As ``put_date_time`` for an element of type instant: less than a time of day is kept as text."""
    raw = segment.take(number)
    if not raw:
        return None
    value = put_raw(conv, target, element, raw, segment, number)
    if value is not None and len(value) <= 10:
        del target[element]
        keep_original(target, element, value, "unknown")
        text = "a date without a time of day cannot be an instant; kept as text"
        conv.issue("information", "precision", segment, number, text)
        return None
    return value


def put_extension(conv: Conversion, target: Json, url: str, segment: Segment, number: int) -> None:
    """Take a field as an extension of type dateTime; what is no date stays as an original text beside it."""
    holder: Json = {}
    if put_date_time(conv, holder, "valueDateTime", segment, number):
        add_extension(target, url, "valueDateTime", holder["valueDateTime"])
    elif holder:
        target.setdefault("extension", []).extend(holder["_valueDateTime"]["extension"][1:])


def put_period(conv: Conversion, target: Json, element: str, raw: str, segment: Segment, number: int) -> None:
    """Take a DR component pair (start^end) as ``target[element]`` of type Period."""
    start, end, *_ = [*raw.split("^"), ""]
    period: Json = {}
    put_raw(conv, period, "start", start, segment, number)
    put_raw(conv, period, "end", end, segment, number)
    if period:
        target[element] = period
        check_period(conv, period, segment, number)


def check_period(conv: Conversion, period: Json, segment: Segment, number: int) -> None:
    """FHIR per-1: start is not after end. A period that breaks it keeps its end as text."""
    start, end = period.get("start"), period.get("end")
    if start and end and date_time.is_later(start, end):
        del period["end"]
        keep_original(period, "end", end)
        conv.issue("warning", "bad-value", segment, number, "the period ends before it begins; its end is kept as text")


def read_time(raw: str) -> tuple[str, bool] | None:
    """FHIR time of a TM, and whether it had an offset (which FHIR times have not); None when it is not a time."""
    match = _TIME.fullmatch(raw)
    if match is None:
        return None
    hour, minute, second, fraction, offset = match.groups()
    if int(hour) > 23 or int(minute or 0) > 59 or int(second or 0) > 59:
        return None
    text = f"{hour}:{minute or '00'}:{second or '00'}"
    return (f"{text}.{fraction}" if fraction else text), offset is not None
