"""Access: the events of one disclosure between two institutions, each signed by the side that is answerable for it.

======================  =========  ==============================================================================
transaction             sender     moves the request
======================  =========  ==============================================================================
``access.request``      requester  (new) -> open
``access.emergency``    requester  (new) -> open, and opens a review due a day later
``access.permit``       holder     open -> permitted, naming a covering grant, or none for an emergency
``access.deny``         holder     open or permitted -> denied
``access.release``      holder     permitted (for an emergency also open) -> released
``access.receive``      requester  released -> received
``access.review``       holder or  sets the outcome of an emergency's review, once; never by the requester
                        authority
======================  =========  ==============================================================================

A release names a grant that is live at block time and covers requester and purpose, or answers an emergency. Nothing
is released twice for one request. What was disclosed, to whom it relates and why are only in salted commitments.
"""

from __future__ import annotations

from collections.abc import Mapping

from anchor.contracts import schema
from anchor.contracts.consent import require_covering
from anchor.contracts.schema import check_body
from anchor.contracts.view import (
    HOLDERS,
    WRITERS,
    Changes,
    Value,
    View,
    active_member,
    member_of,
    refuse,
    require_role,
)
from anchor.transaction import Code, Transaction

REVIEW_SECONDS = 86_400
"""How long after an emergency access its review is due."""
EMERGENCY_PURPOSE = "ETREAT"
"""HL7 v3 PurposeOfUse: emergency treatment, the only purpose that needs no grant."""
MAX_RECORDS = 1_000_000
"""Records of one disclosure."""

_EMERGENCY_ROLES = frozenset({"hospital"})
_GRANT_OR_NONE = schema.nullable(schema.identifier)


def request(tx: Transaction, view: View) -> Changes:
    """Ask a holder for a patient's records."""
    check_body(
        tx.body,
        {
            "request": schema.identifier,
            "holder": schema.organisation,
            "purpose": schema.purpose,
            "commitment": schema.digest,
        },
    )
    require_role(view, tx.sender, WRITERS)
    return _opened(tx, view, purpose=tx.body["purpose"], reason=None)


def emergency(tx: Transaction, view: View) -> Changes:
    """Ask a holder in an emergency, without a grant; a review of it is due within a day."""
    check_body(
        tx.body,
        {
            "request": schema.identifier,
            "holder": schema.organisation,
            "reason": schema.reason,
            "commitment": schema.digest,
        },
    )
    require_role(view, tx.sender, _EMERGENCY_ROLES)
    return _opened(tx, view, purpose=EMERGENCY_PURPOSE, reason=tx.body["reason"])


def permit(tx: Transaction, view: View) -> Changes:
    """Say yes to an open request."""
    check_body(tx.body, {"request": schema.identifier, "grant": _GRANT_OR_NONE})
    key, current = _request_at(tx, view, party="holder")
    _require_status(current, "open")
    _check_basis(current, tx.body["grant"], view)
    return {key: {**current, "status": "permitted", "grant": tx.body["grant"], "permit": _event(tx, view)}}


def deny(tx: Transaction, view: View) -> Changes:
    """Say no to a request of which nothing has been released."""
    check_body(tx.body, {"request": schema.identifier, "reason": schema.reason})
    key, current = _request_at(tx, view, party="holder")
    _require_status(current, "open", "permitted")
    return {key: {**current, "status": "denied", "deny": {**_event(tx, view), "reason": tx.body["reason"]}}}


def release(tx: Transaction, view: View) -> Changes:
    """Commit to what is disclosed, before it leaves."""
    check_body(
        tx.body,
        {
            "request": schema.identifier,
            "grant": _GRANT_OR_NONE,
            "disclosed": schema.digest,
            "count": lambda value: schema.natural(value) and value <= MAX_RECORDS,
            "commitment": schema.digest,
        },
    )
    key, current = _request_at(tx, view, party="holder")
    if current["kind"] == "emergency":
        _require_status(current, "open", "permitted")
    else:
        _require_status(current, "permitted")
    if current["status"] == "permitted" and tx.body["grant"] != current["grant"]:
        refuse(Code.CONFLICT, "the release names another grant than the permission")
    active_member(view, current["requester"])
    _check_basis(current, tx.body["grant"], view)
    event = {
        **_event(tx, view),
        "disclosed": tx.body["disclosed"],
        "count": tx.body["count"],
        "commitment": tx.body["commitment"],
    }
    return {key: {**current, "status": "released", "grant": tx.body["grant"], "release": event}}


def receive(tx: Transaction, view: View) -> Changes:
    """Confirm, or reject, what arrived; "verified" must name the very root that was released."""
    check_body(
        tx.body,
        {
            "request": schema.identifier,
            "disclosed": schema.digest,
            "status": schema.one_of("verified", "rejected"),
        },
    )
    key, current = _request_at(tx, view, party="requester")
    _require_status(current, "released")
    if tx.body["status"] == "verified" and tx.body["disclosed"] != current["release"]["disclosed"]:
        refuse(Code.CONFLICT, "what was verified is not what was released")
    event = {**_event(tx, view), "disclosed": tx.body["disclosed"], "status": tx.body["status"]}
    return {key: {**current, "status": "received", "receive": event}}


def review(tx: Transaction, view: View) -> Changes:
    """Judge an emergency access, once, as its holder or as an authority, but never as the one who asked."""
    check_body(
        tx.body,
        {
            "request": schema.identifier,
            "outcome": schema.one_of("justified", "unjustified"),
            "commitment": schema.digest,
        },
    )
    key, current = _known_request(tx, view)
    is_authority = "authority" in member_of(view, tx.sender)["roles"]
    if tx.sender == current["requester"] or not (tx.sender == current["holder"] or is_authority):
        refuse(Code.NOT_AUTHORISED, "an emergency is reviewed by its holder or an authority")
    if current["review"] is None:
        refuse(Code.CONFLICT, "only an emergency is reviewed")
    if current["review"]["outcome"] is not None:
        refuse(Code.ALREADY_DONE, "the emergency has been reviewed")
    outcome = {
        **current["review"],
        **_event(tx, view),
        "outcome": tx.body["outcome"],
        "reviewer": tx.sender,
        "commitment": tx.body["commitment"],
    }
    return {key: {**current, "review": outcome}}


def _opened(tx: Transaction, view: View, *, purpose: str, reason: str | None) -> Changes:
    """Return a new request by the sender; ``reason`` is set for an emergency."""
    key = f"request/{tx.body['request']}"
    if view.get(key) is not None:
        refuse(Code.CONFLICT, "a request of that id exists")
    holder = tx.body["holder"]
    if holder == tx.sender:
        raise schema.bad_body("an institution asks another one")
    if HOLDERS.isdisjoint(active_member(view, holder)["roles"]):
        refuse(Code.CONFLICT, "that member holds no records")
    review_state = None if reason is None else {"due": view.time + REVIEW_SECONDS, "outcome": None}
    return {
        key: {
            "request": tx.body["request"],
            "kind": "request" if reason is None else "emergency",
            "requester": tx.sender,
            "holder": holder,
            "purpose": purpose,
            "reason": reason,
            "commitment": tx.body["commitment"],
            "status": "open",
            "grant": None,
            "time": view.time,
            "tx": tx.tx_id,
            "permit": None,
            "deny": None,
            "release": None,
            "receive": None,
            "review": review_state,
        }
    }


def _known_request(tx: Transaction, view: View) -> tuple[str, Value]:
    key = f"request/{tx.body['request']}"
    current = view.get(key)
    if current is None:
        refuse(Code.NOT_FOUND, "there is no such request")
    return key, current


def _request_at(tx: Transaction, view: View, *, party: str) -> tuple[str, Value]:
    """Return the request named by the body, in which the sender must be ``party`` ("holder" or "requester")."""
    key, current = _known_request(tx, view)
    if current[party] != tx.sender:
        refuse(Code.NOT_AUTHORISED, f"only the request's {party} may send this")
    return key, current


_PROGRESS = {"open": 0, "permitted": 1, "released": 2, "received": 3}


def _require_status(current: Mapping[str, str], *allowed: str) -> None:
    """Refuse with "already-done" when the request has moved past the allowed states, else with "conflict"."""
    status = current["status"]
    if status in allowed:
        return
    if status in _PROGRESS and _PROGRESS[status] > max(_PROGRESS[state] for state in allowed):
        refuse(Code.ALREADY_DONE, f"the request is {status} already")
    refuse(Code.CONFLICT, f"the request is {status}")


def _check_basis(current: Mapping[str, str], grant: str | None, view: View) -> None:
    """Refuse unless a covering grant is named, or the request is an emergency and names none."""
    if current["kind"] == "emergency" and grant is None:
        return
    require_covering(view, grant, holder=current["holder"], requester=current["requester"], purpose=current["purpose"])


def _event(tx: Transaction, view: View) -> Value:
    return {"tx": tx.tx_id, "time": view.time}


RULES = {
    "access.request": request,
    "access.emergency": emergency,
    "access.permit": permit,
    "access.deny": deny,
    "access.release": release,
    "access.receive": receive,
    "access.review": review,
}
