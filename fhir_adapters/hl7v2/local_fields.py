"""Local field positions: what a site's profile says stands elsewhere is brought to where the standard has it.

    [local_fields]
    "PID-3" = "ZPI-2"       # the whole field, with its repetitions and components
    "PID-3.4" = "ZPI-5"     # into one component
    "PV1-19" = "PV1-50"     # within a segment

The place named on the left is filled in each segment of its name, from the same segment, or from the nearest one after
it (before the next of its name) of the name on the right, else the message's only one. Where nothing stands, the place
on the left stays as it is. What was brought over counts as mapped; what it replaces is reported as not mapped.
"""

from collections.abc import Mapping, Sequence

from fhir_adapters.hl7v2.message import NULL, Message, Segment
from fhir_adapters.local_field import FieldPlace

Moves = Mapping[FieldPlace, FieldPlace]


def move(message: Message, moves: Moves) -> list[tuple[Segment, FieldPlace]]:
    """Bring every value of ``moves`` (standard place -> where the site puts it) to its standard place.

    Returns the places whose own value was replaced.
    """
    found: list[tuple[Segment, FieldPlace, str]] = []
    taken: list[tuple[Segment, FieldPlace]] = []
    for target, source in moves.items():
        for position, segment in enumerate(message.segments):
            if segment.name != target.segment:
                continue
            holder = segment if source.segment == target.segment else _holder(message.segments, position, source)
            value = _read(holder, source) if holder is not None else ""
            if holder is not None and value and value != NULL:
                found.append((segment, target, value))
                taken.append((holder, source))
    # First everything is taken away, then put: two fields may change places.
    for holder, source in taken:
        _write(holder, source, "")
    replaced = [(segment, target) for segment, target, _ in found if _read(segment, target)]
    for segment, target, value in found:
        _write(segment, target, value)
    return replaced


def _holder(segments: Sequence[Segment], position: int, source: FieldPlace) -> Segment | None:
    """The segment that holds the value for the one at ``position``."""
    own = segments[position].name
    for segment in segments[position + 1 :]:
        if segment.name == source.segment:
            return segment
        if segment.name == own:
            break
    named = [segment for segment in segments if segment.name == source.segment]
    return named[0] if len(named) == 1 else None


def _read(segment: Segment, place: FieldPlace) -> str:
    if place.field >= len(segment.fields):
        return ""
    raw = segment.fields[place.field]
    if not place.component or not raw:
        return raw
    parts = raw.partition("~")[0].split("^")
    return parts[place.component - 1] if place.component <= len(parts) else ""


def _write(segment: Segment, place: FieldPlace, value: str) -> None:
    fields = segment.fields
    if place.field >= len(fields):
        fields += [""] * (place.field + 1 - len(fields))
    segment.sent = max(segment.sent, place.field)
    if not place.component:
        fields[place.field] = value
        return
    first, tilde, more = fields[place.field].partition("~")
    parts = first.split("^")
    parts += [""] * (place.component - len(parts))
    # A component holds no repetitions and no components of its own.
    parts[place.component - 1] = value.partition("~")[0].replace("^", "\\S\\")
    joined = "^".join(parts).rstrip("^")
    fields[place.field] = joined + tilde + more
