"""Rows of the grants given at this node."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, func, insert, select, update

from anchor import canonical
from bridge.errors import KeyDestroyed, NotFound
from bridge.storage.database import read_transaction
from bridge.storage.exchange import ConsentGrant
from bridge.storage.keyring import KeyRing

WAITING = ("pending", "amending", "revoking")
"""States of grants that the ledger has not answered for."""

_GRANT: Table = ConsentGrant.__table__  # type: ignore[attr-defined]


class GrantStore:
    """Reads and writes grants; details are sealed under the patient's key."""

    def __init__(self, engine: Engine, keyring: KeyRing) -> None:
        self._engine, self._keyring = engine, keyring

    def insert(
        self,
        connection: Connection,
        *,
        grant: str,
        patient: str,
        consent: str,
        state: str,
        detail: Mapping[str, Any],
        commitment: str,
        now: int,
    ) -> None:
        """Write a new grant."""
        row = {"grant_id": grant, "patient_id": patient, "consent_id": consent, "state": state, "updated": now}
        connection.execute(insert(_GRANT).values(**row, **self._terms(connection, grant, patient, detail, commitment)))

    def retell(
        self, connection: Connection, row: Row[Any], detail: Mapping[str, Any], commitment: str, state: str, now: int
    ) -> None:
        """Replace a grant's terms and state."""
        values = self._terms(connection, row.grant_id, row.patient_id, detail, commitment)
        connection.execute(
            update(_GRANT).where(_GRANT.c.grant_id == row.grant_id).values(**values, state=state, updated=now)
        )

    def set(self, connection: Connection, grant: str, now: int, **values: Any) -> None:
        """Change columns of a grant."""
        connection.execute(update(_GRANT).where(_GRANT.c.grant_id == grant).values(updated=now, **values))

    def row(self, connection: Connection, grant: str) -> Row[Any]:
        """Return a grant; raises ``NotFound``."""
        found = connection.execute(select(_GRANT).where(_GRANT.c.grant_id == grant)).first()
        if found is None:
            raise NotFound("this node has given no grant of that id / 本节点没有该授权")
        return found

    def of_consent(self, connection: Connection, consent: str) -> Row[Any]:
        """Return the grant of a Consent; raises ``NotFound``."""
        found = connection.execute(select(_GRANT).where(_GRANT.c.consent_id == consent)).first()
        if found is None:
            raise NotFound("that Consent is not a grant of this node / 该授权书不对应本节点的授权")
        return found

    def of_patients(self, connection: Connection, patients: Sequence[str]) -> list[Row[Any]]:
        """Return the grants of patients, newest first."""
        if not patients:
            return []
        wanted = select(_GRANT).where(_GRANT.c.patient_id.in_(list(patients)))
        return list(connection.execute(wanted.order_by(_GRANT.c.updated.desc(), _GRANT.c.grant_id)))

    def waiting(self) -> list[tuple[str, str]]:
        """Return (id, state) of grants that the ledger has not answered for."""
        with read_transaction(self._engine) as connection:
            rows = connection.execute(select(_GRANT.c.grant_id, _GRANT.c.state).where(_GRANT.c.state.in_(WAITING)))
            return [(row.grant_id, row.state) for row in rows]

    def counts(self, states: Iterable[str]) -> dict[str, int]:
        """Return how many grants are in each of these states."""
        wanted = list(states)
        counted = select(_GRANT.c.state, func.count()).where(_GRANT.c.state.in_(wanted)).group_by(_GRANT.c.state)
        with read_transaction(self._engine) as connection:
            found = {row[0]: int(row[1]) for row in connection.execute(counted)}
        return {state: found.get(state, 0) for state in wanted}

    def detail(self, connection: Connection, row: Row[Any]) -> dict[str, Any]:
        """Return what the commitment opens to; raises ``KeyDestroyed`` after the patient's erasure."""
        opened = self._keyring.open(connection, f"Patient/{row.patient_id}", row.detail_sealed, _aad(row.grant_id))
        detail = canonical.load(opened)
        if not isinstance(detail, dict):
            raise KeyDestroyed
        return detail

    def _terms(
        self, connection: Connection, grant: str, patient: str, detail: Mapping[str, Any], commitment: str
    ) -> dict[str, Any]:
        terms = detail["terms"]
        sealed = self._keyring.seal(connection, f"Patient/{patient}", canonical.dump(dict(detail)), _aad(grant))
        return {
            "grantees": json.dumps(terms["grantees"]),
            "purposes": json.dumps(terms["purposes"]),
            "valid_from": terms["from"],
            "valid_until": terms["until"],
            "commitment": commitment,
            "detail_sealed": sealed,
        }


def _aad(grant: str) -> bytes:
    return f"grant|{grant}".encode()
