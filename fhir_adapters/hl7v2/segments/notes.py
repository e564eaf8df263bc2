"""NTE: an Annotation (guide: NTE[Observation], NTE[Appointment-Comment])."""

from collections.abc import Iterable

from fhir_adapters.extensions import COMMENT_SOURCE
from fhir_adapters.hl7v2.context import Conversion, Json, add_extension
from fhir_adapters.hl7v2.datatypes import actors, concepts, timestamps
from fhir_adapters.hl7v2.message import Segment

ANNOTATION_TYPE = "http://hl7.org/fhir/StructureDefinition/annotationType"
_WRITERS = {
    "L": "Ancillary (filler) department is source of comment",
    "P": "Orderer (placer) is source of comment",
    "O": "Other system is source of comment",
}
_COMMENT_SOURCE = "http://terminology.hl7.org/CodeSystem/v2-0105"


def note(conv: Conversion, nte: Segment) -> Json | None:
    """The Annotation of an NTE's comment, repetitions on lines of their own; None without one."""
    nte.take(1)
    text = "\n".join(conv.text(part) for part in nte.take(3).split("~")).strip()
    if not text:
        return None
    made: Json = {"text": text}
    fields = nte.fields
    if fields[2]:
        # Whose comment it is (table 0105) is said nowhere else when NTE-5 is empty.
        source = conv.text(nte.take(2))
        if source in _WRITERS:
            coding = {"system": _COMMENT_SOURCE, "code": source, "display": _WRITERS[source]}
            add_extension(made, COMMENT_SOURCE, "valueCoding", coding)
        elif source:
            conv.unmapped_code("comment source", nte, 2)
    if fields[4]:
        kind = concepts.concept(conv, nte, 4)
        if kind is not None:
            add_extension(made, ANNOTATION_TYPE, "valueCodeableConcept", kind)
    if fields[5]:
        author = actors.practitioner(conv, nte, 5)
        if author is not None:
            made["authorReference"] = author
    if fields[6]:
        timestamps.put_date_time(conv, made, "time", nte, 6)
    return made


def add_notes(conv: Conversion, resource: Json, found: Iterable[Segment], element: str = "note") -> None:
    """Append the Annotations of NTE segments to a resource that has such an element."""
    made = [each for nte in found if (each := note(conv, nte)) is not None]
    if made:
        resource.setdefault(element, []).extend(made)


def joined(conv: Conversion, found: Iterable[Segment]) -> str:
    """The text of NTE segments, for resources that have one comment and no Annotations."""
    return "\n".join(each["text"] for nte in found if (each := note(conv, nte)) is not None)
