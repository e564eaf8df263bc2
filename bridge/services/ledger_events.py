"""Events of an exchange on the ledger: committed within a bound, or queued, signed and reported as a gap.

Design section 7: an event that care does not depend on waits for the ledger or fails. One that it does depend on may go
ahead; then its signed statement is kept here, ``gaps`` reports it, and ``settle`` brings it to the ledger later.
Whether an unanswered submission arrived after all is read from the ledger's state before anything is submitted again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, Table, bindparam, insert, select, update

from anchor import canonical
from anchor.errors import ChainError, ChainUnavailable, TransactionRejected
from anchor.transaction import Code
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.exchange import LedgerGap

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient, TransactionResult
    from anchor.gm import PrivateKey
    from bridge.services.ledger_facts import LedgerFacts
    from bridge.services.submission import TransactionSubmitter

SETTLE_BATCH = 100  # events brought to the ledger by one run: some seconds of its time

_GAP: Table = LedgerGap.__table__  # type: ignore[attr-defined]
_WAITING = select(_GAP.c.id).where(_GAP.c.request_id == bindparam("request"), _GAP.c.state == "queued").limit(1)
#: event -> the field of the request's record on the ledger that names its transaction; None: the record itself
_ARRIVED: Mapping[str, str | None] = {
    "access.request": None,
    "access.emergency": None,
    "access.permit": "permit",
    "access.deny": "deny",
    "access.release": "release",
    "access.receive": "receive",
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where an event is: ``tx_id`` on the ledger, or ``gap``, its signed statement, while it is queued."""

    tx_id: str | None
    block_time: int | None = None
    gap: Mapping[str, str] | None = None


class LedgerEvents:
    """Submits a node's exchange events."""

    def __init__(
        self,
        engine: Engine,
        submitter: TransactionSubmitter,
        chain: ChainClient,
        key: PrivateKey,
        *,
        facts: LedgerFacts,
        timeout_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._submitter, self._chain, self._facts = engine, submitter, chain, facts
        self._key, self._timeout, self._clock = key, timeout_seconds, clock

    def commit(self, type: str, body: Mapping[str, Any], *, may_queue: bool = False) -> Recorded:
        """Commit an event, waiting at most the configured bound.

        Raises ``TransactionRejected`` when the ledger's rules refuse it, and ``ChainUnavailable`` when it did not
        answer in time and the event may not be queued.
        """
        return self.begin(type, body, may_queue=may_queue)()

    def begin(self, type: str, body: Mapping[str, Any], *, may_queue: bool = False) -> Callable[[], Recorded]:
        """Start committing an event; return what waits for it, to be called once: returns and raises as ``commit``."""
        if may_queue and (self._facts.silent or self._waiting(str(body["request"]))):
            return lambda: self.enqueue(type, body)  # what was queued before for this request comes first
        submitted = self._bounded(type, body)

        def finish() -> Recorded:
            try:
                result = submitted()
            except ChainUnavailable:
                arrived = self._arrived(type, str(body.get("request")))
                if arrived is not None:
                    return arrived
                if not may_queue:
                    raise
                return self.enqueue(type, body)
            return Recorded(result.tx_id, result.block_time)

        return finish

    def settle(self) -> int:
        """Bring queued events to the ledger in order; return how many were settled. Stops at the first that waits."""
        with read_transaction(self._engine) as connection:
            rows = connection.execute(
                select(_GAP).where(_GAP.c.state == "queued").order_by(_GAP.c.id).limit(SETTLE_BATCH)
            ).all()
        settled = 0
        for row in rows:
            if not self._due(row.type, row.request_id):
                continue
            try:
                state, code, tx_id = self._settle(row.type, canonical.load(row.body.encode()))
            except ChainUnavailable:
                break
            with write_transaction(self._engine) as connection:
                values = {"state": state, "code": code, "tx_id": tx_id, "settled": int(self._clock())}
                connection.execute(update(_GAP).where(_GAP.c.id == row.id).values(**values))
            settled += 1
        return settled

    def gaps(self) -> list[dict[str, Any]]:
        """Return the events that are not on the ledger: queued ones and ones it refused afterwards."""
        with read_transaction(self._engine) as connection:
            rows = connection.execute(select(_GAP).where(_GAP.c.state != "committed").order_by(_GAP.c.id)).all()
        return [
            {"request": row.request_id, "type": row.type, "since": row.created, "state": row.state, "code": row.code}
            for row in rows
        ]

    def _settle(self, type: str, body: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
        arrived = self._arrived(type, str(body.get("request")))
        if arrived is not None:
            return "committed", None, arrived.tx_id
        try:
            return "committed", None, self._submitter.submit(type, body).tx_id
        except TransactionRejected as error:
            return ("committed" if error.code == Code.ALREADY_DONE else "refused"), error.code, None

    def _bounded(self, type: str, body: Mapping[str, Any]) -> Callable[[], TransactionResult]:
        """Submit in a thread of its own; return what waits for the answer, no longer than the bound from now."""
        answer: queue.SimpleQueue[TransactionResult | Exception] = queue.SimpleQueue()

        def submit() -> None:
            try:
                answer.put(self._submitter.submit(type, body))
            except Exception as error:  # noqa: BLE001 - raised below, where the caller waits
                answer.put(error)

        threading.Thread(target=submit, name=f"ledger {type}", daemon=True).start()
        until = time.monotonic() + self._timeout

        def wait() -> TransactionResult:
            try:
                outcome = answer.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                self._facts.went_silent()
                raise ChainUnavailable("the ledger did not answer within the configured bound") from None
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return wait

    def _arrived(self, type: str, request: str) -> Recorded | None:
        if type not in _ARRIVED:
            return None
        try:
            state = self._chain.state(f"request/{request}") or {}
        except ChainError:
            return None
        field = _ARRIVED[type]
        event = state if field is None else state.get(field)
        return None if not event else Recorded(event["tx"], event["time"])

    def _due(self, type: str, request: str) -> bool:
        """Whether the ledger could take an event now: what it follows may still wait at the other institution."""
        if type in ("access.request", "access.emergency"):
            return True
        try:
            state = self._chain.state(f"request/{request}")
        except ChainError:
            return False
        return bool(state) if type != "access.receive" else bool((state or {}).get("release"))

    def queued(self, request: str, type: str) -> Recorded | None:
        """Return a queued event of a request with its signed statement, or None when none waits."""
        wanted = select(_GAP).where(_GAP.c.request_id == request, _GAP.c.type == type, _GAP.c.state == "queued")
        with read_transaction(self._engine) as connection:
            row = connection.execute(wanted.limit(1)).first()
        if row is None:
            return self._arrived(type, request)
        return Recorded(None, None, {"statement": row.statement, "sig": row.signature, "key": row.key_id})

    def _waiting(self, request: str) -> bool:
        with read_transaction(self._engine) as connection:
            return connection.execute(_WAITING, {"request": request}).first() is not None

    def enqueue(self, type: str, body: Mapping[str, Any]) -> Recorded:
        """Sign and queue an event whose turn on the ledger has not come."""
        now = int(self._clock())
        statement = canonical.dump({"v": 1, "type": type, "body": dict(body), "time": now})
        signature, key_id = self._key.sign(statement).hex(), self._key.public_key.key_id
        row = {
            "request_id": body["request"],
            "type": type,
            "body": canonical.dump(dict(body)).decode(),
            "statement": statement.decode(),
            "signature": signature,
            "key_id": key_id,
            "created": now,
            "state": "queued",
        }
        with write_transaction(self._engine) as connection:
            connection.execute(insert(_GAP).values(**row))
        return Recorded(None, None, {"statement": statement.decode(), "sig": signature, "key": key_id})
