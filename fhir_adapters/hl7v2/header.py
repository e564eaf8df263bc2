"""The header alone: enough to store, order, refuse and answer a message without mapping it."""

from dataclasses import dataclass, field

from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2.charset import Decoded, decode
from fhir_adapters.hl7v2.message import STANDARD, Message, Segment, parse

MAX_CONTROL_ID = 199
"""Longest MSH-10 taken, in characters (v2.9 allows 199, earlier versions 20)."""


@dataclass(frozen=True, slots=True)
class Header:
    """MSH, decoded.

    ``charset`` is the Python codec that read the message and answers it; ``declared_charset`` is MSH-18 as sent.
    ``patient_key`` names the patient for ordering ("" when the message is about none): the identifier of PID-3 (else
    PID-2) that also names the Patient resource. It identifies a person: keep it out of logs, index it blindly.
    """

    control_id: str
    type: str
    trigger: str
    structure: str
    version: str
    charset: str
    declared_charset: str
    sending_application: str
    sending_facility: str
    receiving_application: str
    receiving_facility: str
    timestamp: str
    processing_id: str
    accept_acknowledgement: str
    application_acknowledgement: str
    delimiters: str = STANDARD
    patient_key: str = field(default="", repr=False)

    @property
    def event(self) -> str:
        """Message type and trigger: ``ADT^A01``."""
        return f"{self.type}^{self.trigger}" if self.trigger else self.type


def read_header(raw: bytes, default_charset: str = "") -> Header:
    """Read MSH and the patient's identifier, and nothing else.

    Raises:
        DecodeError: the bytes are not text.
        ParseError: there is no header, a field of it that an answer needs is missing, or one block holds two messages.
    """
    return header_of(decode(raw, default_charset))


def header_of(decoded: Decoded) -> Header:
    """The header of decoded text. Raises ParseError as ``read_header``."""
    text = decoded.text.lstrip("\x0b\r\n \t")
    if not text.startswith("MSH"):
        raise ParseError("the message does not begin with a header segment", "MSH")
    if text.find("\rMSH", 3) >= 0 or text.find("\nMSH", 3) >= 0:
        raise ParseError("a second header in one message", "MSH[2]")
    wanted = [line for line in text.replace("\n", "\r").split("\r") if line[:3] in ("MSH", "PID")][:2]
    header = from_segments(parse("\r".join(wanted)), decoded)
    if not header.control_id:
        raise ParseError("no message control id", "MSH-10")
    return header


def from_segments(message: Message, decoded: Decoded, *, ordered: bool = True) -> Header:
    """The header of a parsed message; its control id may be empty.

    ``ordered``: who orders messages by patient reads it; a conversion does without the patient's key.

    Raises:
        ParseError: no message type, or a control id that is too long.
    """
    msh = message.header.fields
    kind = msh[9].split("~")[0].split("^")
    control_id = msh[10].strip()
    if not kind[0].strip():
        raise ParseError("no message type", "MSH-9")
    if len(control_id) > MAX_CONTROL_ID:
        raise ParseError(f"the message control id is longer than {MAX_CONTROL_ID} characters", "MSH-10")
    pids = message.all("PID") if ordered else ()
    return Header(
        control_id=control_id,
        type=kind[0].strip(),
        trigger=kind[1].strip() if len(kind) > 1 else "",
        structure=kind[2].strip() if len(kind) > 2 else "",
        version=msh[12].split("^")[0].strip(),
        charset=decoded.charset,
        declared_charset=msh[18],
        sending_application=msh[3],
        sending_facility=msh[4],
        receiving_application=msh[5],
        receiving_facility=msh[6],
        timestamp=msh[7],
        processing_id=msh[11],
        accept_acknowledgement=msh[15],
        application_acknowledgement=msh[16],
        delimiters=msh[1] + msh[2],
        patient_key=patient_key(pids[0]) if pids else "",
    )


# As identifiers.choose_patient_identifier: what the institution issues first, then the untyped, then the first.
_PREFERENCE = ("MR", "PI", "PT", "PE", "")


def patient_key(pid: Segment) -> str:
    """``identifier^assigning authority`` of the PID-3 repetition that names the patient; PID-2 when PID-3 is empty."""
    best, rank = "", len(_PREFERENCE) + 1
    for repetition in (pid.fields[3] or pid.fields[2]).split("~"):
        parts = repetition.split("^")
        if not parts[0].strip() or parts[0] == '""':
            continue
        kind = parts[4].strip() if len(parts) > 4 else ""
        order = _PREFERENCE.index(kind) if kind in _PREFERENCE else len(_PREFERENCE)
        if order < rank:
            authority = parts[3].strip() if len(parts) > 3 else ""
            best, rank = f"{parts[0].strip()}^{authority}", order
    return best
