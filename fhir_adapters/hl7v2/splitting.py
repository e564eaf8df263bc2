"""A file into messages: several messages, FHS/BHS batches, MLLP-framed dumps, any line end, byte order marks, XML.

Works on bytes, because the messages of one file may differ in character set: in every set allowed, CR and LF occur
only as themselves. Files in UTF-16 or UTF-32 are one character set throughout and are split as text.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from fhir_adapters.errors import DecodeError
from fhir_adapters.hl7v2.charset import begins_xml, wide_or_marked

# A message begins where a line (or an MLLP block) begins with MSH and something that can be a field separator.
_MESSAGE = re.compile(rb"(?:^|(?<=[\r\n\x0b\x1c]))[ \t]*(?=MSH[^A-Za-z0-9\s])")
_BATCH_LINE = re.compile(
    rb"(?:^|(?<=[\r\n]))(?:(?:FHS|BHS|BTS|FTS)[^A-Za-z0-9\s][^\r\n]*|(?:BTS|FTS)(?=[\r\n]|$))[\r\n]*"
)
_FRAMING = b"\x0b\x1c\r\n \t\x00\x1a"
"""What may surround a message in a file: MLLP bytes, blank lines, NULs, and the end-of-file mark of DOS."""


def messages(raw: bytes) -> Iterator[bytes]:
    """Yield each message of a file, without framing and batch envelope.

    Text before the first header is yielded as a message of its own, so that it is refused by name and not lost. A file
    of nothing but blanks yields nothing.

    Raises:
        DecodeError: a UTF-16 or UTF-32 file that breaks its encoding.
    """
    if begins_xml(raw):
        from fhir_adapters.hl7v2 import xml_encoding  # loads libxml2, which ER7 never needs

        yield from xml_encoding.messages(raw)
        return
    marked = wide_or_marked(raw)
    if marked is not None and marked[0] != "utf_8":
        yield from _wide(raw, *marked)
        return
    yield from _split(raw[marked[1] :] if marked else raw)


def whole_messages(raw: bytes) -> int:
    """Return how many of a file's first bytes are whole messages: those before the last header that begins in them.

    For reading a large file in parts. 0 where more bytes are needed to tell: no further message begins, or the file is
    XML or in UTF-16 or UTF-32 and has to be split as a whole.
    """
    if begins_xml(raw):
        return 0
    marked = wide_or_marked(raw)
    if marked is not None and marked[0] != "utf_8":
        return 0
    last = 0
    for match in _MESSAGE.finditer(raw):
        last = match.end()
    return last


def _wide(raw: bytes, codec: str, mark: int) -> Iterator[bytes]:
    try:
        text = raw[mark:].decode(codec)
    except UnicodeDecodeError:
        raise DecodeError("the bytes do not match their byte order mark") from None
    for message in _split(text.encode("utf_8")):
        yield raw[:mark] + message.decode("utf_8").encode(codec)


def _split(raw: bytes) -> Iterator[bytes]:
    starts = [match.end() for match in _MESSAGE.finditer(raw)]
    bounds = [0, *(start for start in starts if start), len(raw)]
    for start, end in pairwise(bounds):
        message = _BATCH_LINE.sub(b"", raw[start:end].strip(_FRAMING)).strip(_FRAMING)
        if message:
            yield message + b"\r"
