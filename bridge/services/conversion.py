"""What the inbox holds, converted: by which adapter, from which form, and how its refusals are told."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson

from bridge.errors import IngestError
from bridge.storage.inbox import Refusal
from fhir_adapters import ConversionResult, SourceProfile, actions, convert, fhir_json, hl7v2, tabular
from fhir_adapters.errors import AdapterError, DecodeError, ParseError, UnsupportedMessage, ValidationError
from fhir_adapters.extensions import AMENDS, UNLINKS
from fhir_adapters.tabular.mapped import find_mapping, mapped_row

ROWS_FORMAT = "rows"
"""Inbox format of rows read from a view: JSON with the view's name and its rows."""

FHIR_FORMAT = "fhir"
"""Inbox format of what is FHIR already: it says all there is to say of a resource."""

MAX_PLAIN_DIGITS = 40
"""Numbers with more digits before or after the point are written with an exponent."""

Converter = Callable[[bytes, str, SourceProfile], ConversionResult]
"""What ``fhir_adapters.convert`` is: bytes, format and profile to a Bundle with issues."""

_CODES: tuple[tuple[type[AdapterError], str], ...] = (
    (DecodeError, "undecodable"),
    (ParseError, "malformed"),
    (UnsupportedMessage, "unsupported"),
    (ValidationError, "invalid"),
    (AdapterError, "unmappable"),
)


def conversion(raw: bytes, format: str, profile: SourceProfile) -> ConversionResult:
    """Convert what the inbox holds: a message or file in a format of the adapters, or rows of a view."""
    if format != ROWS_FORMAT:
        return convert(raw, format, profile)
    delivered = orjson.loads(raw)
    rows = [{name: _value(cell) for name, cell in row.items()} for row in delivered["rows"]]
    if delivered.get("mapping"):
        mapping = find_mapping(profile, delivered["mapping"])
        rows = [mapped_row(mapping, row) for row in rows]
    result: ConversionResult = tabular.convert_rows(delivered["view"], rows, profile)
    return result


def rows_as_bytes(view: str, rows: Sequence[Mapping[str, Any]], mapping: str = "") -> bytes:
    """Write rows as the inbox keeps them: a view's, or with ``mapping`` those that a profile's query makes it of.

    Raises ``IngestError`` for a cell that has no form.
    """
    delivered: dict[str, Any] = {"view": view, "rows": [dict(row) for row in rows]}
    if mapping:
        delivered["mapping"] = mapping
    try:
        return orjson.dumps(delivered, default=_cell)
    except (orjson.JSONEncodeError, TypeError):
        raise IngestError("a row holds a value that cannot be kept") from None


def is_mention(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of a converted Bundle creates its resource only where there is none ("If-None-Match: *")."""
    return bool(entry.get("request", {}).get("ifNoneMatch") == "*")


def amended_elements(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the elements that an entry puts on top of what is stored; none for one that is put whole."""
    changes = entry.get("request", {}).get("modifierExtension", ())
    return tuple(each["valueString"] for each in changes if each.get("url") == AMENDS)


def unlinked_patients(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the references of patients to whom an entry takes a stored ``Patient.link`` away."""
    changes = entry.get("request", {}).get("modifierExtension", ())
    return tuple(each["valueReference"]["reference"] for each in changes if each.get("url") == UNLINKS)


def kept_elements(format: str, resource: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the lists that messages of a format add to and never take from.

    An update of a patient says nothing about the patients merged into it: only a message that parts them does.
    """
    return ("link",) if format != FHIR_FORMAT and resource.get("resourceType") == "Patient" else ()


def adapter_of(format: str) -> str:
    """Return the adapter's name and version as lineage names it."""
    if format == "cda":
        from fhir_adapters import cda  # loads libxml2, which a node without documents never needs

        return cda.ADAPTER
    if format == "action":
        return actions.ADAPTER
    if format == FHIR_FORMAT:
        return fhir_json.ADAPTER
    return hl7v2.ADAPTER if format == "hl7v2" else tabular.ADAPTER


def refusal_of(error: AdapterError) -> Refusal:
    """Return a fault of a message as the inbox keeps it: kind, place, and the adapter's text, which has no content."""
    code = next(code for kind, code in _CODES if isinstance(error, kind))
    text = str(error).removeprefix(f"{error.location}: ") if error.location else str(error)
    return Refusal(code, error.location, text)


def _cell(value: Any) -> Any:
    """Keep in JSON what a driver returned and JSON has no form for; numbers keep their digits."""
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() and abs(value.adjusted()) < MAX_PLAIN_DIGITS else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    raise TypeError


def _value(cell: Any) -> Any:
    return base64.b64decode(cell["base64"]) if isinstance(cell, dict) else cell
