"""Rows of disclosures: what a holder answered, kept so that a request id is answered once and the same way again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.exchange import DisclosedRecord, Disclosure
from bridge.storage.keyring import NODE, KeyRing

_DISCLOSURE: Table = Disclosure.__table__  # type: ignore[attr-defined]
_RECORD: Table = DisclosedRecord.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Released:
    """What is about to leave: the envelope, what it discloses, and on which basis."""

    patient: str
    grant: str | None
    envelope: bytes
    envelope_digest: str
    disclosed: str
    records: Sequence[tuple[str, str]]


class DisclosureStore:
    """Reads and writes the disclosures of one node."""

    def __init__(self, engine: Engine, keyring: KeyRing) -> None:
        self._engine, self._keyring = engine, keyring

    def begin(self, request_id: str, *, requester: str, purpose: str, digest: str, raw: bytes, now: int) -> bool:
        """Note that a request is being decided; False when it was there already."""
        with write_transaction(self._engine) as connection:
            insert_ = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            row = {
                "request_id": request_id,
                "requester": requester,
                "purpose": purpose,
                "state": "deciding",
                "request_digest": digest,
                "request_sealed": self._keyring.seal(connection, NODE, raw, f"request|{request_id}".encode()),
                "count": 0,
                "created": now,
                "updated": now,
            }
            new = insert_(_DISCLOSURE).values(**row).on_conflict_do_nothing().returning(_DISCLOSURE.c.request_id)
            return connection.execute(new).first() is not None

    def take_over(self, request_id: str, *, seen: int, now: int) -> bool:
        """Take over the deciding of a request whose process has gone; False when another was first."""
        with write_transaction(self._engine) as connection:
            mine = (_DISCLOSURE.c.request_id == request_id) & (_DISCLOSURE.c.updated == seen)
            return connection.execute(update(_DISCLOSURE).where(mine).values(updated=now)).rowcount == 1

    def let_go(self, request_id: str) -> None:
        """Say that nobody is deciding a request any more, so that its repetition is taken up at once."""
        with write_transaction(self._engine) as connection:
            mine = (_DISCLOSURE.c.request_id == request_id) & _DISCLOSURE.c.state.in_(("deciding", "permitted"))
            connection.execute(update(_DISCLOSURE).where(mine).values(updated=0))

    def get(self, request_id: str) -> Row[Any] | None:
        """Return the row of a request, or None."""
        with read_transaction(self._engine) as connection:
            return connection.execute(select(_DISCLOSURE).where(_DISCLOSURE.c.request_id == request_id)).first()

    def set(self, connection: Connection, request_id: str, now: int, **values: Any) -> None:
        """Change a row in the caller's transaction."""
        statement = update(_DISCLOSURE).where(_DISCLOSURE.c.request_id == request_id)
        connection.execute(statement.values(updated=now, **values))

    def keep(self, connection: Connection, request_id: str, released: Released, now: int) -> None:
        """Keep a sealed envelope and the list of what it discloses, before its release is committed."""
        sealed = self._keyring.seal(
            connection, f"Patient/{released.patient}", released.envelope, f"envelope|{request_id}".encode()
        )
        self.set(
            connection,
            request_id,
            now,
            state="sealed",
            patient_id=released.patient,
            grant_id=released.grant,
            envelope_sealed=sealed,
            envelope_digest=released.envelope_digest,
            disclosed=released.disclosed,
            count=len(released.records),
        )
        self.keep_records(connection, request_id, released.records)

    @staticmethod
    def keep_records(connection: Connection, request_id: str, records: Sequence[tuple[str, str]]) -> None:
        """Keep (reference, hex digest) of what was disclosed, in the order of its Merkle tree; once per request."""
        known = select(_RECORD.c.position).where(_RECORD.c.request_id == request_id).limit(1)
        if records and connection.execute(known).first() is None:
            rows = [
                {"request_id": request_id, "position": position, "ref": ref, "digest": digest}
                for position, (ref, digest) in enumerate(records)
            ]
            connection.execute(insert(_RECORD), rows)

    def records(self, request_id: str) -> list[tuple[str, str]]:
        """Return (reference, hex digest) of what a request disclosed, in order."""
        with read_transaction(self._engine) as connection:
            rows = connection.execute(
                select(_RECORD).where(_RECORD.c.request_id == request_id).order_by(_RECORD.c.position)
            )
            return [(row.ref, row.digest) for row in rows]

    def envelope(self, row: Row[Any]) -> bytes:
        """Return the very envelope of a released request; raises ``KeyDestroyed`` after the patient's erasure."""
        with read_transaction(self._engine) as connection:
            return self._keyring.open(
                connection, f"Patient/{row.patient_id}", row.envelope_sealed, f"envelope|{row.request_id}".encode()
            )
