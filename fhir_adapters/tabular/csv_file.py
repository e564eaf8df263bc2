"""A CSV file (RFC 4180, with a header) as rows of the view that its columns belong to."""

import codecs
import csv
import io
from collections.abc import Iterator

from fhir_adapters.errors import DecodeError, ParseError, UnsupportedMessage
from fhir_adapters.foreign_formats import foreign_format
from fhir_adapters.profile import DEFAULT_PROFILE, SourceProfile
from fhir_adapters.result import ConversionResult
from fhir_adapters.tabular.conversion import convert_rows
from fhir_adapters.tabular.table import Table, table_of

MAX_CSV_BYTES = 64 * 1024 * 1024
"""Largest file, in bytes: it is read into memory whole. Larger extracts are delivered in parts."""

MAX_FIELD_CHARS = 1024 * 1024
"""Longest field, in characters: the longest FHIR string."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DELIMITERS = ",;\t|"
_BLANKS = b" \t\r\n\0\x0b\x1c\x1a"
_SAMPLE_BYTES = 4096


def convert(raw: bytes, profile: SourceProfile | None = None) -> ConversionResult:
    """Convert a CSV file of a standard view.

    Raises DecodeError (no character set fits), ParseError (no header, not CSV, too large) and UnsupportedMessage.
    """
    table = read_csv(raw, profile)
    return convert_rows(table.view.name, table.rows, profile)


def read_csv(raw: bytes, profile: SourceProfile | None = None, name: str = "") -> Table:
    """Read a CSV file as a table; ``name`` (of the file) may say which view it is of. Raises AdapterError."""
    header, lines = read_header(raw, (profile or DEFAULT_PROFILE).charset)
    return table_of(name, header, lines)


def read_header(raw: bytes, charset: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header of a CSV file and the numbered lines below it, of whatever table. Raises AdapterError."""
    if not raw.removeprefix(codecs.BOM_UTF8).strip(_BLANKS):
        raise ParseError("an empty file", "header")
    if what := foreign_format(raw):
        raise UnsupportedMessage(what, "file")
    if len(raw) > MAX_CSV_BYTES:
        raise ParseError(f"a file over {MAX_CSV_BYTES} bytes")
    lines = _lines(_decoded(raw, charset))
    for _, header in lines:
        if any(field.strip() for field in header):
            return header, lines
    raise ParseError("a file without a header", "header")


def _decoded(raw: bytes, default_charset: str) -> str:
    """Text by byte order mark, UTF-16 by its NULs, then UTF-8, then the profile's character set, then GB18030."""
    for mark, charset in _BOMS:
        if raw.startswith(mark):
            return _decode(raw, charset)
    sample = raw[:_SAMPLE_BYTES]
    # The header is ASCII: half the bytes of UTF-16 are NUL there, and no other character set has any.
    for start, charset in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(sample) > 2 and sample[start::2].count(0) * 4 > len(sample):
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


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of each record with the number of the line that it begins on."""
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    csv.field_size_limit(MAX_FIELD_CHARS)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    before = 0
    try:
        for fields in reader:
            yield before + 1, fields
            before = reader.line_num
    except csv.Error as error:
        raise ParseError("not CSV as RFC 4180 has it", f"line {reader.line_num}") from error
