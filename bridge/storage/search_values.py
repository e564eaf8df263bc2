"""What is indexed for a resource and asked by a query, before blinding: terms and date ranges.

Both sides build terms with the functions here, so that they cannot drift apart. A term is (field, value); the field
carries type, parameter and form, so that ``code`` and ``system|code``, say, are two fields of one parameter.
"""

from __future__ import annotations

import calendar
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from bridge.storage.search_parameters import SearchParameter, parameters_of

CIVIL_ZONE = ZoneInfo("Asia/Shanghai")
"""Zone of dates and times written without one, in resources and in queries: China has a single civil time."""

MAX_TERM_CHARACTERS = 400
"""Longer values (a pasted document in a name) are cut before hashing, on both sides alike."""

EARLIEST = -(2**62)
LATEST = 2**62
"""Bounds of an open period, in Unix milliseconds; far outside any date."""

FIRST_YEAR = 1850
LAST_YEAR = 2150
"""Years a range on a birth date is spread over."""

MAX_INSTANT_CHARACTERS = 40
"""No FHIR instant is longer; anything else is none."""

Term = tuple[str, str]


class Span(NamedTuple):
    """A half-open range of time in Unix milliseconds: from ``low`` up to and without ``high``."""

    low: int
    high: int


_INSTANT = re.compile(
    r"(?P<year>\d{4})(-(?P<month>\d\d)(-(?P<day>\d\d)"
    r"(T(?P<hour>\d\d):(?P<minute>\d\d)(:(?P<second>\d\d)(\.(?P<fraction>\d{1,9}))?)?"
    r"(?P<zone>Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_span(text: str) -> Span | None:
    """Return the range a FHIR date, dateTime, instant or partial date stands for, or None when it is none of these.

    The precision makes the range: "2026-05" is the whole month. Without a zone the civil zone is meant.
    """
    return _parsed_span(text) if len(text) <= MAX_INSTANT_CHARACTERS else None


@lru_cache(maxsize=4096)
def _parsed_span(text: str) -> Span | None:
    """One message says the same times over and over."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        return None
    try:
        return _span(match)
    except (ValueError, OverflowError):
        return None


def _span(match: re.Match[str]) -> Span:
    year, month, day = (int(match[name]) if match[name] else 0 for name in ("year", "month", "day"))
    if not month:
        return Span(_civil(year, 1, 1), _civil(year + 1, 1, 1))
    if not day:
        after = (year + 1, 1) if month == 12 else (year, month + 1)
        return Span(_civil(year, month, 1), _civil(*after, 1))
    start = datetime(year, month, day, tzinfo=CIVIL_ZONE)
    if not match["hour"]:
        return Span(_milliseconds(start), _milliseconds(start + timedelta(days=1)))
    second = int(match["second"] or 0)
    whole = start.replace(hour=int(match["hour"]), minute=int(match["minute"]), second=min(second, 59))
    zone = match["zone"]
    if zone:
        whole = whole.replace(tzinfo=UTC if zone == "Z" else datetime.fromisoformat(f"2000-01-01T00:00{zone}").tzinfo)
    low = _milliseconds(whole)
    if match["fraction"]:
        low += int(match["fraction"][:3].ljust(3, "0"))
        return Span(low, low + 10 ** max(0, 3 - len(match["fraction"])))
    return Span(low, low + (1000 if match["second"] else 60_000))


def _civil(year: int, month: int, day: int) -> int:
    return _milliseconds(datetime(year, month, day, tzinfo=CIVIL_ZONE))


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def normalised(text: str) -> str:
    """Return the form in which strings are compared: NFKC, case folded, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())[:MAX_TERM_CHARACTERS]


def token_terms(field: str, system: str | None, code: str | None) -> Iterator[Term]:
    """Give the terms of one coded value: by code alone, and by system and code ("" for a code without a system)."""
    if code:
        code = code[:MAX_TERM_CHARACTERS]
        yield f"{field}#code", code
        yield f"{field}#full", f"{system or ''}|{code}"


def reference_form(text: str) -> str:
    """Return a literal reference as it is indexed: without a version."""
    return text.split("/_history/", 1)[0][:MAX_TERM_CHARACTERS]


def birth_terms(field: str, value: str) -> Iterator[Term]:
    """Give the terms of a birth date: every period that contains it, and "~" with its own when that is partial."""
    parts = value.split("-")
    for end in range(1, len(parts) + 1):
        yield field, "-".join(parts[:end])
    if len(parts) < 3:
        yield field, "~" + value


def birth_range(prefix: str, value: str) -> list[str]:
    """Return the values of ``birth_terms`` that together mean ``prefix value``, for eq gt lt ge le sa eb.

    ``value`` is YYYY, YYYY-MM or YYYY-MM-DD. FHIR R4 3.1.1.4.5: gt and ge ask whether the range above the value
    overlaps the date's own range, so a partial date counts when only a part of it lies there; sa and eb need the whole.
    """
    if prefix == "eq":
        return [value]
    after = prefix in {"gt", "ge", "sa"}
    overlap = prefix in {"gt", "ge", "lt", "le"}
    parts = [int(part) for part in value.split("-")]
    year = parts[0]
    years = range(year + 1, LAST_YEAR + 1) if after else range(FIRST_YEAR, year)
    values = [f"{each:04d}" for each in years]
    if len(parts) > 1:
        month = parts[1]
        last = calendar.monthrange(year, month)[1]
        months = range(month + 1, 13) if after else range(1, month)
        values += [f"{year:04d}-{each:02d}" for each in months]
        day = (last if after else 1) if len(parts) == 2 else parts[2]
        if len(parts) == 3:
            days = range(day + 1, last + 1) if after else range(1, day)
            values += [f"{year:04d}-{month:02d}-{each:02d}" for each in days]
            if overlap and days:
                values.append(f"~{year:04d}-{month:02d}")
        beyond = (month, day) != (12, 31) if after else (month, day) != (1, 1)
        if overlap and beyond:
            values.append(f"~{year:04d}")
    return [*values, value] if prefix in {"ge", "le"} else values


@dataclass(frozen=True, slots=True)
class _Indexed:
    """A search parameter made ready for walking resources: its paths split, its term fields written out."""

    parameter: SearchParameter
    field: str
    paths: tuple[tuple[str, ...], ...]
    targets: frozenset[str]


@lru_cache(maxsize=256)
def _indexed(kind: str) -> tuple[tuple[_Indexed, ...], tuple[_Indexed, ...]]:
    """Return the parameters of a type that are terms, and those that are dates."""
    made = [
        _Indexed(
            each,
            f"{kind}.{each.name}",
            tuple(tuple(path.split(".")) for path in each.paths),
            frozenset(each.targets),
        )
        for each in parameters_of(kind).values()
    ]
    terms = tuple(each for each in made if each.parameter.kind != "date")
    return terms, tuple(each for each in made if each.parameter.kind == "date")


def _elements(resource: Mapping[str, Any], path: tuple[str, ...]) -> list[Any]:
    """Return every element at a path, through lists."""
    level: list[Any] = [resource]
    for name in path:
        deeper: list[Any] = []
        for node in level:
            found = node.get(name) if isinstance(node, dict) else None
            if isinstance(found, list):
                deeper += [each for each in found if each is not None]
            elif found is not None:
                deeper.append(found)
        if not deeper:
            return deeper
        level = deeper
    return level


def terms_of(resource: Mapping[str, Any]) -> set[Term]:
    """Return every term of a resource."""
    found: list[Term] = []
    for each in _indexed(resource["resourceType"])[0]:
        add = _ADDERS[each.parameter.kind]
        for path in each.paths:
            if path[0] in resource:  # most parameters say nothing of a given resource
                for element in _elements(resource, path):
                    add(found, each, element)
    return set(found)


def spans_of(resource: Mapping[str, Any]) -> dict[str, Span]:
    """Return the date ranges of a resource by parameter name."""
    found: dict[str, Span] = {}
    for each in _indexed(resource["resourceType"])[1]:
        spans = [
            span
            for path in each.paths
            if path[0] in resource
            for element in _elements(resource, path)
            if (span := _element_span(element)) is not None
        ]
        if spans:
            found[each.parameter.name] = Span(min(span.low for span in spans), max(span.high for span in spans))
    return found


def _element_span(element: Any) -> Span | None:
    if isinstance(element, str):
        return parse_span(element)
    if not isinstance(element, dict):
        return None
    start, end = (parse_span(str(element[name])) if element.get(name) else None for name in ("start", "end"))
    if start is None and end is None:
        return None
    return Span(start.low if start else EARLIEST, end.high if end else LATEST)


def _add_token(found: list[Term], each: _Indexed, element: Any) -> None:
    if isinstance(element, dict):
        if "coding" in element:
            codings = element["coding"]
            for coding in codings if isinstance(codings, list) else ():  # resources are checked elsewhere
                _add_token(found, each, coding)
        elif "code" in element:
            found.extend(token_terms(each.field, _text(element.get("system")), _text(element["code"])))
        elif "value" in element:
            system, contact = _text(element.get("system")), each.parameter.contact
            if not contact or system == contact:
                found.extend(token_terms(each.field, system, _text(element["value"])))
    elif isinstance(element, bool):
        found.extend(token_terms(each.field, None, "true" if element else "false"))
    elif isinstance(element, str):
        found.extend(token_terms(each.field, each.parameter.system, element))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _add_string(found: list[Term], each: _Indexed, element: Any) -> None:
    if isinstance(element, str):
        texts = [element]
    elif isinstance(element, dict):  # a HumanName: every way in which it is usually typed in
        family, names = _text(element.get("family")) or "", element.get("given")
        given = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        texts = [_text(element.get("text")) or "", family, *given]
        if family and given:
            texts += [family + "".join(given), " ".join([family, *given]), " ".join([*given, family])]
    else:
        return
    for text in texts:
        value = normalised(text)
        if value:
            found.append((each.field, value))


def _add_reference(found: list[Term], each: _Indexed, element: Any) -> None:
    literal = element.get("reference") if isinstance(element, dict) else element
    if not isinstance(literal, str) or literal.startswith("#"):
        return
    form = reference_form(literal)
    if each.targets:
        parts = form.split("/")
        if len(parts) < 2 or parts[-2] not in each.targets:
            return
    found.append((each.field, form))


def _add_birth(found: list[Term], each: _Indexed, element: Any) -> None:
    if isinstance(element, str) and parse_span(element) is not None:
        found.extend(birth_terms(each.field, element[:10]))


_ADDERS: Mapping[str, Callable[[list[Term], _Indexed, Any], None]] = {
    "token": _add_token,
    "string": _add_string,
    "reference": _add_reference,
    "birthdate": _add_birth,
}
