"""Times as Chinese HIS write them, to FHIR date and dateTime.

Taken: date and datetime objects; ``yyyymmdd``, ``yyyymmddhh:mm:ss`` (char(16), 卫宁), ``yyyymmddhhmm[ss]``,
``yyyy-mm-dd[ hh:mm[:ss[.fff]]]`` and the same with ``/`` or ``.``, ISO 8601 with a zone, ``yyyy年m月d日``, ``yyyy-mm``,
``yyyy``. A time without an offset is local to the profile's time zone.
"""

import re
from datetime import date, datetime, time, timedelta, timezone
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

_PATTERN = re.compile(
    r"(?P<year>[0-9]{4})"
    r"(?:(?P<sep>[-/.年]|)(?P<month>[0-9]{1,2})(?:月)?"
    r"(?:(?:(?P=sep)|(?<=月))(?P<day>[0-9]{1,2})日?"
    r"(?:[ T]*(?P<hour>[0-9]{1,2})[:时]?(?P<minute>[0-9]{2})"
    r"(?:[:分]?(?P<second>[0-9]{2})(?:秒|[.,](?P<fraction>[0-9]{1,9}))?)?)?"
    r")?)?\s*(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?",
    re.ASCII,
)
_COMPACT = frozenset((4, 6, 8, 12, 14))
"""Numbers of digits that are a time without separators: yyyy, yyyymm, yyyymmdd, then hhmm, then ss."""

MAX_TIME_CHARS = 40
"""Longest text looked at, in characters."""


def to_date(value: Any) -> str | None:
    """FHIR date (YYYY, YYYY-MM or YYYY-MM-DD) of a cell, None when it is none. A time of day is left off."""
    if isinstance(value, datetime | date):
        return f"{value.year:04d}-{value.month:02d}-{value.day:02d}"
    read = _read(str(value))
    return None if read is None else read[0]


def to_datetime(value: Any, zone: ZoneInfo) -> str | None:
    """FHIR dateTime of a cell, with an offset when it has a time of day; None when it is not a time."""
    if isinstance(value, datetime):
        return _with_offset(value, zone)
    if isinstance(value, date):
        return value.isoformat()
    read = _read(str(value))
    if read is None:
        return None
    day, clock, fraction, offset = read
    if clock is None:
        return day
    moment = datetime.combine(date.fromisoformat(day), clock)
    if offset is not None:
        moment = moment.replace(tzinfo=timezone(offset))
    return _with_offset(moment, zone, fraction)


def to_instant(value: Any, zone: ZoneInfo) -> str | None:
    """FHIR instant of a cell, a date alone being its first moment; None when it is not told to the day."""
    text = to_datetime(value, zone)
    if text is None or "T" in text:
        return text
    return _with_offset(datetime.combine(date.fromisoformat(text), time()), zone) if len(text) == 10 else None


@lru_cache(maxsize=4096)
def _read(text: str) -> tuple[str, time | None, str, timedelta | None] | None:
    """(date text, time of day, fraction, offset) of a text, None when it is not a time that the calendar has."""
    text = text.strip()
    if len(text) > MAX_TIME_CHARS or (text.isdigit() and len(text) not in _COMPACT):
        return None
    match = _PATTERN.fullmatch(text)
    if match is None or (match["zone"] and match["hour"] is None):
        return None
    try:
        return _parts(match)
    except ValueError:
        return None


def _parts(match: re.Match[str]) -> tuple[str, time | None, str, timedelta | None]:
    year, month, day = match["year"], match["month"], match["day"]
    if day is None:
        checked = date(int(year), int(month or 1), 1)
        return (f"{checked.year:04d}-{checked.month:02d}" if month else f"{checked.year:04d}"), None, "", None
    checked = date(int(year), int(month), int(day))
    if match["hour"] is None:
        return checked.isoformat(), None, "", None
    clock = time(int(match["hour"]), int(match["minute"]), int(match["second"] or 0))
    # ".000" is how a database writes a time that was kept to the second.
    fraction = match["fraction"] or ""
    return checked.isoformat(), clock, fraction if fraction.strip("0") else "", _offset(match["zone"])


def _offset(zone: str | None) -> timedelta | None:
    if not zone:
        return None
    if zone == "Z":
        return timedelta()
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    if hours > 14 or minutes > 59 or (hours == 14 and minutes):
        raise ValueError("no such offset")
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if zone[0] == "-" else offset


def _with_offset(moment: datetime, zone: ZoneInfo, fraction: str = "") -> str | None:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    offset = moment.utcoffset()
    if offset is None:
        return None
    # Before 1901 China kept local mean time (+08:05:43); FHIR offsets have whole minutes.
    minutes = int(offset.total_seconds() // 60)
    sign = "-" if minutes < 0 else "+"
    hours, rest = divmod(abs(minutes), 60)
    if moment.microsecond and not fraction:
        fraction = f"{moment.microsecond:06d}".rstrip("0")
    tail = f".{fraction}" if fraction else ""
    return f"{moment:%H:%M:%S}".join((f"{moment.year:04d}-{moment:%m-%d}T", f"{tail}{sign}{hours:02d}:{rest:02d}"))
