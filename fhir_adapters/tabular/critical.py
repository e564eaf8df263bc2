"""A row of V_IOP_CRITICAL: a critical value from its report to its handling.

Who was told what is a Communication, who has to act a Task, and a Flag warns on the patient until somebody has.
"""

from fhir_adapters.identifiers import identifier, observation_id, related_id
from fhir_adapters.tabular.actors import department, practitioner
from fhir_adapters.tabular.batch import Batch, patient_reference, visit_reference
from fhir_adapters.tabular.concepts import local_concept
from fhir_adapters.tabular.quantities import put_value
from fhir_adapters.tabular.rows import Json, Row
from fhir_adapters.tabular.timing import period_of

_FLAG_CATEGORY = "http://terminology.hl7.org/CodeSystem/flag-category"
_OBSERVATION_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_TITLE = "危急值"


def convert_critical(row: Row, batch: Batch) -> list[str]:
    """Put Flag, Communication, Task and, where the row names it, the result; returns the references put."""
    numbers = [identifier(row.text("critical_no"), system=row.local_system("critical-value"))]
    references: list[str] = []
    actors: dict[str, str] = {}
    for role in ("notifier", "receiver", "confirmer", "handler"):
        actors[role] = practitioner(row, batch, f"{role}_code", f"{role}_name")
    actors["department"] = department(row, batch, "receiver_dept_code", "receiver_dept_name")
    result = _observation(row, batch)
    communication = _communication(row, actors, result, numbers)
    said = batch.put(communication, owner=True)
    task = batch.put(_task(row, actors, said, result, numbers), owner=True)
    flag = batch.put(_flag(row, actors, numbers), owner=True)
    references += [flag, said, task, result, *actors.values()]
    return [each for each in dict.fromkeys(references) if each]


def _base(row: Row, type: str, numbers: list[Json]) -> Json:
    made: Json = {
        "resourceType": type,
        "id": related_id(row.profile, type, row.system(), "critical-value", row.text("critical_no")),
        "identifier": numbers,
    }
    visit = visit_reference(row)
    if visit is not None:
        made["encounter"] = visit
    return made


def _code(row: Row) -> Json:
    return local_concept(row, "item_code", "item_name", "lab-item")


def _observation(row: Row, batch: Batch) -> str:
    """The result: the one of V_IOP_LAB when the row names its report (then this only mentions it), else its own."""
    report, code = row.text("report_no"), row.text("item_code") or row.text("item_name")
    observation: Json = {
        "resourceType": "Observation",
        "id": observation_id(row.profile, row.system(), report or f"critical:{row.text('critical_no')}", code),
        "status": "preliminary",
        "category": [{"coding": [{"system": _OBSERVATION_CATEGORY, "code": "laboratory", "display": "Laboratory"}]}],
        "code": _code(row),
        "subject": patient_reference(row),
    }
    visit = visit_reference(row)
    if visit is not None:
        observation["encounter"] = visit
    row.datetime("found_at", observation, "effectiveDateTime")
    put_value(row, observation)
    flag = row.codeable("interpretation", "flag")
    if flag is not None:
        observation["interpretation"] = [flag]
    if row.text("range_text"):
        observation["referenceRange"] = [{"text": row.text("range_text")}]
    return batch.put(observation, owner=not report)


def _communication(row: Row, actors: dict[str, str], result: str, numbers: list[Json]) -> Json:
    made = _base(row, "Communication", numbers)
    told = bool(row.text("notified_at"))
    made |= {
        "status": "completed" if told else "in-progress",
        "category": [{"text": _TITLE}],
        "priority": "stat",
        "subject": patient_reference(row),
        "about": [{"reference": result}],
    }
    row.datetime("notified_at", made, "sent")
    row.datetime("confirmed_at", made, "received")
    if actors["notifier"]:
        made["sender"] = {"reference": actors["notifier"]}
    recipients = [actors[role] for role in ("receiver", "department") if actors[role]]
    if recipients:
        made["recipient"] = [{"reference": each} for each in recipients]
    parts = (row.text("item_name"), row.text("result"), row.text("unit"), row.text("flag"))
    made["payload"] = [{"contentString": " ".join(filter(None, (_TITLE + ":", *parts)))}]
    if row.text("action_text"):
        note: Json = {"text": row.text("action_text")}
        if actors["handler"]:
            note["authorReference"] = {"reference": actors["handler"]}
        made["note"] = [note]
    return made


def _task(row: Row, actors: dict[str, str], said: str, result: str, numbers: list[Json]) -> Json:
    made = _base(row, "Task", numbers)
    made |= {
        "status": "completed" if row.text("handled_at") else "received" if row.text("confirmed_at") else "requested",
        "intent": "order",
        "priority": "stat",
        "code": {"text": "危急值处理"},
        "focus": {"reference": said},
        "basedOn": [{"reference": result}],
        "for": patient_reference(row),
    }
    row.datetime("notified_at" if row.text("notified_at") else "found_at", made, "authoredOn")
    latest = next((name for name in ("handled_at", "confirmed_at", "notified_at", "found_at") if row.text(name)), "")
    if latest:
        row.datetime(latest, made, "lastModified")
    if actors["notifier"]:
        made["requester"] = {"reference": actors["notifier"]}
    owner = actors["handler"] or actors["confirmer"] or actors["receiver"] or actors["department"]
    if owner:
        made["owner"] = {"reference": owner}
    period = period_of(row, "confirmed_at", "handled_at")
    if period:
        made["executionPeriod"] = period
    if row.text("action_text"):
        made["note"] = [{"text": row.text("action_text")}]
    return made


def _flag(row: Row, actors: dict[str, str], numbers: list[Json]) -> Json:
    made = _base(row, "Flag", numbers)
    coding = {"system": _FLAG_CATEGORY, "code": "lab", "display": "Lab"}
    made |= {
        "status": "inactive" if row.text("handled_at") else "active",
        "category": [{"coding": [coding], "text": _TITLE}],
        "code": _code(row),
        "subject": patient_reference(row),
    }
    period = period_of(row, "found_at", "handled_at")
    if period:
        made["period"] = period
    if actors["notifier"]:
        made["author"] = {"reference": actors["notifier"]}
    return made
