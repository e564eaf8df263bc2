"""Asynchronous release: the rules permit a request, and a person at the holder has the last word.

By ``exchange.approval_purposes`` and ``exchange.approval_sensitive`` such a request becomes a FHIR Task with a deadline
for the holder's privacy officer, and a Communication that tells of it. The requester is told "waiting" and asks again
under the same request id; nothing is built or committed before the approval, and then everything is decided anew: a
grant that was revoked meanwhile releases nothing. What nobody answers in time is refused.

Task: requested -> accepted -> completed (released), or rejected.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row, Table, func, select, update

from anchor import canonical
from anchor.errors import AnchorError
from anchor.gm import sm3
from bridge.errors import Conflict, Gone, InvalidRequest, KeyDestroyed, NotFound
from bridge.log import get_logger
from bridge.services.audit_event import ACT_REASON, Party
from bridge.services.review import NOTICE_SYSTEM, REQUEST_SYSTEM, TASK_SYSTEM, instant, organization
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.exchange import Disclosure
from bridge.storage.keyring import NODE
from bridge.storage.records import Lineage

if TYPE_CHECKING:
    from bridge.services.access_request import SignedRequest
    from bridge.services.audit import AuditService
    from bridge.services.ledger_events import LedgerEvents
    from bridge.storage.keyring import KeyRing
    from bridge.storage.records import RecordStore

ADAPTER = "yiqiao-approval/1.0"
APPROVAL_CODE = "release-approval"
APPROVAL_SECONDS = 7 * 86_400  # a week: long enough for an ethics board's secretary, short enough to end
MAX_NOTE_CHARACTERS = 2000

_DISCLOSURE: Table = Disclosure.__table__  # type: ignore[attr-defined]
_UNANSWERED = (_DISCLOSURE.c.state == "waiting") & _DISCLOSURE.c.approved.is_(None)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits for a person, or for its requester to collect (``approved``). Times are Unix seconds."""

    request: str
    requester: str
    purpose: str
    rule: str
    asked: int
    due: int
    approved: bool


class Approvals:
    """The requests of one holder that wait for a person."""

    def __init__(
        self,
        engine: Engine,
        records: RecordStore,
        keyring: KeyRing,
        events: LedgerEvents,
        audit: AuditService,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._records, self._keyring = engine, records, keyring
        self._events, self._audit, self._clock = events, audit, clock

    def open(self, connection: Connection, asked: SignedRequest, patient: str, rule: str) -> None:
        """Let a request wait for a person, in the caller's transaction: Task, notice, deadline."""
        now, holder, subject = int(self._clock()), self._audit.node.id, f"Patient/{patient}"
        due = now + APPROVAL_SECONDS
        lineage = Lineage(f"approval:{holder}", sm3(asked.dump()), ADAPTER)
        for resource in (_task(asked, subject, holder, now, due), _notice(asked, subject, holder, now, due)):
            self._records.put(connection, resource, lineage, subject)
        values = {"state": "waiting", "reason": rule, "patient_id": patient, "approval_due": due, "updated": now}
        connection.execute(update(_DISCLOSURE).where(_DISCLOSURE.c.request_id == asked.id).values(**values))
        get_logger("exchange").warning("a release waits for approval", request=asked.id, rule=rule, due=due)

    def waiting(self) -> list[Waiting]:
        """Return the requests that wait for a person or to be collected, the next due first."""
        wanted = select(_DISCLOSURE).where(_DISCLOSURE.c.state == "waiting").order_by(_DISCLOSURE.c.approval_due)
        with read_transaction(self._engine) as connection:
            return [_waiting(row) for row in connection.execute(wanted)]

    def count(self) -> int:
        """Return how many requests wait for a person."""
        with read_transaction(self._engine) as connection:
            wanted = select(func.count()).select_from(_DISCLOSURE).where(_UNANSWERED)
            return int(connection.execute(wanted).scalar_one())

    def decide(self, request: str, *, approve: bool, note: str, by: Party) -> Waiting:
        """Approve or refuse a request, once, saying why; raises ``NotFound``, ``Conflict``, ``InvalidRequest``."""
        if not 0 < len(note.strip()) <= MAX_NOTE_CHARACTERS:
            raise InvalidRequest("an approval or refusal says why in words / 须说明理由")
        detail = {"request": request, "approved": approve, "note": note.strip(), "by": by.id}
        with write_transaction(self._engine) as connection:
            row = self._answered(connection, request, detail)
        self._audit.record("operation", client=by, patient=f"Patient/{row.patient_id}", resource=_reference(request))
        if not approve:
            self._tell(request)
        return _waiting(row)

    def expire(self) -> int:
        """Refuse what nobody answered in time; return how many."""
        late = select(_DISCLOSURE.c.request_id).where(_UNANSWERED, _DISCLOSURE.c.approval_due < int(self._clock()))
        with read_transaction(self._engine) as connection:
            requests = list(connection.execute(late).scalars())
        for request in requests:
            detail = {"request": request, "approved": False, "note": "not answered in time", "by": "node"}
            with suppress(Conflict), write_transaction(self._engine) as connection:
                self._answered(connection, request, detail)
            self._tell(request)
        return len(requests)

    def complete(self, connection: Connection, request: str) -> None:
        """Close the Task of a request that was approved and released, in the caller's transaction."""
        row = connection.execute(select(_DISCLOSURE).where(_DISCLOSURE.c.request_id == request)).one()
        if row.approved:
            self._move(connection, row, "completed", {})

    def _answered(self, connection: Connection, request: str, detail: dict[str, Any]) -> Row[Any]:
        row = connection.execute(select(_DISCLOSURE).where(_DISCLOSURE.c.request_id == request)).first()
        if row is None or row.approval_due is None:
            raise NotFound("no request of that number waits for approval / 没有该待审批请求")
        if row.state != "waiting" or row.approved is not None:
            raise Conflict("that request has been answered / 该请求已处理")
        sealed = self._keyring.seal(connection, NODE, canonical.dump(detail), f"approval|{request}".encode())
        values: dict[str, Any] = {"approved": detail["approved"], "approval_sealed": sealed}
        if not detail["approved"]:
            values |= {"state": "denied", "reason": "refused-by-person"}
        changed = update(_DISCLOSURE).where(_DISCLOSURE.c.request_id == request)
        connection.execute(changed.values(updated=int(self._clock()), **values))
        self._move(connection, row, "accepted" if detail["approved"] else "rejected", detail)
        return connection.execute(select(_DISCLOSURE).where(_DISCLOSURE.c.request_id == request)).one()

    def _move(self, connection: Connection, row: Row[Any], status: str, detail: dict[str, Any]) -> None:
        with suppress(KeyDestroyed, Gone, NotFound):  # the patient was erased: no Task is left to move
            task = self._records.read("Task", task_id(row.request_id)).resource()
            task |= {"status": status, "lastModified": instant(int(self._clock()))}
            if detail:
                named = (("decided by", detail["by"]), ("why", detail["note"]))
                task["output"] = [{"type": {"text": text}, "valueString": value} for text, value in named]
            lineage = Lineage(f"approval:{self._audit.node.id}", sm3(canonical.dump(task)), ADAPTER)
            self._records.put(connection, task, lineage, f"Patient/{row.patient_id}")

    def _tell(self, request: str) -> None:
        """Tell the ledger of a refusal; in general words, and later if it does not answer."""
        with suppress(AnchorError):
            self._events.commit("access.deny", {"request": request, "reason": "not-permitted"}, may_queue=True)


def task_id(request: str) -> str:
    """Return the id of a request's approval Task."""
    return f"approval-{request}"


def _reference(request: str) -> str:
    return f"Task/{task_id(request)}"


def _waiting(row: Row[Any]) -> Waiting:
    return Waiting(
        row.request_id, row.requester, row.purpose, row.reason or "", row.created, row.approval_due, bool(row.approved)
    )


def _task(asked: SignedRequest, patient: str, holder: str, now: int, due: int) -> dict[str, Any]:
    statement = asked.statement
    asked_for = [("role", statement["role"]), ("practitioner", statement["practitioner"])]
    asked_for += [("category", each) for each in statement["categories"] or ()]
    task: dict[str, Any] = {
        "resourceType": "Task",
        "id": task_id(asked.id),
        "identifier": [{"system": REQUEST_SYSTEM, "value": asked.id}],
        "status": "requested",
        "intent": "order",
        "priority": "routine",
        "code": {"coding": [{"system": TASK_SYSTEM, "code": APPROVAL_CODE}], "text": "外院调阅审批"},
        "for": {"reference": patient},
        "authoredOn": instant(now),
        "requester": organization(statement["requester"]),
        "owner": organization(holder),
        "reasonCode": {"coding": [{"system": ACT_REASON, "code": statement["purpose"]}]},
        "restriction": {"period": {"end": instant(due)}},
        "input": [{"type": {"text": name}, "valueString": value} for name, value in asked_for if value],
    }
    if not task["input"]:
        del task["input"]  # FHIR JSON has no empty arrays
    return task


def _notice(asked: SignedRequest, patient: str, holder: str, now: int, due: int) -> dict[str, Any]:
    requester = asked.statement["requester"]
    text = (
        f"Institution {requester} asks for a patient's record under a grant, request {asked.id}: "
        f"approve or refuse it by {instant(due)}. / "
        f"机构 {requester} 依据授权申请调阅病历（请求号 {asked.id}），请于 {instant(due)} 前审批。"
    )
    return {
        "resourceType": "Communication",
        "id": f"notice-approval-{asked.id}",
        "identifier": [{"system": REQUEST_SYSTEM, "value": asked.id}],
        "status": "completed",
        "category": [{"coding": [{"system": NOTICE_SYSTEM, "code": APPROVAL_CODE}]}],
        "subject": {"reference": patient},
        "about": [{"reference": _reference(asked.id)}],
        "sent": instant(now),
        "recipient": [{**organization(holder), "display": "privacy officer / 隐私保护负责人"}],
        "payload": [{"contentString": text}],
    }
