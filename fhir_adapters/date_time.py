"""FHIR dateTimes of what sources write (FHIR R4 data type dateTime), whatever their notation.

Precision is kept as sent, the offset too; a time without one gets the site's zone, because FHIR wants an offset with a
time.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

_OFFSET = re.compile(r"[+-](?:0\d|1[0-3]):[0-5]\d|[+-]14:00", re.ASCII)


def from_parts(parts: Sequence[str | None], time_zone: str) -> str | None:
    """The dateTime of year, month, day, hour, minute, second, fraction and offset; None when there is no such time.

    A part is digits, or None where it and all after it are unsaid; the offset is ``Z``, ``+hhmm`` or ``+hh:mm``. Hours
    without minutes get ``:00``.
    """
    year, month, day, hour, minute, second, fraction, offset = parts
    try:
        moment = datetime(  # noqa: DTZ001 - local time; its offset follows
            int(year or 0), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0)
        )
    except ValueError:
        return None
    text = moment.isoformat()
    if day is None:
        return text[:7] if month else text[:4]
    if hour is None:
        return text[:10]
    zone = _offset(moment, offset, time_zone)
    if not _OFFSET.fullmatch(zone):
        return None
    return f"{text}.{fraction}{zone}" if fraction else text + zone


def _offset(moment: datetime, offset: str | None, time_zone: str) -> str:
    if offset == "Z":
        return "+00:00"
    if offset:
        return offset if ":" in offset else f"{offset[:3]}:{offset[3:]}"
    # Offsets of the 19th century have seconds, which FHIR does not write.
    return moment.replace(tzinfo=ZoneInfo(time_zone)).isoformat()[19:25]


def is_later(start: str, end: str) -> bool:
    """Whether a dateTime is after another, at the precision that both have (FHIR per-1 forbids it of a Period)."""
    if len(start) <= 10 or len(end) <= 10:
        shorter = min(len(start), len(end), 10)
        return start[:shorter] > end[:shorter]
    return datetime.fromisoformat(start) > datetime.fromisoformat(end)
