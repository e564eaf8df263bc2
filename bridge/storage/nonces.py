"""The replay cache of signed requests, in the database so that all workers of a node share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, Table, delete
from sqlalchemy.dialects import postgresql, sqlite

from bridge.storage.database import write_transaction
from bridge.storage.exchange import PeerNonce

_NONCE: Table = PeerNonce.__table__  # type: ignore[attr-defined]


class NonceCache:
    """Remembers nonces until they are too old to be replayed (``bridge.peer_signature.NonceStore``)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        # built once: every request between members runs it
        self._insert = insert(_NONCE).on_conflict_do_nothing().returning(_NONCE.c.nonce)

    def remember(self, nonce: str, expires: int, now: int) -> bool:  # noqa: ARG002 - the interface names the time
        """Keep ``nonce`` until ``expires`` (Unix seconds); False when it was already there, also in another worker."""
        with write_transaction(self._engine) as connection:
            return connection.execute(self._insert, {"nonce": nonce, "expires": expires}).first() is not None

    @contextmanager
    def keeping(self, nonce: str, expires: int) -> Iterator[Connection | None]:
        """Give the transaction that keeps ``nonce``, for what the request does first; None when it was already there.

        Either both are durable afterwards or neither is.
        """
        with write_transaction(self._engine) as connection:
            new = connection.execute(self._insert, {"nonce": nonce, "expires": expires}).first() is not None
            yield connection if new else None

    def purge(self, now: float) -> int:
        """Forget what expired before ``now``; return how many."""
        with write_transaction(self._engine) as connection:
            return connection.execute(delete(_NONCE).where(_NONCE.c.expires < int(now))).rowcount
