"""One row under conversion: cells read by column, whatever the driver or the file made of them, and remarks kept."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from fhir_adapters.codes import Concept, ConceptLookup, unmapped
from fhir_adapters.identifiers import assigning_system, full_width_to_ascii, plain_blanks, trimmed
from fhir_adapters.profile import SourceProfile
from fhir_adapters.result import Issue, Severity
from fhir_adapters.tabular.times import to_date, to_datetime, to_instant
from fhir_adapters.view_contract import View

Json = dict[str, Any]

_BINARY = (bytes, bytearray, memoryview)
_NULLS = frozenset({"NULL", "null", "<NULL>", "(null)", "\\N"})
# What FHIR strings may not hold: control characters but tab, LF, CR (R4, data type string), and half a character.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
_FALSE = frozenset({"0", "N", "F", "FALSE", "否", "无效", "停用"})
_TRUE = frozenset({"1", "Y", "T", "TRUE", "是", "有效", "启用"})
_DATA_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_ORIGINAL_TEXT = "http://hl7.org/fhir/StructureDefinition/originalText"


MAX_CELL_CHARS = 1024 * 1024
"""Longest cell taken, in characters: the longest FHIR string."""


class Row:
    """Cells of one row. ``number`` counts from 1; every remark names the row and the column, never the content."""

    __slots__ = ("_cells", "_issues", "_texts", "lookup", "number", "profile", "view")

    def __init__(
        self, view: View, number: int, cells: Mapping[str, Any], profile: SourceProfile, issues: list[Issue]
    ) -> None:
        self.view = view
        self.number = number
        self.profile = profile
        self.lookup = ConceptLookup(profile)
        self._cells = cells
        self._issues = issues
        self._texts: dict[str, str] = {}

    def remark(self, severity: Severity, code: str, column: str, text: str) -> None:
        """Add an issue at ``column`` of this row."""
        self._issues.append(Issue(severity, code, self.where(column), text))

    def where(self, column: str) -> str:
        """The place of a cell, for people: ``row 3, column birth_date``."""
        return f"row {self.number}, column {column}"

    def text(self, column: str) -> str:
        """The text of a cell, "" for NULL. Codes and numbers come in ASCII, other text with plain blanks."""
        known = self._texts.get(column)
        if known is None:
            known = self._texts[column] = self._read(column)
        return known

    def _read(self, column: str) -> str:
        value = self._cells.get(column)
        if value is None:
            return ""
        text = plain_blanks(trimmed(self._decoded(column, value) if isinstance(value, _BINARY) else _as_text(value)))
        if text in _NULLS or text.isspace():
            return ""
        if _FORBIDDEN.search(text):
            self.remark("warning", "bad-value", column, "control characters are left out")
            text = trimmed(_FORBIDDEN.sub("", text)).strip()
        if len(text) > MAX_CELL_CHARS:
            self.remark("warning", "bad-value", column, "longer than a FHIR string may be; it is left out")
            return ""
        return " ".join(full_width_to_ascii(text).split()) if self.view.columns[column].kind == "code" else text

    def date(self, column: str, target: Json, element: str) -> str:
        """Put a cell into ``target[element]`` as a FHIR date; returns it, "" when there is none."""
        return self._time(column, target, element, to_date(self._moment(column)))

    def datetime(self, column: str, target: Json, element: str) -> str:
        """Put a cell into ``target[element]`` as a FHIR dateTime; returns it, "" when there is none."""
        return self._time(column, target, element, to_datetime(self._moment(column), self.profile.zone))

    def instant(self, column: str) -> str:
        """A cell as a FHIR instant, "" when it is none."""
        return to_instant(self._moment(column), self.profile.zone) or "" if self.text(column) else ""

    def concept(self, concept: str, column: str) -> Concept | None:
        """What the code in a cell means; None when the cell is empty or (reported) when nothing says."""
        code = self.text(column)
        if not code:
            return None
        found = self.lookup.find(concept, code)
        if found is None:
            self._issues.append(unmapped(concept, self.where(column)))
        return found

    def codeable(self, concept: str, column: str) -> Json | None:
        """A CodeableConcept of the code in a cell: its meaning, or the source's own text where nothing says."""
        code = self.text(column)
        if not code:
            return None
        found = self.concept(concept, column)
        if found is None:
            return {"text": code}
        # A name is the source's own words and worth keeping; a bare code is not a text.
        return {"coding": [found.coding()], "text": found.display or code if code.isascii() else code}

    def flag(self, column: str) -> bool | None:
        """Yes or no of a cell; None for an empty one, and (reported) for any other word."""
        text = self.text(column).upper()
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if text:
            self.remark("warning", "bad-value", column, "neither 1 nor 0; it is taken as not told")
        return None

    def content(self, column: str) -> tuple[bytes, str]:
        """The bytes of a document and the character set of their text ("" when it is not known to be text).

        Text from a text column becomes UTF-8; bytes stay as they are.
        """
        value = self._cells.get(column)
        if value is None:
            return b"", ""
        if not isinstance(value, _BINARY):
            return _as_text(value).encode("utf-8", "replace"), "utf-8"
        raw = bytes(value)
        for charset in ("utf-8", self.profile.charset):
            with suppress(UnicodeDecodeError, LookupError):
                raw.decode(charset)
                return raw, charset.lower()
        return raw, ""

    def system(self) -> str:
        """The identifier system of this row's numbers: its assigning_authority, or the profile's default one."""
        return assigning_system(self.profile, self.text("assigning_authority"))

    def house_system(self) -> str:
        """The identifier system of staff and departments.

        In rows about patients that is the profile's default: ``assigning_authority`` says who numbered the patients,
        and a hospital that numbers in- and outpatients apart has its staff but once.
        """
        return assigning_system(self.profile, self._house_authority())

    def local_system(self, kind: str) -> str:
        """The system of codes that only this hospital knows, by kind."""
        authority = self._house_authority() or self.profile.default_authority
        return f"{self.profile.base_url}/NamingSystem/{quote(authority, safe='')}/{kind}"

    def _house_authority(self) -> str:
        return "" if self.view.of_patients else self.text("assigning_authority")

    def missing(self) -> list[str]:
        """The required columns that are empty here."""
        return [name for name, column in self.view.columns.items() if column.required and not self.text(name)]

    def _decoded(self, column: str, value: Any) -> str:
        """Text of a binary column: UTF-8, else the profile's character set; reported when it is neither."""
        for charset in ("utf-8", self.profile.charset):
            try:
                return bytes(value).decode(charset)
            except (UnicodeDecodeError, LookupError):
                continue
        self.remark("warning", "bad-value", column, "bytes that are not text in the source's character set")
        return ""

    def _moment(self, column: str) -> Any:
        value = self._cells.get(column)
        return value if isinstance(value, datetime | date) else full_width_to_ascii(self.text(column))

    def _time(self, column: str, target: Json, element: str, made: str | None) -> str:
        source = self.text(column)
        if not source:
            return ""
        if made is not None:
            target[element] = made
            return made
        self.remark("warning", "bad-value", column, "not a date or time; it is kept as text")
        target["_" + element] = absent("error", source)
        return ""


def absent(reason: str, original: str = "") -> Json:
    """The sibling of a primitive that has no value: why, and what the source wrote."""
    extensions: list[Json] = [{"url": _DATA_ABSENT, "valueCode": reason}]
    if original:
        extensions.append({"url": _ORIGINAL_TEXT, "valueString": original})
    return {"extension": extensions}


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() and abs(value.adjusted()) < 40 else str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
