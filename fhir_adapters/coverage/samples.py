"""One sample as a check sees it: which fields hold a value, and what stands at the place of a remark."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_adapters.errors import AdapterError
from fhir_adapters.profile import SourceProfile

NO_VALUE = ""

_NARRATIVE = "/section/text/"
_INDEX = re.compile(r"\[\d+\]")
_ROW = re.compile(r"(?:sheet (.*), )?row (\d+)(?:, column (.*))?")
_HL7 = re.compile(r"([A-Z][A-Z0-9]{2})\[(\d+)\]-(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Sample:
    """``seen``: place -> how often it holds a value. ``value`` gives what stands at the place of an issue.

    ``place`` tells the place of an issue without which repetition, row or sibling it is; ``places`` all the seen places
    that a remark on it is about.
    """

    seen: Mapping[str, int]
    place: Callable[[str], str]
    value: Callable[[str], str]
    below: Callable[[str], tuple[str, ...]] | None = None

    def places(self, location: str) -> tuple[str, ...]:
        """The place itself, and in a tree every place below it that says something."""
        return self.below(location) if self.below is not None else (self.place(location),)


def sample_of(raw: bytes, format: str, profile: SourceProfile) -> Sample:
    """Look at a sample of a format that :func:`fhir_adapters.convert` takes. Raises AdapterError."""
    return _READERS[format](raw, profile)


def without_indices(place: str) -> str:
    """A path without which of several siblings is meant."""
    return _INDEX.sub("", place)


def rows_sample(view: str, rows: Sequence[Mapping[str, Any]]) -> Sample:
    """A sample of rows of a standard view; ``row`` numbers of issues count from 1."""
    seen: Counter[str] = Counter()
    for row in rows:
        seen.update(f"{view}.{str(name).lower()}" for name, value in row.items() if name and _says(value))
    lowered = [{str(name).lower(): value for name, value in row.items() if name is not None} for row in rows]

    def value(location: str) -> str:
        match = _ROW.fullmatch(location)
        if match is None or not match[3] or int(match[2]) > len(lowered):
            return NO_VALUE
        return str(lowered[int(match[2]) - 1].get(match[3], NO_VALUE))

    return Sample(seen, lambda location: _column(view, location), value)


def _column(view: str, location: str) -> str:
    match = _ROW.fullmatch(location)
    column = match[3] if match else location.removeprefix("column ") if location.startswith("column ") else ""
    return f"{view}.{column}" if column else view


def _says(value: Any) -> bool:
    return value is not None and bool(str(value).strip())


def _hl7v2(raw: bytes, profile: SourceProfile) -> Sample:
    from fhir_adapters.hl7v2.charset import decode
    from fhir_adapters.hl7v2.local_fields import move
    from fhir_adapters.hl7v2.message import NULL, parse

    text = decode(raw.lstrip(b"\x0b\r\n"), profile.charset).text.strip("\x0b\x1c\r\n \t\ufeff")
    message = parse(text)
    seen = Counter(
        f"{segment.name}-{number}"
        for segment in message.segments
        for number, field in enumerate(segment.fields)
        if field and field != NULL and not (segment.name == "MSH" and number <= 2)
    )
    if profile.local_fields:
        move(message, profile.local_fields)
    at = {(segment.name, segment.index): segment.fields for segment in message.segments}

    def value(location: str) -> str:
        match = _HL7.fullmatch(location)
        if match is None or (match[1], int(match[2])) not in at:
            return NO_VALUE
        parts = at[match[1], int(match[2])][int(match[3])].partition("~")[0].split("^")
        number = int(match[4] or 0)
        if number:
            return parts[number - 1] if number <= len(parts) else NO_VALUE
        return next((part for part in parts if part), NO_VALUE)

    return Sample(seen, without_indices, value)


def _cda(raw: bytes, profile: SourceProfile) -> Sample:
    from fhir_adapters.cda.document_header import read
    from fhir_adapters.cda.node import says_itself, xpath

    root = read(raw, profile).root
    elements = {xpath(each): each for each in root.iter() if isinstance(each.tag, str)}
    telling = {path: without_indices(path) for path, each in elements.items() if says_itself(each)}
    # The narrative is kept whole; of which tags it is made says nothing.
    telling = {path: place for path, place in telling.items() if _NARRATIVE not in place}
    seen = Counter(telling.values())

    def value(location: str) -> str:
        found = elements.get(location)
        if found is None:
            return NO_VALUE
        return str(found.get("code") or found.get("displayName") or (found.text or "").strip())

    def below(location: str) -> tuple[str, ...]:
        found = elements.get(location)
        paths = [xpath(each) for each in found.iter() if isinstance(each.tag, str)] if found is not None else []
        return tuple(telling[path] for path in paths if path in telling) or (without_indices(location),)

    return Sample(seen, without_indices, value, below)


def _tables(raw: bytes, profile: SourceProfile) -> Sample:
    from fhir_adapters.tabular.csv_file import read_csv

    table = read_csv(raw, profile)
    return rows_sample(table.view.name, table.rows)


def _workbook(raw: bytes, _: SourceProfile) -> Sample:
    from fhir_adapters.tabular.workbook import read_workbook

    tables, _remarks = read_workbook(raw)
    sheets = {table.name: rows_sample(table.view.name, table.rows) for table in tables}
    seen: Counter[str] = Counter()
    for each in sheets.values():
        seen.update(each.seen)

    def of(location: str) -> tuple[Sample | None, str]:
        sheet, comma, rest = location.removeprefix("sheet ").partition(", ")
        if location.startswith("sheet ") and comma:
            return sheets.get(sheet), rest
        return (next(iter(sheets.values())) if len(sheets) == 1 else None), location

    def place(location: str) -> str:
        sample, rest = of(location)
        return sample.place(rest) if sample is not None else location

    def value(location: str) -> str:
        sample, rest = of(location)
        return sample.value(rest) if sample is not None else NO_VALUE

    return Sample(seen, place, value)


def _action(raw: bytes, profile: SourceProfile) -> Sample:
    from fhir_adapters.actions import read

    request = read(raw, profile).request
    cells = {f"{row.place}/{name}": text for row in request.rows for name, text in row.cells.items()}
    seen = Counter(without_indices(place) for place, text in cells.items() if text.strip())
    return Sample(seen, without_indices, lambda location: cells.get(location, NO_VALUE))


def _fhir(raw: bytes, _: SourceProfile) -> Sample:
    from fhir_adapters.fhir_json.reading import read_json

    seen: Counter[str] = Counter()
    resource = read_json(raw)
    if resource.get("resourceType") == "Bundle":
        entries = resource.get("entry", [])
        for each in entries if isinstance(entries, list) else []:
            _elements(seen, each.get("resource") if isinstance(each, dict) else None)
    else:
        _elements(seen, resource)
    return Sample(seen, without_indices, lambda _: NO_VALUE)


def _elements(seen: Counter[str], resource: Any) -> None:
    """Count the elements of a resource by their FHIRPath. All are stored as they come."""
    if not isinstance(resource, dict):
        return
    waiting: list[tuple[str, Any]] = [(str(resource.get("resourceType")), resource)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{path}.{name}", each) for name, each in value.items() if name != "resourceType"]
        elif isinstance(value, list):
            waiting += [(path, each) for each in value]
        elif _says(value):
            seen[path] += 1


_READERS: Mapping[str, Callable[[bytes, SourceProfile], Sample]] = {
    "hl7v2": _hl7v2,
    "cda": _cda,
    "csv": _tables,
    "tabular": _tables,
    "xlsx": _workbook,
    "action": _action,
    "fhir": _fhir,
}


def empty_sample(error: AdapterError | None = None) -> Sample:  # noqa: ARG001 - why it is empty stands with the refusal
    """What is known of a sample that cannot be read."""
    return Sample({}, without_indices, lambda _: NO_VALUE)
