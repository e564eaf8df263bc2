"""The holder's side of an exchange: decide on a peer's request, seal what it covers, commit to it, let it leave.

The order, marked in the code:

(1) the request is authentic: the caller's own, for this node, committed to on the ledger;
(2) a request id is answered once: a repetition gets the very same envelope, or is refused when it would be refused now;
(3) the decision (``bridge.services.decision``) on the ledger's newest state, recorded as access.permit or access.deny;
(4) the content: records, receipts, envelope, kept sealed;
(5) access.release is committed before the envelope leaves. For treatment it may be queued (``ledger_events``);
(6) every permit and denial is in the audit trail.

A caller learns nothing from a refusal: no patient, no grant and the wrong one have one answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, Row

from anchor.errors import AnchorError, ChainError, TransactionRejected
from anchor.gm import PrivateKey, sm3
from anchor.receipt import disclosed_root
from bridge.errors import BridgeError, DisclosureRefused, Overloaded, PeerUnavailable
from bridge.peer_signature import live_key
from bridge.services import access_request
from bridge.services.access_request import SignedRequest
from bridge.services.audit_event import SERIOUS_FAILURE, SUCCESS, ExchangeFacts, Party
from bridge.services.awaited_state import awaited_state
from bridge.services.decision import EMERGENCY_ROLES, AskedFor, Decision, GrantFacts, decide
from bridge.services.envelope import seal
from bridge.services.ledger_events import LedgerEvents, Recorded
from bridge.storage.database import read_transaction, write_transaction
from bridge.storage.disclosures import DisclosureStore, Released

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient
    from bridge.services.audit import AuditService
    from bridge.services.consent import ConsentService
    from bridge.services.localisation import LocalPatients
    from bridge.services.release_content import ContentBuilder
    from bridge.services.reviews import ReviewService

ABANDONED_SECONDS = 90  # after this long a request that is still being decided was left by a process that died
EMERGENCY_SECONDS = 3600  # how long an emergency's envelope may be fetched again


@dataclass(frozen=True, slots=True)
class Answer:
    """What leaves: the sealed envelope and where its release stands (``Recorded``)."""

    request: str
    envelope: bytes
    release: Recorded

    def value(self) -> dict[str, Any]:
        """Return the release as JSON values; the envelope's bytes go beside it."""
        return {"request": self.request, "release": self.release.tx_id, "gap": self.release.gap}


class ReleaseService:
    """Answers requests for the records of this node's patients."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: DisclosureStore,
        reviews: ReviewService,
        content: ContentBuilder,
        consent: ConsentService,
        patients: LocalPatients,
        chain: ChainClient,
        chain_id: str,
        node: Party,
        key: PrivateKey,
        events: LedgerEvents,
        audit: AuditService,
        emergency_roles: frozenset[str] = EMERGENCY_ROLES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._store, self._reviews, self._content = engine, store, reviews, content
        self._consent, self._patients, self._chain, self._chain_id = consent, patients, chain, chain_id
        self._node, self._key, self._events, self._audit, self._clock = node, key, events, audit, clock
        self._emergency_roles = emergency_roles

    def answer(self, raw: bytes, caller: str) -> Answer:
        """Answer one signed request.

        Raises ``InvalidRequest``, ``DisclosureRefused`` (the caller is told "not permitted" and no more),
        ``PeerUnavailable`` when the ledger is needed and does not answer, and ``Overloaded`` while the same request
        is being answered elsewhere.
        """
        asked = access_request.parse(raw)
        member = self._authentic(asked, caller)  # (1)
        now = int(self._clock())
        first = self._store.begin(
            asked.id, requester=caller, purpose=asked.statement["purpose"], digest=sm3(raw).hex(), raw=raw, now=now
        )
        if not first:  # (2)
            row = self._store.get(asked.id)
            if row is None or row.request_digest != sm3(raw).hex():
                raise DisclosureRefused("conflict", "another request has this id")
            if row.state in ("sealed", "released"):
                return self._again(asked, row, member)
            if row.state in ("denied", "refused"):
                raise self._refusal(row.reason or "denied")
            if row.updated > now - ABANDONED_SECONDS or not self._store.take_over(asked.id, seen=row.updated, now=now):
                raise Overloaded("this request is being answered; ask again")
        try:
            return self._decide(asked, member)
        except DisclosureRefused:
            raise
        except (BridgeError, AnchorError):
            self._store.let_go(asked.id)
            raise

    def _authentic(self, asked: SignedRequest, caller: str) -> Mapping[str, Any]:
        try:
            member = self._chain.state(f"member/{caller}")
            ledger = awaited_state(self._chain, f"request/{asked.id}")
        except ChainError as error:
            raise PeerUnavailable("the ledger does not answer, and nothing can be decided without it") from error
        access_request.check_authentic(
            asked,
            caller=caller,
            holder=self._node.id,
            chain=self._chain_id,
            member=member,
            ledger=ledger,
            now=int(self._clock()),
        )
        return member or {}

    # --- deciding

    def _judge(self, asked: SignedRequest, member: Mapping[str, Any]) -> tuple[Decision, list[str]]:
        """Return the decision as of now, and the patients it is about."""
        statement = asked.statement
        with read_transaction(self._engine) as connection:
            patients = self._patients.of(connection, statement["pid"])
            grants = self._consent.facts(connection, patients)
        wanted = AskedFor(
            requester=statement["requester"],
            purpose=statement["purpose"],
            grant=statement["grant"],
            emergency=statement["emergency"],
            reason=statement["reason"],
            role=statement["role"],
            categories=None if statement["categories"] is None else frozenset(statement["categories"]),
        )
        try:
            newest = max(int(self._clock()), self._chain.health().block_time)
            facts = [self._with_ledger(grant) for grant in grants]
        except ChainError as error:
            raise PeerUnavailable("the ledger does not answer, and nothing can be decided without it") from error
        decision = decide(
            wanted,
            member=member,
            holds_records=bool(patients),
            grants=facts,
            now=newest,
            emergency_roles=self._emergency_roles,
        )
        return decision, patients

    def _with_ledger(self, grant: GrantFacts) -> GrantFacts:
        return replace(grant, ledger=self._chain.state(f"grant/{grant.id}")) if grant.active else grant

    def _decide(self, asked: SignedRequest, member: Mapping[str, Any]) -> Answer:
        decision, patients = self._judge(asked, member)  # (3)
        if not decision.permit:
            raise self._deny(asked, decision, patients)
        grant = decision.grant.id if decision.grant else None
        try:
            permit = self._events.commit(
                "access.permit", {"request": asked.id, "grant": grant}, may_queue=asked.treatment
            )
        except TransactionRejected as error:
            if error.code != "already-done":
                raise self._deny(asked, Decision(False, f"ledger:{error.code}"), patients) from error
            permit = Recorded(None)
        except ChainError as error:
            raise PeerUnavailable("the ledger did not take the permission in time; ask again") from error
        facts = self._facts(asked, decision, patients)
        with write_transaction(self._engine) as connection:  # (6)
            self._store.set(
                connection,
                asked.id,
                int(self._clock()),
                state="permitted",
                basis=decision.basis,
                grant_id=grant,
                patient_id=patients[0],
                decision_tx_id=permit.tx_id,
            )
            self._audit.record_decision(facts, connection)
            if decision.basis == "emergency":
                self._reviews.open(connection, asked, patients[0])
        released = self._seal(asked, decision, patients, member, permit)  # (4)
        with write_transaction(self._engine) as connection:
            self._store.keep(connection, asked.id, released, int(self._clock()))
        return self._release(asked, released, facts)

    def _deny(self, asked: SignedRequest, decision: Decision, patients: list[str]) -> DisclosureRefused:
        """Record a denial here and on the ledger, and return the error to raise. The ledger's reason tells nothing."""
        rule = decision.rule
        facts = replace(self._facts(asked, decision, patients), outcome=SERIOUS_FAILURE)
        with write_transaction(self._engine) as connection:
            self._store.set(connection, asked.id, int(self._clock()), state="denied", reason=rule[:64])
            self._audit.record_decision(facts, connection)
        self._deny_on_ledger(asked)
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
    ) -> Released:
        now = int(self._clock())
        recipient_key = live_key(member, "encrypt", now)
        if recipient_key is None or decision.scope is None:
            raise DisclosureRefused("no-encryption-key", "the requester has no live encryption key on the ledger")
        grant = decision.grant.id if decision.grant else None
        header = {
            "request": asked.id,
            "holder": self._node.id,
            "requester": asked.statement["requester"],
            "basis": decision.basis,
            "grant": grant,
            "permit": permit.tx_id,
        }
        content = self._content.build(patients, decision.scope, header, now)
        if content.pending and not asked.treatment:
            raise PeerUnavailable("the records' receipts are not on the ledger yet; ask again")
        envelope = seal(
            content.plaintext,
            chain=self._chain_id,
            signing_key=self._key,
            recipient_key=recipient_key,
        )
        return Released(
            patient=patients[0],
            grant=grant,
            envelope=envelope,
            envelope_digest=sm3(envelope).hex(),
            disclosed=disclosed_root(content.digests).hex(),
            records=[(ref, digest.hex()) for ref, digest in zip(content.refs, content.digests, strict=True)],
        )

    def _release(self, asked: SignedRequest, released: Released, facts: ExchangeFacts) -> Answer:
        """Commit the release, then let the envelope leave (5)."""
        body = {
            "request": asked.id,
            "grant": released.grant,
            "disclosed": released.disclosed,
            "count": len(released.records),
            "commitment": released.envelope_digest,
        }
        try:
            recorded = self._events.commit("access.release", body, may_queue=asked.treatment)
        except TransactionRejected as error:
            arrived = self._committed_release(asked.id, released.envelope_digest)
            if arrived is None:
                self._withhold(asked, f"ledger:{error.code}", facts)
                raise self._refusal(f"ledger:{error.code}") from error
            recorded = arrived
        except ChainError as error:
            raise PeerUnavailable("the ledger did not take the release in time; ask again") from error
        with write_transaction(self._engine) as connection:
            self._store.set(connection, asked.id, int(self._clock()), state="released", release_tx_id=recorded.tx_id)
            noted = "released" if recorded.gap is None else "released; the ledger's event is queued"
            records = tuple(ref for ref, _ in released.records)
            self._audit.record_release(replace(facts, records=records, description=noted), connection)
        return Answer(asked.id, released.envelope, recorded)

    def _committed_release(self, request_id: str, envelope_digest: str) -> Recorded | None:
        """Return the release of this very envelope if the ledger has it."""
        state = self._chain.state(f"request/{request_id}") or {}
        release = state.get("release")
        if not release or release["commitment"] != envelope_digest:
            return None
        return Recorded(release["tx"], release["time"])

    def _withhold(self, asked: SignedRequest, rule: str, facts: ExchangeFacts) -> None:
        """Throw away what the ledger did not let leave (a grant revoked between request and release)."""
        denied = replace(facts, outcome=SERIOUS_FAILURE, description=f"withheld: {rule}")
        with write_transaction(self._engine) as connection:
            now = int(self._clock())
            self._store.set(connection, asked.id, now, state="refused", reason=rule[:64], envelope_sealed=None)
            self._audit.record_decision(denied, connection)
        self._deny_on_ledger(asked)

    def _again(self, asked: SignedRequest, row: Row[Any], member: Mapping[str, Any]) -> Answer:
        """Answer a repeated request: the same envelope, if it would be permitted now."""
        decision, patients = self._judge(asked, member)
        facts = self._facts(asked, decision, patients)
        same = decision.permit and (decision.grant.id if decision.grant else None) == row.grant_id
        if row.basis == "emergency" and self._clock() > row.created + EMERGENCY_SECONDS:
            same = False
        if not same:
            rule = decision.rule if not decision.permit else "no-longer-covered"
            self._audit.record_decision(
                replace(facts, outcome=SERIOUS_FAILURE, description=f"repeated request denied: {rule}")
            )
            raise self._refusal(rule)
        envelope = self._store.envelope(row)
        if row.state == "sealed":
            records = self._store.records(asked.id)
            released = Released(row.patient_id, row.grant_id, envelope, row.envelope_digest, row.disclosed, records)
            return self._release(asked, released, facts)
        self._audit.record_release(replace(facts, description="the same envelope sent again"))
        return Answer(asked.id, envelope, Recorded(row.release_tx_id))

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
