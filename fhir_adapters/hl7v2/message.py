"""The parser: text into segments of raw fields.

One pass of ``str.split``; a field is split further only by who reads it. Reading a field *takes* it: what is left when
the mapping is done was carried over by nobody and becomes an issue, so the list of what is not mapped cannot go stale.

Whatever delimiters MSH-1 and MSH-2 announce, the fields come out in the standard ones (``^ & ~ \\``): converters need
no table of delimiters, and data that holds a standard delimiter as plain text is escaped on the way.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fhir_adapters.errors import ParseError

MAX_SEGMENTS = 100_000
"""Segments in one message; the largest real report seen has some thousands."""

WIDTH = 80
"""Fields each segment is padded to, so that a mapping may read past the end; the widest (IN2) has 72."""

WIDTHS = {
    "AL1": 12,
    "DG1": 32,
    "EVN": 12,
    "IN1": 60,
    "MSH": 32,
    "NK1": 44,
    "NTE": 12,
    "OBR": 60,
    "OBX": 40,
    "ORC": 48,
    "PID": 48,
    "PV1": 64,
    "RXA": 32,
    "SPM": 40,
    "TQ1": 20,
}
"""The same of segments that are many or come in every message, above what any version has in them."""

STANDARD = "|^~\\&"
DOUBLED = "^~\\\\&"
"""The standard encoding characters as a program's source code writes them: a mistake with one possible meaning."""

NULL = '""'
"""The HL7 null (2.5.3.2): the sender says that there is no value. A resource is sent whole, so it is left out."""

_SEPARATORS = "^~&"
_MAY_BE_NOTHING = _SEPARATORS + NULL[0]
"""What a field that says nothing begins with: one look at a character passes nearly all fields."""
_SEGMENT_LINE = re.compile(r"[A-Z][A-Z0-9]{2}(?=\||$)")
# How a carriage return looks in source code, logs and browsers, and what text tools make of it.
_OTHER_ENDS = re.compile(r"(?:\\r\\n|\\r|\\n|<CR>(?:<LF>)?|\x85)(?=[A-Z][A-Z0-9]{2}\||$)")
_USUAL = frozenset(
    "AL1 DG1 EVN FT1 IN1 IN2 MRG NK1 NTE OBR OBX ORC PD1 PID PR1 PV1 PV2 RXA RXE RXR SFT SPM TQ1 TXA".split()  # noqa: SIM905
)
"""Names that need no second look."""

_PADDING = [""] * WIDTH
_PADDINGS = {name: [""] * width for name, width in WIDTHS.items()}


class Segment:
    """One segment: ``name``, ``index`` (which of its name in the message, from 1) and raw ``fields`` (1-based)."""

    __slots__ = ("fields", "index", "name", "sent")

    def __init__(self, name: str, index: int, fields: list[str], sent: int) -> None:
        self.name = name
        self.index = index
        self.fields = fields
        self.sent = sent
        """How many fields were sent; those after it are padding."""

    def take(self, number: int) -> str:
        """Read field ``number`` once: its raw text, "" when absent, null or delimiters alone. It then counts as carried
        over.
        """
        fields = self.fields
        value = fields[number]
        if value:
            fields[number] = ""
            if value[0] in _MAY_BE_NOTHING and (value == NULL or not value.strip(_SEPARATORS)):
                return ""
        return value

    def peek(self, number: int) -> str:
        """Field ``number`` without taking it."""
        value = self.fields[number]
        if value and value[0] in _MAY_BE_NOTHING and (value == NULL or not value.strip(_SEPARATORS)):
            return ""
        return value

    def where(self, number: int) -> str:
        """The place of a field for issues: ``OBX[3]-5``; ``OBX[3]`` for field 0, the segment itself."""
        return f"{self.name}[{self.index}]-{number}" if number else f"{self.name}[{self.index}]"

    def left(self) -> Iterator[int]:
        """Numbers of the fields that hold a value, not delimiters alone, and that nobody took."""
        return (
            number for number, value in enumerate(self.fields) if value and value != NULL and value.strip(_SEPARATORS)
        )


@dataclass(slots=True)
class Message:
    """A parsed message, and what had to be forgiven to read it: (place, what) pairs."""

    segments: list[Segment]
    forgiven: list[tuple[str, str]]

    @property
    def header(self) -> Segment:
        """MSH; its field 1 is the field separator, so field numbers are the standard's."""
        return self.segments[0]

    def all(self, name: str) -> list[Segment]:
        """Every segment of a name, in order."""
        return [segment for segment in self.segments if segment.name == name]


def parse(text: str) -> Message:
    """Split a message into segments.

    Args:
        text: one decoded message, beginning with MSH; segments end with CR, LF or CR LF.

    Raises:
        ParseError: no usable header, a second header, or too many segments; its location names the segment.
    """
    if not text.startswith("MSH"):
        raise ParseError("the message does not begin with a header segment", "MSH")
    if "\n" in text:
        text = text.replace("\r\n", "\r").replace("\n", "\r")
    respaced = 0
    if "\r" not in text:
        text, respaced = _OTHER_ENDS.subn("\r", text)
    lines = text.split("\r")
    if len(lines) > MAX_SEGMENTS:
        raise ParseError(
            f"more than {MAX_SEGMENTS} segments", lines[MAX_SEGMENTS][:3] if lines[MAX_SEGMENTS][:3].isalnum() else ""
        )
    separator, encoding = delimiters(lines[0])
    announced = separator + encoding[:4]
    if announced != STANDARD:
        lines = _standardized(lines, separator, encoding)
    message = _segments(lines, separator, encoding)
    if respaced:
        message.forgiven.append(("MSH", "segments end with something else than a carriage return"))
    return message


def delimiters(line: str) -> tuple[str, str]:
    """MSH-1 and MSH-2 of a header line. Raises ParseError naming the field."""
    if line.startswith("MSH|^~\\&|"):
        return "|", STANDARD[1:]
    separator = line[3:4]
    if not separator or separator.isalnum() or separator.isspace():
        raise ParseError("no field separator", "MSH-1")
    encoding = line[4:].split(separator, 1)[0]
    if encoding == DOUBLED:
        encoding = STANDARD[1:]
    if not encoding or len(encoding) > 5 or len(set(encoding)) != len(encoding):
        raise ParseError("encoding characters are missing or repeated", "MSH-2")
    if any(character.isalnum() or character.isspace() for character in encoding):
        raise ParseError("letters, digits or blanks cannot be encoding characters", "MSH-2")
    return separator, encoding


def _standardized(lines: list[str], separator: str, encoding: str) -> list[str]:
    """Rewrite the announced delimiters as the standard ones, and standard ones that are data here as escapes."""
    table = {ord(own): f"\\{code}\\" for own, code in zip("|^~\\&", "FSRET", strict=True)}
    table.update({ord(own): standard for own, standard in zip(separator + encoding[:4], "|^~\\&", strict=False)})
    header = lines[0][4 + len(encoding) :].translate(table)
    return ["MSH|" + "^~\\&" + header, *(line.translate(table) for line in lines[1:])]


def _segments(lines: list[str], separator: str, encoding: str) -> Message:
    first = lines[0].split("|")
    first[1:2] = [separator, encoding]
    first[0] = ""
    segments = [Segment("MSH", 1, first + _PADDINGS["MSH"][len(first) :], len(first) - 1)]
    forgiven: list[tuple[str, str]] = []
    if DOUBLED in lines[0]:
        forgiven.append(("MSH-2", "the escape character is doubled"))
    counts: dict[str, int] = {"MSH": 1}
    for line in lines[1:]:
        fields = line.split("|")
        name = fields[0]
        if name not in _USUAL and (len(name) != 3 or not (name.isascii() and name.isalnum() and name.isupper())):
            if not line.strip():
                continue
            name = name.strip()
            if not _SEGMENT_LINE.match(name):
                _join(segments[-1], line, forgiven)
                continue
        if name == "MSH":
            raise ParseError("a second header in one message", "MSH[2]")
        index = counts[name] = counts.get(name, 0) + 1
        fields[0] = ""
        sent = len(fields)
        fields += _PADDINGS.get(name, _PADDING)[sent:]
        segments.append(Segment(name, index, fields, sent - 1))
    return Message(segments, forgiven)


def _join(segment: Segment, line: str, forgiven: list[tuple[str, str]]) -> None:
    """A line that no segment name begins is text whose sender did not escape its line break: the last field goes on."""
    fields = segment.fields
    last = max((number for number, value in enumerate(fields) if value), default=1)
    first, *more = line.split("|")
    fields[last] += "\\.br\\" + first
    for offset, value in enumerate(more, start=last + 1):
        if offset < len(fields):
            fields[offset] = value
        else:
            fields.append(value)
    segment.sent = max(segment.sent, last + len(more))
    forgiven.append((segment.where(last), "a line break inside a field was not escaped"))
