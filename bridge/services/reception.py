"""What a sender of HL7 v2 is answered before its message is processed: readable, of a known type, well formed or not.

Original mode (MSH-15 empty) answers AA, AE or AR; enhanced mode CA, CE or CR (HL7 v2.5, 2.9.2 and 2.9.3).

- AE: the message cannot be read or breaks the format; sending it again corrected helps.
- AR: its type is not one that this node converts; sending it again does not help.

Either way it is kept. Whether a type can be converted is asked of the adapter itself, once for each kind of message.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from bridge.storage.inbox import Delivery, Refusal
from fhir_adapters import ConversionResult, SourceProfile, convert
from fhir_adapters.errors import AdapterError, DecodeError, ParseError, UnsupportedMessage, ValidationError
from fhir_adapters.hl7v2.acknowledgement import acknowledge
from fhir_adapters.hl7v2.charset import decode
from fhir_adapters.hl7v2.header import Header, header_of
from fhir_adapters.hl7v2.message import parse

KINDS_KEPT = 1000
"""Kinds of messages remembered as convertible or not; there are some 300 in all."""

_CODES: tuple[tuple[type[AdapterError], str], ...] = (
    (DecodeError, "undecodable"),
    (ParseError, "malformed"),
    (UnsupportedMessage, "unsupported"),
    (ValidationError, "invalid"),
    (AdapterError, "unmappable"),
)
_ENHANCED = frozenset({"AL", "SU", "ER"})
_CONTROL_ID_BYTES = 8


Converter = Callable[[bytes, str, SourceProfile], ConversionResult]
"""What ``fhir_adapters.convert`` is: bytes, format and profile to a Bundle with issues."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a message, and how it is kept."""

    code: str
    header: Header | None
    moment: datetime
    refusal: Refusal | None = None

    @property
    def acknowledgement(self) -> bytes:
        """The answer's bytes, without framing."""
        refusal = self.refusal or Refusal("")
        return acknowledge(
            self.header,
            self.code,
            refusal.text,
            refusal.location,
            time=self.moment,
            control_id=secrets.token_hex(_CONTROL_ID_BYTES),
        )

    def delivery(self, source: str, raw: bytes) -> Delivery:
        """Return the message as the inbox keeps it."""
        header = self.header
        return Delivery(
            source=source,
            raw=raw,
            control_id=header.control_id if header else "",
            event=header.event if header else "",
            patient=header.patient_key if header else "",
            acknowledgement=self.acknowledgement,
            refusal=self.refusal,
        )

    def unavailable(self, text: str) -> Verdict:
        """Return the answer to give when the message could not be kept: to be sent again later."""
        return replace(self, code=_answer("E", self.header), refusal=Refusal("unavailable", "", text))


class Reception:
    """Judges messages; remembers which kinds can be converted."""

    def __init__(self, converter: Converter = convert) -> None:
        self._converter = converter
        self._convertible: set[str] = set()

    def judge(self, raw: bytes, profile: SourceProfile, moment: datetime) -> Verdict:
        """Decide about one message; raises nothing a message could cause."""
        header = None
        try:
            decoded = decode(raw, profile.charset)
            header = header_of(decoded)
            parse(decoded.text)
            self._check_kind(header, raw, profile)
        except UnsupportedMessage as error:
            return Verdict(_answer("R", header), header, moment, refusal_of(error))
        except AdapterError as error:
            return Verdict(_answer("E", header), header, moment, refusal_of(error))
        return Verdict(_answer("A", header), header, moment)

    def _check_kind(self, header: Header, raw: bytes, profile: SourceProfile) -> None:
        """Raise ``UnsupportedMessage`` for a kind that the adapter does not convert."""
        kind = f"{header.event}^{header.structure}"
        if kind in self._convertible:
            return
        try:
            self._converter(raw, "hl7v2", replace(profile, validate=False))
        except UnsupportedMessage:
            raise
        except Exception:  # noqa: BLE001 - a fault in the mapping must not cost the message: it is kept, then processed
            return  # it fails for another reason: processing will say so, and the next of its kind is asked again
        if len(self._convertible) < KINDS_KEPT:
            self._convertible.add(kind)


def _answer(letter: str, header: Header | None) -> str:
    enhanced = header is not None and header.accept_acknowledgement in _ENHANCED
    return ("C" if enhanced else "A") + letter


def refusal_of(error: AdapterError) -> Refusal:
    """Return a fault of a message as the inbox keeps it: kind, place, and the adapter's text, which has no content."""
    code = next(code for kind, code in _CODES if isinstance(error, kind))
    text = str(error).removeprefix(f"{error.location}: ") if error.location else str(error)
    return Refusal(code, error.location, text)
