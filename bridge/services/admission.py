"""How a member's request for records is let in: its sender is a member now, it is new, and within the quota."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bridge.services.abuse import over_quota
from bridge.storage.database import write_transaction

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from bridge.services.abuse import AbuseWatch
    from bridge.services.peer_request import PeerRequest


class Admission:
    """The admission of one request, in one transaction with the first thing that is written of it."""

    def __init__(
        self, caller: str, practitioner: str | None, watch: AbuseWatch, engine: Engine, peer: PeerRequest | None
    ) -> None:
        """``peer``: the HTTP request, whose nonce is kept with it; None where that has been done."""
        self._caller, self._practitioner, self._watch = caller, practitioner, watch
        self._engine, self._peer, self._counted = engine, peer, False

    def confirm(self, member: Mapping[str, Any] | None) -> None:
        """Check the sender by its record as the ledger has it now; raises ``PeerSignatureError``."""
        if self._peer is not None:
            self._peer.confirm(member)

    @contextmanager
    def transaction(self) -> Iterator[Connection | None]:
        """Give the transaction that keeps the nonce and counts the request; None beyond the quota.

        Raises ``QuotaExceeded`` then, when it is durable, and ``PeerSignatureError``, "replayed" among others.
        """
        with self._peer.transaction() if self._peer else write_transaction(self._engine) as connection:
            within = self._watch.asked(connection, self._caller, self._practitioner)
            yield connection if within else None
        self._counted = True
        if not within:
            raise over_quota()

    def settle(self) -> None:
        """Count a request that ended before its first transaction; raises as ``transaction`` does."""
        if not self._counted:
            with self.transaction():
                pass
