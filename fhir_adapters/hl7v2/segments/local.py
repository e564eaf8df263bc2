"""Z-segments: what a site sends beside the standard, kept as sent on the message's Provenance and remarked on.

What such a segment means is the site's secret; a profile may know, the standard does not (HL7 v2.5, 2.11).
"""

from fhir_adapters.extensions import Z_SEGMENT
from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.message import Message

MAX_SEGMENTS = 1000
"""Z-segments kept of one message; more is a table, not a remark, and is reported as not mapped."""


def keep(conv: Conversion, message: Message, provenance: Json) -> None:
    """Put every Z-segment into an extension: its name, and under "3" and so on the text of its fields."""
    kept = 0
    for segment in message.segments:
        if segment.name[0] != "Z" or kept >= MAX_SEGMENTS:
            continue
        parts: list[Json] = [{"url": "name", "valueString": segment.name}]
        for number in list(segment.left()):
            text = conv.text(segment.take(number))
            if text:
                parts.append({"url": str(number), "valueString": text})
        if len(parts) > 1:
            kept += 1
            provenance.setdefault("extension", []).append({"url": Z_SEGMENT, "extension": parts})
            conv.issue("information", "local-segment", segment, 0, "not of the standard; kept on the Provenance")
