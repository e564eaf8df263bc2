"""Ledger transactions: their one encoding, their identity, their signature, and the codes a refusal carries.

A transaction is a canonical JSON object of strings, integers, booleans, null, arrays and objects (never a float)::

    {"body":{…},"chain":"yiqiao-demo","expires":1767225600,"key":"<16 hex>","sender":"<org>","seq":1,"type":"…","v":1}

and travels in an envelope ``{"sig":"<128 hex>","tx":{…}}``. The envelope has exactly one accepted encoding: its own
canonical form. ``tx_id`` is the hex SM3 of the transaction's canonical bytes; the signature is SM2 over those same
bytes with the default signer id (GM/T 0009). Replay is impossible by ``chain``, ``sender`` and ``seq`` together.

This module checks form only. Who may send what is for ``anchor.ledger`` and ``anchor.contracts``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from anchor.errors import TransactionRejected
from anchor.gm import PrivateKey, sm3

VERSION = 1
MAX_ENVELOPE_BYTES = 256 * 1024
"""Bytes: a checkpoint note of 64 KiB with its proof fits; a block of 256 stays under 64 MiB."""
MAX_INTEGER = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""
MAX_DEPTH = 16
"""Nesting of a transaction's body: ours uses at most six."""
MAX_LIFETIME_SECONDS = 900
"""Seconds by which ``expires`` may lie beyond block time. A sender sets it by its own clock, so that each accepted
transaction bounds its block's time on both sides: no block is later than ``expires``, none earlier than this before."""

_HEAD = b'{"sig":"'
_MIDDLE = b'","tx":'
_SIGNATURE_START = len(_HEAD)
_SIGNATURE_END = _SIGNATURE_START + 128
_TX_START = _SIGNATURE_END + len(_MIDDLE)

_SIGNATURE = re.compile(r"[0-9a-f]{128}\Z")
_KEY_ID = re.compile(r"[0-9a-f]{16}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_FIELDS = frozenset({"v", "chain", "type", "sender", "key", "seq", "expires", "body"})


class Code:
    """Why a transaction was refused: stable words for programs. ``OK`` is the one that means it was accepted."""

    OK = "ok"
    BAD_ENCODING = "bad-encoding"
    BAD_SIGNATURE = "bad-signature"
    UNKNOWN_SENDER = "unknown-sender"
    SUSPENDED_SENDER = "suspended-sender"
    UNKNOWN_KEY = "unknown-key"
    WRONG_CHAIN = "wrong-chain"
    BAD_SEQUENCE = "bad-sequence"
    EXPIRED = "expired"
    EXPIRES_TOO_LATE = "expires-too-late"
    UNKNOWN_TYPE = "unknown-type"
    BAD_BODY = "bad-body"
    NOT_AUTHORISED = "not-authorised"
    CONFLICT = "conflict"
    BAD_PROOF = "bad-proof"
    NOT_FOUND = "not-found"
    NO_GRANT = "no-grant"
    GRANT_EXPIRED = "grant-expired"
    GRANT_REVOKED = "grant-revoked"
    ALREADY_DONE = "already-done"


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction whose form is right; nothing is said yet about its signature or its sender.

    ``signed_bytes``: the canonical bytes that ``signature`` (64 bytes ``r‖s``) is over; ``expires``: the last block
    time (Unix seconds) at which it may be accepted; ``seq``: counts the sender's accepted transactions from 1.
    """

    chain: str
    type: str
    sender: str
    key: str
    seq: int
    expires: int
    body: dict[str, Any]
    tx_id: str
    signed_bytes: bytes
    signature: bytes


def encode(value: Any) -> bytes:
    """Return the canonical JSON of a value made of str, int, bool, None, list and dict only.

    The same bytes as ``anchor.canonical.dump`` gives for such a value (a property test holds the two together); this
    one is on the path of every transaction.
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def build(
    *,
    chain: str,
    type: str,
    sender: str,
    key: PrivateKey,
    seq: int,
    expires: int,
    body: dict[str, Any],
) -> bytes:
    """Return the signed envelope of a transaction by ``sender``; ``expires`` is in Unix seconds.

    Raises ``TransactionRejected`` ("bad-encoding") when the values have no accepted encoding.
    """
    fields = {
        "v": VERSION,
        "chain": chain,
        "type": type,
        "sender": sender,
        "key": key.public_key.key_id,
        "seq": seq,
        "expires": expires,
        "body": body,
    }
    try:
        signed = encode(fields)
    except (TypeError, ValueError):
        raise _bad_encoding("a transaction holds strings, integers, booleans, null, arrays and objects") from None
    envelope = _HEAD + key.sign(signed).hex().encode("ascii") + _MIDDLE + signed + b"}"
    parse(envelope)
    return envelope


def tx_id_of(envelope: bytes) -> str:
    """Return the id of the transaction in an envelope that ``parse`` has accepted before."""
    return sm3(envelope[_TX_START:-1]).hex()


def parse(envelope: bytes) -> Transaction:
    """Read an envelope; raises ``TransactionRejected`` with code "bad-encoding" for anything but the one encoding."""
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise _bad_encoding(f"an envelope is at most {MAX_ENVELOPE_BYTES} bytes")
    try:
        value = orjson.loads(envelope)
    except orjson.JSONDecodeError:
        raise _bad_encoding("an envelope is JSON") from None
    if type(value) is not dict or value.keys() != {"sig", "tx"}:
        raise _bad_encoding("an envelope has exactly the fields sig and tx")
    signature, fields = value["sig"], value["tx"]
    if type(signature) is not str or not _SIGNATURE.match(signature):
        raise _bad_encoding("a signature is 128 lower-case hexadecimal digits")
    _check_fields(fields)
    # One encoding: whatever was unsorted, spaced, escaped otherwise, repeated or rounded does not come back the same.
    try:
        canonical = encode(value)
    except (TypeError, ValueError):
        raise _bad_encoding("an envelope is canonical JSON") from None
    if canonical != envelope:
        raise _bad_encoding("an envelope is canonical JSON")
    signed = envelope[_TX_START:-1]
    return Transaction(
        chain=fields["chain"],
        type=fields["type"],
        sender=fields["sender"],
        key=fields["key"],
        seq=fields["seq"],
        expires=fields["expires"],
        body=fields["body"],
        tx_id=sm3(signed).hex(),
        signed_bytes=signed,
        signature=bytes.fromhex(signature),
    )


def _check_fields(fields: Any) -> None:
    if type(fields) is not dict or fields.keys() != _FIELDS:
        raise _bad_encoding("a transaction has exactly the fields v, chain, type, sender, key, seq, expires and body")
    if type(fields["v"]) is not int or fields["v"] != VERSION:
        raise _bad_encoding(f"this ledger reads transactions of version {VERSION}")
    for name in ("chain", "type", "sender"):
        if type(fields[name]) is not str or not _NAME.match(fields[name]):
            raise _bad_encoding(f"a transaction's {name} is 1 to 64 letters, digits and ._- characters")
    if type(fields["key"]) is not str or not _KEY_ID.match(fields["key"]):
        raise _bad_encoding("a transaction's key is 16 lower-case hexadecimal digits")
    for name, least in (("seq", 1), ("expires", 0)):
        if type(fields[name]) is not int or not least <= fields[name] <= MAX_INTEGER:
            raise _bad_encoding(f"a transaction's {name} is a whole number")
    if type(fields["body"]) is not dict:
        raise _bad_encoding("a transaction's body is an object")
    _check_values(fields["body"], MAX_DEPTH)


def _check_values(value: Any, depth: int) -> None:
    """Refuse floats, integers that not every reader keeps, and deep nesting."""
    if depth == 0:
        raise _bad_encoding(f"a body nests at most {MAX_DEPTH} deep")
    for item in value.values() if type(value) is dict else value:
        kind = type(item)
        if kind is str or kind is bool or item is None:
            continue
        if kind is int:
            if not -MAX_INTEGER <= item <= MAX_INTEGER:
                raise _bad_encoding("an integer is beyond 2^53 - 1")
        elif kind is dict or kind is list:
            _check_values(item, depth - 1)
        else:
            raise _bad_encoding("a transaction holds no floating-point number")


def _bad_encoding(message: str) -> TransactionRejected:
    return TransactionRejected(Code.BAD_ENCODING, message)
