"""What a file is that no adapter reads: named, with the way out, for those who hand one in by mistake.

Recognised by the bytes that each format must have where it must have them; nothing is unpacked or parsed.
"""

import re

_STARTS = (
    (b"\x1f\x8b", "a gzip archive; unpack it and give the files in it"),
    (b"PK\x03\x04", "a ZIP archive; unpack it and give the files in it"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"BZh", "a bzip2 archive; unpack it and give the files in it"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it and give the files in it"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive; unpack it and give the files in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it and give the files in it"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it and give the files in it"),
    (b"%PDF-", "a PDF; a document comes inside a message, a CDA document or the document view"),
    (b"{\\rtf", "an RTF text; a document comes inside a message, a CDA document or the document view"),
    (b"\x89PNG\r\n\x1a\n", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"SQLite format 3\x00", "an SQLite database; `yiqiao profile check` and a source of kind view read one"),
    (b"ISA*", "an X12 interchange, which is not read"),
    (b"UNA:+", "an EDIFACT interchange, which is not read"),
    (b"UNB+", "an EDIFACT interchange, which is not read"),
)
_PLACED = (
    (128, b"DICM", "a DICOM object, which is not read"),
    (257, b"ustar", "a tar archive; unpack it and give the files in it"),
)
# ASTM E1394 and CLSI LIS2: a header record that announces its delimiters, from an analyzer without HL7.
_ASTM = re.compile(rb"[\x02\x05\x0b\r\n]*[0-7]?H[|]\\\^&")
_JSON_ARRAY = re.compile(rb"\s*\[\s*\{")
_HEADER_LATER = re.compile(rb"MSH\|\^~")
_HEAD_BYTES = 4096


def foreign_format(raw: bytes) -> str:
    """What bytes are that no adapter reads, as one clause; "" for what is not known to be anything else."""
    for start, what in _STARTS:
        if raw.startswith(start):
            return what
    for place, mark, what in _PLACED:
        if raw[place : place + len(mark)] == mark:
            return what
    head = raw[:_HEAD_BYTES]
    if _ASTM.match(head):
        return "records of ASTM E1394 (LIS2), not HL7 v2; have the analyzer's interface send HL7"
    if _JSON_ARRAY.match(head):
        return "a JSON array; give one resource or Bundle, or one a line (NDJSON)"
    if _HEADER_LATER.search(head):
        return "an HL7 v2 message behind other text; each message begins a line with MSH"
    return ""
