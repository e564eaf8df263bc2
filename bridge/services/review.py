"""The review that every emergency access opens at the holder, as a FHIR Task with a deadline (pure)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from anchor.contracts.access import REVIEW_SECONDS
from bridge.services.audit_event import ACT_REASON, USCC_SYSTEM

if TYPE_CHECKING:
    from bridge.services.access_request import SignedRequest


def review_task(asked: SignedRequest, *, patient: str, holder: str, now: int) -> dict[str, Any]:
    """Return the Task by which the holder's privacy officer judges an emergency access within a day."""
    statement = asked.statement
    requester = {"type": "Organization", "identifier": {"system": USCC_SYSTEM, "value": statement["requester"]}}
    task: dict[str, Any] = {
        "resourceType": "Task",
        "id": f"review-{asked.id}",
        "identifier": [{"system": "urn:yiqiao:request", "value": asked.id}],
        "status": "requested",
        "intent": "order",
        "priority": "urgent",
        "code": {"coding": [{"system": "urn:yiqiao:task", "code": "emergency-access-review"}], "text": "紧急调阅复核"},
        "for": {"reference": patient},
        "authoredOn": _instant(now),
        "requester": requester,
        "owner": {"type": "Organization", "identifier": {"system": USCC_SYSTEM, "value": holder}},
        "reasonCode": {"coding": [{"system": ACT_REASON, "code": "BTG"}], "text": statement["reason"]},
        "restriction": {"period": {"end": _instant(now + REVIEW_SECONDS)}},
        "input": [{"type": {"text": "coded reason"}, "valueString": statement["emergency"]}],
    }
    if statement["practitioner"]:
        task["input"].append({"type": {"text": "practitioner"}, "valueString": statement["practitioner"]})
    return task


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
