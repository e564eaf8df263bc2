"""Places in the order in which a view is read: a watermark and the key of the last row there.

A place is kept as text and must come back as the type that the driver gave, for the next comparison with the column.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from bridge.errors import IngestError
from bridge.storage.watermarks import Watermark

MAX_KEY_CHARACTERS = 400  # the column that keeps it

#: how Chinese HIS write times in text columns, each of a fixed length so that their order is the order of time
TEXT_FORMS = (
    ("%Y%m%d%H:%M:%S", 16), ("%Y%m%d%H%M%S", 14), ("%Y-%m-%d %H:%M:%S", 19), ("%Y-%m-%dT%H:%M:%S", 19),
    ("%Y/%m/%d %H:%M:%S", 19), ("%Y.%m.%d %H:%M:%S", 19), ("%Y%m%d %H:%M:%S", 17), ("%Y-%m-%d %H:%M", 16),
    ("%Y/%m/%d %H:%M", 16), ("%Y%m%d%H%M", 12), ("%Y-%m-%d", 10), ("%Y/%m/%d", 10), ("%Y%m%d", 8),
)  # fmt: skip
_DAY_FORMS = frozenset({"%Y-%m-%d", "%Y/%m/%d", "%Y%m%d"})


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a query's order. ``key`` None: before every row of that watermark."""

    watermark: Any
    key: tuple[Any, ...] | None = None


def kept_place(place: Place, moved: int, caught_up: bool) -> Watermark:
    """Return a place as the database keeps it. Raises ``IngestError`` for a key that is too long to keep."""
    key = json.dumps([_dumped(each) for each in place.key or ()], ensure_ascii=False)
    if len(key) > MAX_KEY_CHARACTERS:
        raise IngestError("a row's key is longer than this node can remember / 行主键过长")
    return Watermark(json.dumps(_dumped(place.watermark), ensure_ascii=False), key, moved, caught_up)


def place_of(mark: Watermark) -> Place:
    """Return the place that a watermark keeps."""
    key = tuple(_loaded(each) for each in json.loads(mark.row_key)) if mark.row_key else ()
    return Place(_loaded(json.loads(mark.position)), key or None)


def is_beyond(place: Place, reached: Place | None) -> bool:
    """Whether a place comes after another one; so it does when they do not compare (the driver's type changed)."""
    if reached is None:
        return True
    with suppress(TypeError):
        return bool((place.watermark, place.key or ()) > (reached.watermark, reached.key or ()))
    return True


def earlier(value: Any, amount: float) -> Any:
    """Return a watermark ``amount`` seconds earlier (numbers: that much smaller), in the form it has; None for none."""
    back = timedelta(seconds=amount)
    with suppress(ValueError, ArithmeticError):
        if isinstance(value, datetime):
            return value - back
        if isinstance(value, date):
            return value - max(back, timedelta(days=1))
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value - type(value)(amount)
        if isinstance(value, Decimal):
            return value - Decimal(int(amount))
        if isinstance(value, bytes):  # SQL Server's rowversion: a counter, big-endian
            return max(0, int.from_bytes(value, "big") - int(amount)).to_bytes(len(value), "big")
        if isinstance(value, str):
            return _earlier_text(value, back)
    return None


def _earlier_text(value: str, back: timedelta) -> str | None:
    text = value.strip()
    for form, length in TEXT_FORMS:
        if len(text) == length:
            with suppress(ValueError):
                moment = datetime.strptime(text, form)  # noqa: DTZ007 - the source's own clock, never compared with ours
                return (moment - (max(back, timedelta(days=1)) if form in _DAY_FORMS else back)).strftime(form)
    with suppress(ValueError):
        moment = datetime.fromisoformat(text) - back  # with fractions or an offset
        return moment.isoformat(sep="T" if "T" in text else " ", timespec="auto")
    return None


def moment_of(value: Any, zone: ZoneInfo) -> float | None:
    """Return the Unix time of a watermark whose form says a point in time; None for others (counters)."""
    found = value
    if isinstance(value, str):
        found = None
        text = value.strip()
        for form, length in TEXT_FORMS:
            if len(text) == length:
                with suppress(ValueError):
                    found = datetime.strptime(text, form)  # noqa: DTZ007 - its zone is put in below
                    break
        if found is None:
            with suppress(ValueError):
                found = datetime.fromisoformat(text)
    if isinstance(found, datetime):
        with suppress(OverflowError, ValueError):
            return (found if found.tzinfo else found.replace(tzinfo=zone)).timestamp()
    elif isinstance(found, date):
        return datetime(found.year, found.month, found.day, tzinfo=zone).timestamp()
    return None


def _dumped(value: Any) -> list[Any]:
    if isinstance(value, datetime):
        return ["datetime", value.isoformat()]
    if isinstance(value, date):
        return ["date", value.isoformat()]
    if isinstance(value, Decimal):
        return ["decimal", str(value)]
    if isinstance(value, bytes | bytearray | memoryview):
        return ["bytes", bytes(value).hex()]
    if isinstance(value, int | float):
        return ["number", value]
    return ["text", str(value)]


def _loaded(kept: list[Any]) -> Any:
    kind, value = kept
    if kind == "datetime":
        return datetime.fromisoformat(value)
    if kind == "date":
        return date.fromisoformat(value)
    if kind == "decimal":
        return Decimal(value)
    return bytes.fromhex(value) if kind == "bytes" else value
