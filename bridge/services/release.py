"""The holder's side of an exchange: decide on a peer's request, seal what it covers, commit to it, let it leave.

The order, marked in the code:

(1) the request is authentic: the caller's own, for this node, committed to on the ledger;
(2) a request id is answered once: a repetition gets the very same pages, or is refused when it would be refused now;
(3) the decision (``bridge.services.decision``) on the ledger's newest state, recorded as access.permit or access.deny;
    where the settings ask for a person, it waits for one first (``bridge.services.approvals``);
(4) the content: records, receipts, page by page in sealed envelopes that are kept (``bridge.services.release_pages``);
(5) access.release is committed before the first page leaves. For treatment it may be queued (``ledger_events``);
(6) every permit and denial is in the audit trail.

The first page leaves with the answer, the others when they are asked for; each time it is looked again whether the
request would be permitted now. Without the ledger, requests for treatment are decided on what it last said
(``bridge.services.ledger_facts``), nothing else is.

A caller learns nothing from a refusal: no patient, no grant and the wrong one have one answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row

from anchor.errors import AnchorError, ChainError, TransactionRejected
from anchor.gm import sm3
from bridge.errors import BridgeError, DisclosureRefused, Gone, Overloaded, PeerUnavailable
from bridge.peer_signature import live_key
from bridge.services import access_request
from bridge.services.access_request import SignedRequest
from bridge.services.audit_event import SERIOUS_FAILURE, SUCCESS, ExchangeFacts, Party
from bridge.services.decision import (
    ApprovalRules,
    Decision,
)
from bridge.services.ledger_events import LedgerEvents, Recorded
from bridge.services.release_pages import PageSealer, Sealed
from bridge.services.request_basis import Basis, RequestBasis, asked_for
from bridge.storage.database import write_transaction
from bridge.storage.disclosures import DisclosureStore

if TYPE_CHECKING:
    from bridge.services.admission import Admission
    from bridge.services.approvals import Approvals
    from bridge.services.audit import AuditService
    from bridge.services.ledger_facts import LedgerFacts
    from bridge.services.release_content import Collected
    from bridge.services.reviews import ReviewService

ABANDONED_SECONDS = 90  # after this long a request that is still being decided was left by a process that died
EMERGENCY_SECONDS = 3600  # how long an emergency's envelope may be fetched again


MAX_AUDITED = 1000  # records named in one AuditEvent; of more, their number and Merkle root stand in it
DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Answer:
    """What leaves: the first page and the digests of all, and where the release stands; or that a person is asked."""

    request: str
    envelope: bytes = b""
    pages: tuple[str, ...] = ()
    release: Recorded | None = None

    def value(self) -> dict[str, Any]:
        """Return the answer as JSON values; the envelope's bytes go beside it."""
        if self.release is None:
            return {"request": self.request, "state": "waiting"}
        return {
            "request": self.request,
            "state": "released",
            "release": self.release.tx_id,
            "gap": self.release.gap,
            "pages": list(self.pages),
        }


class ReleaseService:
    """Answers requests for the records of this node's patients."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: DisclosureStore,
        reviews: ReviewService,
        approvals: Approvals,
        sealer: PageSealer,
        basis: RequestBasis,
        facts: LedgerFacts,
        chain_id: str,
        node: Party,
        events: LedgerEvents,
        audit: AuditService,
        approval: ApprovalRules | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._store, self._reviews, self._approvals = engine, store, reviews, approvals
        self._sealer, self._basis, self._ledger = sealer, basis, facts
        self._chain_id, self._node, self._events, self._audit = chain_id, node, events, audit
        self._clock, self._approval = clock, approval or ApprovalRules()

    def answer(self, raw: bytes, caller: str, admission: Admission) -> Answer:
        """Answer one signed request, let in by ``admission``.

        Raises ``InvalidRequest``, ``DisclosureRefused`` (the caller is told "not permitted" and no more), what letting
        in raises, ``PeerUnavailable`` when the ledger is needed and does not answer, and ``Overloaded`` while the same
        request is being answered elsewhere.
        """
        asked = access_request.parse(raw)
        known = self._store.get(asked.id)
        basis = self._basis.read(asked, caller)
        member = self._authentic(basis, caller, known, admission)  # (1)
        now = int(self._clock())
        digest, purpose = sm3(raw).hex(), asked.statement["purpose"]
        with admission.transaction() as connection:
            first = (
                connection is not None
                and known is None
                and self._store.begin(
                    connection, asked.id, requester=caller, purpose=purpose, digest=digest, raw=raw, now=now
                )
            )
        row = None if first else self._store.get(asked.id)
        if not first:  # (2)
            if row is None or row.request_digest != digest:
                raise DisclosureRefused("conflict", "another request has this id")
            if row.state in ("sealed", "released"):
                return self._again(row, member, basis)
            if row.state in ("denied", "refused"):
                raise self._denied_again(asked, row.reason or "denied")
            if row.state == "waiting" and not row.approved:
                return Answer(asked.id)
            held = row.state != "waiting" and row.updated > now - ABANDONED_SECONDS
            if held or not self._store.take_over(asked.id, seen=row.updated, now=now):
                raise Overloaded("this request is being answered; ask again")
        try:
            return self._decide(member, row, basis)
        except DisclosureRefused:
            raise
        except (BridgeError, AnchorError):
            self._store.let_go(asked.id)
            raise

    def page(self, request: str, number: int, caller: str) -> bytes:
        """Return the envelope of one page of a release, to the member it was released to.

        Raises ``DisclosureRefused`` as ``answer`` does, and ``Gone`` for a page that is not kept any longer.
        """
        row = self._store.get(request)
        if row is None or row.requester != caller or row.state != "released" or not row.request_sealed:
            raise self._refusal("no-such-release")
        asked = access_request.parse(self._store.request(row))
        basis = self._basis.read(asked, caller)
        self._check_again(row, self._basis.member(caller, basis), basis)
        return self._sealer.envelope(row, number)

    def _authentic(self, basis: Basis, caller: str, known: Row[Any] | None, admission: Admission) -> Mapping[str, Any]:
        member = self._basis.member(caller, basis)
        admission.confirm(member or None)
        access_request.check_authentic(
            basis.asked,
            caller=caller,
            holder=self._node.id,
            chain=self._chain_id,
            member=member,
            ledger=self._basis.request(basis),
            now=int(self._clock()),
            max_age=access_request.MAX_AGE_SECONDS if known is None else access_request.KNOWN_SECONDS,
        )
        return member

    # --- deciding

    def _decide(self, member: Mapping[str, Any], row: Row[Any] | None, basis: Basis) -> Answer:
        asked = basis.asked
        decision, patients = self._basis.judge(member, basis)  # (3)
        if not decision.permit or decision.scope is None:
            raise self._deny(asked, decision, patients)
        facts = self._facts(asked, decision, patients)
        rule = self._approval.asks(asked_for(asked), decision)
        if rule is not None and not (row is not None and row.approved):
            with write_transaction(self._engine) as connection:
                self._approvals.open(connection, asked, patients[0], rule)
                waits = f"{facts.description}; waits for a person: {rule}"
                self._audit.record_decision(replace(facts, description=waits), connection)
            return Answer(asked.id)
        grant = decision.grant.id if decision.grant else None
        permitting = self._events.begin(
            "access.permit", {"request": asked.id, "grant": grant}, may_queue=asked.treatment
        )
        collected = self._sealer.collect(patients, decision.scope)  # while the ledger takes the permission
        permit = self._permit(asked, permitting, patients)

        def note(connection: Connection) -> None:  # (6)
            values = {"state": "permitted", "basis": decision.basis, "grant_id": grant}
            values |= {"patient_id": patients[0], "decision_tx_id": permit.tx_id}
            self._store.set(connection, asked.id, int(self._clock()), **values)
            self._audit.record_decision(facts, connection)
            if decision.basis == "emergency" and (row is None or row.state == "deciding"):
                self._reviews.open(connection, asked, patients[0])

        with_page: Callable[[Connection], None] = note
        if decision.basis == "emergency":  # its review is opened whatever follows
            with write_transaction(self._engine) as connection:
                note(connection)
            with_page = _nothing
        try:
            sealed = self._seal(  # (4)
                asked, decision, patients, member, permit, collected, with_page, anew=row is not None
            )
        except (BridgeError, AnchorError) as error:
            if self._state(asked.id) not in ("permitted", "sealed"):
                with write_transaction(self._engine) as connection:
                    note(connection)
            if isinstance(error, DisclosureRefused):
                self._withhold(asked, error.code, facts)
            raise
        return self._release(asked, grant, sealed, facts)

    def _state(self, request: str) -> str:
        row = self._store.get(request)
        return "" if row is None else str(row.state)

    def _permit(self, asked: SignedRequest, permitting: Callable[[], Recorded], patients: list[str]) -> Recorded:
        try:
            return permitting()
        except TransactionRejected as error:
            if error.code != "already-done":
                raise self._deny(asked, Decision(False, f"ledger:{error.code}"), patients) from error
            return Recorded(None)
        except ChainError as error:
            raise PeerUnavailable("the ledger did not take the permission in time; ask again") from error

    def _deny(self, asked: SignedRequest, decision: Decision, patients: list[str]) -> DisclosureRefused:
        """Record a denial here and on the ledger, and return the error to raise. The ledger's reason tells nothing."""
        rule = decision.rule
        facts = replace(self._facts(asked, decision, patients), outcome=SERIOUS_FAILURE)
        with write_transaction(self._engine) as connection:
            self._store.set(connection, asked.id, int(self._clock()), state="denied", reason=rule[:64])
            self._audit.record_decision(facts, connection)
        self._deny_on_ledger(asked)
        return self._refusal(rule)

    def _denied_again(self, asked: SignedRequest, rule: str) -> DisclosureRefused:
        """Record that a request which was denied came once more, and return the error to raise."""
        facts = self._facts(asked, Decision(False, rule), [])
        told = f"repeated request denied: {rule}"
        self._audit.record_decision(replace(facts, outcome=SERIOUS_FAILURE, description=told))
        return self._refusal(rule)

    def _deny_on_ledger(self, asked: SignedRequest) -> None:
        with suppress(TransactionRejected):  # the request has ended there already; the denial stands here
            self._events.commit("access.deny", {"request": asked.id, "reason": "not-permitted"}, may_queue=True)

    @staticmethod
    def _refusal(rule: str) -> DisclosureRefused:
        """Return the one refusal that callers see; ``rule`` goes to the log only."""
        return DisclosureRefused("not-permitted", "not permitted, or nothing to show / 未获准许或无可提供", cause=rule)

    # --- releasing

    def _seal(
        self,
        asked: SignedRequest,
        decision: Decision,
        patients: list[str],
        member: Mapping[str, Any],
        permit: Recorded,
        collected: Collected,
        note: Callable[[Connection], None],
        *,
        anew: bool,
    ) -> Sealed:
        now = int(self._clock())
        recipient_key = live_key(member, "encrypt", now)
        if recipient_key is None:
            raise DisclosureRefused("no-encryption-key", "the requester has no live encryption key on the ledger")
        days = decision.copies_days
        header = {
            "request": asked.id,
            "holder": self._node.id,
            "requester": asked.statement["requester"],
            "basis": decision.basis,
            "grant": decision.grant.id if decision.grant else None,
            "permit": permit.tx_id,
            "patients": [f"Patient/{patient}" for patient in patients],
            "copies_until": None if days is None else now + days * DAY_SECONDS,
        }
        return self._sealer.seal(
            header, patients[0], collected, recipient_key, pending_allowed=asked.treatment, note=note, anew=anew
        )

    def _release(self, asked: SignedRequest, grant: str | None, sealed: Sealed, facts: ExchangeFacts) -> Answer:
        """Commit the release, then let the first page leave (5)."""
        body = {
            "request": asked.id,
            "grant": grant,
            "disclosed": sealed.disclosed,
            "count": sealed.count,
            "commitment": sealed.manifest,
        }
        try:
            recorded = self._events.commit("access.release", body, may_queue=asked.treatment)
        except TransactionRejected as error:
            arrived = self._committed_release(asked.id, sealed.manifest)
            if arrived is None:
                self._withhold(asked, f"ledger:{error.code}", facts)
                raise self._refusal(f"ledger:{error.code}") from error
            recorded = arrived
        except ChainError as error:
            raise PeerUnavailable("the ledger did not take the release in time; ask again") from error
        noted = f"released {sealed.count} digests, root {sealed.disclosed}"
        if recorded.gap is not None:
            noted += "; the ledger's event is queued"
        with write_transaction(self._engine) as connection:
            self._store.set(connection, asked.id, int(self._clock()), state="released", release_tx_id=recorded.tx_id)
            self._approvals.complete(connection, asked.id)
            told = replace(facts, records=sealed.refs[:MAX_AUDITED], description=noted)
            self._audit.record_release(told, connection)
        first = sealed.first or self._sealer.envelope(self._store.get(asked.id), 0)
        return Answer(asked.id, first, sealed.pages, recorded)

    def _committed_release(self, request_id: str, manifest: str) -> Recorded | None:
        """Return the release of these very pages if the ledger has it."""
        release = (self._ledger.fresh(f"request/{request_id}") or {}).get("release")
        if not release or release["commitment"] != manifest:
            return None
        return Recorded(release["tx"], release["time"])

    def _withhold(self, asked: SignedRequest, rule: str, facts: ExchangeFacts) -> None:
        """Throw away what may not leave (a grant revoked between request and release)."""
        denied = replace(facts, outcome=SERIOUS_FAILURE, description=f"withheld: {rule}")
        with write_transaction(self._engine) as connection:
            self._sealer.drop(connection, asked.id)
            self._store.drop_records(connection, asked.id)
            self._store.set(connection, asked.id, int(self._clock()), state="refused", reason=rule[:64])
            self._audit.record_decision(denied, connection)
        self._deny_on_ledger(asked)

    def _again(self, row: Row[Any], member: Mapping[str, Any], basis: Basis) -> Answer:
        """Answer a repeated request: the same pages, if it would be permitted now."""
        asked, facts = basis.asked, self._check_again(row, member, basis)
        sealed = self._sealer.sealed(row)
        if row.state == "sealed":
            return self._release(asked, row.grant_id, sealed, facts)
        if not sealed.pages:
            raise Gone("the release is kept no longer; ask under a new request / 该次放行已过期，请重新申请")
        self._audit.record_release(replace(facts, description="the same release sent again"))
        recorded = Recorded(row.release_tx_id)
        if row.release_tx_id is None:  # queued then: it is on the ledger by now, or its signed statement goes along
            recorded = self._events.queued(asked.id, "access.release") or recorded
        return Answer(asked.id, self._sealer.envelope(row, 0), sealed.pages, recorded)

    def _check_again(self, row: Row[Any], member: Mapping[str, Any], basis: Basis) -> ExchangeFacts:
        """Raise the refusal, recorded, unless a released request would be permitted now, on the same basis."""
        asked = basis.asked
        decision, patients = self._basis.judge(member, basis)
        facts = self._facts(asked, decision, patients)
        same = decision.permit and (decision.grant.id if decision.grant else None) == row.grant_id
        if row.basis == "emergency" and self._clock() > row.created + EMERGENCY_SECONDS:
            same = False
        if same:
            return facts
        rule = decision.rule if not decision.permit else "no-longer-covered"
        self._audit.record_decision(
            replace(facts, outcome=SERIOUS_FAILURE, description=f"repeated request denied: {rule}")
        )
        raise self._refusal(rule)

    # --- records of it

    def _facts(self, asked: SignedRequest, decision: Decision, patients: list[str]) -> ExchangeFacts:
        statement = asked.statement
        return ExchangeFacts(
            request=asked.id,
            purpose=statement["purpose"],
            holder=self._node,
            requester=Party(statement["requester"]),
            outcome=SUCCESS,
            description=decision.explained(),
            patient=f"Patient/{patients[0]}" if patients else None,
            consent=decision.grant.consent if decision.grant else None,
            practitioner=statement["practitioner"],
            role=statement["role"],
            emergency=statement["emergency"] is not None,
        )


def _nothing(_: Connection) -> None:
    pass
