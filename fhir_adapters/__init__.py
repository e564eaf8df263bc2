"""Source formats to FHIR R4 transaction Bundles: pure functions of bytes, a profile and code tables.

No clock, no randomness, no network, no database: the same bytes, profile and adapter version give the same Bundle.
A format's code is loaded when it is first used.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from fhir_adapters.errors import UnsupportedMessage
from fhir_adapters.profile import SourceProfile
from fhir_adapters.result import ConversionResult, Issue

__all__ = ["FORMATS", "ConversionResult", "Issue", "SourceProfile", "convert", "detect_format", "messages"]

FORMATS = ("hl7v2", "cda", "csv", "tabular", "xlsx", "action", "fhir")
"""Formats that :func:`convert` takes; "csv" and "tabular" are one. "auto" looks at the bytes."""

_HEAD_BYTES = 1024
"""How much of a file is looked at to tell its format: comments and declarations may stand before a root element."""

_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_ACTION_ROOT = re.compile(rb"(?:<\?[^>]*\?>\s*|<!--.*?-->\s*)*<(?:[\w.-]+:)?(?:Envelope|Request)[\s/>]", re.DOTALL)
# The root of a message in XML has the name of its structure (ADT_A01, ACK), or Mirth Connect's; those of V3 are longer.
_HL7V2_ROOT = re.compile(
    rb"(?:<\?[^>]*\?>\s*|<!--.*?-->\s*|<!DOCTYPE[^>\[]*(?:\[.*?\]\s*)?>\s*)*"
    rb"<(?:[\w.-]+:)?(?:HL7Message|ACK|[A-Z][A-Z0-9]{2}_[A-Z][A-Z0-9]{2})[\s/>]",
    re.DOTALL,
)
_HL7V2_NAMESPACE = b"urn:hl7-org:v2xml"
_OFFICE_STARTS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_HL7V2_STARTS = (b"MSH", b"FHS", b"BHS")


def convert(raw: bytes, format: str = "hl7v2", profile: SourceProfile | None = None) -> ConversionResult:
    """Convert one message (hl7v2), one document (cda) or one file (csv, xlsx) to a transaction Bundle.

    Raises only :class:`~fhir_adapters.errors.AdapterError` and its kinds: DecodeError, ParseError, UnsupportedMessage,
    ValidationError. ``profile`` defaults to :data:`~fhir_adapters.profile.DEFAULT_PROFILE`.
    """
    return _converter(detect_format(raw) if format == "auto" else format)(raw, profile)


@lru_cache(maxsize=16)
def _converter(format: str) -> Callable[[bytes, SourceProfile | None], ConversionResult]:
    """The conversion of a format, loaded when it is first asked for. Raises UnsupportedMessage."""
    if format == "hl7v2":
        from fhir_adapters import hl7v2

        return hl7v2.convert
    if format == "cda":
        from fhir_adapters import cda

        return cda.convert
    if format in ("csv", "tabular"):
        from fhir_adapters import tabular

        return tabular.convert
    if format == "xlsx":
        from fhir_adapters.tabular import workbook

        return workbook.convert
    if format == "action":
        from fhir_adapters import actions

        return actions.convert
    if format == "fhir":
        from fhir_adapters import fhir_json

        return fhir_json.convert
    raise UnsupportedMessage("unknown format; one of " + ", ".join((*FORMATS, "auto")))


def messages(raw: bytes, format: str = "hl7v2") -> Iterator[bytes]:
    """Split a file into what :func:`convert` takes one at a time. A document, a CSV file and a workbook are one piece;
    NDJSON is one a line.

    Raises AdapterError.
    """
    chosen = detect_format(raw) if format == "auto" else format
    if chosen == "hl7v2":
        from fhir_adapters import hl7v2

        return iter(hl7v2.messages(raw))
    if chosen == "fhir":
        from fhir_adapters import fhir_json

        return iter(fhir_json.messages(raw))
    if chosen in ("cda", "csv", "tabular", "xlsx", "action"):
        return iter((raw,))
    raise UnsupportedMessage("unknown format; one of " + ", ".join((*FORMATS, "auto")))


def detect_format(raw: bytes) -> str:
    """The format that the first bytes look like.

    "hl7v2" for an MSH, FHS, BHS or MLLP start and for its XML encoding, "action" for a SOAP envelope or a Request,
    "cda" for any other XML (the CDA adapter refuses by name what is none), "xlsx" for an archive as Office writes it,
    "fhir" for a JSON object, otherwise "csv".
    """
    head = raw[:_HEAD_BYTES]
    if head.startswith(_OFFICE_STARTS):
        return "xlsx"
    for mark in _BOMS:
        head = head.removeprefix(mark)
    head = head.replace(b"\0", b"").lstrip(b"\x0b\r\n\t ")
    if head.startswith(_HL7V2_STARTS):
        return "hl7v2"
    if head.startswith(b"<"):
        if _HL7V2_NAMESPACE in head or _HL7V2_ROOT.match(head):
            return "hl7v2"
        return "action" if _ACTION_ROOT.match(head) else "cda"
    return "fhir" if head.startswith(b"{") else "csv"
