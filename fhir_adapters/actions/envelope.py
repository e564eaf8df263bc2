"""SOAP 1.1 and 1.2 around an action message: "one method, an action and an XML text" (docs/soap.md).

The operation's name and namespace do not matter, nor do the names of its two parts: the first text that is XML is the
message, and a part called action, code, method or service names the action. The message may stand in CDATA, as escaped
text, or as elements.
"""

from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape

from lxml import etree

from fhir_adapters.errors import ParseError
from fhir_adapters.xml.text import decode
from fhir_adapters.xml.tree import parse, text_in

SOAP_11 = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"
ACTION_NAMESPACE = "urn:yiqiao:action:1"

_ACTION_NAMES = frozenset(
    {"action", "actioncode", "code", "method", "methodname", "service", "servicecode", "servicename"}
)
_REQUEST_NAMES = frozenset({"request"})
FaultCode = Literal["client", "server"]


@dataclass(frozen=True, slots=True)
class Envelope:
    """An opened envelope.

    ``version`` is the SOAP namespace, "" for a message that came without one; ``operation`` what was called;
    ``charset`` what the bytes were read in, in which the answer goes back.
    """

    version: str
    operation: str
    action: str
    message: etree._Element
    charset: str


def open_envelope(raw: bytes, default_charset: str = "utf-8") -> Envelope:
    """Open an envelope, or take a bare message. Raises DecodeError and ParseError."""
    text = decode(raw, default_charset)
    root = parse(text.text)
    name = etree.QName(root)
    if name.localname.lower() in _REQUEST_NAMES:
        return Envelope("", "", "", root, text.charset)
    if name.localname != "Envelope" or name.namespace not in (SOAP_11, SOAP_12):
        raise ParseError("neither a SOAP envelope nor a Request", "line 1")
    version = str(name.namespace)
    body = root.find(f"{{{version}}}Body")
    operation = None if body is None else next(body.iterchildren("*"), None)
    if operation is None:
        raise ParseError("an envelope without an operation", "Envelope/Body")
    parts = list(operation.iterchildren("*"))
    action = next((_text(each) for each in parts if etree.QName(each).localname.lower() in _ACTION_NAMES), "")
    return Envelope(version, etree.QName(operation).localname, action, _message(operation, parts), text.charset)


def answer(envelope: Envelope | None, text: str) -> bytes:
    """The envelope of an answer, in the version and character set of the question; ``text`` goes into CDATA."""
    version = envelope.version if envelope is not None and envelope.version else SOAP_11
    operation = (envelope.operation if envelope is not None else "") or "invoke"
    content = text.replace("]]>", "]]]]><![CDATA[>")
    inner = (
        f'<{operation}Response xmlns="{ACTION_NAMESPACE}"><{operation}Result><![CDATA[{content}]]></{operation}Result>'
        f"</{operation}Response>"
    )
    return _enveloped(version, inner, envelope.charset if envelope is not None else "utf-8")


def fault(envelope: Envelope | None, code: FaultCode, text: str) -> bytes:
    """The envelope of a fault: the question could not be read ("client"), or could not be kept ("server")."""
    version = envelope.version if envelope is not None and envelope.version else SOAP_11
    charset = envelope.charset if envelope is not None else "utf-8"
    if version == SOAP_11:
        inner = (
            f"<s:Fault><faultcode>s:{code.capitalize()}</faultcode><faultstring>{escape(text)}</faultstring></s:Fault>"
        )
    else:
        name = "Sender" if code == "client" else "Receiver"
        inner = (
            f"<s:Fault><s:Code><s:Value>s:{name}</s:Value></s:Code><s:Reason>"
            f'<s:Text xml:lang="zh">{escape(text)}</s:Text></s:Reason></s:Fault>'
        )
    return _enveloped(version, inner, charset)


def content_type(envelope: Envelope | None) -> str:
    """The Content-Type of an answer."""
    kind = "application/soap+xml" if envelope is not None and envelope.version == SOAP_12 else "text/xml"
    return f"{kind}; charset={_declared(envelope.charset if envelope is not None else 'utf-8')}"


def _enveloped(version: str, inner: str, charset: str) -> bytes:
    declared = _declared(charset)
    text = (
        f'<?xml version="1.0" encoding="{declared}"?>'
        f'<s:Envelope xmlns:s="{version}"><s:Body>{inner}</s:Body></s:Envelope>'
    )
    return text.encode(declared, "xmlcharrefreplace")


def _declared(charset: str) -> str:
    """A character set to answer in: GB 18030 goes back as the GBK that old clients know."""
    return "GBK" if charset == "gb18030" else "UTF-8"


def _message(operation: etree._Element, parts: list[etree._Element]) -> etree._Element:
    """The message among the parts of an operation: elements, or a text that is XML."""
    for each in [operation, *operation.iterdescendants("*")]:
        if etree.QName(each).localname.lower() in _REQUEST_NAMES and len(each):
            return each
    for each in parts:
        text = _text(each)
        if text.startswith("<"):
            inner = parse(decode(text.encode(), "utf-8").text)
            if etree.QName(inner).localname.lower() not in _REQUEST_NAMES:
                raise ParseError("the message's root is not Request", etree.QName(each).localname)
            return inner
    raise ParseError("no part of the operation holds a message", "Envelope/Body")


def _text(element: etree._Element) -> str:
    return text_in(element).strip()
