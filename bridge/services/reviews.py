"""Reviews of emergency accesses: opened with the access, judged by a person, told to the ledger,
alarmed when overdue.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Connection, Engine, Row, Table, func, insert, select, update

from anchor import canonical
from anchor.contracts.access import REVIEW_SECONDS
from anchor.errors import ChainError, TransactionRejected
from anchor.gm import sm3
from anchor.receipt import commitment
from anchor.transaction import Code
from bridge.errors import Conflict, DisclosureRefused, InvalidRequest, NotFound
from bridge.log import get_logger
from bridge.services.audit_event import Party
from bridge.services.review import closed_task, notices, review_task, task_id
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.exchange import EmergencyReview
from bridge.storage.records import Lineage

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient
    from bridge.services.access_request import SignedRequest
    from bridge.services.audit import AuditService
    from bridge.services.submission import TransactionSubmitter
    from bridge.storage.keyring import KeyRing
    from bridge.storage.records import RecordStore

ADAPTER = "yiqiao-review/1.0"
MAX_NOTE_CHARACTERS = 2000
SALT_BYTES = 32
PAGE = 1000  # requests of the ledger read at a time
_HEX = "0123456789abcdef"

Outcome = Literal["justified", "unjustified"]

_REVIEW: Table = EmergencyReview.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Review:
    """One emergency access. ``state``: open, closing (the ledger has not answered), closed. Times are Unix seconds."""

    request: str
    requester: str
    holder: str
    opened: int
    due: int
    state: str
    outcome: str | None = None

    def overdue(self, now: float) -> bool:
        """Whether its deadline has passed without an outcome."""
        return self.state == "open" and now > self.due


class ReviewService:
    """Keeps one node's reviews; an authority also sees those of the whole consortium on the ledger."""

    def __init__(
        self,
        engine: Engine,
        records: RecordStore,
        keyring: KeyRing,
        submitter: TransactionSubmitter,
        chain: ChainClient,
        audit: AuditService,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._records, self._keyring = engine, records, keyring
        self._submitter, self._chain, self._audit, self._clock = submitter, chain, audit, clock
        self._alarmed = 0

    def open(self, connection: Connection, asked: SignedRequest, patient: str) -> None:
        """Open the review of an emergency access in the caller's transaction: Task, notices, deadline."""
        now, holder, subject = int(self._clock()), self._audit.node.id, f"Patient/{patient}"
        due = now + REVIEW_SECONDS
        lineage = Lineage(f"review:{holder}", sm3(asked.dump()), ADAPTER)
        resources = [
            review_task(asked, patient=subject, holder=holder, now=now, due=due),
            *notices(asked, patient=subject, holder=holder, now=now, due=due),
        ]
        for resource in resources:
            self._records.put(connection, resource, lineage, subject)
        row = {"request_id": asked.id, "patient_id": patient, "requester": asked.statement["requester"], "opened": now}
        connection.execute(insert(_REVIEW).values(**row, due=due, state="open", updated=now))
        get_logger("exchange").warning("emergency access; a review is due", request=asked.id, due=due)

    def here(self, *, closed: bool = False) -> list[Review]:
        """Return this node's reviews, the next due first; with ``closed`` those that are done as well."""
        wanted = select(_REVIEW).order_by(_REVIEW.c.due)
        if not closed:
            wanted = wanted.where(_REVIEW.c.state != "closed")
        with read_transaction(self._engine) as connection:
            return [self._review(row) for row in connection.execute(wanted)]

    def across_the_ledger(self) -> list[Review]:
        """Return the open reviews of all members, the next due first: for an authority. Raises ``ChainError``."""
        found = []
        for state in self._requests("request/"):
            review = state.get("review")
            if review is not None and review["outcome"] is None:
                found.append(
                    Review(state["request"], state["requester"], state["holder"], state["time"], review["due"], "open")
                )
        return sorted(found, key=lambda each: each.due)

    def close(self, request: str, outcome: Outcome, note: str, by: Party) -> Review:
        """Judge an emergency access, once, and tell the ledger; a ledger that does not answer is told later.

        Raises ``NotFound``, ``Conflict`` (judged already), ``InvalidRequest``, ``DisclosureRefused`` (the ledger's
        rules).
        """
        if outcome not in ("justified", "unjustified") or not 0 < len(note.strip()) <= MAX_NOTE_CHARACTERS:
            raise InvalidRequest("a review is justified or unjustified, and says why in words / 复核须有结论与理由")
        detail = {"request": request, "outcome": outcome, "note": note.strip(), "by": by.id,
                  "salt": secrets.token_hex(SALT_BYTES)}  # fmt: skip
        subject = self._judge(request, detail, by)
        if subject is None:
            return self._as_authority(request, detail)
        self._audit.record("operation", client=by, patient=subject, resource=f"Task/{task_id(request)}")
        return self._tell(request)

    def _judge(self, request: str, detail: dict[str, Any], by: Party) -> str | None:
        """Note an outcome here and return whose record it is about; None for an emergency at another member."""
        now, outcome = int(self._clock()), detail["outcome"]
        with write_transaction(self._engine) as connection:
            row = connection.execute(select(_REVIEW).where(_REVIEW.c.request_id == request)).first()
            if row is None:
                return None
            if row.state != "open":
                raise Conflict("that emergency access has been reviewed / 该紧急调阅已复核")
            subject = f"Patient/{row.patient_id}"
            sealed = self._keyring.seal(connection, subject, canonical.dump(detail), _aad(request))
            values = {"state": "closing", "outcome": outcome, "detail_sealed": sealed, "updated": now}
            connection.execute(update(_REVIEW).where(_REVIEW.c.request_id == request).values(**values))
            task = self._records.read("Task", task_id(request)).resource()
            done = closed_task(task, outcome=outcome, by=by.name or by.id, now=now)
            self._records.put(connection, done, Lineage(f"review:{by.id}", sm3(sealed), ADAPTER), subject)
        return subject

    def settle(self) -> int:
        """Tell the ledger of outcomes that it has not answered for, and the log of new overdue
        reviews; return how many.
        """
        with read_transaction(self._engine) as connection:
            waiting = list(
                connection.execute(select(_REVIEW.c.request_id).where(_REVIEW.c.state == "closing")).scalars()
            )
        overdue = self.counts()[1]
        if overdue > self._alarmed:
            get_logger("exchange").error("emergency reviews are overdue", count=overdue)
        self._alarmed = overdue
        return sum(self._tell(request).state == "closed" for request in waiting)

    def counts(self) -> tuple[int, int]:
        """Return how many reviews are open, and how many of them are overdue."""
        is_open = _REVIEW.c.state == "open"
        with read_transaction(self._engine) as connection:
            waiting = connection.execute(select(func.count()).where(is_open)).scalar_one()
            late = connection.execute(select(func.count()).where(is_open, _REVIEW.c.due < int(self._clock())))
            return int(waiting), int(late.scalar_one())

    def _tell(self, request: str) -> Review:
        """Put an outcome on the ledger, unless it is there; what the ledger has not taken stays "closing"."""
        with read_transaction(self._engine) as connection:
            row = connection.execute(select(_REVIEW).where(_REVIEW.c.request_id == request)).one()
            sealed = self._keyring.open(connection, f"Patient/{row.patient_id}", row.detail_sealed, _aad(request))
        try:
            tx_id = self._submit(request, canonical.load(sealed))
        except (ChainError, DisclosureRefused):
            return self._review(row)
        with write_transaction(self._engine) as connection:
            values = {"state": "closed", "tx_id": tx_id, "updated": int(self._clock())}
            connection.execute(update(_REVIEW).where(_REVIEW.c.request_id == request).values(**values))
            return self._review(connection.execute(select(_REVIEW).where(_REVIEW.c.request_id == request)).one())

    def _submit(self, request: str, detail: dict[str, Any]) -> str | None:
        body = {"request": request, "outcome": detail["outcome"], "commitment": commitment(detail).hex()}
        try:
            return self._submitter.submit("access.review", body).tx_id
        except TransactionRejected as error:
            if error.code == Code.ALREADY_DONE:
                return None
            raise DisclosureRefused(error.code, f"the ledger refused the review: {error} / 账本拒绝了复核") from error

    def _as_authority(self, request: str, detail: dict[str, Any]) -> Review:
        """Judge another member's emergency: the ledger lets an authority, and nobody else."""
        state = self._chain.state(f"request/{request}")
        if state is None or state["review"] is None:
            raise NotFound("there is no emergency access of that number / 没有该紧急调阅")
        self._submit(request, detail)
        return Review(request, state["requester"], state["holder"], state["time"], state["review"]["due"], "closed",
                      detail["outcome"])  # fmt: skip

    def _requests(self, prefix: str) -> list[dict[str, Any]]:
        """Return all requests on the ledger below a prefix, by ever longer prefixes where there are many."""
        found = self._chain.state_with_prefix(prefix, PAGE)
        if len(found) < PAGE:
            return list(found.values())
        return [each for digit in _HEX for each in self._requests(prefix + digit)]

    def _review(self, row: Row[Any]) -> Review:
        return Review(row.request_id, row.requester, self._audit.node.id, row.opened, row.due, row.state, row.outcome)


def _aad(request: str) -> bytes:
    return f"review|{request}".encode()
