"""Rows of the requests that this node made: what was asked, how far it has come, and when it is looked at again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row, Table, bindparam, insert, select, update

from bridge.errors import NotFound
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.exchange import ExchangeRequest, ReceivedRecord
from bridge.storage.keyring import NODE, KeyRing

if TYPE_CHECKING:
    from collections.abc import Mapping

UNFINISHED = ("new", "requested", "waiting", "transferring")

_REQUEST: Table = ExchangeRequest.__table__  # type: ignore[attr-defined]
_RECEIVED: Table = ReceivedRecord.__table__  # type: ignore[attr-defined]
_NOTE = insert(_REQUEST)
_CHANGE = update(_REQUEST).where(_REQUEST.c.request_id == bindparam("at"))  # sets the columns that are given


class AskedRequests:
    """Reads and writes one node's own requests. Times are Unix seconds."""

    def __init__(self, engine: Engine, keyring: KeyRing) -> None:
        self._engine, self._keyring = engine, keyring

    def note(self, request_id: str, raw: bytes, statement: Mapping[str, Any], *, now: int, due: int) -> None:
        """Note a new request before it is sent."""
        with write_transaction(self._engine) as connection:
            sealed = self._keyring.seal(connection, NODE, raw, f"asked|{request_id}".encode())
            row = {
                "request_id": request_id,
                "holder": statement["holder"],
                "purpose": statement["purpose"],
                "emergency": statement["emergency"] is not None,
                "grant_id": statement["grant"],
                "state": "new",
                "request_sealed": sealed,
                "count": 0,
                "due": due,
                "created": now,
                "updated": now,
            }
            connection.execute(_NOTE, row)

    def change(self, request_id: str, now: int, connection: Connection | None = None, **values: Any) -> None:
        """Change a row, in the caller's transaction or in one of its own."""
        changed = {"at": request_id, "updated": now, **values}
        if connection is not None:
            connection.execute(_CHANGE, changed)
            return
        with write_transaction(self._engine) as own:
            own.execute(_CHANGE, changed)

    def get(self, request_id: str) -> Row[Any]:
        """Return a row; raises ``NotFound``."""
        with read_transaction(self._engine) as connection:
            row = connection.execute(select(_REQUEST).where(_REQUEST.c.request_id == request_id)).first()
        if row is None:
            raise NotFound("this node made no request of that number / 本节点没有该请求")
        return row

    def copies(self, request_id: str) -> list[str]:
        """Return the local references of the records that a request brought."""
        wanted = select(_RECEIVED.c.local_ref).where(_RECEIVED.c.request_id == request_id)
        with read_transaction(self._engine) as connection:
            return sorted(connection.execute(wanted).scalars())

    def raw(self, row: Row[Any]) -> bytes:
        """Return the signed request as it was sent."""
        with read_transaction(self._engine) as connection:
            return self._keyring.open(connection, NODE, row.request_sealed, f"asked|{row.request_id}".encode())

    def unfinished(self, now: int | None = None) -> list[Row[Any]]:
        """Return the requests that have not ended, oldest first; with ``now`` those that are due to be looked at."""
        wanted = select(_REQUEST).where(_REQUEST.c.state.in_(UNFINISHED)).order_by(_REQUEST.c.created)
        if now is not None:
            wanted = wanted.where(_REQUEST.c.due <= now)
        with read_transaction(self._engine) as connection:
            return [row for row in connection.execute(wanted) if row.request_sealed]

    def claim(self, row: Row[Any], due: int) -> bool:
        """Take a request to look at, until ``due``; False when another process was first."""
        same = (_REQUEST.c.request_id == row.request_id) & (_REQUEST.c.due == row.due)
        with write_transaction(self._engine) as connection:
            return connection.execute(update(_REQUEST).where(same).values(due=due)).rowcount == 1
