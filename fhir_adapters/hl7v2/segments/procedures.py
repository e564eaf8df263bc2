"""PR1: the Procedure (guide: PR1[Procedure])."""

from datetime import datetime, timedelta

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, places, timestamps
from fhir_adapters.hl7v2.datatypes.quantities import whole_number
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments.allergies import key_of
from fhir_adapters.identifiers import related_id

_SNOMED = "http://snomed.info/sct"
# Guide: PR1-8 and PR1-11 have a function, PR1-12 leaves it open.
_PERFORMERS = ((8, "88189002", "Anesthesiologist"), (11, "304292004", "Surgeon"), (12, "", ""))
MAX_MINUTES = 100_000
"""Longest procedure taken, in minutes (ten weeks): more is a mistake."""


def procedure(conv: Conversion, patient: Json, visit: Json | None, pr1: Segment) -> Json | None:
    """Make the Procedure of a PR1 (added); None when it names none. What is reported was done: status completed."""
    set_id = conv.text(pr1.take(1))
    pr1.take(2)  # coding method: deprecated, said again by PR1-3.3
    action = conv.text(pr1.take(20))
    code = _code(conv, pr1)
    if code is None:
        conv.issue("warning", "missing", pr1, 3, "no procedure is named")
        return None
    resource: Json = {
        "resourceType": "Procedure",
        "id": "",
        "status": "entered-in-error" if action == "D" else "completed",
        "code": code,
        "subject": {"reference": f"Patient/{patient['id']}"},
    }
    if visit is not None:
        resource["encounter"] = {"reference": f"Encounter/{visit['id']}"}
    category = concepts.concept(conv, pr1, 6) if pr1.peek(6) else None
    if category is not None:
        resource["category"] = category
    _performed(conv, resource, pr1)
    _performers(conv, resource, pr1)
    reasons = concepts.concepts(conv, pr1, 15) if pr1.peek(15) else []
    if reasons:
        resource["reasonCode"] = reasons
    where = places.location(conv, pr1, 23) if pr1.peek(23) else None
    if where is not None:
        resource["location"] = where
    made = business_ids.entity(conv, pr1.take(19)) if pr1.peek(19) else None
    business_ids.add_identifier(resource, made)
    _part_of(conv, resource, pr1)
    when = str(resource.get("performedDateTime") or resource.get("performedPeriod", {}).get("start", ""))
    owner = f"Encounter/{visit['id']}" if visit is not None else f"Patient/{patient['id']}"
    parts = business_ids.key_of(made) if made is not None else (owner, key_of(code), when or set_id)
    resource["id"] = related_id(conv.profile, "Procedure", patient["id"], *parts)
    return conv.keep(resource)


def _code(conv: Conversion, pr1: Segment) -> Json | None:
    code = concepts.concept(conv, pr1, 3)
    described = conv.text(pr1.take(4))
    if code is None:
        return {"text": described} if described else None
    if described and "text" not in code:
        code["text"] = described
    modifiers = concepts.concepts(conv, pr1, 16) if pr1.peek(16) else []
    for modifier in modifiers:  # guide: joined to a code by a colon, which only CPT defines; kept as codings here
        code.setdefault("coding", []).extend(modifier.get("coding", ()))
    return code


def _performed(conv: Conversion, resource: Json, pr1: Segment) -> None:
    start = timestamps.put_date_time(conv, resource, "performedDateTime", pr1, 5)
    minutes = whole_number(conv, pr1.peek(7)) if pr1.peek(7) else None
    if start is None or len(start) <= 10 or minutes is None or not 0 < minutes <= MAX_MINUTES:
        return  # PR1-7 then stays behind and is remarked on
    pr1.take(7)
    end = datetime.fromisoformat(start) + timedelta(minutes=minutes)
    del resource["performedDateTime"]
    resource["performedPeriod"] = {"start": start, "end": end.isoformat()}


def _performers(conv: Conversion, resource: Json, pr1: Segment) -> None:
    found: list[Json] = []
    for number, code, display in _PERFORMERS:
        for reference in actors.practitioners(conv, pr1, number) if pr1.peek(number) else ():
            entry: Json = {"actor": reference}
            if code:
                entry["function"] = {"coding": [{"system": _SNOMED, "code": code, "display": display}]}
            found.append(entry)
    if found:
        resource["performer"] = found


def _part_of(conv: Conversion, resource: Json, pr1: Segment) -> None:
    parent = business_ids.entity(conv, pr1.take(25)) if pr1.peek(25) else None
    if parent is not None:
        resource["partOf"] = [{"type": "Procedure", "identifier": parent}]
