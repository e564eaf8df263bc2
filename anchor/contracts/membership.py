"""Membership: who is in the consortium, decided by m of n authorities; and what a member changes about itself.

``membership.propose``     an authority proposes an action; its own approval counts
``membership.approve``     another authority approves; the action takes effect in the transaction that reaches m
``membership.rotate-key``  a member adds a key of its own and may end an older one of the same use
``membership.endpoint``    a member moves

Actions: admit, suspend, reinstate, replace-key (a lost key, recovered by governance), threshold (m itself), validator
(a member's voting power in the consortium engine), minimum-validators.
An action that cannot take effect now is refused when proposed and when approved, so no proposal waits in vain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from anchor.contracts import member_keys, schema, validators
from anchor.contracts.members import MAX_CARD_KEYS, admitted_record, check_admission
from anchor.contracts.schema import bad_body, check_body
from anchor.contracts.view import WRITERS, Changes, Value, View, active_member, member_of, refuse, require_role
from anchor.transaction import Code, Transaction

PROPOSAL_SECONDS = 30 * 86_400
"""How long a proposal stays open: long enough for a monthly meeting, too short to be forgotten and then used."""

_AUTHORITY = frozenset({"authority"})


def propose(tx: Transaction, view: View) -> Changes:
    """Open a proposal with the sender's approval, and carry it out at once when that is enough."""
    check_body(tx.body, {"proposal": schema.identifier, "action": schema.mapping})
    require_role(view, tx.sender, _AUTHORITY)
    key = f"proposal/{tx.body['proposal']}"
    if view.get(key) is not None:
        refuse(Code.CONFLICT, "a proposal of that id exists")
    proposal: Value = {
        "proposal": tx.body["proposal"],
        "action": tx.body["action"],
        "proposer": tx.sender,
        "approvals": [tx.sender],
        "status": "open",
        "time": view.time,
        "until": view.time + PROPOSAL_SECONDS,
        "tx": tx.tx_id,
    }
    return _settle(key, proposal, view)


def approve(tx: Transaction, view: View) -> Changes:
    """Add the sender's approval, and carry the action out when it is the one that was missing."""
    check_body(tx.body, {"proposal": schema.identifier})
    require_role(view, tx.sender, _AUTHORITY)
    key = f"proposal/{tx.body['proposal']}"
    proposal = view.get(key)
    if proposal is None:
        refuse(Code.NOT_FOUND, "there is no such proposal")
    if proposal["status"] != "open" or tx.sender in proposal["approvals"]:
        refuse(Code.ALREADY_DONE, "the proposal is carried out or has this approval already")
    if view.time >= proposal["until"]:
        refuse(Code.EXPIRED, "the proposal has lapsed")
    return _settle(key, {**proposal, "approvals": [*proposal["approvals"], tx.sender]}, view)


def rotate_key(tx: Transaction, view: View) -> Changes:
    """Add one key to the sender's record; with ``retire``, end an older one of the same use, leaving no gap."""
    check_body(
        tx.body,
        {
            "key": schema.mapping,
            "proof": schema.nullable(schema.signature),
            "retire": schema.nullable(schema.mapping),
        },
    )
    member, new, proof = member_of(view, tx.sender), tx.body["key"], tx.body["proof"]
    member_keys.check_keys([new], view.public_key)
    proofs = {} if proof is None else {new["id"]: proof}
    member_keys.check_possession(view.chain, tx.sender, [new], proofs, view.public_key)
    if member_keys.find_key(member, new["id"]) is not None:
        refuse(Code.CONFLICT, "the member has that key already")
    if len(member["keys"]) >= member_keys.MAX_KEYS:
        refuse(Code.CONFLICT, f"a member has at most {member_keys.MAX_KEYS} keys")
    (added,) = member_keys.starting_at([new], view.time)
    if added["until"] is not None and added["until"] <= added["from"]:
        raise bad_body("the key has ended already")
    keys = [*member["keys"], added]
    if tx.body["retire"] is not None:
        keys = _retire(keys, added, tx.body["retire"], view)
    return {f"member/{tx.sender}": {**member, "keys": keys}}


def endpoint(tx: Transaction, view: View) -> Changes:
    """Set the address at which the sender is reached."""
    check_body(tx.body, {"endpoint": schema.url})
    return {f"member/{tx.sender}": {**member_of(view, tx.sender), "endpoint": tx.body["endpoint"]}}


def _retire(keys: list[Value], added: Value, retire: Mapping[str, Any], view: View) -> list[Value]:
    """Return the keys with one of them ending at ``retire["until"]``, which must lie within the new key's validity."""
    check_body(retire, {"id": schema.key_id, "until": schema.natural})
    position = next((place for place, key in enumerate(keys[:-1]) if key["id"] == retire["id"]), None)
    if position is None:
        refuse(Code.NOT_FOUND, "the member has no such key to retire")
    old, until = keys[position], retire["until"]
    if old["use"] != added["use"]:
        raise bad_body("a key is retired by a key of the same use")
    if until < view.time or until < old["from"] or (old["until"] is not None and until > old["until"]):
        raise bad_body("a key is retired now or later, and never lives longer for it")
    if until < added["from"] or (added["until"] is not None and added["until"] <= until):
        raise bad_body("the new key is not live when the retired one ends")
    return [*keys[:position], {**old, "until": until}, *keys[position + 1 :]]


def _settle(key: str, proposal: Value, view: View) -> Changes:
    """Return the changes of a proposal with its approvals: stored as open, or carried out."""
    effects = _effects(proposal["action"], view)
    chain = view.get("chain")
    assert chain is not None
    approvals = [org for org in proposal["approvals"] if _is_active_authority(view, org)]
    if len(approvals) < chain["threshold"]:
        return {key: proposal}
    return {**effects, key: {**proposal, "status": "executed", "executed": view.time}}


def _is_active_authority(view: View, org: str) -> bool:
    member = view.get(f"member/{org}")
    return member is not None and member["status"] == "active" and "authority" in member["roles"]


def _effects(action: Mapping[str, Any], view: View) -> Changes:
    """Return what an action would change now, or refuse it."""
    kind = action.get("kind")
    effect = _ACTIONS.get(kind) if type(kind) is str else None
    if effect is None:
        raise bad_body("there is no such action")
    return effect(action, view)


def _admit(action: Mapping[str, Any], view: View) -> Changes:
    check_body(action, {"kind": schema.one_of("admit"), "member": schema.mapping})
    check_admission(view.chain, action["member"], view.public_key)
    org = action["member"]["org"]
    if view.get(f"member/{org}") is not None:
        refuse(Code.CONFLICT, "that organisation is a member already")
    record = admitted_record(action["member"], view.time)
    changes: dict[str, Value] = {f"member/{org}": record}
    if "authority" in record["roles"]:
        chain = view.get("chain")
        assert chain is not None
        changes["chain"] = {**chain, "authorities": sorted([*chain["authorities"], org])}
    return changes


def _suspend(action: Mapping[str, Any], view: View) -> Changes:
    check_body(action, {"kind": schema.one_of("suspend"), "org": schema.organisation})
    member = active_member(view, action["org"])
    chain = view.get("chain")
    assert chain is not None
    if "authority" in member["roles"] and len(_active_authorities(view, chain)) <= chain["threshold"]:
        refuse(Code.CONFLICT, "fewer authorities would be left than a decision needs")
    return {f"member/{action['org']}": {**member, "status": "suspended"}, **validators.without(view, action["org"])}


def _reinstate(action: Mapping[str, Any], view: View) -> Changes:
    check_body(action, {"kind": schema.one_of("reinstate"), "org": schema.organisation})
    member = member_of(view, action["org"])
    if member["status"] != "suspended":
        refuse(Code.CONFLICT, "that member is not suspended")
    return {f"member/{action['org']}": {**member, "status": "active"}}


def _replace_key(action: Mapping[str, Any], view: View) -> Changes:
    """End all keys of a member now and give it new ones, which prove possession as an admission's do."""
    check_body(
        action,
        {
            "kind": schema.one_of("replace-key"),
            "org": schema.organisation,
            "keys": lambda value: type(value) is list and 2 <= len(value) <= MAX_CARD_KEYS,
            "proofs": schema.mapping,
        },
    )
    org, keys = action["org"], action["keys"]
    member = member_of(view, org)
    member_keys.check_keys(keys, view.public_key)
    member_keys.check_possession(view.chain, org, keys, action["proofs"], view.public_key)
    if any(member_keys.find_key(member, key["id"]) is not None for key in keys):
        refuse(Code.CONFLICT, "the member has one of those keys already")
    if len(member["keys"]) + len(keys) > member_keys.MAX_KEYS:
        refuse(Code.CONFLICT, f"a member has at most {member_keys.MAX_KEYS} keys")
    added = member_keys.starting_at(keys, view.time)
    if not member_keys.covers_both_uses(added, view.time):
        raise bad_body("a member brings a live signing key and a live encryption key")
    return {f"member/{org}": {**member, "keys": [*member_keys.ended_at(member["keys"], view.time), *added]}}


def _threshold(action: Mapping[str, Any], view: View) -> Changes:
    check_body(action, {"kind": schema.one_of("threshold"), "value": schema.positive})
    chain = view.get("chain")
    assert chain is not None
    if action["value"] > len(_active_authorities(view, chain)):
        refuse(Code.CONFLICT, "there are fewer active authorities than that")
    return {"chain": {**chain, "threshold": action["value"]}}


def _validator(action: Mapping[str, Any], view: View) -> Changes:
    """Give a member's registered node a voting power; 0 takes it away."""
    check_body(
        action,
        {
            "kind": schema.one_of("validator"),
            "org": schema.organisation,
            "power": lambda value: schema.natural(value) and value <= validators.MAX_POWER,
        },
    )
    org, power = action["org"], action["power"]
    if not power:
        return validators.with_power(view, org, "", 0)
    if WRITERS.isdisjoint(active_member(view, org)["roles"]):
        refuse(Code.CONFLICT, "an observer follows without voting")
    node = view.get(f"node/{org}")
    if node is None:
        refuse(Code.CONFLICT, "that member has registered no node")
    return validators.with_power(view, org, node["key"], power)


def _minimum_validators(action: Mapping[str, Any], view: View) -> Changes:
    check_body(action, {"kind": schema.one_of("minimum-validators"), "value": schema.positive})
    if action["value"] > validators.MAX_VALIDATORS:
        raise bad_body(f"there are at most {validators.MAX_VALIDATORS} validators")
    return validators.with_minimum(view, action["value"])


def _active_authorities(view: View, chain: Mapping[str, Any]) -> list[str]:
    return [org for org in chain["authorities"] if _is_active_authority(view, org)]


_ACTIONS: Mapping[str, Callable[[Mapping[str, Any], View], Changes]] = {
    "admit": _admit,
    "suspend": _suspend,
    "reinstate": _reinstate,
    "replace-key": _replace_key,
    "threshold": _threshold,
    "validator": _validator,
    "minimum-validators": _minimum_validators,
}

RULES = {
    "membership.propose": propose,
    "membership.approve": approve,
    "membership.rotate-key": rotate_key,
    "membership.endpoint": endpoint,
}
