"""The audit trail: every access, permitted or denied, becomes a stored AuditEvent.

AuditEvents are records like any other: sealed, versioned, logged and anchored, so that an entry taken out of the trail
shows. They are sealed under the node's own key and name a patient only by local id: erasing a patient's data leaves the
trail readable.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from anchor.gm import sm3
from bridge.services.audit_event import (
    SUCCESS,
    ExchangeFacts,
    Outcome,
    Party,
    decision_event,
    disclosure_event,
    erasure_event,
    refusal_event,
    rest_event,
)
from bridge.storage.database import write_transaction
from bridge.storage.record_versions import Lineage, RecordWrite

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from bridge.storage.records import RecordStore

SUBJECT = "node"
ADAPTER = "yiqiao-audit/1.0"
NO_SOURCE = sm3(b"")  # an AuditEvent is converted from nothing


class AuditService:
    """Writes the AuditEvents of one node. Each ``record`` method returns the new AuditEvent's id."""

    def __init__(
        self, engine: Engine, records: RecordStore, node: Party, clock: Callable[[], float] = time.time
    ) -> None:
        self._engine, self._records, self.node, self._clock = engine, records, node, clock

    def record(
        self,
        interaction: str,
        *,
        client: Party,
        outcome: Outcome = SUCCESS,
        patient: str | None = None,
        resource: str | None = None,
        query: bytes | None = None,
    ) -> str:
        """Record one FHIR interaction with this node ("read", "vread", "search-type", "history-instance", …).

        ``patient`` and ``resource`` are local references ("Patient/…"); ``query`` is the raw search request.
        """
        event = rest_event(
            interaction,
            recorded=self._now(),
            server=self.node,
            client=client,
            outcome=outcome,
            patient=patient,
            resource=resource,
            query=query,
        )
        return self._store(event, None)

    def record_operations(
        self, queries: Sequence[bytes], *, client: Party, conn: Connection, outcome: Outcome = SUCCESS
    ) -> None:
        """Record operations of one caller, each told by its query, in the transaction that they are done in."""
        described = [
            rest_event("operation", recorded=self._now(), server=self.node, client=client, outcome=outcome, query=query)
            for query in queries
        ]
        writes = [self._write({**event, "id": str(uuid.uuid4())}) for event in described]
        self._records.put_many(conn, writes, fresh=True)

    def record_decision(self, facts: ExchangeFacts, conn: Connection | None = None) -> str:
        """Record that a peer's request was permitted or denied here (this node is the holder)."""
        return self._store(decision_event(facts, recorded=self._now()), conn)

    def record_release(self, facts: ExchangeFacts, conn: Connection | None = None) -> str:
        """Record that records left this node for a peer."""
        return self._store(disclosure_event(facts, recorded=self._now(), at_source=True), conn)

    def record_receive(self, facts: ExchangeFacts, conn: Connection | None = None) -> str:
        """Record what came of this node's own request to a peer: received, denied or rejected."""
        return self._store(disclosure_event(facts, recorded=self._now(), at_source=False), conn)

    def receive_write(self, facts: ExchangeFacts) -> RecordWrite:
        """Return what ``record_receive`` stores, to be stored by the caller with records of its own."""
        event = disclosure_event(facts, recorded=self._now(), at_source=False)
        return self._write({**event, "id": str(uuid.uuid4())})

    def record_erasure(self, patient: str, description: str, conn: Connection) -> str:
        """Record that everything about a patient ("Patient/…") was erased, in the transaction that erases it."""
        return self._store(erasure_event(patient, description, recorded=self._now(), node=self.node), conn)

    def record_refusal(self, claimed: Party, code: str) -> str:
        """Record that a request in the name of ``claimed`` was not accepted as its own, for the reason ``code``."""
        return self._store(refusal_event(claimed, code, recorded=self._now(), node=self.node), None)

    def _store(self, event: dict[str, Any], conn: Connection | None) -> str:
        """Store an event; with ``conn`` in the caller's transaction, to commit with its cause."""
        event = {**event, "id": str(uuid.uuid4())}
        if conn is not None:
            self._records.put_many(conn, [self._write(event)], fresh=True)
        else:
            with write_transaction(self._engine) as own:
                self._records.put_many(own, [self._write(event)], fresh=True)
        return str(event["id"])

    def _write(self, event: dict[str, Any]) -> RecordWrite:
        return RecordWrite(event, Lineage(source=self.node.id, source_digest=NO_SOURCE, adapter=ADAPTER), SUBJECT)

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
