"""Documents inside and beside a message (ED, RP: 2.A.24, 2.A.64) as Attachments (guide: ED[Attachment])."""

import base64
import re

from fhir_adapters.base64_text import as_base64
from fhir_adapters.hl7v2.context import Conversion, Json

_TYPES = {
    "IM": "image",
    "AP": "application",
    "TEXT": "text",
    "TX": "text",
    "AU": "audio",
    "SD": "",
    "FT": "text",
    "SI": "image",
}
_SUBTYPES = {
    "PDF": "application/pdf",
    "JPEG": "image/jpeg",
    "JPG": "image/jpeg",
    "PNG": "image/png",
    "TIFF": "image/tiff",
    "HTML": "text/html",
    "RTF": "text/rtf",
}
_MEDIA = re.compile(r"[A-Za-z0-9.+-]+")


def content_type(kind: str, subtype: str) -> str:
    """The media type of ED-2 and ED-3 (tables 0191 and 0291); "" when they do not make one."""
    if "/" in kind:
        return kind
    if subtype.upper() in _SUBTYPES:
        return _SUBTYPES[subtype.upper()]
    major = _TYPES.get(kind.upper(), kind.lower())
    if not subtype:
        return _SUBTYPES.get(kind.upper(), "")
    return f"{major}/{subtype.lower()}" if major and _MEDIA.fullmatch(major) and _MEDIA.fullmatch(subtype) else ""


def encoded_data(text: str, encoding: str, charset: str) -> str | None:
    """Base64 of ED-5 (table 0299: A text, Hex, Base64); None when the data is not in its encoding."""
    name = encoding.upper()
    try:
        if name == "HEX":
            return base64.b64encode(bytes.fromhex("".join(text.split()))).decode()
        if name in ("A", "TEXT", "ASCII"):
            return base64.b64encode(text.encode(charset)).decode()
    except ValueError:
        return None
    return as_base64(text)


def encapsulated(conv: Conversion, raw: str) -> Json | None:
    """The Attachment of an ED (application, type, subtype, encoding, data); None when the data breaks its encoding.

    {} when there is no data.
    """
    parts = [*raw.split("^"), "", "", "", "", ""][:5]
    kind, subtype, encoding = (conv.text(part) for part in parts[1:4])
    data = encoded_data(conv.text(parts[4]), encoding, conv.charset)
    if data is None:
        return None
    if not data:
        return {}
    made: Json = {"data": data}
    media = content_type(kind, subtype)
    if media:
        made["contentType"] = media
    return made


def pointer(conv: Conversion, raw: str) -> Json:
    """The Attachment of an RP (pointer, application, type, subtype); {} without a pointer."""
    parts = [conv.text(part) for part in [*raw.split("^"), "", "", ""][:4]]
    address, application, kind, subtype = parts
    if not address:
        return {}
    made: Json = {"url": address} if not re.search(r"\s", address) else {"title": address}
    media = content_type(kind, subtype)
    if media:
        made["contentType"] = media
    if application:
        made.setdefault("title", application.split("&")[0])
    return made


def text_attachment(text: str) -> Json:
    """An Attachment that holds text itself."""
    return {"contentType": "text/plain; charset=utf-8", "data": base64.b64encode(text.encode()).decode()}
