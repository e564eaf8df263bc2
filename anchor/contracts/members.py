"""Member records: the form in which an institution asks to be admitted, and the record the ledger keeps of it.

A card is what an institution hands to the authority:
``{"v":1,"chain","org","name","roles","endpoint","keys","proofs"}``, ``proofs`` mapping each signing key's id to its
proof of possession. An admission carries the card's ``{"org","name","roles","endpoint","keys","proofs"}``; the ledger
keeps the same without proofs and with a status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anchor.contracts import member_keys, schema
from anchor.contracts.schema import bad_body, check_body
from anchor.contracts.view import ROLES, Value
from anchor.gm import PrivateKey

MAX_CARD_KEYS = 8
"""Keys on one card: both uses with their successors, twice over."""

_RECORD_FIELDS: Mapping[str, schema.Check] = {
    "org": schema.organisation,
    "name": schema.text,
    "roles": schema.distinct_list(schema.one_of(*ROLES), most=len(ROLES)),
    "endpoint": schema.url,
    "keys": lambda value: type(value) is list and 2 <= len(value) <= MAX_CARD_KEYS,
}
_ADMISSION_FIELDS: Mapping[str, schema.Check] = {**_RECORD_FIELDS, "proofs": schema.mapping}


def check_admission(chain: str, member: Mapping[str, Any], read_key: member_keys.ReadKey) -> None:
    """Refuse ("bad-body") an admission whose fields, keys or proofs of possession are not right."""
    check_body(member, _ADMISSION_FIELDS)
    member_keys.check_keys(member["keys"], read_key)
    member_keys.check_possession(chain, member["org"], member["keys"], member["proofs"], read_key)


def check_record(record: Mapping[str, Any], read_key: member_keys.ReadKey) -> None:
    """Refuse ("bad-body") a genesis member (a record with its status) whose fields or keys are not right."""
    check_body(record, {**_RECORD_FIELDS, "status": schema.one_of("active", "suspended")})
    member_keys.check_keys(record["keys"], read_key)


def admitted_record(member: Mapping[str, Any], time: int) -> Value:
    """Return the record of a member admitted at ``time``; refused ("bad-body") without live keys of both uses."""
    keys = member_keys.starting_at(member["keys"], time)
    if not all(key["until"] is None or key["until"] > key["from"] for key in keys) or not member_keys.covers_both_uses(
        keys, time
    ):
        raise bad_body("a member brings a live signing key and a live encryption key")
    return {
        "org": member["org"],
        "name": member["name"],
        "roles": sorted(member["roles"]),
        "endpoint": member["endpoint"],
        "status": "active",
        "keys": keys,
    }


def card(
    *,
    chain: str,
    org: str,
    name: str,
    roles: Sequence[str],
    endpoint: str,
    signing: PrivateKey,
    encryption: PrivateKey,
    since: int,
    until: int | None = None,
) -> Value:
    """Return the card with which an institution asks to be admitted; its keys are valid from ``since``."""
    keys = [
        member_keys.key_record(signing.public_key, "sign", since=since, until=until),
        member_keys.key_record(encryption.public_key, "encrypt", since=since, until=until),
    ]
    return {
        "v": 1,
        "chain": chain,
        "org": org,
        "name": name,
        "roles": sorted(roles),
        "endpoint": endpoint,
        "keys": keys,
        "proofs": {signing.public_key.key_id: member_keys.prove_possession(chain, org, keys, signing)},
    }


def admission(card: Mapping[str, Any]) -> Value:
    """Return the member object of an admission from a card; refused ("bad-body") when the card lacks a field."""
    try:
        return {name: card[name] for name in _ADMISSION_FIELDS}
    except KeyError:
        raise bad_body("the card lacks a field") from None
