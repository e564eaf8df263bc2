r"""The XML encoding of HL7 v2 ("HL7 Version 2: XML Encoding Syntax", urn:hl7-org:v2xml) put into ER7.

A message in XML says what the same message in ER7 says: groups are flattened, a ``PID.3`` that comes again is the next
repetition, ``CX.4/HD.1`` a subcomponent, ``<escape V=".br"/>`` the escape sequence ``\.br\``, and what stands for a
delimiter in text is escaped. After that there is one parser and one mapping. Only the last number of an element's name
counts, so the names of data types do not matter, and neither does the form that Mirth Connect writes (``HL7Message``
with ``PID.3.1``), which leaves ER7's escape sequences in its text.

The bounds and refusals of any XML hold (:mod:`fhir_adapters.xml.tree`): no document type, no entity, nothing fetched.
"""

import re
from collections.abc import Iterable, Iterator
from typing import cast

from lxml import etree

from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2.charset import LAST_RESORT, Decoded, codec_for
from fhir_adapters.hl7v2.escapes import escape
from fhir_adapters.hl7v2.message import WIDTH
from fhir_adapters.xml import text as xml_text
from fhir_adapters.xml import tree

MAX_COMPONENTS = 100
"""Highest number of a component or subcomponent; the widest data type (XCN) has 25."""

_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")
_NUMBERED = re.compile(r"\.([0-9]{1,3})$")
_SEQUENCE = re.compile(r"[A-Za-z.][A-Za-z0-9.+ -]{0,4096}")
_MIRTH_ROOT = "HL7Message"
_PLAIN_DELIMITERS = str.maketrans({"|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"})
_ESCAPE = "escape"
_FRAMING = b"\x0b\x1c\r\n \t\x1a"
_DECLARATION = re.compile(rb"(?<=[>\s\x1c\x0b])(?=<\?xml\s)")

Element = etree._Element


def decode(raw: bytes, default: str) -> Decoded:
    """One message in XML as the ER7 text that says the same, in the standard delimiters.

    Args:
        raw: the document, with or without MLLP bytes around it.
        default: the site's character set, by any name of ``codec_for``; "" for none.

    Raises:
        DecodeError: the bytes are not text.
        ParseError: no XML, or XML that is no message; its location is a line, or segment and field.
    """
    root, read = _parsed(raw, default)
    keeps_escapes = _name(root) == _MIRTH_ROOT
    lines = [_segment(element, keeps_escapes) for element in _segments(root)]
    if not lines or not lines[0].startswith("MSH|"):
        raise ParseError("the message does not begin with a header segment", "MSH")
    declared = (lines[0].split("|") + [""] * 18)[17].split("~")[0]
    return Decoded("\r".join(lines), codec_for(read.charset) or "utf_8", declared, "; ".join(read.doubts))


def messages(raw: bytes) -> Iterator[bytes]:
    """Each message of a file: one document, several one after the other, or several in one.

    What is no XML or holds no message is given whole, so that it is refused by name.
    """
    if b"\0" in raw[:4]:  # UTF-16: a byte taken from its ends would break it
        yield from _of_document(raw)
        return
    for document in _DECLARATION.split(raw):
        if piece := document.strip(_FRAMING):
            yield from _of_document(piece)


def _of_document(piece: bytes) -> Iterable[bytes]:
    try:
        root, _ = _parsed(piece, "")
    except ParseError:
        return (piece,)
    if any(_name(child) == "MSH" for child in root):
        return (piece,)
    held = [cast(Element, header.getparent()) for header in root.iter("{*}MSH")]
    return [etree.tostring(each, encoding="utf-8", with_tail=False) for each in held] or (piece,)


def _parsed(raw: bytes, default: str) -> tuple[Element, xml_text.XmlText]:
    wide = b"\0" in raw[:4]
    read = xml_text.decode(raw if wide else raw.strip(_FRAMING), codec_for(default) or LAST_RESORT)
    return tree.parse(read.text), read


def _segments(root: Element) -> Iterator[Element]:
    """The segments in document order; whatever else holds elements is a group, and has segments inside."""
    for child in root:
        if _SEGMENT.fullmatch(_name(child)):
            yield child
        elif len(child) or not (child.text or "").strip():
            yield from _segments(child)
        else:
            raise ParseError("text outside any field", f"line {child.sourceline}")


def _name(element: Element) -> str:
    return etree.QName(element).localname


def _segment(element: Element, keeps_escapes: bool) -> str:
    name = _name(element)
    if (element.text or "").strip():
        raise ParseError("text outside any field", name)
    fields: dict[int, list[str]] = {}
    for child in element:
        number = _number(child, name, WIDTH - 1)
        fields.setdefault(number, []).append(_composed(child, "^&", f"{name}-{number}", keeps_escapes))
    if name == "MSH":  # its first two fields are the delimiters, which are standard from here on
        return _joined("MSH|^~\\&", fields, 3)
    return _joined(name, fields, 1)


def _joined(start: str, fields: dict[int, list[str]], first: int) -> str:
    last = max(fields, default=0)
    return "|".join([start, *("~".join(fields.get(number, ())) for number in range(first, last + 1))])


def _number(element: Element, place: str, most: int) -> int:
    """The number at the end of an element's name. Raises ParseError."""
    match = _NUMBERED.search(_name(element))
    if match is None or not 1 <= int(match[1]) <= most:
        raise ParseError(f"an element that is no field or component, line {element.sourceline}", place)
    return int(match[1])


def _composed(element: Element, separators: str, place: str, keeps_escapes: bool) -> str:
    """A repetition of a field, or a component: its parts between separators, or its text alone.

    ``separators`` are those of its parts and of theirs. Text beside parts is the first of them.
    """
    if not separators:
        return _flat(element, keeps_escapes)
    parts: dict[int, str] = {}
    for child in _parts(element):
        number = _number(child, place, MAX_COMPONENTS)
        value = _composed(child, separators[1:], place, keeps_escapes)
        parts[number] = f"{parts[number]} {value}" if parts.get(number) else value
    text = _text_of(element, keeps_escapes)
    if not parts:
        return text
    if text.strip():
        parts[1] = f"{text.strip()} {parts[1]}" if parts.get(1) else text.strip()
    return separators[0].join(parts.get(number, "") for number in range(1, max(parts) + 1))


def _flat(element: Element, keeps_escapes: bool) -> str:
    """A subcomponent. What it holds has no delimiter left in ER7: its parts stand one after the other."""
    values = [_text_of(element, keeps_escapes), *(_flat(child, keeps_escapes) for child in _parts(element))]
    return values[0] if len(values) == 1 else "\\T\\".join(value for value in values if value.strip())


def _parts(element: Element) -> Iterator[Element]:
    return (child for child in element if _name(child) != _ESCAPE)


def _text_of(element: Element, keeps_escapes: bool) -> str:
    """The text of an element itself, escaped, with the sequences that stand as elements in it."""
    own = [_escaped(element.text or "", keeps_escapes)]
    for child in element:
        if _name(child) == _ESCAPE:
            own.append(_sequence(child.get("V", "")))
        own.append(_escaped(child.tail or "", keeps_escapes))
    return "".join(own)


def _escaped(text: str, keeps_escapes: bool) -> str:
    if "\n" in text:  # the indentation of a document laid out for reading
        text = text.strip(" \t\r\n")
    if not keeps_escapes:
        return escape(text)
    return text.translate(_PLAIN_DELIMITERS).replace("\n", "\\.br\\")


def _sequence(value: str) -> str:
    return f"\\{value}\\" if _SEQUENCE.fullmatch(value) else escape(value)
