"""A CSV file (RFC 4180, with a header) as rows of the view that its columns belong to."""

import codecs
import csv
import io

from fhir_adapters.errors import DecodeError, ParseError
from fhir_adapters.profile import DEFAULT_PROFILE, SourceProfile
from fhir_adapters.result import ConversionResult
from fhir_adapters.tabular.conversion import MAX_ROWS, convert_rows
from fhir_adapters.view_contract import LINEAGE, VIEWS, View

MAX_CSV_BYTES = 64 * 1024 * 1024
"""Largest file, in bytes: it is read into memory whole. Larger extracts are delivered in parts."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DELIMITERS = ",;\t|"


def convert(raw: bytes, profile: SourceProfile | None = None) -> ConversionResult:
    """Convert a CSV file of a standard view.

    Raises DecodeError (no character set fits), ParseError (no header, not CSV, too large) and UnsupportedMessage.
    """
    if len(raw) > MAX_CSV_BYTES:
        raise ParseError(f"a file over {MAX_CSV_BYTES} bytes")
    chosen = profile or DEFAULT_PROFILE
    header, rows = _rows(_decoded(raw, chosen.charset))
    return convert_rows(view_of(header).name, rows, chosen)


def view_of(header: list[str], hint: str = "") -> View:
    """The view that a header's columns belong to. Raises ParseError.

    ``hint`` is a name that may tell (of a file or a sheet): a view whose name stands in it is taken when the columns
    allow it. Otherwise the view that knows most of the columns, and of these the one that requires most.
    """
    names = {name.strip().lower() for name in header}
    possible = [view for view in VIEWS.values() if view.required - LINEAGE <= names]
    named = [view for view in possible if view.name in hint.upper()]
    if not possible:
        raise ParseError("the columns of no standard view", "header")
    return max(named or possible, key=lambda view: (len(names & view.columns.keys()), len(view.required)))


def _decoded(raw: bytes, default_charset: str) -> str:
    """Text by byte order mark, then UTF-8, then the profile's character set, then GB18030."""
    for mark, charset in _BOMS:
        if raw.startswith(mark):
            return _decode(raw, charset)
    for charset in dict.fromkeys(("utf-8", default_charset.lower(), "gb18030")):
        try:
            return _decode(raw, charset)
        except DecodeError:
            continue
    raise DecodeError("not text in UTF-8, the profile's character set or GB18030")


def _decode(raw: bytes, charset: str) -> str:
    try:
        return raw.decode(charset)
    except (UnicodeDecodeError, LookupError):
        # The codec's error holds the whole file: it must not travel along.
        raise DecodeError("bytes outside the character set") from None


def _rows(text: str) -> tuple[list[str], list[dict[str, str]]]:
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if not any(header):
            raise ParseError("a file without a header", "header")
        rows: list[dict[str, str]] = []
        for fields in reader:
            if not any(fields):
                continue
            if len(fields) > len(header):
                raise ParseError(f"{len(fields)} fields under {len(header)} columns", f"row {len(rows) + 1}")
            if len(rows) >= MAX_ROWS:
                raise ParseError(f"more than {MAX_ROWS} rows in one file")
            rows.append(dict(zip(header, fields, strict=False)))
    except csv.Error as error:
        raise ParseError("not CSV as RFC 4180 has it", f"line {reader.line_num}") from error
    return header, rows
