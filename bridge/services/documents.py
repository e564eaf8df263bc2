"""How a CDA document goes into the inbox: its number, kind and patient, or why it is refused.

Nothing answers a document as a message is answered; the codes are those of HL7 v2 (AA kept, AE it cannot be read or
names no patient, AR it is of a kind that no mapping exists for), so that one command reports both.
"""

from __future__ import annotations

from bridge.services.conversion import refusal_of
from bridge.storage.inbox import Delivery
from fhir_adapters import SourceProfile
from fhir_adapters.errors import AdapterError, UnsupportedMessage

DOCUMENT_FORMAT = "cda"
MAX_CONTROL_ID_CHARS = 200
"""Longest document number that the inbox keeps; one that is longer is told apart by the document's digest alone."""


def document_delivery(source: str, raw: bytes, profile: SourceProfile) -> tuple[Delivery, str]:
    """Return a document as the inbox keeps it, and the code for its sender. Raises nothing a document could cause."""
    from fhir_adapters import cda  # loads libxml2, which a node without documents never needs

    try:
        header = cda.read_header(raw, profile)
    except AdapterError as error:
        code = "AR" if isinstance(error, UnsupportedMessage) else "AE"
        return Delivery(source=source, raw=raw, format=DOCUMENT_FORMAT, event="CDA", refusal=refusal_of(error)), code
    number = header.control_id if len(header.control_id) <= MAX_CONTROL_ID_CHARS else ""
    delivery = Delivery(
        source=source,
        raw=raw,
        format=DOCUMENT_FORMAT,
        control_id=number,
        event=f"CDA {header.type}".strip(),
        patient=header.patient_key,
    )
    return delivery, "AA"
