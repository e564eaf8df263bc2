"""Grants on their way to the ledger: each is committed here first, and brought there as soon as the ledger answers.

What was submitted may have arrived though its answer was lost, and the job of another process may be first: before a
grant counts as refused, the ledger is asked whether it has these very terms.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row

from anchor.errors import ChainError, ChainUnavailable, TransactionRejected
from anchor.transaction import Code
from bridge.errors import DisclosureRefused
from bridge.storage.database import read_transaction, write_transaction

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient
    from bridge.services.submission import TransactionSubmitter
    from bridge.storage.grants import GrantStore


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as this node has it. ``state``: draft, pending, active, amending, revoking, revoked, refused."""

    id: str
    patient: str
    consent: str
    state: str
    tx_id: str | None = None


def grant_of(row: Row[Any]) -> Grant:
    """Return the grant of a row."""
    transaction = row.revoke_tx_id or row.tx_id
    return Grant(row.grant_id, row.patient_id, f"Consent/{row.consent_id}", row.state, transaction)


class GrantSettlement:
    """Brings grants, changes and revocations to the ledger."""

    def __init__(
        self,
        engine: Engine,
        store: GrantStore,
        submitter: TransactionSubmitter,
        chain: ChainClient,
        refused: Callable[[Connection, Row[Any]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``refused``: what else happens, in the same transaction, when the ledger refuses a grant."""
        self._engine, self._store, self._submitter, self._chain = engine, store, submitter, chain
        self._refused, self._clock = refused, clock

    def settle(self) -> int:
        """Bring what the ledger has not answered for to it; return how many grants were settled."""
        settled = 0
        for grant_id, state in self._store.waiting():
            with suppress(DisclosureRefused):  # noted as refused
                self._submit(grant_id, state)
            settled += 1
        return settled

    def to_ledger(self, grant: Grant) -> Grant:
        """Tell the ledger of a grant; one that does not answer leaves it as it is. Raises ``DisclosureRefused``."""
        try:
            return self._submit(grant.id, grant.state)
        except ChainError:
            return grant

    def _submit(self, grant_id: str, state: str) -> Grant:
        if state == "revoking":
            return self._submit_revocation(grant_id)
        with read_transaction(self._engine) as connection:
            row = self._store.row(connection, grant_id)
        tx_id = self._arrived(row)
        if tx_id is not None:  # an earlier submission whose answer was lost
            return self._settled(grant_id, state, "active", tx_id=tx_id)
        body = {
            "grant": grant_id,
            "grantees": json.loads(row.grantees),
            "purposes": json.loads(row.purposes),
            "until": row.valid_until,
            "commitment": row.commitment,
        }
        kind = "consent.grant" if state == "pending" else "consent.amend"
        try:
            result = self._submitter.submit(kind, body if kind == "consent.amend" else {**body, "from": row.valid_from})
        except TransactionRejected as error:
            tx_id = self._arrived(row)
            if tx_id is not None:  # the job of another process brought it there between the two
                return self._settled(grant_id, state, "active", tx_id=tx_id)
            self._settled(grant_id, state, "refused")
            raise DisclosureRefused(error.code, f"the ledger refused the grant: {error} / 账本拒绝了授权") from error
        return self._settled(grant_id, state, "active", tx_id=result.tx_id)

    def _arrived(self, row: Row[Any]) -> str | None:
        """Return the transaction with which the ledger has these very terms, None when it has not."""
        found = self._chain.state(f"grant/{row.grant_id}")
        return str(found["tx"]) if found is not None and found["commitment"] == row.commitment else None

    def _submit_revocation(self, grant_id: str) -> Grant:
        found = self._chain.state(f"grant/{grant_id}")
        if found is None or found["status"] != "active":  # never got there, or an answer was lost
            return self._settled(grant_id, "revoking", "revoked", revoke_tx_id=None if found is None else found["tx"])
        try:
            result = self._submitter.submit("consent.revoke", {"grant": grant_id})
        except TransactionRejected as error:
            if error.code != Code.GRANT_REVOKED:
                raise ChainUnavailable("the ledger did not take the revocation; it is tried again") from error
            return self._settled(grant_id, "revoking", "revoked")
        return self._settled(grant_id, "revoking", "revoked", revoke_tx_id=result.tx_id)

    def _settled(self, grant_id: str, before: str, state: str, **values: Any) -> Grant:
        """Note what the ledger answered, unless the grant has been changed again meanwhile."""
        with write_transaction(self._engine) as connection:
            row = self._store.row(connection, grant_id)
            if row.state == before:
                self._store.set(connection, grant_id, int(self._clock()), state=state, **values)
                if state == "refused":
                    self._refused(connection, row)
            return grant_of(self._store.row(connection, grant_id))
