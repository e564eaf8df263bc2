"""Members' keys: their form, when they are live, and the proof that their owner has them.

A key record is ``{"id","use":"sign"|"encrypt","public","from","until"}``; it is live at time t when ``from <= t`` and
(``until`` is null or ``t < until``). Records are never removed: what a key signed while it was live stays checkable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from anchor.contracts import schema
from anchor.contracts.schema import bad_body, check_body
from anchor.contracts.view import Value
from anchor.errors import KeyFormatError, SignatureInvalid
from anchor.gm import PrivateKey, PublicKey
from anchor.transaction import encode

MAX_KEYS = 64
"""Keys of one member, past ones included: yearly rotation of both for thirty years; what a trust file takes."""

POSSESSION = "yiqiao/possession/v1"

_KEY_FIELDS: Mapping[str, schema.Check] = {
    "id": schema.key_id,
    "use": schema.one_of("sign", "encrypt"),
    "public": schema.hex_of(130),
    "from": schema.natural,
    "until": schema.nullable(schema.natural),
}

ReadKey = Callable[[str], PublicKey]
"""From 130 hexadecimal digits to a key; raises ``KeyFormatError``."""


def is_live(key: Mapping[str, Any], time: int) -> bool:
    """Whether a key record is valid at ``time`` (Unix seconds)."""
    until = key["until"]
    return bool(key["from"] <= time and (until is None or time < until))


def live_keys(member: Mapping[str, Any], use: str, time: int) -> list[Value]:
    """Return a member's keys of one use that are live at ``time``, in the record's order."""
    return [key for key in member["keys"] if key["use"] == use and is_live(key, time)]


def find_key(member: Mapping[str, Any], key_id: str) -> Value | None:
    """Return a member's key record by id, live or not."""
    for key in member["keys"]:
        if key["id"] == key_id:
            found: Value = key
            return found
    return None


def key_record(public: PublicKey, use: str, *, since: int, until: int | None = None) -> Value:
    """Return the record of a public key; ``since`` and ``until`` are Unix seconds."""
    return {"id": public.key_id, "use": use, "public": public.to_bytes().hex(), "from": since, "until": until}


def possession_message(chain: str, org: str, keys: Sequence[Mapping[str, Any]]) -> bytes:
    """Return what each new signing key signs to show that its owner has it.

    It names the chain and the organisation, so that a proof is of no use elsewhere, and lists all the new keys, so
    that an encryption key is vouched for by the signing key beside it.
    """
    return encode({"chain": chain, "keys": list(keys), "org": org, "purpose": POSSESSION})


def prove_possession(chain: str, org: str, keys: Sequence[Mapping[str, Any]], signing: PrivateKey) -> str:
    """Return the proof of possession (hexadecimal) of one signing key among ``keys``."""
    return signing.sign(possession_message(chain, org, keys)).hex()


def check_keys(keys: Sequence[Any], read_key: ReadKey) -> None:
    """Refuse ("bad-body") key records of the wrong form: fields, id, point on the curve, repeated keys, empty spans."""
    seen: set[str] = set()
    for key in keys:
        if type(key) is not dict:
            raise bad_body("a key is an object")
        check_body(key, _KEY_FIELDS)
        try:
            public = read_key(key["public"])
        except KeyFormatError:
            raise bad_body("a public key is not a point on the SM2 curve") from None
        if public.key_id != key["id"]:
            raise bad_body("a key's id is not that of its public key")
        if key["until"] is not None and key["until"] <= key["from"]:
            raise bad_body("a key ends before it begins")
        if key["id"] in seen:
            raise bad_body("a key is listed twice")
        seen.add(key["id"])


def check_possession(
    chain: str, org: str, keys: Sequence[Mapping[str, Any]], proofs: Mapping[str, Any], read_key: ReadKey
) -> None:
    """Refuse ("bad-body") unless ``proofs`` holds, for every signing key and nothing else, a proof that verifies."""
    signing = [key for key in keys if key["use"] == "sign"]
    if proofs.keys() != {key["id"] for key in signing}:
        raise bad_body("there is not exactly one proof of possession for each signing key")
    message = possession_message(chain, org, keys)
    for key in signing:
        proof = proofs[key["id"]]
        if not schema.signature(proof):
            raise bad_body("a proof of possession is 128 hexadecimal digits")
        try:
            read_key(key["public"]).verify(message, bytes.fromhex(proof))
        except SignatureInvalid:
            raise bad_body("a proof of possession does not verify") from None


def starting_at(keys: Iterable[Mapping[str, Any]], time: int) -> list[Value]:
    """Return key records that begin no earlier than ``time``: a key vouches for nothing before it was on the ledger."""
    return [{**key, "from": max(key["from"], time)} for key in keys]


def ended_at(keys: Iterable[Mapping[str, Any]], time: int) -> list[Value]:
    """Return key records of which none is live from ``time`` on. A key that had not begun ends as it begins."""
    ended: list[Value] = []
    for key in keys:
        end = max(time, key["from"])
        ended.append({**key, "until": end if key["until"] is None else min(key["until"], end)})
    return ended


def covers_both_uses(keys: Iterable[Mapping[str, Any]], time: int) -> bool:
    """Whether a signing key and an encryption key are live at ``time``."""
    return {"sign", "encrypt"} <= {key["use"] for key in keys if is_live(key, time)}
