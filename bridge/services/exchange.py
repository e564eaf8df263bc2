"""The exchange between institutions: locate, request, decide, release, receive (design section 7).

``lookup`` is the requester's whole job; ``answer`` and ``page`` are the holder's (``bridge.services.release``). Per
holder, the request is committed to on the ledger before it is sent; for treatment it may be queued where the ledger
does not answer. A lost answer is asked for again under the same id, which the holder answers with the same pages.

What does not end at once (a person at the holder is asked; a transfer broke off; nobody answered; this process died) is
taken up again by ``collect``, under the same request id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from anchor.errors import AnchorError, TransactionRejected
from anchor.gm import PrivateKey
from bridge.errors import DisclosureRefused, InvalidRequest, NotFound, PeerError, PeerRejected, PeerUnavailable
from bridge.peer_signature import live_key
from bridge.services import access_request
from bridge.services.access_request import SignedRequest
from bridge.services.admission import Admission
from bridge.services.audit_event import MINOR_FAILURE, SERIOUS_FAILURE, ExchangeFacts, Party
from bridge.services.awaited_state import awaited_state
from bridge.services.lookup import DEFAULT_ROLE, Asking, HolderOutcome, LookupResult
from bridge.services.receive import Received
from bridge.services.sealed_subject import seal_subject
from bridge.storage.database import write_transaction

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient
    from bridge.services.abuse import AbuseWatch
    from bridge.services.audit import AuditService
    from bridge.services.ledger_events import LedgerEvents
    from bridge.services.localisation import LocalisationClient
    from bridge.services.peer_request import PeerRequest
    from bridge.services.peers import Peers
    from bridge.services.pseudonyms import PseudonymClient
    from bridge.services.receive import ReceiveService
    from bridge.services.release import Answer, ReleaseService
    from bridge.storage.asked_requests import AskedRequests

REQUEST_PATH = "/exchange/v1/requests"
SEND_ATTEMPTS = 3  # of one signed request, when the holder does not answer
RETRY_SECONDS = 1.0
REFUSAL_GRID_SECONDS = 0.1  # some of the ledger's answers long, and short for a person who waits
IN_HAND_SECONDS = 120  # how long a request that a process has in hand is left to it; each page prolongs it
MAX_PAUSE_SECONDS = 3600  # between two looks at a request that waits; it grows with the request's age
MIN_PAUSE_SECONDS = 5
GIVE_UP_SECONDS = 8 * 86_400  # as long as a holder answers a repetition (``access_request.KNOWN_SECONDS``)


def until_grid(elapsed: float) -> float:
    """Return how many seconds are left to the next multiple of ``REFUSAL_GRID_SECONDS``."""
    return REFUSAL_GRID_SECONDS - elapsed % REFUSAL_GRID_SECONDS


class ExchangeService:
    """Asks other institutions, and answers them."""

    def __init__(
        self,
        *,
        engine: Engine,
        requests: AskedRequests,
        chain: ChainClient,
        chain_id: str,
        node: Party,
        key: PrivateKey,
        pseudonyms: PseudonymClient,
        localisation: LocalisationClient,
        peers: Peers,
        events: LedgerEvents,
        receive: ReceiveService,
        release: ReleaseService,
        audit: AuditService,
        watch: AbuseWatch,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._watch = watch
        self._engine, self._requests, self._chain, self._chain_id = engine, requests, chain, chain_id
        self._node, self._key, self._pseudonyms, self._localisation = node, key, pseudonyms, localisation
        self._peers, self._events, self._receive, self._release = peers, events, receive, release
        self._audit, self._clock = audit, clock

    def lookup(
        self,
        system: str,
        value: str,
        purpose: str,
        grant: str | None = None,
        emergency: str | None = None,
        reason: str | None = None,
        practitioner: str | None = None,
        role: str = DEFAULT_ROLE,
        categories: frozenset[str] | None = None,
        holder: str | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> LookupResult:
        """Find who holds records of a person, ask each, verify and store what comes.

        With ``holder`` (an org id, known from a referral or a card) that member alone is asked, and the card authority
        not at all: the identifier goes sealed to the holder (``bridge.services.sealed_subject``). ``progress`` is told
        each step in one sentence. Raises ``InvalidRequest`` for what makes no sense, ``PeerError`` when the authority
        does not answer or refuses, ``ChainError`` when the ledger does not answer.
        """
        tell = progress or (lambda _: None)
        asking = Asking(purpose, grant, emergency, reason or "", practitioner, role, categories)
        asking.check()
        if holder is not None:
            subject = self._sealed(holder, system, value)
            return LookupResult((self._ask(holder, subject, asking, tell),))
        pids = self._localisation.holders(self._pseudonyms, (system, value))
        holders = list(pids) if grant is None else self._holder_of(grant, list(pids))
        tell(f"{len(holders)} institution(s) hold records / 有 {len(holders)} 家机构持有记录")
        return LookupResult(tuple(self._ask(each, pids[each], asking, tell) for each in holders))

    def answer(self, request: bytes, caller: str, peer: PeerRequest | None = None) -> Answer:
        """Answer a signed request of the member ``caller`` (``ReleaseService.answer``) within its quota.

        ``peer``: the HTTP request it came in, whose nonce is kept here; None when that is not this caller's matter.

        A refusal leaves at a multiple of ``REFUSAL_GRID_SECONDS`` after the request came: how long the way to it was
        (an unknown patient, one with many grants) does not show. Raises ``QuotaExceeded`` as well.
        """
        began = time.monotonic()
        practitioner = access_request.parse(request).statement["practitioner"]
        admission = Admission(caller, practitioner, self._watch, self._engine, peer)
        try:
            try:
                return self._release.answer(request, caller, admission)
            finally:
                admission.settle()  # what ended before it was let in counts as well
        except DisclosureRefused as error:
            self._watch.denied(caller)
            if error.code in access_request.UNDECIDED:  # no decision, which would have recorded itself
                self._watch.refused(caller, error.code)
            time.sleep(until_grid(time.monotonic() - began))
            raise

    def _sealed(self, holder: str, system: str, value: str) -> str:
        """Return a person's identifier sealed to a member; raises ``InvalidRequest`` when it is no active member."""
        member = self._peers.directory.member(holder)
        key = live_key(member, "encrypt", int(self._clock())) if member else None
        if member is None or key is None or member.get("status") != "active" or holder == self._node.id:
            raise InvalidRequest("the holder is not another active member of the consortium / 指定机构不是其他有效成员")
        return seal_subject(key, holder, (system, value))

    def page(self, request: str, number: int, caller: str) -> bytes:
        """Return one page of a release to the member it was released to (``ReleaseService.page``)."""
        return self._release.page(request, number, caller)

    def collect(self, request: str | None = None) -> list[HolderOutcome]:
        """Go on with requests that have not ended: those that are due, or one by its id, due or not.

        Raises ``NotFound`` for a request that this node did not make, ``InvalidRequest`` for one that has ended.
        """
        now = int(self._clock())
        rows = self._requests.unfinished(now) if request is None else [self._requests.get(request)]
        outcomes = []
        for row in rows:
            if row.due is None or not row.request_sealed:
                raise InvalidRequest("that request has ended / 该请求已结束")
            if not self._requests.claim(row, now + IN_HAND_SECONDS):
                continue
            asked = access_request.parse(self._requests.raw(row))
            member: Any = {}
            with suppress(AnchorError):
                member = self._peers.directory.member(row.holder) or {}
            party = Party(row.holder, str(member.get("name", "")), str(member.get("endpoint", "")))
            outcomes.append(self._attempt(asked, party, lambda _: None, new=row.state == "new"))
        return outcomes

    def unfinished(self) -> list[dict[str, Any]]:
        """Return the requests that have not ended: request, holder, state, created and due (Unix seconds)."""
        return [
            {
                "request": row.request_id,
                "holder": row.holder,
                "state": row.state,
                "created": row.created,
                "due": row.due,
            }
            for row in self._requests.unfinished()
        ]

    def status(self, request: str) -> dict[str, Any]:
        """Return how a request of this node stands: state, what it was refused for, copies; raises ``NotFound``.

        ``due``: when it is taken up again (Unix seconds), None for one that has ended.
        """
        row = self._requests.get(request)
        told = ("holder", "purpose", "emergency", "state", "reason", "created", "due")
        return {
            "request": row.request_id,
            **{name: getattr(row, name) for name in told},
            "records": self._requests.copies(request),
        }

    def _holder_of(self, grant: str, located: list[str]) -> list[str]:
        """Return the institution that gave a grant: it is the one to ask, whoever else is registered."""
        state = awaited_state(self._chain, f"grant/{grant}")
        if state is None:
            raise NotFound("the ledger has no such grant / 账本上没有该授权")
        return [state["org"]] if state["org"] in located else []

    def _ask(self, holder: str, pid: str, asking: Asking, tell: Callable[[str], None]) -> HolderOutcome:
        member = self._peers.directory.member(holder) or {}
        party = Party(holder, str(member.get("name", "")), str(member.get("endpoint", "")))
        now = int(self._clock())
        asked = access_request.build(
            chain=self._chain_id,
            requester=self._node.id,
            key=self._key,
            holder=holder,
            pid=pid,
            purpose=asking.purpose,
            now=now,
            grant=asking.grant,
            emergency=asking.emergency,
            reason=asking.reason,
            practitioner=asking.practitioner,
            role=asking.role,
            categories=asking.categories,
        )
        self._requests.note(asked.id, asked.dump(), asked.statement, now=now, due=now + IN_HAND_SECONDS)
        return self._attempt(asked, party, tell, new=True)

    def _attempt(self, asked: SignedRequest, party: Party, tell: Callable[[str], None], *, new: bool) -> HolderOutcome:
        """Carry a request as far as it goes now; ``new``: the ledger has not been told of it.

        Where the request is on the ledger is noted with what comes next: a process that dies before finds the request
        there by its commitment.
        """
        began = time.monotonic()
        facts = ExchangeFacts(
            request=asked.id,
            purpose=asked.statement["purpose"],
            holder=party,
            requester=self._node,
            practitioner=asked.statement["practitioner"],
            role=asked.statement["role"],
            emergency=asked.statement["emergency"] is not None,
        )
        unnoted: dict[str, Any] = {}
        try:
            if new:
                unnoted["request_tx_id"] = self._commit(asked)
                tell(f"request {asked.id} is recorded and goes to {party.name or party.id} / 请求已登记并发送")
            outcome = self._carry(asked, facts, tell, unnoted)
        except (PeerError, AnchorError, DisclosureRefused) as error:
            if unnoted:
                self._change(asked, state="requested", **unnoted)
            outcome = self._failed(asked, facts, error)
        return replace(outcome, name=party.name, seconds=round(time.monotonic() - began, 3))

    def _carry(
        self, asked: SignedRequest, facts: ExchangeFacts, tell: Callable[[str], None], unnoted: dict[str, Any]
    ) -> HolderOutcome:
        """Send a request and receive what comes; ``unnoted`` is empty as soon as it is noted."""
        reply = self._receive.read(asked, self._send(asked))
        if reply is None:
            self._later(asked, "waiting", **unnoted)
            unnoted.clear()
            message = "a person at the other institution is asked first / 对方机构正在人工审批"
            return HolderOutcome(asked.statement["holder"], "", "waiting", request=asked.id, message=message)
        if len(reply.pages) > 1:
            self._change(asked, state="transferring", **unnoted)
            unnoted.clear()

        def fetch(number: int) -> bytes:
            self._change(asked, due=int(self._clock()) + IN_HAND_SECONDS)
            tell(f"page {number + 1} of {len(reply.pages)} / 第{number + 1}页，共{len(reply.pages)}页")
            return self._patiently(
                lambda: self._peers.get(asked.statement["holder"], f"{REQUEST_PATH}/{asked.id}/pages/{number}")
            )

        return self._succeeded(asked, self._receive.accept(asked, reply, facts, fetch), unnoted)

    def _commit(self, asked: SignedRequest) -> str | None:
        body = {"request": asked.id, "holder": asked.statement["holder"], "commitment": asked.commitment}
        emergency = asked.statement["emergency"]
        type, more = "access.request", {"purpose": asked.statement["purpose"]}
        if emergency is not None:
            type, more = "access.emergency", {"reason": emergency}
        try:
            return self._events.commit(type, {**body, **more}, may_queue=asked.treatment).tx_id
        except TransactionRejected as error:
            there = self._chain.state(f"request/{asked.id}")  # an earlier submission whose answer was lost
            if there is not None and there["commitment"] == asked.commitment:
                return str(there["tx"])
            raise DisclosureRefused(error.code, f"the ledger refused the request: {error}") from error

    def _send(self, asked: SignedRequest) -> bytes:
        """Send a request, again under the same id when no answer came."""
        return self._patiently(lambda: self._peers.post(asked.statement["holder"], REQUEST_PATH, asked.dump()))

    @staticmethod
    def _patiently(call: Callable[[], bytes]) -> bytes:
        for attempt in range(SEND_ATTEMPTS):
            try:
                return call()
            except PeerUnavailable:
                if attempt + 1 == SEND_ATTEMPTS:
                    raise
            time.sleep(RETRY_SECONDS * (attempt + 1))
        raise PeerUnavailable

    def _succeeded(self, asked: SignedRequest, received: Received, unnoted: Mapping[str, Any]) -> HolderOutcome:
        self._change(
            asked,
            **unnoted,
            state="verified",
            due=None,
            disclosed=received.disclosed,
            count=len(received.records),
            receive_tx_id=received.receive_tx,
        )
        return HolderOutcome(
            holder=asked.statement["holder"],
            name="",
            status="received",
            request=asked.id,
            records=received.records,
            disclosed=received.disclosed,
            release_tx=received.release_tx,
            receive_tx=received.receive_tx,
            gap=received.gap,
        )

    def _failed(self, asked: SignedRequest, facts: ExchangeFacts, error: Exception) -> HolderOutcome:
        """Note how a request ended, or that it is taken up again, and record it."""
        code = str(getattr(error, "code", "") or type(error).__name__)
        before = self._requests.get(asked.id)
        if isinstance(error, PeerRejected):
            status = "denied" if code == "not-permitted" else "rejected"
            if code == "quota-exceeded" and before.state in ("waiting", "transferring"):
                status = "unavailable"  # for today
        else:
            status = "denied" if isinstance(error, DisclosureRefused) else "unavailable"
        if status == "unavailable":
            self._later(asked, before.state, reason=code[:64])
            status = "interrupted" if before.state == "transferring" else status
        if before.reason != code[:64] or status not in (
            "unavailable",
            "interrupted",
        ):  # of tries that fail alike the first is told
            severity = MINOR_FAILURE if status in ("unavailable", "interrupted") else SERIOUS_FAILURE
            told = replace(facts, outcome=severity, description=f"nothing received: {code}")
            with write_transaction(self._engine) as connection:
                if severity == SERIOUS_FAILURE:
                    now = int(self._clock())
                    self._requests.change(asked.id, now, connection, state=status, reason=code[:64], due=None)
                self._audit.record_receive(told, connection)
        return HolderOutcome(asked.statement["holder"], "", status, request=asked.id, code=code, message=str(error))

    def _later(self, asked: SignedRequest, state: str, **values: Any) -> None:
        """Let a request be taken up again after a while, which grows with its age; after a week it has failed."""
        now = int(self._clock())
        age = now - asked.statement["time"]
        if age > GIVE_UP_SECONDS:
            self._change(asked, **(values | {"state": "failed", "due": None}))
            return
        pause = min(MAX_PAUSE_SECONDS, MIN_PAUSE_SECONDS + age // 4)
        self._change(asked, **(values | {"state": state, "due": now + pause}))

    def _change(self, asked: SignedRequest, **values: Any) -> None:
        self._requests.change(asked.id, int(self._clock()), **values)
