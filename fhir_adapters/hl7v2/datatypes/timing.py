"""How often and how long (TQ, RPT: 2.A.83, 2.A.65; segment TQ1) as Timing.

Guide: TQ1[ServiceRequest], TQ1[MedicationRequest], RPT[Timing], TQ[ServiceRequest]. The repeat pattern stays as sent in
``Timing.code``; where it is one of HL7 table 0335 it is also a frequency that a program can compute with.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import concepts, timestamps
from fhir_adapters.hl7v2.datatypes.quantities import MAX_UNSIGNED, composite, whole_number
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.json_lexeme import Lexeme
from fhir_adapters.units import UCUM

_GTS = "http://terminology.hl7.org/CodeSystem/v3-GTSAbbreviation"
_DAY = {"period": 1, "periodUnit": "d"}
_NAMED: MappingProxyType[str, Json] = MappingProxyType(
    {
        "ONCE": {"count": 1},
        "ST": {"count": 1},
        "QD": {"frequency": 1, **_DAY},
        "DAILY": {"frequency": 1, **_DAY},
        "BID": {"frequency": 2, **_DAY},
        "TID": {"frequency": 3, **_DAY},
        "QID": {"frequency": 4, **_DAY},
        "QOD": {"frequency": 1, "period": 2, "periodUnit": "d"},
        "QAM": {"frequency": 1, **_DAY, "when": ["MORN"]},
        "QPM": {"frequency": 1, **_DAY, "when": ["EVE"]},
        "QN": {"frequency": 1, **_DAY, "when": ["NIGHT"]},
        "QHS": {"frequency": 1, **_DAY, "when": ["HS"]},
        "HS": {"when": ["HS"]},
        "QSHIFT": {"frequency": 1, "period": 8, "periodUnit": "h"},
        "QW": {"frequency": 1, "period": 1, "periodUnit": "wk"},
        **{
            when: {"when": [when]}
            for when in ("AC", "ACM", "ACD", "ACV", "PC", "PCM", "PCD", "PCV", "C", "CM", "CD", "CV")
        },
    }
)
_ABBREVIATIONS = {
    "QD": "every day",
    "BID": "two times a day",
    "TID": "three times a day",
    "QID": "four times a day",
    "QOD": "every other day",
    "Q1H": "every hour",
    "Q2H": "every 2 hours",
    "Q3H": "every 3 hours",
    "Q4H": "every 4 hours",
    "Q6H": "every 6 hours",
    "Q8H": "every 8 hours",
}
_EVERY = re.compile(r"Q(\d{1,4})(S|M|H|D|W|L)")
_TIMES_A_DAY = re.compile(r"(\d{1,2})ID")
_WEEKDAYS = re.compile(r"Q(\d{0,3})J([1-7]{1,7})")
_PERIOD_UNITS = {"S": "s", "M": "min", "H": "h", "D": "d", "W": "wk", "L": "mo"}
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")  # table 0335: 1 is Monday
_DURATION = re.compile(r"([SMHDWL])(\d{1,5})")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "wk": 604_800}
_UNIT_NAMES = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "m", "mn", "minute", "minutes", "分", "分钟"), "min"),
    **dict.fromkeys(("h", "hr", "hour", "hours", "小时", "时"), "h"),
    **dict.fromkeys(("d", "day", "days", "天", "日"), "d"),
    **dict.fromkeys(("wk", "w", "week", "weeks", "周"), "wk"),
    **dict.fromkeys(("mo", "mon", "month", "months", "l", "月"), "mo"),
    **dict.fromkeys(("a", "ann", "y", "yr", "year", "years", "年"), "a"),
}


@dataclass(slots=True)
class Occasions:
    """What TQ1 or TQ says: when and how often, how much each time, how urgently, on what condition."""

    timing: Json = field(default_factory=dict)
    quantity: Json | None = None
    priority: str = ""
    as_needed: bool = False
    condition: str = ""
    text: str = ""

    @property
    def repeat(self) -> Json:
        """``Timing.repeat``, made when it is first asked for."""
        made: Json = self.timing.setdefault("repeat", {})
        return made


def unit_of_time(text: str) -> str:
    """The UCUM code of a unit of time as written; "" when it is none."""
    return _UNIT_NAMES.get(text.strip().lower(), "")


def minutes(amount: int, unit: str) -> int | None:
    """An amount of a unit of time (seconds to weeks) in whole minutes; None when it is not that."""
    if unit and unit_of_time(unit) == "s":
        return amount // 60 if amount > 0 and amount % 60 == 0 else None
    factor = {"min": 1, "h": 60, "d": 1440, "wk": 10080}.get(unit_of_time(unit) if unit else "min")
    return amount * factor if factor and 0 < amount * factor <= MAX_UNSIGNED else None


def from_segment(conv: Conversion, tq1: Segment) -> Occasions:
    """Read a TQ1."""
    made = Occasions()
    tq1.take(1)
    made.quantity = composite(conv, tq1.take(2)) if tq1.peek(2) else None
    for raw in tq1.take(3).split("~") if tq1.peek(3) else ():
        _pattern(conv, made, raw, tq1, 3)
    if tq1.peek(4):
        _times_of_day(made, tq1)
    _offset(conv, made, tq1)
    _bounds(conv, made, tq1, (6, 7, 8))
    if tq1.peek(9):
        found, _ = concepts.mapped(conv, "priority", tq1, 9)
        made.priority = found.code if found is not None else ""
    made.condition = conv.text(tq1.take(10))
    made.text = conv.text(tq1.take(11))
    tq1.take(12)  # how it joins the next TQ1: S, A or C; their order stays
    _occurrence(conv, made, tq1, (13, 14))
    _tidy(made)
    return made


def from_field(conv: Conversion, segment: Segment, number: int) -> Occasions | None:
    """Take a field of TQ (ORC-7, OBR-27, RXE-1: before v2.5); None when it is empty. One repetition is read."""
    raw = segment.take(number)
    if not raw:
        return None
    first, *more = raw.split("~")
    if any(more):
        conv.issue("information", "not-mapped", segment, number, "only the first repetition has a place")
    parts = [*first.split("^"), *[""] * 12][:12]
    made = Occasions()
    made.quantity = composite(conv, parts[0].replace("&", "^")) if parts[0] else None
    if parts[1]:
        _pattern(conv, made, parts[1], segment, number)
    period: Json = {}
    for index, element in ((3, "start"), (4, "end")):
        if parts[index]:
            timestamps.put_raw(conv, period, element, parts[index], segment, number)
    if period:
        timestamps.check_period(conv, period, segment, number)
        made.repeat["boundsPeriod"] = period
    _old_duration(conv, made, parts[2], segment, number)
    if parts[5]:
        found = conv.find("priority", conv.text(parts[5]))
        if found is None:
            conv.unmapped_code("priority", segment, number)
        made.priority = found.code if found is not None else ""
        made.as_needed = made.as_needed or parts[5].startswith("PRN")
    made.condition, made.text = conv.text(parts[6]), conv.text(parts[7])
    _count(conv, made, parts[11])
    for index in (8, 9, 10):
        if parts[index] and index != 8:
            conv.not_mapped(segment, number, index + 1)
    _tidy(made)
    return made


def _pattern(conv: Conversion, made: Occasions, raw: str, segment: Segment, number: int) -> None:
    """RPT, or the RI of earlier versions: a code of table 0335, or amount and units of a period."""
    parts = [*raw.split("^"), *[""] * 11][:11]
    code_parts = parts[0].split("&")
    code = conv.text(code_parts[0])
    title = conv.text(code_parts[1]) if len(code_parts) > 1 else ""
    if code:
        _name(made, code, title)
    meaning = _meaning(code.upper().replace(" ", "").rstrip("."))
    if code.upper().startswith("PRN"):
        made.as_needed = True
        meaning = meaning or _meaning(code[3:].upper())
    made.repeat.update(meaning)
    count = whole_number(conv, parts[4]) if parts[4] else None
    unit = unit_of_time(conv.text(parts[5]))
    if count and unit and not meaning:
        made.repeat.update(frequency=1, period=count, periodUnit=unit)
    event = conv.text(parts[7]).upper()
    if event in _NAMED and "when" in _NAMED[event]:
        made.repeat["when"] = _NAMED[event]["when"]
    offset = whole_number(conv, parts[8]) if parts[8] else None
    in_minutes = minutes(offset, conv.text(parts[9])) if offset else None
    if in_minutes is not None and "when" in made.repeat:
        made.repeat["offset"] = in_minutes
    carried = {0, 4, 5, 7, 8, 9} if meaning or unit or not parts[4] else {0, 7, 8, 9}
    for index, part in enumerate(parts):
        if part and index not in carried:
            conv.not_mapped(segment, number, index + 1)


def _name(made: Occasions, code: str, title: str) -> None:
    written = code.upper().replace(" ", "")
    if written in _ABBREVIATIONS:
        coding = {"system": _GTS, "code": written, "display": _ABBREVIATIONS[written]}
        made.timing["code"] = {"coding": [coding], "text": title or code}
    elif code and title and title != code:  # a local code stays beside its name
        made.timing["code"] = {"coding": [{"code": " ".join(code.split()), "display": title}], "text": title}
    else:
        made.timing["code"] = {"text": title or code}


def _meaning(code: str) -> Json:
    """What a repeat pattern means as parts of Timing.repeat; {} when it is local."""
    if code in _NAMED:
        return dict(_NAMED[code])
    every = _EVERY.fullmatch(code)
    if every is not None and int(every[1]):
        return {"frequency": 1, "period": int(every[1]), "periodUnit": _PERIOD_UNITS[every[2]]}
    daily = _TIMES_A_DAY.fullmatch(code)
    if daily is not None and int(daily[1]):
        return {"frequency": int(daily[1]), **_DAY}
    weekly = _WEEKDAYS.fullmatch(code)
    if weekly is not None:
        days = [_DAYS[int(digit) - 1] for digit in dict.fromkeys(weekly[2])]
        return {"dayOfWeek": days, "period": int(weekly[1] or 1) or 1, "periodUnit": "wk", "frequency": 1}
    return {}


def _times_of_day(made: Occasions, tq1: Segment) -> None:
    parsed = [timestamps.read_time(each.replace(":", "").strip()) for each in tq1.peek(4).split("~")]
    if all(each is not None for each in parsed):
        tq1.take(4)
        made.repeat["timeOfDay"] = [each[0] for each in parsed if each is not None]


def _offset(conv: Conversion, made: Occasions, tq1: Segment) -> None:
    """TQ1-5: so long before or after the event of TQ1-3.8."""
    amount, _, unit = tq1.peek(5).partition("^")
    count = whole_number(conv, amount) if amount else None
    in_minutes = minutes(count, conv.text(unit.split("&")[0])) if count else None
    if in_minutes is not None and "when" in made.timing.get("repeat", {}) and "offset" not in made.repeat:
        tq1.take(5)
        made.repeat["offset"] = in_minutes


def _bounds(conv: Conversion, made: Occasions, tq1: Segment, numbers: tuple[int, int, int]) -> None:
    """TQ1-7 and 8 bound it; TQ1-6, a duration, does where they do not."""
    duration, start, end = numbers
    period: Json = {}
    timestamps.put_date_time(conv, period, "start", tq1, start)
    timestamps.put_date_time(conv, period, "end", tq1, end)
    amount, _, unit = tq1.peek(duration).partition("^")
    lasting = _duration(conv, amount, conv.text(unit.split("&")[0])) if amount else None
    if period:
        timestamps.check_period(conv, period, tq1, end)
        made.repeat["boundsPeriod"] = period
        if lasting is not None and _end(period, lasting):
            tq1.take(duration)
    elif lasting is not None:
        tq1.take(duration)
        made.repeat["boundsDuration"] = lasting


def _end(period: Json, lasting: Json) -> bool:
    """Guide: a start and a duration make an end, where the duration is so many days, hours or parts of them."""
    start, factor = period.get("start", ""), _SECONDS.get(lasting["code"])
    if "end" in period or "_end" in period or len(start) <= 10 or factor is None or not 0 < lasting["value"] < 1e6:
        return False
    ends = datetime.fromisoformat(start) + timedelta(seconds=round(float(lasting["value"]) * factor))
    period["end"] = ends.isoformat()
    return True


def _duration(conv: Conversion, amount: str, unit: str) -> Json | None:
    code = unit_of_time(unit)
    made = composite(conv, amount)
    if made is None or not code:
        return None
    return {**made, "unit": unit, "system": UCUM, "code": code}


def _old_duration(conv: Conversion, made: Occasions, raw: str, segment: Segment, number: int) -> None:
    """TQ.3: S, M, H, D, W or L and a number, X and a number of times, INDEF."""
    text = conv.text(raw).upper()
    match = _DURATION.fullmatch(text)
    bounds = made.timing.get("repeat", {}).get("boundsPeriod")
    if match is not None and bounds is not None:
        lasting = {"value": Lexeme(str(int(match[2]))), "code": _PERIOD_UNITS[match[1]]}
        if not _end(bounds, lasting):
            conv.not_mapped(segment, number, 3)
    elif match is not None:
        unit = _PERIOD_UNITS[match[1]]
        made.repeat["boundsDuration"] = {
            "value": Lexeme(str(int(match[2]))),
            "unit": unit,
            "system": UCUM,
            "code": unit,
        }
    elif text.startswith("X") and text[1:].isdigit():
        _count(conv, made, text[1:])
    elif text and text != "INDEF":
        conv.not_mapped(segment, number, 3)


def _occurrence(conv: Conversion, made: Occasions, tq1: Segment, numbers: tuple[int, int]) -> None:
    """TQ1-13: how long each time takes; TQ1-14: how often in all."""
    amount, _, unit = tq1.peek(numbers[0]).partition("^")
    lasting = _duration(conv, amount, conv.text(unit.split("&")[0])) if amount else None
    if lasting is not None:
        tq1.take(numbers[0])
        made.repeat.update(duration=lasting["value"], durationUnit=lasting["code"])
    if tq1.peek(numbers[1]):
        _count(conv, made, tq1.take(numbers[1]))


def _count(conv: Conversion, made: Occasions, raw: str) -> None:
    count = whole_number(conv, raw) if raw else None
    if count:
        made.repeat["count"] = count


def _tidy(made: Occasions) -> None:
    """FHIR tim-1 to tim-10: units with their amounts, an offset only beside an event, no event beside times of day."""
    repeat = made.timing.get("repeat")
    if repeat is None:
        return
    when = repeat.get("when")
    if when and "timeOfDay" in repeat:
        del repeat["when"]
    if ("offset" in repeat and "when" not in repeat) or (when and set(when) & {"C", "CM", "CD", "CV"}):
        repeat.pop("offset", None)
    if not repeat:
        del made.timing["repeat"]
