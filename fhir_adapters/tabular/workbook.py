"""An Excel workbook (.xlsx, ECMA-376): every sheet whose columns are those of a standard view is a table of it.

A workbook comes from outside, so it is looked at before it is opened: how large it becomes when it is unpacked, and
that none of its parts declares entities. Formulas count by the value that Excel saved with them.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any

from fhir_adapters.errors import AdapterError, ParseError, UnsupportedMessage
from fhir_adapters.foreign_formats import foreign_format
from fhir_adapters.profile import SourceProfile
from fhir_adapters.result import ConversionResult, Issue
from fhir_adapters.tabular.conversion import convert_rows
from fhir_adapters.tabular.table import MAX_COLUMNS, Table, table_of, view_of

MAX_WORKBOOK_BYTES = 64 * 1024 * 1024
"""Largest file, in bytes."""

MAX_UNPACKED_BYTES = 512 * 1024 * 1024
"""Most bytes that its parts may have together when unpacked; XML of sheets packs some twenty to one."""

MAX_PARTS = 5_000
"""Most parts of a workbook; one with a hundred sheets and as many pictures has a few hundred."""

MAX_SHEETS = 100
HEADER_WITHIN = 10
"""Rows at the top of a sheet among which the header is looked for: it may stand below a title."""

_WORKBOOK_PARTS = ("xl/", "[Content_Types]")
_DAMAGES = (zipfile.BadZipFile, zlib.error, NotImplementedError, OSError, RuntimeError, EOFError, ValueError)
"""What zipfile and zlib raise for archives that are cut off, overwritten or packed in ways they do not know."""

_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_FIXED_DECIMALS = re.compile(r"(?:#,##)?0\.(0{1,10})(?:_[ )])?")
_FIXED_DIGITS = re.compile(r"0{2,20}")


def convert(raw: bytes, profile: SourceProfile | None = None) -> ConversionResult:
    """Convert every sheet of a workbook that is of a standard view, into one Bundle. Raises AdapterError."""
    tables, issues = read_workbook(raw)
    entries: dict[str, dict[str, Any]] = {}
    newest = ""
    for table in tables:
        result = convert_rows(table.view.name, table.rows, profile)
        where = f"sheet {table.name}, " if len(tables) > 1 else ""
        issues += [Issue(each.severity, each.code, where + each.location, each.text) for each in result.issues]
        newest = max(newest, result.bundle.get("timestamp", ""))
        for entry in result.bundle.get("entry", ()):
            url = entry["request"]["url"]
            # What a sheet is about stands over what another one mentions.
            if url not in entries or "ifNoneMatch" not in entry["request"]:
                entries[url] = entry
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "transaction"}
    if newest:
        bundle["timestamp"] = newest
    if entries:
        bundle["entry"] = list(entries.values())
    return ConversionResult(bundle, tuple(issues))


def is_workbook(raw: bytes) -> bool:
    """Whether bytes begin as a workbook does (.xlsx, or the .xls that is refused by name)."""
    return raw.startswith((_ZIP, _OLE))


def read_workbook(raw: bytes, name: str = "") -> tuple[list[Table], list[Issue]]:
    """The tables of a workbook, and a remark on each sheet that is none. Raises AdapterError when no sheet is one."""
    check(raw)
    tables: list[Table] = []
    issues: list[Issue] = []
    for title, lines in sheets(raw):
        table = _table(f"{name} {title}".strip(), lines)
        if table is not None:
            tables.append(Table(title, table.view, table.rows, table.places))
        else:
            issues.append(Issue("information", "not-mapped", f"sheet {title[:64]}", "the columns of no standard view"))
    if not tables:
        raise ParseError("no sheet has the columns of a standard view", "header")
    return tables, issues


def _table(name: str, lines: Iterator[tuple[int, list[Any]]]) -> Table | None:
    """The table whose header is among the first rows; None when there is no header."""
    for tried, (_, fields) in enumerate(lines, 1):
        header = ["" if field is None else str(field) for field in fields]
        try:
            view_of(header, name)
        except ParseError:
            if tried >= HEADER_WITHIN:
                return None
            continue
        return table_of(name, header, lines)
    return None


def check(raw: bytes) -> None:
    """Refuse what is no workbook, what would unpack to too much, and parts that declare a document type."""
    if raw.startswith(_OLE):
        raise UnsupportedMessage("an Excel 97 workbook (.xls) or one under a password; save it as .xlsx without one")
    if len(raw) > MAX_WORKBOOK_BYTES:
        raise ParseError(f"a file over {MAX_WORKBOOK_BYTES} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            parts = archive.infolist()
            if len(parts) > MAX_PARTS:
                raise ParseError(f"a workbook of more than {MAX_PARTS} parts")
            if not any(part.filename.startswith(_WORKBOOK_PARTS) for part in parts):
                raise UnsupportedMessage(foreign_format(raw) or "an archive without a workbook in it", "file")
            # zipfile never gives more bytes of a part than the directory says, whatever is packed in it.
            if sum(part.file_size for part in parts) > MAX_UNPACKED_BYTES:
                raise ParseError(f"a workbook that unpacks to more than {MAX_UNPACKED_BYTES} bytes")
            for part in parts:
                if part.filename.lower().endswith((".xml", ".rels", ".vml")):
                    _check_part(archive, part)
    except _DAMAGES as error:
        raise ParseError("not a workbook: the archive is damaged") from error


def _check_part(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    """Office writes neither document types nor any encoding but UTF-8; both are ways to hide an attack."""
    with archive.open(part) as stream:
        head = stream.read(4096)
        if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0")) or b"\0" in head[:64]:
            raise ParseError("a part of the workbook is not in UTF-8")
        tail = head
        while tail:
            if b"<!DOCTYPE" in tail or b"<!ENTITY" in tail:
                raise ParseError("a part of the workbook declares a document type")
            following = stream.read(1024 * 1024)
            tail = tail[-16:] + following if following else b""


def sheets(raw: bytes) -> Iterator[tuple[str, Iterator[tuple[int, list[Any]]]]]:
    """Title and numbered rows of every sheet, of a workbook that was looked at (``check``). Raises AdapterError."""
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise UnsupportedMessage("reading workbooks needs openpyxl: pip install 'yiqiao[excel]'") from error
    book = None
    try:
        book = load_workbook(io.BytesIO(raw), read_only=True, data_only=True, keep_links=False)
        if len(book.worksheets) > MAX_SHEETS:
            raise ParseError(f"a workbook of more than {MAX_SHEETS} sheets")
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # what it says of its size may be a million columns
            yield str(sheet.title), _rows(sheet)
    except AdapterError:
        raise
    except Exception as error:  # the library raises whatever its parsers stumble over
        raise ParseError("not a workbook that can be read") from error
    finally:
        if book is not None:
            book.close()


def _rows(sheet: Any) -> Iterator[tuple[int, list[Any]]]:
    """The rows that hold something, with their numbers."""
    try:
        for number, cells in enumerate(sheet.iter_rows(), 1):
            if len(cells) > MAX_COLUMNS:
                raise ParseError(f"more than {MAX_COLUMNS} columns", f"row {number}")
            values = [_value(cell) for cell in cells]
            if any(value is not None for value in values):
                yield number, values
    except AdapterError:
        raise
    except Exception as error:  # as above: rows are parsed as they are asked for
        raise ParseError("a sheet that cannot be read", f"sheet {str(sheet.title)[:64]}") from error


def _value(cell: Any) -> Any:
    """What a person reads in a cell: dates without a time that nobody wrote, numbers with the digits they show."""
    value = cell.value
    if value is None or isinstance(value, str):
        return None if value == "" else value
    form = str(cell.number_format or "")
    if isinstance(value, datetime):
        from openpyxl.styles.numbers import is_datetime

        return value.date() if is_datetime(form) == "date" and value.time() == time() else value
    if isinstance(value, bool | date):
        return value
    if isinstance(value, int | float):
        return _number(value, form)
    return str(value)  # a time of day, a duration


def _number(value: float, form: str) -> Any:
    decimals = _FIXED_DECIMALS.fullmatch(form)
    if decimals is not None:  # 6.1 shown as 6.10 was reported as 6.10
        return f"{value:.{len(decimals[1])}f}"
    if _FIXED_DIGITS.fullmatch(form) and float(value).is_integer():
        return f"{int(value):0{len(form)}d}"  # 12 shown as 00012 is a number with leading zeros
    return value
