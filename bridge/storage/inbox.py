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

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    func,
    insert,
    select,
    text,
)

from anchor.gm import sm3
from bridge.errors import Overloaded
from bridge.storage.database import transact
from bridge.storage.inbox_claims import RECEIVED_ONLY, VISIBILITY_SECONDS, InboxClaims, refusal_columns
from bridge.storage.inbox_desk import sealed_place
from bridge.storage.inbox_tables import (
    DEAD,
    FAILED,
    INBOX,
    RECEIVED,
    STATES,
    STORED,
    Accepted,
    Claim,
    Delivery,
    InboxDetail,
    InboxEntry,
    Refusal,
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
    "Claim",
    "Delivery",
    "Inbox",
    "InboxDetail",
    "InboxEntry",
    "Refusal",
]

MILLISECONDS = 1000

MAX_WAITING = 2_000_000
"""Messages waiting to be processed beyond which no more are taken; some 4 GB of ordinary messages."""

WAITING_CHECK_SECONDS = 5.0
"""How often they are counted."""

ACCEPT_LOCK = 0x79697169616F01
"""PostgreSQL advisory lock of the accepting transactions: ids are given in commit order, as they are on SQLite."""

SELECT_CHUNK = 400
"""Keys a query names at once: below SQLite's limit of bound variables on every build."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A row on its way to the writer's thread, with its acknowledgement unsealed."""

    row: dict[str, Any]
    acknowledgement: bytes


class Inbox(InboxClaims):
    """The inbox of one node; safe to share between threads, and between processes through the database."""

    def __init__(
        self,
        engine: Engine,
        keyring: KeyRing,
        clock: Callable[[], float] = time.time,
        visibility_seconds: float = VISIBILITY_SECONDS,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        super().__init__(engine, keyring, clock, visibility_seconds)
        self._max_waiting = max_waiting
        self._full = False
        self._counted = float("-inf")
        self._writer: GroupWriter[_Waiting, Accepted] = GroupWriter(self._write, "inbox")

    def close(self) -> None:
        """Commit what waits and stop taking messages."""
        self._writer.close()

    # Taking messages

    def accept(self, delivery: Delivery) -> Accepted:
        """Keep a message and return once it is on the disk. Raises ``Overloaded`` or ``StorageError``: nothing kept."""
        return self.accept_later(delivery).result()

    def accept_later(self, delivery: Delivery) -> Future[Accepted]:
        """Hand in a message; the future is done once it is on the disk. Raises ``Overloaded`` at once when full."""
        now = self._now()
        digest = sm3(delivery.raw)
        control = f"{len(delivery.source)}:{delivery.source}{delivery.control_id}"
        message_key = self._keyring.blind("inbox.message", control.encode() + b"\x00" + digest)
        key = self._keyring.node_key()
        row = {
            "message_key": message_key,
            "control_key": self._keyring.blind("inbox.control", control.encode()) if delivery.control_id else None,
            "source": delivery.source,
            "control_id": delivery.control_id,
            "format": delivery.format,
            "event": delivery.event[:100],
            "received": now,
            "digest": digest,
            "size": len(delivery.raw),
            "raw": key.seal(delivery.raw, sealed_place("raw", message_key)),
            "acknowledgement": key.seal(delivery.acknowledgement, sealed_place("acknowledgement", message_key)),
            "conflict": False,
            "patient_key": self._keyring.blind("inbox.patient", delivery.patient) if delivery.patient else None,
            "state": FAILED if delivery.refusal else RECEIVED,
            "attempts": 0,
            "crashes": 0,
            "available": now,
            "lease_until": 0,
            "finished": now if delivery.refusal else None,
            **refusal_columns(delivery.refusal),
        }
        return self._writer.submit(_Waiting(row, delivery.acknowledgement))

    def _write(self, waiting: Sequence[_Waiting]) -> list[Accepted]:
        """Write waiting rows in one transaction, on the writer's thread."""
        return transact(self._engine, lambda connection: self._write_in(connection, waiting))

    def _write_in(self, connection: Connection, waiting: Sequence[_Waiting]) -> list[Accepted]:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ACCEPT_LOCK})
        self._check_waiting(connection)
        known = self._known(connection, [each.row["message_key"] for each in waiting])
        controls = self._known_controls(connection, [each.row["control_key"] for each in waiting])
        fresh: dict[bytes, _Waiting] = {}
        for each in waiting:
            message_key, control_key = each.row["message_key"], each.row["control_key"]
            if message_key not in known and message_key not in fresh:
                each.row["conflict"] = control_key in controls
                if control_key is not None:
                    controls.add(control_key)
                fresh[message_key] = each
        ids: dict[bytes, int] = {}
        if fresh:
            inserted = insert(INBOX).returning(INBOX.c.message_key, INBOX.c.id, sort_by_parameter_order=True)
            rows = connection.execute(inserted, [each.row for each in fresh.values()])
            ids = {row.message_key: row.id for row in rows}
        return [self._accepted(each, known, fresh, ids) for each in waiting]

    def _accepted(
        self, each: _Waiting, known: dict[bytes, Row[Any]], fresh: dict[bytes, _Waiting], ids: dict[bytes, int]
    ) -> Accepted:
        message_key = each.row["message_key"]
        if message_key in known:
            row = known[message_key]
            stored = self._keyring.node_key().open(row.acknowledgement, sealed_place("acknowledgement", message_key))
            return Accepted(row.id, stored, True, bool(row.conflict))
        first = fresh[message_key]
        return Accepted(ids[message_key], first.acknowledgement, first is not each, first.row["conflict"])

    def _known(self, connection: Connection, keys: Sequence[bytes]) -> dict[bytes, Row[Any]]:
        found: dict[bytes, Row[Any]] = {}
        for start in range(0, len(keys), SELECT_CHUNK):
            rows = connection.execute(
                select(INBOX.c.message_key, INBOX.c.id, INBOX.c.acknowledgement, INBOX.c.conflict).where(
                    INBOX.c.message_key.in_(keys[start : start + SELECT_CHUNK])
                )
            )
            found.update({row.message_key: row for row in rows})
        return found

    def _known_controls(self, connection: Connection, keys: Sequence[bytes | None]) -> set[bytes]:
        wanted = [key for key in keys if key is not None]
        found: set[bytes] = set()
        for start in range(0, len(wanted), SELECT_CHUNK):
            chunk = wanted[start : start + SELECT_CHUNK]
            found |= set(
                connection.execute(select(INBOX.c.control_key).where(INBOX.c.control_key.in_(chunk))).scalars()
            )
        return found

    def _check_waiting(self, connection: Connection) -> None:
        """Count what waits, now and then; refuse when it is too much."""
        moment = time.monotonic()
        if moment - self._counted >= WAITING_CHECK_SECONDS:
            waiting = select(func.count()).select_from(INBOX).where(INBOX.c.state == RECEIVED_ONLY)
            self._full = int(connection.execute(waiting).scalar_one()) >= self._max_waiting
            self._counted = moment
        if self._full:
            raise Overloaded
