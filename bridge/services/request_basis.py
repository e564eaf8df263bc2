"""What a holder decides a request on: its own patients and grants, and one reading of the ledger beside them.

All of it is read once, before the request is looked at closely. Without the ledger, requests for treatment are decided
on what it last said (``bridge.services.ledger_facts``), nothing else is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from anchor.errors import ChainError
from bridge.errors import BridgeError, PeerUnavailable
from bridge.services.access_request import NOT_ASKED, SignedRequest
from bridge.services.decision import AskedFor, Decision, EmergencyRules, GrantFacts, decide
from bridge.storage.database import read_transaction

if TYPE_CHECKING:
    from bridge.services.consent import ConsentService
    from bridge.services.ledger_facts import Fact, LedgerFacts, Reading
    from bridge.services.localisation import LocalPatients


@dataclass(frozen=True, slots=True)
class Basis:
    """What was read for one request. ``here``: patients and their grants; None when they could not be read then."""

    asked: SignedRequest
    reading: Reading
    here: tuple[Sequence[str], Sequence[GrantFacts]] | None


class RequestBasis:
    """Reads what requests are decided on, and judges them by it."""

    def __init__(
        self,
        engine: Engine,
        ledger: LedgerFacts,
        patients: LocalPatients,
        consent: ConsentService,
        emergency: EmergencyRules,
    ) -> None:
        self._engine, self._ledger, self._patients, self._consent = engine, ledger, patients, consent
        self.emergency = emergency

    def read(self, asked: SignedRequest, caller: str) -> Basis:
        """Ask the ledger at once for all that a decision rests on: the caller, its request, the patient's grants."""
        here = None
        with suppress(BridgeError):  # judging says what is wrong
            here = self._here(asked)
        keys = [f"member/{caller}", *(f"grant/{each.id}" for each in (here[1] if here else ()) if each.active)]
        return Basis(asked, self._ledger.read(keys, fresh=[f"request/{asked.id}"]), here)

    def _here(self, asked: SignedRequest) -> tuple[Sequence[str], Sequence[GrantFacts]]:
        with read_transaction(self._engine) as connection:
            patients = self._patients.of(connection, asked.statement["pid"])
            return patients, self._consent.facts(connection, patients)

    def member(self, caller: str, basis: Basis) -> Mapping[str, Any]:
        """Return the caller's record, empty when it has none; raises ``PeerUnavailable`` as all that ask here."""
        member: Mapping[str, Any] = self._fact(f"member/{caller}", basis).value or {}
        return member

    def request(self, basis: Basis) -> Mapping[str, Any] | None:
        """Return the ledger's record of the request as of now; ``NOT_ASKED`` for treatment without the ledger."""
        key = f"request/{basis.asked.id}"
        found: Mapping[str, Any] | None
        try:
            found = basis.reading.fresh.get(key) or self._ledger.fresh(key)
        except ChainError as error:
            if not basis.asked.treatment:
                raise PeerUnavailable("the ledger does not answer, and nothing can be decided without it") from error
            return NOT_ASKED
        return found

    def judge(self, member: Mapping[str, Any], basis: Basis) -> tuple[Decision, list[str]]:
        """Return the decision as of the reading, and the patients it is about."""
        patients, grants = self._here(basis.asked) if basis.here is None else basis.here
        decision = decide(
            asked_for(basis.asked),
            member=member,
            holds_records=bool(patients),
            grants=[self._with_ledger(grant, basis) for grant in grants],
            now=basis.reading.time,
            emergency=self.emergency,
        )
        return decision, list(patients)

    def _with_ledger(self, grant: GrantFacts, basis: Basis) -> GrantFacts:
        """Return a grant with what the ledger says of it; without the ledger, what this node knows it would say."""
        if not grant.active:
            return grant
        try:
            return replace(grant, ledger=self._fact(f"grant/{grant.id}", basis).value)
        except PeerUnavailable:
            if not (grant.on_ledger and basis.asked.treatment):
                raise
            try:
                self._ledger.heard_of()
            except ChainError as error:
                raise PeerUnavailable("the ledger has not answered for too long") from error
            return replace(grant, ledger=grant.as_on_ledger())

    def _fact(self, key: str, basis: Basis) -> Fact:
        """Return what the ledger says; a stale fact, within its bound, for treatment only."""
        try:
            fact = basis.reading.fact(key) if key in basis.reading.facts else self._ledger.fact(key)
        except ChainError as error:
            raise PeerUnavailable("the ledger does not answer, and nothing can be decided without it") from error
        if fact.stale and not basis.asked.treatment:
            raise PeerUnavailable("the ledger does not answer, and only treatment can be decided without it")
        return fact


def asked_for(asked: SignedRequest) -> AskedFor:
    """Return what a request asks, as the decision wants it."""
    statement = asked.statement
    return AskedFor(
        requester=statement["requester"],
        purpose=statement["purpose"],
        grant=statement["grant"],
        emergency=statement["emergency"],
        reason=statement["reason"],
        role=statement["role"],
        categories=None if statement["categories"] is None else frozenset(statement["categories"]),
    )
