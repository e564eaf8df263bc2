"""Rows of disclosures: what a holder answered, kept so that a request id is answered once and the same way again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.exchange import DisclosedRecord, Disclosure
from bridge.storage.keyring import NODE, KeyRing

_DISCLOSURE: Table = Disclosure.__table__  # type: ignore[attr-defined]
_RECORD: Table = DisclosedRecord.__table__  # type: ignore[attr-defined]


class DisclosureStore:
    """Reads and writes the disclosures of one node."""

    def __init__(self, engine: Engine, keyring: KeyRing) -> None:
        self._engine, self._keyring = engine, keyring
        insert_ = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        self._begin = insert_(_DISCLOSURE).on_conflict_do_nothing().returning(_DISCLOSURE.c.request_id)

    def begin(
        self,
        connection: Connection,
        request_id: str,
        *,
        requester: str,
        purpose: str,
        digest: str,
        raw: bytes,
        now: int,
    ) -> bool:
        """Note in the caller's transaction that a request is being decided; False when it was there already."""
        row = {
            "request_id": request_id,
            "requester": requester,
            "purpose": purpose,
            "state": "deciding",
            "request_digest": digest,
            "request_sealed": self._keyring.seal(connection, NODE, raw, f"request|{request_id}".encode()),
            "count": 0,
            "pages": 0,
            "created": now,
            "updated": now,
        }
        return connection.execute(self._begin, row).first() is not None

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

    @staticmethod
    def add_records(connection: Connection, request_id: str, start: int, records: Sequence[tuple[str, str]]) -> None:
        """Note (reference, hex digest) of what is disclosed, from a position of its Merkle tree on."""
        rows = [
            {"request_id": request_id, "position": start + number, "ref": ref, "digest": digest}
            for number, (ref, digest) in enumerate(records)
        ]
        if rows:
            connection.execute(insert(_RECORD), rows)

    @staticmethod
    def drop_records(connection: Connection, request_id: str) -> None:
        """Forget what was noted as disclosed: it is built anew, or never left."""
        connection.execute(delete(_RECORD).where(_RECORD.c.request_id == request_id))

    def records(self, request_id: str) -> list[tuple[str, str]]:
        """Return (reference, hex digest) of what a request disclosed, in order."""
        with read_transaction(self._engine) as connection:
            rows = connection.execute(
                select(_RECORD).where(_RECORD.c.request_id == request_id).order_by(_RECORD.c.position)
            )
            return [(row.ref, row.digest) for row in rows]

    def request(self, row: Row[Any]) -> bytes:
        """Return the signed request of a disclosure as it came."""
        with read_transaction(self._engine) as connection:
            return self._keyring.open(connection, NODE, row.request_sealed, f"request|{row.request_id}".encode())

    def unconfirmed(self, moment: float) -> list[Row[Any]]:
        """Return what was released before ``moment`` and is not known to have been received and verified."""
        unsettled = _DISCLOSURE.c.received.is_(None) | (_DISCLOSURE.c.received == "rejected")
        open_ = (_DISCLOSURE.c.state == "released") & unsettled
        with read_transaction(self._engine) as connection:
            wanted = select(_DISCLOSURE).where(open_, _DISCLOSURE.c.updated < int(moment))
            return list(connection.execute(wanted.order_by(_DISCLOSURE.c.updated)))

    def with_pages(self, moment: float) -> list[Row[Any]]:
        """Return the requests whose pages are kept although they ended, or were last used, before ``moment``."""
        done = _DISCLOSURE.c.state.in_(("released", "refused", "denied")) & (_DISCLOSURE.c.pages > 0)
        with read_transaction(self._engine) as connection:
            return list(connection.execute(select(_DISCLOSURE).where(done, _DISCLOSURE.c.updated < int(moment))))
