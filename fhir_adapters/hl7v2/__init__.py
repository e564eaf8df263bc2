"""HL7 v2 (2.1 to 2.9, ER7 or XML) to FHIR R4: ADT and ORU messages to transaction Bundles.

    messages(raw)            a file, batch or MLLP dump -> single messages
    convert(raw, profile)    one message -> ConversionResult
    header.read_header       MSH alone, for queues and answers
    framing.FrameDecoder     MLLP
    acknowledgement          answers

Choices follow the HL7 v2-to-FHIR mapping guide; docs/adr/0005-hl7v2-mapping.md says where not and why.
"""

import re
from dataclasses import replace

from fhir_adapters.bundle_entry import entry
from fhir_adapters.hl7v2 import local_fields
from fhir_adapters.hl7v2.charset import Decoded, decode
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.events import ADT_EVENTS
from fhir_adapters.hl7v2.families.family import Family
from fhir_adapters.hl7v2.families.registry import family_of
from fhir_adapters.hl7v2.header import Header, from_segments, read_header
from fhir_adapters.hl7v2.message import Message, parse
from fhir_adapters.hl7v2.segments import local
from fhir_adapters.hl7v2.segments.provenance import message_time, provenance
from fhir_adapters.hl7v2.splitting import messages, whole_messages
from fhir_adapters.identifiers import plain_blanks
from fhir_adapters.profile import DEFAULT_PROFILE, SourceProfile
from fhir_adapters.result import ConversionResult, Issue
from fhir_adapters.source_digest import source_digest
from fhir_adapters.validation import require_valid

__all__ = [
    "ADAPTER",
    "check_supported",
    "convert",
    "lacks_something",
    "messages",
    "read_header",
    "whole_messages",
]

ADAPTER = "hl7v2/1.1"
"""Name and version of this adapter, for lineage (docs/adr: how adapters version)."""

# FHIR strings allow of the control characters only tab, line feed and carriage return.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffe\uffff]")


def convert(raw: bytes, profile: SourceProfile | None = None) -> ConversionResult:
    """Convert one message to a transaction Bundle.

    Args:
        raw: one message (see :func:`messages`), with or without MLLP bytes around it.
        profile: the site's; the default profile when None.

    Raises:
        DecodeError: the bytes are not text in any allowed character set.
        ParseError: the message breaks the format; its location names segment and field.
        UnsupportedMessage: a type or event without a mapping.
        ValidationError: a resource made is not valid FHIR R4 and the profile asks for validation.
    """
    chosen = profile or DEFAULT_PROFILE
    decoded = decode(raw.lstrip(b"\x0b\r\n"), chosen.charset)
    remarks = _remarks(decoded)
    text = decoded.text.strip("\x0b\x1c\r\n \t\ufeff")
    if not text.replace("\r", "").isprintable():  # four times as fast as looking for what is not
        text = _plain(text, remarks)
    digest = source_digest(raw)
    message = parse(text)
    replaced = local_fields.move(message, chosen.local_fields) if chosen.local_fields else []
    header = from_segments(message, decoded, ordered=False)
    family = family_of(header)
    conv = Conversion(chosen, header)
    conv.issues += remarks
    conv.issues += [Issue("warning", "form", place, what) for place, what in message.forgiven]
    for segment, place in replaced:
        conv.not_mapped(segment, place.field, place.component)
    if not header.control_id:
        conv.issues.append(
            Issue("warning", "missing", "MSH-10", "no message control id; the message's digest stands in")
        )
        conv.header = replace(header, control_id=f"sm3:{digest}")
    family.convert(conv, message)
    bundle = _bundle(conv, message, digest, family)
    _report_leftovers(conv, message)
    if chosen.validate:
        require_valid(bundle)
    return ConversionResult(bundle, tuple(conv.issues))


def check_supported(header: Header) -> None:
    """Raise UnsupportedMessage for a type or event without a mapping."""
    family_of(header)


def lacks_something(message: Message, header: Header) -> bool:
    """Whether a message may lack what its conversion needs, so that only converting it shows whether it is refused.

    A segment that its family cannot do without is missing, or the event itself asks for more (a merge for who merges).
    Raises UnsupportedMessage as :func:`check_supported`.
    """
    family = family_of(header)
    sent = {segment.name for segment in message.segments}
    needs = ("NPU",) if header.type == "ADT" and ADT_EVENTS[header.trigger].place else family.needs
    more = header.type == "ADT" and ADT_EVENTS[header.trigger].person in ("merge", "link", "unlink")
    return more or not sent.issuperset(needs)


def _plain(text: str, remarks: list[Issue]) -> str:
    """The text without characters that FHIR strings do not allow, and with plain blanks for those of other widths."""
    if _CONTROL.search(text):
        remarks.append(
            Issue("warning", "control-characters", "MSH", "characters that FHIR does not allow were removed")
        )
        text = _CONTROL.sub("", text)
    plain = plain_blanks(text)
    if plain != text:
        remarks.append(Issue("information", "blanks", "MSH", "blanks of other widths became plain ones"))
    return plain


def _remarks(decoded: Decoded) -> list[Issue]:
    return [Issue("warning", "charset", "MSH-18", decoded.doubt)] if decoded.doubt else []


def _bundle(conv: Conversion, message: Message, digest: str, family: Family) -> Json:
    recorded = message_time(conv, message)
    local.keep(conv, message, provenance(conv, message, digest, recorded))
    bundle: Json = {"resourceType": "Bundle", "type": "transaction"}
    if recorded is not None:
        bundle["timestamp"] = recorded
    bundle["entry"] = _entries(conv, family)
    return bundle


def _entries(conv: Conversion, family: Family) -> list[Json]:
    base, mentions, amends = conv.profile.base_url, family.mentions, family.amends
    amended, unlinked, owned = conv.amended, conv.unlinked, conv.owned
    entries: list[Json] = []
    for reference, resource in conv.resources.items():
        kind = resource["resourceType"]
        if kind not in mentions and kind not in amends and not amended and not unlinked:
            # A plain PUT, as ``entry`` makes it: nearly every resource of nearly every message.
            request = {"method": "PUT", "url": reference}
            entries.append({"fullUrl": f"{base}/{reference}", "resource": resource, "request": request})
            continue
        entries.append(
            entry(
                base,
                reference,
                resource,
                mention=kind in mentions and reference not in owned,
                amends=amended.get(reference) or amends.get(kind, ()),
                unlinks=unlinked.get(reference, ()),
            )
        )
    return entries


def _report_leftovers(conv: Conversion, message: Message) -> None:
    """Every field that holds a value and that no mapping took."""
    for segment in message.segments:
        if not any(segment.fields):
            continue
        for number in segment.left():
            conv.not_mapped(segment, number)
