"""The steps of a disclosure receipt: who asked for what, under which grant, what left, and in which order.

Besides the steps every receipt shares (``anchor.verify_ledger``):

(1) request: the requester's own transaction, naming the holder; where the receipt opens its commitment, it opens.
(2) release: the holder's own transaction for that request, naming grant or emergency.
(3) grant: given by the holder, covering requester and purpose at the release's block time. The value of the grant in
    the ledger's state at the checkpoint is proven, and its version counts every change of it: all changes are in the
    receipt, so none is hidden, and a revocation has its place after the release.
(4) decision: where the holder permitted first, for this request and grant.
(5) order: grant before release, request before permission before release before reception, by place in the ledger's
    log.
(6) disclosed: the digests are those under the release's Merkle root; a record at hand is one of them.
(7) receive: where the requester confirmed or rejected what arrived.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from anchor import canonical
from anchor.errors import VerificationError
from anchor.gm import sm3
from anchor.receipt import (
    GRANT,
    PERMIT,
    RECEIVE,
    RELEASE,
    REQUEST,
    REVOKE,
    STATES,
    DisclosureReceipt,
    State,
    StateEvidence,
    commitment,
    disclosed_root,
)
from anchor.report import Report, Steps, utc
from anchor.state_tree import verify_state_proof
from anchor.verify_ledger import (
    CheckedLedger,
    CheckedTransaction,
    TrustedParts,
    take_finality_step,
    take_ledger_steps,
    take_timestamp_step,
)

EMERGENCY = "access.emergency"
EMERGENCY_PURPOSE = "ETREAT"
"""HL7 v3 PurposeOfUse: emergency treatment, the one purpose without a grant."""
AMEND = "consent.amend"
_TYPES: Mapping[str, frozenset[str]] = {
    GRANT: frozenset({"consent.grant"}),
    REQUEST: frozenset({"access.request", EMERGENCY}),
    PERMIT: frozenset({"access.permit"}),
    RELEASE: frozenset({"access.release"}),
    RECEIVE: frozenset({"access.receive"}),
    REVOKE: frozenset({"consent.revoke"}),
}
_SCOPE = ("grantees", "purposes", "until")


def verify_disclosure(
    steps: Steps, receipt: DisclosureReceipt, parts: TrustedParts, resource: bytes | None, minimum: State
) -> Report:
    """Take the steps of a disclosure receipt and return what it proves; raises ``StepFailed``."""
    with steps.step("transaction") as details:
        checked = {role: parts.transaction(tx) for role, tx in receipt.transactions.items()}
        amendments = [parts.transaction(tx) for tx in receipt.amendments]
        _check_types(checked, amendments)
        details += [f"{tx.transaction.type} by {tx.transaction.sender}" for tx in checked.values()]
    pairs = [(receipt.transactions[role], checked[role]) for role in checked]
    pairs += list(zip(receipt.amendments, amendments, strict=True))
    ledger = take_ledger_steps(steps, parts, pairs, receipt.ledger, receipt.state)
    stamped = take_timestamp_step(steps, parts.trust, ledger, receipt.timestamp)
    stamped |= take_finality_step(steps, parts.trust, ledger, receipt.finality)
    request, release = checked[REQUEST], checked[RELEASE]
    requester, holder = request.transaction.sender, release.transaction.sender
    purpose = EMERGENCY_PURPOSE if request.transaction.type == EMERGENCY else request.body.get("purpose")
    _take_request_step(steps, receipt, request, holder)
    _take_grant_step(steps, receipt, checked, amendments, ledger, (holder, requester, purpose))
    _take_decision_step(steps, receipt, checked, holder)
    _take_order_step(steps, checked)
    _take_disclosed_step(steps, receipt, release, resource)
    _take_receive_step(steps, receipt, checked, requester)
    with steps.step("state") as details:
        for wanted, phrase in ((receipt.state, "the receipt claims"), (minimum, "the caller asks for")):
            if STATES.index(ledger.state) < STATES.index(wanted):
                raise VerificationError(f"{phrase} {wanted} and the receipt proves only {ledger.state}")
        details.append(ledger.state)
    facts: dict[str, Any] = {
        "requester": requester,
        "purpose": purpose,
        "grant": release.body.get("grant"),
        "records": len(receipt.disclosed),
        "requested": utc(request.time),
        "released": utc(release.time),
    }
    if request.transaction.type == EMERGENCY:
        facts["emergency"] = request.body.get("reason")
    if RECEIVE in checked:
        facts["received"] = f"{checked[RECEIVE].body.get('status')} {utc(checked[RECEIVE].time)}"
    if REVOKE in checked:
        facts["revoked afterwards"] = utc(checked[REVOKE].time)
    facts |= stamped
    return Report(
        kind="disclosure",
        state=ledger.state,
        chain=parts.trust.chain,
        org=holder,
        subject=receipt.request,
        digest=None,
        time=release.time,
        witnessed=ledger.quorum_time,
        cosignatures=ledger.cosignatures,
        trust=parts.trust.fingerprint(),
        steps=steps.taken,
        facts=facts,
    )


def _check_types(checked: Mapping[str, CheckedTransaction], amendments: list[CheckedTransaction]) -> None:
    for role, tx in checked.items():
        if tx.transaction.type not in _TYPES[role]:
            raise VerificationError(f"the receipt's {role} is a transaction of another type")
    if any(tx.transaction.type != AMEND for tx in amendments):
        raise VerificationError("the receipt's amendments hold a transaction of another type")


def _take_request_step(steps: Steps, receipt: DisclosureReceipt, request: CheckedTransaction, holder: str) -> None:
    """Step (1)."""
    with steps.step("request") as details:
        _check_names(request, "request", receipt.request)
        _check_names(request, "holder", holder)
        if receipt.statement is not None:
            if commitment(receipt.statement).hex() != request.body.get("commitment"):
                raise VerificationError("the statement is not the one the request committed to")
            said = {"request": receipt.request, "requester": request.transaction.sender, "holder": holder}
            if any(receipt.statement.get(name) != value for name, value in said.items()):
                raise VerificationError("the statement speaks of another request, requester or holder")
            details.append("its statement is the one committed to")
        details.append(f"{request.transaction.sender} asked {holder}")


def _take_grant_step(
    steps: Steps,
    receipt: DisclosureReceipt,
    checked: Mapping[str, CheckedTransaction],
    amendments: list[CheckedTransaction],
    ledger: CheckedLedger,
    parties: tuple[str, str, Any],
) -> None:
    """Steps (2) and (3)."""
    holder, requester, purpose = parties
    release = checked[RELEASE]
    with steps.step("grant") as details:
        grant_id = release.body.get("grant")
        if grant_id is None:
            if checked[REQUEST].transaction.type != EMERGENCY:
                raise VerificationError("the release names no grant and the request is no emergency")
            if receipt.grant is not None or GRANT in checked or REVOKE in checked or amendments:
                raise VerificationError("the release names no grant and the receipt shows one")
            details.append("an emergency, which needs none and is reviewed")
            return
        if receipt.grant is None or GRANT not in checked:
            raise VerificationError("the receipt does not show the grant that the release names")
        _check_grant_state(receipt.grant, f"grant/{grant_id}", ledger)
        own = [checked[GRANT], *amendments, *([checked[REVOKE]] if REVOKE in checked else [])]
        for tx in own:
            _check_names(tx, "grant", grant_id)
            if tx.transaction.sender != holder:
                raise VerificationError("the grant was given or changed by another organisation than the holder")
        scope = _scope_at_release(own, receipt.grant.value or {}, release)
        if requester not in scope["grantees"] or purpose not in scope["purposes"]:
            raise VerificationError("the grant did not cover this requester and purpose")
        if not scope["from"] <= release.time < scope["until"]:
            raise VerificationError("the grant was not in force when the release was committed")
        details.append(f"{requester} for {purpose}, {utc(scope['from'])} to {utc(scope['until'])}")


def _check_grant_state(evidence: StateEvidence, key: str, ledger: CheckedLedger) -> None:
    if evidence.key != key or evidence.value is None:
        raise VerificationError("the receipt proves the state of another grant")
    root = ledger.checkpoint.binary("state")
    verify_state_proof(key=evidence.key, value=evidence.value, root=root, proof=evidence.proof)


def _scope_at_release(
    own: list[CheckedTransaction], value: Mapping[str, Any], release: CheckedTransaction
) -> dict[str, Any]:
    """Replay the grant and all its changes, and return its scope as it was when the release was committed.

    Raises ``VerificationError`` when a change is missing, out of order, or when a revocation came before the release.
    """
    indexes = [tx.index for tx in own]
    if indexes != sorted(set(indexes)):
        raise VerificationError("the changes of the grant are not in ledger order")
    if value.get("version") != len(own) or value.get("tx") != own[-1].transaction.tx_id:
        raise VerificationError("a change of the grant is missing from the receipt")
    if (value.get("status") == "revoked") != (own[-1].transaction.type == "consent.revoke"):
        raise VerificationError("the grant was revoked, and the receipt does not show when")
    scope: dict[str, Any] = {"from": own[0].body.get("from")}
    for tx in own:
        if tx.index > release.index:
            break
        if tx.transaction.type == "consent.revoke":
            raise VerificationError("the grant was revoked before the release")
        scope |= {name: tx.body[name] for name in _SCOPE if name in tx.body}
    well_formed = (
        all(isinstance(scope.get(name), list) for name in ("grantees", "purposes"))
        and all(type(scope.get(name)) is int for name in ("from", "until"))
        and 0 <= scope["from"] <= scope["until"] <= 253_402_300_799
    )
    if not well_formed:
        raise VerificationError("the grant came after the release, or is not of its form")
    return scope


def _take_decision_step(
    steps: Steps, receipt: DisclosureReceipt, checked: Mapping[str, CheckedTransaction], holder: str
) -> None:
    """Step (4): a permission is there, unless it is an emergency; it is the holder's, for this request and grant."""
    permit = checked.get(PERMIT)
    if permit is None and checked[REQUEST].transaction.type == EMERGENCY:
        return
    with steps.step("decision"):
        if permit is None:
            raise VerificationError("the receipt shows no permission")
        _check_names(permit, "request", receipt.request)
        _check_names(permit, "grant", checked[RELEASE].body.get("grant"))
        if permit.transaction.sender != holder:
            raise VerificationError("another organisation than the holder permitted it")


def _take_order_step(steps: Steps, checked: Mapping[str, CheckedTransaction]) -> None:
    """Step (5), by place in the ledger's log."""
    with steps.step("order") as details:
        for chain in ((REQUEST, PERMIT, RELEASE, RECEIVE), (GRANT, RELEASE, REVOKE)):
            there = [role for role in chain if role in checked]
            places = [checked[role].index for role in there]
            if any(first >= second for first, second in pairwise(places)):
                raise VerificationError(f"{', '.join(there)} are not in this order on the ledger")
            details.append(" < ".join(there))


def _take_disclosed_step(
    steps: Steps, receipt: DisclosureReceipt, release: CheckedTransaction, resource: bytes | None
) -> None:
    """Step (6)."""
    with steps.step("disclosed") as details:
        _check_names(release, "request", receipt.request)
        _check_names(release, "count", len(receipt.disclosed))
        if release.body.get("disclosed") != disclosed_root(receipt.disclosed).hex():
            raise VerificationError("the digests are not those the release committed to")
        details.append(f"{len(receipt.disclosed)} records")
    if resource is not None:
        with steps.step("resource") as details:
            digest = sm3(canonical.canonicalize(resource))
            if digest not in receipt.disclosed:
                raise VerificationError("the record at hand is not among those disclosed")
            details.append(f"SM3 {digest.hex()}")


def _take_receive_step(
    steps: Steps, receipt: DisclosureReceipt, checked: Mapping[str, CheckedTransaction], requester: str
) -> None:
    """Step (7)."""
    receive = checked.get(RECEIVE)
    if receive is None:
        return
    with steps.step("receive") as details:
        _check_names(receive, "request", receipt.request)
        if receive.transaction.sender != requester:
            raise VerificationError("another organisation than the requester confirmed it")
        status = receive.body.get("status")
        if status == "verified" and receive.body.get("disclosed") != checked[RELEASE].body.get("disclosed"):
            raise VerificationError("what the requester verified is not what was released")
        details.append(str(status))


def _check_names(tx: CheckedTransaction, field: str, value: Any) -> None:
    """Refuse a transaction whose ``field`` is not exactly ``value``."""
    found = tx.body.get(field)
    if type(found) is not type(value) or found != value:
        raise VerificationError(f"the {tx.transaction.type} names another {field}")
