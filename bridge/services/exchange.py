"""The exchange between institutions: locate, request, decide, release, receive (design section 7).

``lookup`` is the requester's whole job; ``answer`` is the holder's (``bridge.services.release``). Per holder, the
request is committed to on the ledger before it is sent; a lost answer is asked for again under the same id, which the
holder answers with the same envelope.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, Table, insert, update

from anchor.errors import AnchorError, TransactionRejected
from anchor.gm import PrivateKey
from bridge.errors import DisclosureRefused, InvalidRequest, NotFound, PeerError, PeerRejected, PeerUnavailable
from bridge.peer_signature import live_key
from bridge.services import access_request
from bridge.services.access_request import SignedRequest
from bridge.services.audit_event import MINOR_FAILURE, SERIOUS_FAILURE, ExchangeFacts, Party
from bridge.services.awaited_state import awaited_state
from bridge.services.decision import EMERGENCY_REASONS, PURPOSES
from bridge.services.receive import Received, ReceivedItem
from bridge.services.sealed_subject import seal_subject
from bridge.storage.database import write_transaction
from bridge.storage.exchange import ExchangeRequest
from bridge.storage.keyring import NODE

if TYPE_CHECKING:
    from anchor.chain.client import ChainClient
    from bridge.services.abuse import AbuseWatch
    from bridge.services.audit import AuditService
    from bridge.services.ledger_events import LedgerEvents
    from bridge.services.localisation import LocalisationClient
    from bridge.services.peers import Peers
    from bridge.services.pseudonyms import PseudonymClient
    from bridge.services.receive import ReceiveService
    from bridge.services.release import Answer, ReleaseService
    from bridge.storage.keyring import KeyRing

REQUEST_PATH = "/exchange/v1/requests"
SEND_ATTEMPTS = 3  # of one signed request, when the holder does not answer
RETRY_SECONDS = 1.0
DEFAULT_ROLE = "physician"
REFUSAL_GRID_SECONDS = 0.1  # some of the ledger's answers long, and short for a person who waits

_REQUEST: Table = ExchangeRequest.__table__  # type: ignore[attr-defined]


def until_grid(elapsed: float) -> float:
    """Return how many seconds are left to the next multiple of ``REFUSAL_GRID_SECONDS``."""
    return REFUSAL_GRID_SECONDS - elapsed % REFUSAL_GRID_SECONDS


@dataclass(frozen=True, slots=True)
class HolderOutcome:
    """What one holder's answer came to. ``status``: received, denied, rejected (it did not hold), unavailable."""

    holder: str
    name: str
    status: str
    request: str | None = None
    code: str | None = None
    message: str = ""
    records: tuple[ReceivedItem, ...] = ()
    disclosed: str | None = None
    release_tx: str | None = None
    receive_tx: str | None = None
    gap: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LookupResult:
    """What a lookup came to, per holder; no holder at all means that nobody has registered the patient."""

    holders: tuple[HolderOutcome, ...]

    @property
    def received(self) -> bool:
        """Whether anything was received and verified."""
        return any(outcome.status == "received" for outcome in self.holders)


@dataclass(frozen=True, slots=True)
class Asking:
    """Why a lookup is made, as the requester states it."""

    purpose: str
    grant: str | None = None
    emergency: str | None = None
    reason: str = ""
    practitioner: str | None = None
    role: str = DEFAULT_ROLE
    categories: frozenset[str] | None = None

    def check(self) -> None:
        """Raise ``InvalidRequest`` for what no holder would take."""
        if self.purpose not in PURPOSES:
            raise InvalidRequest(f"purposes are of: {', '.join(sorted(PURPOSES))} / 用途代码无效")
        if self.emergency is not None:
            if self.emergency not in EMERGENCY_REASONS:
                names = ", ".join(sorted(EMERGENCY_REASONS))
                raise InvalidRequest(f"emergency codes are of: {names} / 紧急原因代码无效")
            if not self.reason.strip():
                raise InvalidRequest("an emergency needs a reason in words / 紧急调阅须说明理由")
            if self.grant is not None:
                raise InvalidRequest("an emergency names no grant / 紧急调阅不使用授权")


class ExchangeService:
    """Asks other institutions, and answers them."""

    def __init__(
        self,
        *,
        engine: Engine,
        keyring: KeyRing,
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
        self._engine, self._keyring, self._chain, self._chain_id = engine, keyring, chain, chain_id
        self._watch = watch
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
        pids: dict[str, str] = {}  # holder -> pseudonym under which it registered, the newest one first
        for pid in self._pseudonyms.served((system, value)):
            for each in self._localisation.locate(pid):
                pids.setdefault(each["org"], pid)
        holders = list(pids) if grant is None else self._holder_of(grant, list(pids))
        tell(f"{len(holders)} institution(s) hold records / 有 {len(holders)} 家机构持有记录")
        return LookupResult(tuple(self._ask(each, pids[each], asking, tell) for each in holders))

    def answer(self, request: bytes, caller: str) -> Answer:
        """Answer a signed request of the member ``caller`` (``ReleaseService.answer``) within its quota.

        A refusal leaves at a multiple of ``REFUSAL_GRID_SECONDS`` after the request came: how long the way to it was
        (an unknown patient, one with many grants) does not show. Raises ``QuotaExceeded`` as well.
        """
        began = time.monotonic()
        self._watch.charge(caller, access_request.parse(request).statement["practitioner"])
        try:
            return self._release.answer(request, caller)
        except DisclosureRefused:
            self._watch.denied(caller)
            time.sleep(until_grid(time.monotonic() - began))
            raise

    def _sealed(self, holder: str, system: str, value: str) -> str:
        """Return a person's identifier sealed to a member; raises ``InvalidRequest`` when it is no active member."""
        member = self._peers.directory.member(holder)
        key = live_key(member, "encrypt", int(self._clock())) if member else None
        if member is None or key is None or member.get("status") != "active" or holder == self._node.id:
            raise InvalidRequest("the holder is not another active member of the consortium / 指定机构不是其他有效成员")
        return seal_subject(key, holder, (system, value))

    def _holder_of(self, grant: str, located: list[str]) -> list[str]:
        """Return the institution that gave a grant: it is the one to ask, whoever else is registered."""
        state = awaited_state(self._chain, f"grant/{grant}")
        if state is None:
            raise NotFound("the ledger has no such grant / 账本上没有该授权")
        return [state["org"]] if state["org"] in located else []

    def _ask(self, holder: str, pid: str, asking: Asking, tell: Callable[[str], None]) -> HolderOutcome:
        began = time.monotonic()
        member = self._peers.directory.member(holder) or {}
        party = Party(holder, str(member.get("name", "")), str(member.get("endpoint", "")))
        asked = access_request.build(
            chain=self._chain_id,
            requester=self._node.id,
            key=self._key,
            holder=holder,
            pid=pid,
            purpose=asking.purpose,
            now=int(self._clock()),
            grant=asking.grant,
            emergency=asking.emergency,
            reason=asking.reason,
            practitioner=asking.practitioner,
            role=asking.role,
            categories=asking.categories,
        )
        facts = ExchangeFacts(
            request=asked.id,
            purpose=asking.purpose,
            holder=party,
            requester=self._node,
            practitioner=asking.practitioner,
            role=asking.role,
            emergency=asking.emergency is not None,
        )
        self._note(asked)
        try:
            tx_id = self._commit(asked)
            self._update(asked, state="requested", request_tx_id=tx_id)
            tell(f"request {asked.id} is on the ledger and goes to {party.name or holder} / 请求已上链并发送")
            received = self._receive.accept(asked, self._send(asked), facts)
        except (PeerError, AnchorError, DisclosureRefused) as error:
            outcome = self._failed(asked, facts, error)
        else:
            outcome = self._succeeded(asked, received)
        return replace(outcome, name=party.name, seconds=round(time.monotonic() - began, 3))

    def _commit(self, asked: SignedRequest) -> str | None:
        body = {"request": asked.id, "holder": asked.statement["holder"], "commitment": asked.commitment}
        emergency = asked.statement["emergency"]
        try:
            if emergency is None:
                return self._events.commit("access.request", {**body, "purpose": asked.statement["purpose"]}).tx_id
            return self._events.commit("access.emergency", {**body, "reason": emergency}).tx_id
        except TransactionRejected as error:
            raise DisclosureRefused(error.code, f"the ledger refused the request: {error}") from error

    def _send(self, asked: SignedRequest) -> bytes:
        """Send a request, again under the same id when no answer came."""
        for attempt in range(SEND_ATTEMPTS):
            try:
                return self._peers.post(asked.statement["holder"], REQUEST_PATH, asked.dump())
            except PeerUnavailable:
                if attempt + 1 == SEND_ATTEMPTS:
                    raise
            time.sleep(RETRY_SECONDS * (attempt + 1))
        raise PeerUnavailable

    def _succeeded(self, asked: SignedRequest, received: Received) -> HolderOutcome:
        self._update(
            asked,
            state="verified",
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
        """Note how a request ended and record it."""
        code = str(getattr(error, "code", "") or type(error).__name__)
        if isinstance(error, PeerRejected):
            status = "denied" if code == "not-permitted" else "rejected"
        else:
            status = "denied" if isinstance(error, DisclosureRefused) else "unavailable"
        severity = MINOR_FAILURE if status == "unavailable" else SERIOUS_FAILURE
        with write_transaction(self._engine) as connection:
            values = {"state": "failed" if status == "unavailable" else status, "reason": code[:64]}
            connection.execute(self._change(asked, **values))
            self._audit.record_receive(
                replace(facts, outcome=severity, description=f"nothing received: {code}"), connection
            )
        return HolderOutcome(asked.statement["holder"], "", status, request=asked.id, code=code, message=str(error))

    def _note(self, asked: SignedRequest) -> None:
        now, statement = int(self._clock()), asked.statement
        with write_transaction(self._engine) as connection:
            sealed = self._keyring.seal(connection, NODE, asked.dump(), f"asked|{asked.id}".encode())
            connection.execute(
                insert(_REQUEST).values(
                    request_id=asked.id,
                    holder=statement["holder"],
                    purpose=statement["purpose"],
                    emergency=statement["emergency"] is not None,
                    grant_id=statement["grant"],
                    state="new",
                    request_sealed=sealed,
                    count=0,
                    created=now,
                    updated=now,
                )
            )

    def _update(self, asked: SignedRequest, **values: Any) -> None:
        with write_transaction(self._engine) as connection:
            connection.execute(self._change(asked, **values))

    def _change(self, asked: SignedRequest, **values: Any) -> Any:
        statement = update(_REQUEST).where(_REQUEST.c.request_id == asked.id)
        return statement.values(updated=int(self._clock()), **values)
