"""What a sender of HL7 v2 is answered before its message is processed: readable, of a known type, well formed or not.

Original mode (MSH-15 empty) answers AA, AE or AR; enhanced mode CA, CE or CR (HL7 v2.5, 2.9.2 and 2.9.3).

- AE: the message cannot be read or breaks the format; sending it again corrected helps.
- AR: its type is not one that this node converts; sending it again does not help.

Either way it is kept. The whole message is split into segments here; a message that lacks what its conversion needs
(a PID, the merged patient's identifier) is found by converting it, which only such messages cost.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from bridge.storage.inbox import Delivery, Refusal
from fhir_adapters import ConversionResult, SourceProfile, convert
from fhir_adapters.errors import AdapterError, DecodeError, ParseError, UnsupportedMessage, ValidationError
from fhir_adapters.hl7v2 import check_supported
from fhir_adapters.hl7v2.acknowledgement import acknowledge
from fhir_adapters.hl7v2.charset import decode
from fhir_adapters.hl7v2.events import ADT_EVENTS
from fhir_adapters.hl7v2.header import Header, header_of
from fhir_adapters.hl7v2.message import Message, parse

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
    """Judges messages."""

    def __init__(self, converter: Converter = convert) -> None:
        self._converter = converter

    def judge(self, raw: bytes, profile: SourceProfile, moment: datetime) -> Verdict:
        """Decide about one message; raises nothing a message could cause."""
        header = None
        try:
            decoded = decode(raw, profile.charset)
            header = header_of(decoded)
            check_supported(header)
            if _may_lack_something(parse(decoded.text), header):
                self._converter(raw, "hl7v2", replace(profile, validate=False))
        except UnsupportedMessage as error:
            return Verdict(_answer("R", header), header, moment, refusal_of(error))
        except AdapterError as error:
            return Verdict(_answer("E", header), header, moment, refusal_of(error))
        except Exception:  # noqa: BLE001 - a fault of the adapter must not cost the message: kept, and said on processing
            return Verdict(_answer("A", header), header, moment)
        return Verdict(_answer("A", header), header, moment)


def _may_lack_something(message: Message, header: Header) -> bool:
    merges = header.trigger in ADT_EVENTS and ADT_EVENTS[header.trigger].person == "merge"
    return merges or not message.all("PID")


def _answer(letter: str, header: Header | None) -> str:
    enhanced = header is not None and header.accept_acknowledgement in _ENHANCED
    return ("C" if enhanced else "A") + letter


def refusal_of(error: AdapterError) -> Refusal:
    """Return a fault of a message as the inbox keeps it: kind, place, and the adapter's text, which has no content."""
    code = next(code for kind, code in _CODES if isinstance(error, kind))
    text = str(error).removeprefix(f"{error.location}: ") if error.location else str(error)
    return Refusal(code, error.location, text)
