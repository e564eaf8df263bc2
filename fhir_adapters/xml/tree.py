"""From text to an element tree, with everything in XML that is a weapon refused (lxml over libxml2).

Refused by name and place: a document type declaration (and with it entities, external references and expansion
bombs), more bytes, elements, attributes or depth than any document has, attributes as long as documents, text that is
not well formed. Nothing is ever fetched. Comments and processing instructions are read over.
"""

import re
from typing import cast

from lxml import etree

from fhir_adapters.errors import ParseError

V3 = "urn:hl7-org:v3"
SDTC = "urn:hl7-org:sdtc"
FHIR = "http://hl7.org/fhir"
XSI = "http://www.w3.org/2001/XMLSchema-instance"

MAX_CDA_BYTES = 32 * 1024 * 1024
"""Longest document, in bytes. Those with scans inside reach a few megabytes; libxml2 takes no text node over 10 MB."""

MAX_ELEMENTS = 250_000
"""Most elements. A summary of a whole life has some 50,000; each costs about 200 bytes of memory here."""

MAX_ATTRIBUTES = 4 * MAX_ELEMENTS
"""Most attributes, counted as equals signs before anything is parsed."""

MAX_DEPTH = 100
"""Deepest nesting of elements. Sections in sections with organizers in acts come to 40."""

MAX_ATTRIBUTE_CHARS = 65_536
"""Longest attribute, in characters: codes, times and addresses have at most some hundreds."""

_SINGLE_QUOTED = re.compile(r"=\s*'")
_BLANKS = " \t\r\n"
_TOO_DEEP = etree.XPath("/".join(["", *["*"] * (MAX_DEPTH + 1)]))
_LONG_ATTRIBUTE = etree.XPath(f"//*[@*[string-length() > {MAX_ATTRIBUTE_CHARS}]]")
_ELEMENTS = etree.XPath("count(//*)")
FRAGMENT = f"{{{V3}}}fragment"
"""Tag of the element that is put around a piece of a document."""

_FRAGMENT_ROOT = f'<fragment xmlns="{V3}" xmlns:xsi="{XSI}" xmlns:sdtc="{SDTC}" xmlns:voc="{V3}/voc" xmlns:cda="{V3}">'

Element = etree._Element


def select(path: etree.XPath, el: Element) -> list[Element]:
    """The elements that a compiled path finds."""
    return cast(list[Element], path(el))


def text_in(el: Element) -> str:
    """All text in and below an element."""
    if len(el) == 0:
        return el.text or ""
    return "".join(cast("list[str]", list(el.itertext())))


def check_size(raw: bytes) -> None:
    """Raise ParseError for bytes that are more than a document, before any work is done on them."""
    if len(raw) > MAX_CDA_BYTES:
        raise ParseError(f"the document is larger than {MAX_CDA_BYTES} bytes")


def parse(text: str) -> Element:
    """The root element of a document. Raises :class:`~fhir_adapters.errors.ParseError` naming line or place."""
    _check_prolog(text)
    return _parse(text)


def parse_fragment(text: str) -> Element:
    """The root element of a piece of a document that lacks its namespace declarations: CDA's are put around it.

    Raises ParseError.
    """
    _check_prolog(text)
    root = _parse(_FRAGMENT_ROOT + text + "</fragment>")
    if len(root) != 1:
        raise ParseError("not one element but several", "line 1")
    return root[0]


def _check_prolog(text: str) -> None:
    """XML 1.0 production [22]: before the root stand only blanks, comments, instructions and the one DOCTYPE."""
    position = 0
    while True:
        while text[position : position + 1] in _BLANKS and position < len(text):
            position += 1
        ending = "?>" if text.startswith("<?", position) else "-->" if text.startswith("<!--", position) else ""
        if not ending:
            break
        position = text.find(ending, position)
        if position < 0:
            raise ParseError("no XML element", _line(text, len(text)))
        position += len(ending)
    if text.startswith("<!", position):
        raise ParseError("a document type declaration is not allowed", _line(text, position))
    # Every element has a "<" and every attribute a "=": counting them bounds what the parser can be made to build. A
    # text of no more characters than that has no more of them.
    if len(text) > 2 * MAX_ELEMENTS and text.count("<") > 2 * MAX_ELEMENTS:
        raise ParseError(f"more than {MAX_ELEMENTS} elements")
    if len(text) > MAX_ATTRIBUTES and text.count("=") > MAX_ATTRIBUTES:
        raise ParseError(f"more than {MAX_ATTRIBUTES} attributes")


def _line(text: str, position: int) -> str:
    return f"line {text.count(chr(10), 0, position) + 1}"


def _parse(text: str) -> Element:
    data = text.encode("utf-8", "surrogatepass")
    # One parser a document: an lxml parser keeps names and errors of what it parsed before, and locks its threads out.
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        no_network=True,
        huge_tree=False,
        recover=False,
        remove_comments=True,
        remove_pis=True,
        ns_clean=False,
        collect_ids=False,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise ParseError(_reason(error), f"line {error.lineno or 1}") from None
    except (ValueError, etree.LxmlError):
        raise ParseError("not well-formed XML", "line 1") from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise ParseError("a document type declaration is not allowed", "line 1")
    _check_limits(root, text)
    return root


def _check_limits(root: Element, text: str) -> None:
    deep = select(_TOO_DEEP, root)
    if deep:
        raise ParseError(f"elements nest deeper than {MAX_DEPTH} levels", f"line {deep[0].sourceline}")
    if len(text) > MAX_ATTRIBUTE_CHARS and _may_hold_long_attribute(text):
        long = select(_LONG_ATTRIBUTE, root)
        if long:
            raise ParseError(
                f"an attribute of more than {MAX_ATTRIBUTE_CHARS} characters", f"line {long[0].sourceline}"
            )
    if len(text) > 4 * MAX_ELEMENTS and cast(float, _ELEMENTS(root)) > MAX_ELEMENTS:
        raise ParseError(f"more than {MAX_ELEMENTS} elements")


def _may_hold_long_attribute(text: str) -> bool:
    """Whether there is a stretch as long as a forbidden attribute without a quotation mark that could end it.

    Looks at one mark in each stretch, so it costs nothing for a document; what it suspects is then measured.
    """
    if "'" in text and _SINGLE_QUOTED.search(text):
        return True
    position = 0
    while position + MAX_ATTRIBUTE_CHARS < len(text):
        last = text.rfind('"', position, position + MAX_ATTRIBUTE_CHARS)
        if last < 0:
            return True
        position = last + 1
    return False


# What libxml2 says quotes names and text of the document; these say the same without.
_REASONS = {
    etree.ErrorTypes.ERR_TAG_NAME_MISMATCH: "an end tag does not match its start tag",
    etree.ErrorTypes.ERR_TAG_NOT_FINISHED: "the document ends inside an element",
    etree.ErrorTypes.ERR_DOCUMENT_EMPTY: "no XML element",
    etree.ErrorTypes.ERR_DOCUMENT_END: "something follows the root element, or the document ends early",
    etree.ErrorTypes.ERR_UNDECLARED_ENTITY: "an entity that XML does not define",
    etree.ErrorTypes.ERR_ATTRIBUTE_REDEFINED: "an attribute stands twice",
    etree.ErrorTypes.ERR_INVALID_CHAR: "a character that XML does not allow",
    etree.ErrorTypes.ERR_INVALID_CHARREF: "a character reference that XML does not allow",
    etree.ErrorTypes.NS_ERR_UNDEFINED_NAMESPACE: "a namespace prefix that is not declared",
    etree.ErrorTypes.ERR_RESOURCE_LIMIT: "larger or deeper than the parser's limits",
    etree.ErrorTypes.ERR_NO_MEMORY: "larger than the parser's limits",
}
UNDECLARED_PREFIX = _REASONS[etree.ErrorTypes.NS_ERR_UNDEFINED_NAMESPACE]


def _reason(error: etree.XMLSyntaxError) -> str:
    return _REASONS.get(getattr(error, "code", None), "not well-formed XML")
