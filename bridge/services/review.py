"""What an emergency access leaves at the holder, as FHIR: a Task with a deadline and two notices (pure).

The Task is for the holder's privacy officer to judge within a day. One Communication tells the officer, the other lies
in the patient's record: the patient learns of it whenever they look.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bridge.services.audit_event import ACT_REASON, USCC_SYSTEM

if TYPE_CHECKING:
    from bridge.services.access_request import SignedRequest

TASK_SYSTEM = "urn:yiqiao:task"
NOTICE_SYSTEM = "urn:yiqiao:notice"
REQUEST_SYSTEM = "urn:yiqiao:request"
REVIEW_CODE = "emergency-access-review"


def review_task(asked: SignedRequest, *, patient: str, holder: str, now: int, due: int) -> dict[str, Any]:
    """Return the Task by which the holder's privacy officer judges an emergency access."""
    statement = asked.statement
    task: dict[str, Any] = {
        "resourceType": "Task",
        "id": task_id(asked.id),
        "identifier": [{"system": REQUEST_SYSTEM, "value": asked.id}],
        "status": "requested",
        "intent": "order",
        "priority": "urgent",
        "code": {"coding": [{"system": TASK_SYSTEM, "code": REVIEW_CODE}], "text": "紧急调阅复核"},
        "for": {"reference": patient},
        "authoredOn": instant(now),
        "requester": organization(statement["requester"]),
        "owner": organization(holder),
        "reasonCode": {"coding": [{"system": ACT_REASON, "code": "BTG"}], "text": statement["reason"]},
        "restriction": {"period": {"end": instant(due)}},
        "input": [
            {"type": {"text": "coded reason"}, "valueString": statement["emergency"]},
            {"type": {"text": "role"}, "valueString": statement["role"]},
        ],
    }
    if statement["practitioner"]:
        task["input"].append({"type": {"text": "practitioner"}, "valueString": statement["practitioner"]})
    return task


def closed_task(task: dict[str, Any], *, outcome: str, by: str, now: int) -> dict[str, Any]:
    """Return a review's Task with its outcome: "justified" or "unjustified"."""
    text = {"type": {"text": "outcome"}, "valueString": outcome}
    who = {"type": {"text": "reviewed by"}, "valueString": by}
    return {**task, "status": "completed", "lastModified": instant(now), "output": [text, who]}


def notices(asked: SignedRequest, *, patient: str, holder: str, now: int, due: int) -> list[dict[str, Any]]:
    """Return the notice to the privacy officer and the one in the patient's record."""
    statement = asked.statement
    officer = {**organization(holder), "display": "privacy officer / 隐私保护负责人"}
    to_officer = (
        f"Emergency access to a patient's record, request {asked.id}: review it by {instant(due)}. / "
        f"发生紧急调阅（请求号 {asked.id}），请于 {instant(due)} 前完成复核。"
    )
    to_patient = (
        f"In an emergency your record was opened to institution {statement['requester']}, reason "
        f"{statement['emergency']}, without your consent being asked first. It is being reviewed. / "
        f"因紧急救治，您的病历已在未事先征得同意的情况下提供给机构 {statement['requester']}，正在复核。"
    )
    return [
        _notice(asked.id, "officer", patient, officer, to_officer, now),
        _notice(asked.id, "patient", patient, {"reference": patient}, to_patient, now),
    ]


def task_id(request: str) -> str:
    """Return the id of a request's review Task."""
    return f"review-{request}"


def instant(seconds: int) -> str:
    """Return a FHIR instant."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _notice(request: str, whom: str, patient: str, recipient: dict[str, Any], text: str, now: int) -> dict[str, Any]:
    return {
        "resourceType": "Communication",
        "id": f"notice-{whom}-{request}",
        "identifier": [{"system": REQUEST_SYSTEM, "value": request}],
        "status": "completed",
        "category": [{"coding": [{"system": NOTICE_SYSTEM, "code": "emergency-access"}]}],
        "priority": "urgent",
        "subject": {"reference": patient},
        "about": [{"reference": f"Task/{task_id(request)}"}],
        "sent": instant(now),
        "recipient": [recipient],
        "payload": [{"contentString": text}],
    }


def organization(org: str) -> dict[str, Any]:
    """Return the Reference to an institution."""
    return {"type": "Organization", "identifier": {"system": USCC_SYSTEM, "value": org}}
