"""The inbox: every delivered message, durable before it is acknowledged, processed once, in order for each patient.

- ``accept`` returns after the commit; deliveries of many threads share one (``inbox_writer``).
- A redelivery (same source, control id and content) gets the stored acknowledgement and creates nothing.
  The same control id with other content is kept as a message of its own and flagged.
- ``claim`` leases messages to one worker. A patient's next message is not given out before the earlier one is stored,
  failed or dead; other patients go on. A worker that dies loses its leases by time, or by
  ``recover`` at the next start.
- ``finish`` runs in the transaction that stores what came of the message: effect and state change are one.
- A message that crashes its worker is told from its neighbours: after some lost leases it is claimed alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

from anchor.gm import sm3
from bridge.errors import BridgeError
from bridge.storage.bulk import insert_rows, select_by_keys
from bridge.storage.database import transact
from bridge.storage.inbox_bounds import InboxBounds, IntakeGate
from bridge.storage.inbox_claims import VISIBILITY_SECONDS, InboxClaims, refusal_columns
from bridge.storage.inbox_desk import sealed_place
from bridge.storage.inbox_tables import (
    DEAD,
    FAILED,
    INBOX,
    RECEIVED,
    STATES,
    STORED,
    Accepted,
    Backlog,
    Claim,
    Delivery,
    InboxDetail,
    InboxEntry,
    InboxFilter,
    Refusal,
    RerunProgress,
)
from bridge.storage.inbox_writer import GroupWriter
from bridge.storage.keyring import KeyRing

__all__ = [
    "DEAD",
    "FAILED",
    "RECEIVED",
    "STATES",
    "STORED",
    "Accepted",
    "Backlog",
    "Claim",
    "Delivery",
    "Inbox",
    "InboxBounds",
    "InboxDetail",
    "InboxEntry",
    "InboxFilter",
    "PreparedDelivery",
    "Refusal",
    "RerunProgress",
]

ACCEPT_LOCK = 0x79697169616F01
"""PostgreSQL advisory lock of the accepting transactions: ids are given in commit order, as they are on SQLite."""

_COLUMNS = (
    *("message_key", "control_key", "patient_key", "source", "control_id", "format", "event", "received", "digest"),
    *("size", "conflict", "state", "attempts", "crashes", "available", "lease_until", "finished"),
    *("code", "location", "reason", "acknowledgement", "raw"),
)


@dataclass(slots=True)
class PreparedDelivery:
    """A message ready to be written: its row's values by column, and its acknowledgement unsealed."""

    row: dict[str, Any]
    acknowledgement: bytes

    @property
    def message_key(self) -> bytes:
        """What a redelivery has in common with it."""
        key: bytes = self.row["message_key"]
        return key


class Inbox(InboxClaims):
    """The inbox of one node; safe to share between threads, and between processes through the database."""

    def __init__(
        self,
        engine: Engine,
        keyring: KeyRing,
        clock: Callable[[], float] = time.time,
        visibility_seconds: float = VISIBILITY_SECONDS,
        bounds: InboxBounds | None = None,
    ) -> None:
        super().__init__(engine, keyring, clock, visibility_seconds)
        self.gate = IntakeGate(bounds or InboxBounds())
        self._writer: GroupWriter[PreparedDelivery, Accepted] = GroupWriter(self._write, "inbox")

    def close(self) -> None:
        """Commit what waits and stop taking messages."""
        self._writer.close()

    # Taking messages

    def accept(self, delivery: Delivery) -> Accepted:
        """Keep a message and return once it is on the disk. Raises ``Overloaded`` or ``StorageError``: nothing kept."""
        return self.accept_later(delivery).result()

    def accept_later(self, delivery: Delivery) -> Future[Accepted]:
        """Hand in a message; the future is done once it is on the disk, or raises as ``accept``."""
        return self._writer.submit(self.prepare(delivery))

    def accept_prepared(self, prepared: Sequence[PreparedDelivery]) -> list[Accepted | BridgeError]:
        """Keep messages in one commit on this thread, in their order; what is refused comes back as its error.

        Raises ``StorageError`` when the database does not work: none is kept.
        """
        return self._write(prepared)

    def prepare(self, delivery: Delivery) -> PreparedDelivery:
        """Return a message as it will be kept, sealed; without the database."""
        now = self._now()
        digest = sm3(delivery.raw)
        control = f"{len(delivery.source)}:{delivery.source}{delivery.control_id}".encode()
        blind = self._keyring.blind
        message_key = blind("inbox.message", control + b"\x00" + digest)
        key = self._keyring.node_key()
        row = {
            "message_key": message_key,
            "control_key": blind("inbox.control", control) if delivery.control_id else None,
            "patient_key": blind("inbox.patient", delivery.patient.encode()) if delivery.patient else None,
            "source": delivery.source,
            "control_id": delivery.control_id,
            "format": delivery.format,
            "event": delivery.event[:100],
            "received": now,
            "digest": digest,
            "size": len(delivery.raw),
            "conflict": False,
            "state": FAILED if delivery.refusal else RECEIVED,
            "attempts": 0,
            "crashes": 0,
            "available": now,
            "lease_until": 0,
            "finished": now if delivery.refusal else None,
            **refusal_columns(delivery.refusal),
            "acknowledgement": key.seal(delivery.acknowledgement, sealed_place("acknowledgement", message_key)),
            "raw": key.seal(delivery.raw, sealed_place("raw", message_key)),
        }
        return PreparedDelivery(row, delivery.acknowledgement)

    def _write(self, waiting: Sequence[PreparedDelivery]) -> list[Accepted | BridgeError]:
        """Write waiting rows in one transaction, on the writer's thread."""
        return transact(self._engine, lambda connection: self._write_in(connection, waiting))

    def _write_in(self, connection: Connection, waiting: Sequence[PreparedDelivery]) -> list[Accepted | BridgeError]:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ACCEPT_LOCK})
        known = _known(connection, [each.message_key for each in waiting])
        fresh: dict[bytes, PreparedDelivery] = {}
        for each in waiting:
            if each.message_key not in known:
                fresh.setdefault(each.message_key, each)
        rows = [each.row for each in fresh.values()]
        refused = self.gate.refusal(connection, len(rows), sum(row["size"] for row in rows)) if rows else None
        if refused is not None:
            return [
                self._replayed(each, known[each.message_key]) if each.message_key in known else refused
                for each in waiting
            ]
        _flag_conflicts(connection, rows)
        ids = _insert(connection, rows)
        return [self._accepted(each, known, fresh, ids) for each in waiting]

    def _accepted(
        self,
        each: PreparedDelivery,
        known: dict[bytes, Any],
        fresh: dict[bytes, PreparedDelivery],
        ids: dict[bytes, int],
    ) -> Accepted:
        key = each.message_key
        if key in known:
            return self._replayed(each, known[key])
        first = fresh[key]
        return Accepted(ids[key], first.acknowledgement, first is not each, first.row["conflict"])

    def _replayed(self, each: PreparedDelivery, row: Any) -> Accepted:
        """The answer to a message that is here already: the one it got then."""
        place = sealed_place("acknowledgement", each.message_key)
        return Accepted(row.id, self._keyring.node_key().open(row.acknowledgement, place), True, bool(row.conflict))


def _known(connection: Connection, keys: Sequence[bytes]) -> dict[bytes, Any]:
    """Return the rows there are of messages, by message key."""
    statement = "SELECT message_key, id, acknowledgement, conflict FROM inbox WHERE message_key IN "
    return {row.message_key: row for row in select_by_keys(connection, statement, keys)}


def _flag_conflicts(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Mark new rows whose control id is here already, with other content."""
    keys = [row["control_key"] for row in rows if row["control_key"] is not None]
    statement = "SELECT DISTINCT control_key FROM inbox WHERE control_key IN "
    met = {row.control_key for row in select_by_keys(connection, statement, keys)}
    for row in rows:
        control_key = row["control_key"]
        if control_key is not None:
            row["conflict"] = control_key in met
            met.add(control_key)


def _insert(connection: Connection, rows: Sequence[dict[str, Any]]) -> dict[bytes, int]:
    """Insert rows; return their ids, which grow in the order of the rows, by message key."""
    insert_rows(connection, INBOX, _COLUMNS, [tuple(row[name] for name in _COLUMNS) for row in rows])
    statement = "SELECT message_key, id FROM inbox WHERE message_key IN "
    return {row.message_key: row.id for row in select_by_keys(connection, statement, [r["message_key"] for r in rows])}
