"""Consent: what a patient has allowed, as far as the ledger may know it.

``consent.grant``   {"grant", "grantees", "purposes", "from", "until", "commitment"}
``consent.amend``   {"grant", and any of "grantees", "purposes", "until", "commitment"}
``consent.revoke``  {"grant"}

Who the patient is and what the consent says in detail is only in ``commitment``, a salted digest whose opening stays
with the institution. Grantees, purposes and times are public, so that the ledger can hold a release against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anchor.contracts import schema
from anchor.contracts.schema import bad_body, check_body
from anchor.contracts.view import HOLDERS, Changes, Value, View, active_member, refuse, require_role
from anchor.transaction import Code, Transaction

MAX_PURPOSES = 16
MAX_GRANT_SECONDS = 10 * 366 * 86_400
"""A consent without a foreseeable end is not one: ten years, after which it is asked for again."""

_AMENDABLE: Mapping[str, schema.Check] = {
    "grantees": schema.distinct_list(schema.organisation),
    "purposes": schema.distinct_list(schema.purpose, most=MAX_PURPOSES),
    "until": schema.natural,
    "commitment": schema.digest,
}


def grant(tx: Transaction, view: View) -> Changes:
    """Record a new grant by the sender."""
    check_body(tx.body, {"grant": schema.identifier, "from": schema.natural, **_AMENDABLE})
    require_role(view, tx.sender, HOLDERS)
    key = f"grant/{tx.body['grant']}"
    if view.get(key) is not None:
        refuse(Code.CONFLICT, "a grant of that id exists")
    _check_grantees(tx.body["grantees"], tx.sender, view)
    _check_times(tx.body["from"], tx.body["until"], view.time)
    return {
        key: {
            "grant": tx.body["grant"],
            "org": tx.sender,
            "grantees": sorted(tx.body["grantees"]),
            "purposes": sorted(tx.body["purposes"]),
            "from": tx.body["from"],
            "until": tx.body["until"],
            "commitment": tx.body["commitment"],
            "status": "active",
            "version": 1,
            "time": view.time,
            "revoked": None,
            "tx": tx.tx_id,
        }
    }


def amend(tx: Transaction, view: View) -> Changes:
    """Change a grant of the sender's that is neither revoked nor over."""
    check_body(tx.body, {"grant": schema.identifier}, optional=_AMENDABLE)
    if len(tx.body) < 2:
        raise bad_body("an amendment changes something")
    key, current = _own_grant(tx, view)
    if current["until"] <= view.time:
        refuse(Code.GRANT_EXPIRED, "the grant is over")
    changed = {name: tx.body[name] for name in _AMENDABLE if name in tx.body}
    if "grantees" in changed:
        _check_grantees(changed["grantees"], tx.sender, view)
        changed["grantees"] = sorted(changed["grantees"])
    if "purposes" in changed:
        changed["purposes"] = sorted(changed["purposes"])
    amended = {**current, **changed, "version": current["version"] + 1, "tx": tx.tx_id}
    _check_times(amended["from"], amended["until"], view.time)
    return {key: amended}


def revoke(tx: Transaction, view: View) -> Changes:
    """End a grant of the sender's at this block's time, for good."""
    check_body(tx.body, {"grant": schema.identifier})
    key, current = _own_grant(tx, view)
    return {
        key: {**current, "status": "revoked", "revoked": view.time, "version": current["version"] + 1, "tx": tx.tx_id}
    }


def require_covering(view: View, grant_id: str | None, *, holder: str, requester: str, purpose: str) -> None:
    """Refuse unless a grant by ``holder`` is live at block time and covers this requester and purpose.

    "no-grant" when there is none or it covers something else, "grant-revoked", or "grant-expired" when block time is
    outside ``from <= t < until``.
    """
    found = None if grant_id is None else view.get(f"grant/{grant_id}")
    if (
        found is None
        or found["org"] != holder
        or requester not in found["grantees"]
        or purpose not in found["purposes"]
    ):
        refuse(Code.NO_GRANT, "no grant by the holder covers this requester and purpose")
    if found["status"] != "active":
        refuse(Code.GRANT_REVOKED, "the grant is revoked")
    if not found["from"] <= view.time < found["until"]:
        refuse(Code.GRANT_EXPIRED, "the grant is not in force at this time")


def _own_grant(tx: Transaction, view: View) -> tuple[str, Value]:
    """Return the grant named by the body, which must be the sender's and not revoked."""
    key = f"grant/{tx.body['grant']}"
    current = view.get(key)
    if current is None:
        refuse(Code.NOT_FOUND, "there is no such grant")
    if current["org"] != tx.sender:
        refuse(Code.NOT_AUTHORISED, "only the organisation that granted amends or revokes")
    if current["status"] != "active":
        refuse(Code.GRANT_REVOKED, "the grant is revoked")
    return key, current


def _check_grantees(grantees: list[Any], sender: str, view: View) -> None:
    for org in grantees:
        if org == sender:
            raise bad_body("an organisation does not grant access to itself")
        active_member(view, org)


def _check_times(since: int, until: int, now: int) -> None:
    if until <= since or until <= now:
        raise bad_body("a grant ends after it begins, and in the future")
    if until - max(since, now) > MAX_GRANT_SECONDS:
        raise bad_body("a grant lasts at most ten years")


RULES = {"consent.grant": grant, "consent.amend": amend, "consent.revoke": revoke}
