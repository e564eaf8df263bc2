"""PRB, GOL and PTH: Condition, Goal and CarePlan (guide: none yet; HL7 v2.5.1 chapter 12)."""

from dataclasses import dataclass

from fhir_adapters.hl7v2.context import Conversion, Json
from fhir_adapters.hl7v2.datatypes import actors, business_ids, concepts, timestamps
from fhir_adapters.hl7v2.message import Segment
from fhir_adapters.hl7v2.segments.allergies import key_of
from fhir_adapters.hl7v2.segments.diagnoses import CATEGORY, VERIFICATION, with_who_code
from fhir_adapters.identifiers import numbered_id

_CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
_ASSERTED = "http://hl7.org/fhir/StructureDefinition/condition-assertedDate"
_GOAL_STATUS = {
    "active": "active",
    "achieved": "completed",
    "completed": "completed",
    "cancelled": "cancelled",
    "canceled": "cancelled",
    "inactive": "on-hold",
    "suspended": "on-hold",
    "proposed": "proposed",
    "planned": "planned",
}
# PRB-14 in words and codes; clinical status and, where it says so, verification.
_LIFE_CYCLE = {
    "active": "active",
    "a": "active",
    "current": "active",
    "inactive": "inactive",
    "i": "inactive",
    "resolved": "resolved",
    "r": "resolved",
    "closed": "resolved",
    "remission": "remission",
    "recurrence": "recurrence",
    "relapse": "relapse",
}
_CONFIRMED = {
    "confirmed": "confirmed",
    "c": "confirmed",
    "differential": "differential",
    "provisional": "provisional",
    "rule out": "provisional",
    "ruled out": "refuted",
    "unconfirmed": "unconfirmed",
}
_DELETED = frozenset({"DE"})
"""Action code (table 0287) that takes a problem or goal back; the others tell it as it now is."""


@dataclass(slots=True)
class Problem:
    """A Condition of PRB, and the system and number of the problem's instance, for what stands under it."""

    resource: Json
    key: tuple[str, str]


def problem(conv: Conversion, patient: Json, encounter: Json | None, prb: Segment) -> Problem:
    """Make the Condition of a PRB (added)."""
    action = conv.text(prb.take(1))
    resource: Json = {
        "resourceType": "Condition",
        "id": "",
        "category": [{"coding": [{"system": CATEGORY, "code": "problem-list-item"}]}],
    }
    code = concepts.concept(conv, prb, 3)
    if code is None:
        conv.issue("warning", "missing", prb, 3, "no problem is named")
        code = {"text": "unknown"}
    resource["code"] = with_who_code(code)
    resource["subject"] = {"reference": f"Patient/{patient['id']}"}
    if encounter is not None:
        resource["encounter"] = encounter
    _status(conv, resource, prb, action)
    made = business_ids.entity(conv, prb.take(4))
    business_ids.add_identifier(resource, made)
    for raw in prb.take(5).split("~") if prb.peek(5) else ():
        business_ids.add_identifier(resource, business_ids.entity(conv, raw))
    _times(conv, resource, prb)
    category = concepts.concept(conv, prb, 10) if prb.peek(10) else None
    if category is not None:
        resource["category"].append(category)
    _ranked(conv, resource, prb)
    # The problem's own number names it; without one the patient and what it is do.
    key = business_ids.key_of(made) if made is not None else (str(patient["id"]), key_of(code))
    resource["id"] = numbered_id(conv.profile, "Condition", *key, "problem")
    return Problem(conv.keep(resource), key)


def _status(conv: Conversion, resource: Json, prb: Segment, action: str) -> None:
    confirmation = _word(conv, prb, 13)
    life = _word(conv, prb, 14)
    if action in _DELETED:
        verified = "entered-in-error"
    else:
        verified = _CONFIRMED.get(confirmation, "")
        if confirmation and not verified:
            _kept(conv, resource, prb, 13)
    if verified:
        prb.take(13)
        resource["verificationStatus"] = {"coding": [{"system": VERIFICATION, "code": verified}]}
    clinical = _LIFE_CYCLE.get(life, "")
    if life and not clinical:
        _kept(conv, resource, prb, 14)
    elif life:
        prb.take(14)
    if verified != "entered-in-error":
        code = "resolved" if prb.peek(9) and not life else clinical or "active"
        resource["clinicalStatus"] = {"coding": [{"system": _CLINICAL, "code": code}]}


def _word(conv: Conversion, prb: Segment, number: int) -> str:
    parts = prb.peek(number).split("^")
    return (conv.text(parts[0]) or (conv.text(parts[1]) if len(parts) > 1 else "")).lower()


def _kept(conv: Conversion, resource: Json, prb: Segment, number: int) -> None:
    """A status in a code of the site's own: kept as a note, as the required codes have none for it."""
    conv.unmapped_code("problem status", prb, number)
    made = concepts.concept(conv, prb, number)
    if made is not None:
        own = made.get("coding", ({},))[0]
        text = made.get("text") or own.get("display") or own["code"]
        resource.setdefault("note", []).append({"text": text})


def _times(conv: Conversion, resource: Json, prb: Segment) -> None:
    """PRB-2 the action, PRB-7 when it was established, 8 and 9 resolved (expected, in fact), 16 onset."""
    timestamps.put_date_time(conv, resource, "onsetDateTime", prb, 16)
    if "onsetDateTime" not in resource and "_onsetDateTime" not in resource and prb.peek(17):
        resource["onsetString"] = conv.text(prb.take(17))
    timestamps.put_date_time(conv, resource, "abatementDateTime", prb, 9)
    timestamps.put_date_time(conv, resource, "recordedDate", prb, 2)
    if prb.peek(7):
        timestamps.put_extension(conv, resource, _ASSERTED, prb, 7)


def _ranked(conv: Conversion, resource: Json, prb: Segment) -> None:
    """PRB-26: how severe it is."""
    severity = concepts.concept(conv, prb, 26) if prb.peek(26) else None
    if severity is not None:
        resource["severity"] = severity


def goal(conv: Conversion, patient: Json, gol: Segment, about: Json | None) -> Json:
    """Make the Goal of a GOL (added); ``about`` is the Condition that it addresses."""
    action = conv.text(gol.take(1))
    code = concepts.concept(conv, gol, 3)
    if code is None:
        conv.issue("warning", "missing", gol, 3, "no goal is named")
        code = {"text": "unknown"}
    resource: Json = {
        "resourceType": "Goal",
        "id": "",
        "lifecycleStatus": "entered-in-error" if action in _DELETED else _goal_status(conv, gol),
        "description": code,
        "subject": {"reference": f"Patient/{patient['id']}"},
    }
    made = business_ids.entity(conv, gol.take(4))
    business_ids.add_identifier(resource, made)
    timestamps.put_date_time(conv, resource, "startDate", gol, 7)
    _as_date(resource, "startDate")
    timestamps.put_date_time(conv, resource, "statusDate", gol, 2)
    _as_date(resource, "statusDate")
    due: Json = {}
    timestamps.put_date_time(conv, due, "dueDate", gol, 8)
    _as_date(due, "dueDate")
    if "dueDate" in due:
        resource["target"] = [due]
    people = actors.practitioners(conv, gol, 12) if gol.peek(12) else []
    if people:
        resource["expressedBy"] = people[0]
    if about is not None:
        resource["addresses"] = [{"reference": f"Condition/{about['id']}"}]
    key = business_ids.key_of(made) if made is not None else (str(patient["id"]), key_of(code))
    resource["id"] = numbered_id(conv.profile, "Goal", *key)
    return conv.keep(resource)


def _goal_status(conv: Conversion, gol: Segment) -> str:
    word = _word(conv, gol, 18)
    status = _GOAL_STATUS.get(word, "")
    if word and not status:
        conv.unmapped_code("goal status", gol, 18)
    elif word:
        gol.take(18)
    return status or "active"


def _as_date(target: Json, element: str) -> None:
    """A FHIR date has no time of day."""
    if element in target:
        target[element] = target[element][:10]


def pathway(conv: Conversion, patient: Json, encounter: Json | None, pth: Segment, about: Json | None) -> Json:
    """Make the CarePlan of a PTH (added)."""
    action = conv.text(pth.take(1))
    code = concepts.concept(conv, pth, 2)
    own = (code or {}).get("coding", ({},))[0]
    resource: Json = {
        "resourceType": "CarePlan",
        "id": "",
        "status": "entered-in-error" if action in _DELETED else "active",
        "intent": "plan",
        "subject": {"reference": f"Patient/{patient['id']}"},
    }
    if code is not None:
        resource["category"] = [code]
        resource["title"] = code.get("text") or own.get("display") or own["code"]
    if encounter is not None:
        resource["encounter"] = encounter
    made = business_ids.entity(conv, pth.take(3))
    business_ids.add_identifier(resource, made)
    timestamps.put_date_time(conv, resource, "created", pth, 4)
    if about is not None:
        resource["addresses"] = [{"reference": f"Condition/{about['id']}"}]
    key = business_ids.key_of(made) if made is not None else (str(patient["id"]), key_of(code or {}))
    resource["id"] = numbered_id(conv.profile, "CarePlan", *key)
    return conv.keep(resource)
