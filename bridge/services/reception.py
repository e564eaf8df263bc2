"""What a sender of HL7 v2 is answered before its message is processed: readable, of a known type, well formed or not.

Original mode (MSH-15 and MSH-16 empty) answers AA, AE or AR at once; enhanced mode CA, CE or CR at once and AA, AE or
AR once the message has been processed (HL7 v2.5, 2.9.2 and 2.9.3; ``AnswerRules``).

- AE: the message cannot be read or breaks the format; sending it again corrected helps.
- AR: its type is not one that this node converts; sending it again does not help.

Either way it is kept. The whole message is split into segments here; a message that lacks what its conversion needs
(a PID, the merged patient's identifier) is found by converting it, which only such messages cost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from bridge.services.conversion import Converter, refusal_of
from bridge.storage.inbox import Delivery, Refusal
from bridge.storage.randomness import RANDOM
from fhir_adapters import SourceProfile, convert
from fhir_adapters.errors import AdapterError, ParseError, UnsupportedMessage
from fhir_adapters.hl7v2 import check_supported, lacks_something
from fhir_adapters.hl7v2.acknowledgement import acknowledge
from fhir_adapters.hl7v2.charset import Decoded, decode
from fhir_adapters.hl7v2.header import Header, from_segments, header_of
from fhir_adapters.hl7v2.local_fields import move
from fhir_adapters.hl7v2.message import Message, parse

_CONTROL_ID_BYTES = 8
_AROUND = "\x0b\x1c\r\n \t\ufeff"
"""What may surround a message and means nothing."""

ALWAYS, NEVER, ERROR, SUCCESS = "AL", "NE", "ER", "SU"
_TABLE_0155 = frozenset((ALWAYS, NEVER, ERROR, SUCCESS))


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """When a sender wants which answer: MSH-15 and MSH-16, HL7 table 0155.

    Both empty is original mode, and so is what the table does not know: analyzers of several makers write the kind of
    result into MSH-16 (0, 1, 2) and wait for AA. Where one is given, the other being empty means "never" (2.9.3), and a
    word that is not in the table "always", for an answer too many is better than a sender who waits.
    """

    accept: str = ""
    application: str = ""

    @classmethod
    def of(cls, header: Header | None) -> AnswerRules:
        """Return what a header asks for; original mode for a message without a readable one."""
        if header is None:
            return cls()
        rules = _rule(header.accept_acknowledgement), _rule(header.application_acknowledgement)
        return cls(*rules) if _TABLE_0155.intersection(rules) else cls()

    @property
    def enhanced(self) -> bool:
        """Whether commit acknowledgements (CA, CE, CR) are spoken."""
        return bool(self.accept or self.application)

    def accepts(self, good: bool) -> bool:
        """Whether an answer goes out at once, for a message taken (``good``) or refused."""
        return not self.enhanced or _wanted(self.accept, good)

    def applies(self, good: bool) -> bool:
        """Whether an application acknowledgement follows in enhanced mode, for a message stored or failed."""
        return self.enhanced and _wanted(self.application, good)


def _rule(field: str) -> str:
    return field.split("^")[0].strip().upper().replace('""', "")


def _wanted(rule: str, good: bool) -> bool:
    return rule not in ("", NEVER) and rule != (ERROR if good else SUCCESS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a message, and how it is kept."""

    code: str
    header: Header | None
    moment: datetime
    refusal: Refusal | None = None

    @property
    def rules(self) -> AnswerRules:
        """When the sender wants which answer."""
        return AnswerRules.of(self.header)

    @property
    def acknowledgement(self) -> bytes:
        """The answer's bytes, without framing."""
        return answer(self.header, self.code, self.refusal, self.moment)

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
        return replace(self, code=_code("E", self.header), refusal=Refusal("unavailable", "", text))


class Reception:
    """Judges messages."""

    def __init__(self, converter: Converter = convert) -> None:
        self._converter = converter

    def judge(self, raw: bytes, profile: SourceProfile, moment: datetime) -> Verdict:
        """Decide about one message; raises nothing a message could cause."""
        header = None
        try:
            decoded = decode(raw, profile.charset)
            text = decoded.text.strip(_AROUND)
            message = _split(text)
            if message is not None and profile.local_fields:
                move(message, profile.local_fields)  # which patient it is about may stand there
            header = _header(message, decoded)
            check_supported(header)
            if lacks_something(parse(text) if message is None else message, header):
                self._converter(raw, "hl7v2", replace(profile, validate=False))
        except UnsupportedMessage as error:
            return Verdict(_code("R", header), header, moment, refusal_of(error))
        except AdapterError as error:
            return Verdict(_code("E", header), header, moment, refusal_of(error))
        except Exception:  # noqa: BLE001 - a fault of the adapter must not cost the message: kept, and said on processing
            return Verdict(_code("A", header), header, moment)
        return Verdict(_code("A", header), header, moment)


def _split(text: str) -> Message | None:
    """Return the message's segments; None when it cannot be split, and the header has to be looked for by itself."""
    try:
        return parse(text)
    except ParseError:
        return None


def _header(message: Message | None, decoded: Decoded) -> Header:
    """The header. Raises ParseError."""
    if message is not None:
        header = from_segments(message, decoded)
        if header.control_id:
            return header
    return header_of(decoded)


def answer(header: Header | None, code: str, refusal: Refusal | None, moment: datetime) -> bytes:
    """Return an acknowledgement's bytes, without framing; ``refusal`` is None for AA and CA."""
    told = refusal or Refusal("")
    control_id = RANDOM.take(_CONTROL_ID_BYTES).hex()
    return acknowledge(header, code, told.text, told.location, time=moment, control_id=control_id)


def _code(letter: str, header: Header | None) -> str:
    return ("C" if AnswerRules.of(header).enhanced else "A") + letter
