"""Takes files into the inbox: CSV files and Excel workbooks of the standard views, and FHIR as JSON or NDJSON.

A file's rows are converted once to see what they are worth, which says what is wrong by line and column, and then
handed to the inbox record by record, those that were wrong too: there they can be run again after a mapping was fixed.
The file's digest is part of each delivery's control id: the same file again creates nothing, another file with the same
rows is another delivery.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from anchor.gm import sm3
from bridge.services.conversion import FHIR_FORMAT
from bridge.services.row_delivery import Record, RowDelivery, RowReceiver, records_of
from bridge.services.view_queries import StandardQuery
from bridge.storage.inbox import Accepted
from fhir_adapters import SourceProfile, detect_format, messages, tabular
from fhir_adapters.errors import AdapterError
from fhir_adapters.result import Issue
from fhir_adapters.tabular.csv_file import read_csv
from fhir_adapters.tabular.table import Table
from fhir_adapters.tabular.workbook import is_workbook, read_workbook

ROWS_AT_ONCE = 1000
"""Rows converted together when a file is looked at: some 4 MB of resources."""

MAX_REMARKS = 10_000
"""Most remarks kept of one file; who has more has one mistake ten thousand times."""

_CONTROL_ID_CHARACTERS = 32
_ROW = re.compile(r"row (\d+)(?:, column (\w+))?")
COLUMNS = ("sheet", "line", "column", "severity", "code", "text")


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a cell, a row or the file; ``line`` 0 where it is about the whole. Never repeats content."""

    sheet: str
    line: int
    column: str
    severity: str
    code: str
    text: str


@dataclass(slots=True)
class FileReport:
    """What became of a file. ``refused``: nothing of it could be read, and why."""

    rows: int = 0
    records: int = 0
    fresh: int = 0
    bad_rows: int = 0
    remarks: list[Remark] = field(default_factory=list)
    refused: str = ""

    def as_csv(self) -> bytes:
        """The remarks as a CSV file that Excel opens: UTF-8 with a byte order mark."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for each in self.remarks:
            writer.writerow([getattr(each, name) or "" for name in COLUMNS])
        return text.getvalue().encode("utf-8-sig")


class FhirReceiver(Protocol):
    """Who keeps FHIR."""

    def receive(self, source: str, raw: bytes) -> Accepted:
        """Keep a Bundle or resource. Raises AdapterError for what cannot be taken."""


class FileIntake:
    """Takes files in for any source that has a profile."""

    def __init__(
        self, receiver: RowReceiver, profile_of: Callable[[str], SourceProfile], fhir: FhirReceiver | None = None
    ) -> None:
        self._receiver = receiver
        self._profile_of = profile_of
        self._fhir = fhir

    def take(self, source: str, name: str, raw: bytes) -> FileReport:
        """Take in one file; returns when all of it is on the disk.

        ``name`` may say which view it is of. Raises ``StorageError`` and ``Overloaded``: what was taken until then is
        known, so the file can simply be taken again.
        """
        profile = self._profile_of(source)
        report = FileReport()
        if self._fhir is not None and detect_format(raw) == FHIR_FORMAT:
            _take_fhir(self._fhir, source, raw, report)
            return report
        try:
            tables, issues = _tables(name, raw, profile)
        except AdapterError as error:
            report.refused = str(error)
            report.remarks.append(Remark("", _line_of(error.location), "", "error", type(error).__name__, str(error)))
            return report
        for issue in issues:
            _remark(
                report, Remark(issue.location.removeprefix("sheet "), 0, "", issue.severity, issue.code, issue.text)
            )
        delivery = RowDelivery(source, self._receiver)
        control_id = sm3(raw).hex()[:_CONTROL_ID_CHARACTERS]
        for table in tables:
            query = StandardQuery(table.view.name, table.view)
            report.rows += len(table.rows)
            for records in _portions(records_of(query, table.rows)):
                _look_at(report, table, records, profile)
                taken = delivery.send(query, [(record, control_id) for record in records])
                report.records += len(taken)
                report.fresh += sum(not accepted.replayed for accepted in taken)
        return report


def _take_fhir(fhir: FhirReceiver, source: str, raw: bytes, report: FileReport) -> None:
    """Take in Bundles and resources, one a line or one in all; what is wrong with one does not stop the others."""
    pieces = messages(raw, FHIR_FORMAT)
    for line, piece in enumerate(pieces, 1):
        report.rows += 1
        try:
            accepted = fhir.receive(source, piece)
        except AdapterError as error:
            report.bad_rows += 1
            text = str(error).removeprefix(f"{error.location}: ") if error.location else str(error)
            _remark(report, Remark("", line, error.location, "error", type(error).__name__, text))
        else:
            report.records += 1
            report.fresh += not accepted.replayed
    if report.bad_rows == report.rows:
        report.refused = "nothing of it could be taken; the errors file says why / 无可接收内容，见 errors 文件"


def _tables(name: str, raw: bytes, profile: SourceProfile) -> tuple[list[Table], list[Issue]]:
    if is_workbook(raw):
        return read_workbook(raw, name)
    return [read_csv(raw, profile, name)], []


def _portions(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Part records into portions of a bounded number of rows; a record stays whole."""
    portion: list[Record] = []
    rows = 0
    for record in records:
        portion.append(record)
        rows += len(record.rows)
        if rows >= ROWS_AT_ONCE:
            yield portion
            portion, rows = [], 0
    if portion:
        yield portion


def _look_at(report: FileReport, table: Table, records: Sequence[Record], profile: SourceProfile) -> None:
    """Convert rows to see what is wrong with them; the conversion that counts is the inbox's."""
    rows = [row for record in records for row in record.rows]
    lines = {id(row): place for row, place in zip(table.rows, table.places, strict=True)}
    result = tabular.convert_rows(table.view.name, rows, profile)
    bad: set[int] = set()
    for issue in result.issues:
        place = _ROW.fullmatch(issue.location)
        line = lines[id(rows[int(place[1]) - 1])] if place else 0
        if issue.severity == "error" and line:
            bad.add(line)
        if issue.severity != "information" or not line:
            column = (place[2] or "") if place else issue.location.removeprefix("column ")
            _remark(report, Remark(table.name, line, column, issue.severity, issue.code, issue.text))
    report.bad_rows += len(bad)


def _remark(report: FileReport, remark: Remark) -> None:
    if len(report.remarks) < MAX_REMARKS and (remark.line or remark not in report.remarks):
        report.remarks.append(remark)


def _line_of(location: str) -> int:
    found = re.fullmatch(r"line (\d+)", location)
    return int(found[1]) if found else 0
