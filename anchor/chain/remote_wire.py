"""How the ledger's answers travel over HTTP: one place for both ends, ``RemoteChain`` and the member that hosts it.

JSON objects; bytes as base64 where they are documents (envelopes, entries, proofs of state), as hexadecimal where they
are hashes. Readers check every field and raise ``FormatError``: the host is another institution's machine.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from anchor.chain.client import CommittedTransaction, Health, StateProof, StateReading, TransactionResult
from anchor.errors import FormatError

MAX_SUBMITTED = 256
"""Transactions of one request: a block's worth."""
MAX_ASKED = 256
"""Keys and prefixes of one question to the state."""
MAX_HASHES = 128
"""Hashes of one Merkle proof: twice what the largest log needs."""

_HASH = re.compile(r"[0-9a-f]{64}\Z")


def dump(value: Mapping[str, Any]) -> bytes:
    """Return an answer's bytes."""
    return orjson.dumps(value)


def load(content: bytes) -> dict[str, Any]:
    """Read a JSON object; raises ``FormatError``."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise FormatError("the message is not JSON") from None
    if type(value) is not dict:
        raise FormatError("the message is not a JSON object")
    return value


def write_submission(envelopes: Sequence[bytes]) -> bytes:
    """Return the body that submits envelopes."""
    return dump({"transactions": [_text(envelope) for envelope in envelopes]})


def read_submission(content: bytes) -> list[bytes]:
    """Read the envelopes of a submission; raises ``FormatError``."""
    items = _field(load(content), "transactions", list)
    if not 1 <= len(items) <= MAX_SUBMITTED:
        raise FormatError(f"a submission has 1 to {MAX_SUBMITTED} transactions")
    return [_bytes(item) for item in items]


def write_results(results: Sequence[TransactionResult]) -> bytes:
    """Return the answer to a submission."""
    return dump(
        {
            "results": [
                {
                    "tx_id": one.tx_id,
                    "code": one.code,
                    "message": one.message,
                    "height": one.height,
                    "index": one.index,
                    "block_time": one.block_time,
                    "expected_seq": one.expected_seq,
                }
                for one in results
            ]
        }
    )


def read_results(content: bytes) -> list[TransactionResult]:
    """Read the answer to a submission; raises ``FormatError``."""
    return [_result(item) for item in _field(load(content), "results", list)]


def write_transaction(one: CommittedTransaction | None) -> dict[str, Any] | None:
    """Return the JSON form of a committed transaction; None stays None."""
    if one is None:
        return None
    return {
        "tx_id": one.tx_id,
        "envelope": _text(one.envelope),
        "entry": _text(one.entry),
        "height": one.height,
        "index": one.index,
        "block_time": one.block_time,
    }


def read_transaction(value: Any) -> CommittedTransaction | None:
    """Read a committed transaction, or None for null; raises ``FormatError``."""
    if value is None:
        return None
    fields = _object(value)
    return CommittedTransaction(
        tx_id=_field(fields, "tx_id", str),
        envelope=_bytes(fields.get("envelope")),
        entry=_bytes(fields.get("entry")),
        height=_field(fields, "height", int),
        index=_field(fields, "index", int),
        block_time=_field(fields, "block_time", int),
    )


def write_hashes(hashes: Sequence[bytes]) -> bytes:
    """Return a Merkle proof's answer."""
    return dump({"proof": [one.hex() for one in hashes]})


def read_hashes(content: bytes) -> list[bytes]:
    """Read a Merkle proof; raises ``FormatError``."""
    items = _field(load(content), "proof", list)
    if len(items) > MAX_HASHES:
        raise FormatError("the proof is too long")
    return [_hash(item) for item in items]


def write_state_proof(proof: StateProof) -> bytes:
    """Return a state proof's answer."""
    return dump(
        {
            "key": proof.key,
            "value": proof.value,
            "height": proof.height,
            "state_root": proof.state_root.hex(),
            "proof": _text(proof.proof),
        }
    )


def read_state_proof(content: bytes) -> StateProof:
    """Read a state proof; raises ``FormatError``."""
    fields = load(content)
    return StateProof(
        key=_field(fields, "key", str),
        value=read_value(fields),
        height=_field(fields, "height", int),
        state_root=_hash(fields.get("state_root")),
        proof=_bytes(fields.get("proof")),
    )


def read_value(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read the field ``value``: a state value or null; raises ``FormatError``."""
    if "value" not in fields:
        raise FormatError("the message lacks the field value")
    return None if fields["value"] is None else _object(fields["value"])


def write_question(keys: Sequence[str], prefixes: Sequence[str]) -> bytes:
    """Return the body that asks for several values of the state."""
    return dump({"keys": list(keys), "prefixes": list(prefixes)})


def read_question(content: bytes) -> tuple[list[str], list[str]]:
    """Read the keys and prefixes of a question; raises ``FormatError``."""
    fields = load(content)
    keys, prefixes = _field(fields, "keys", list), _field(fields, "prefixes", list)
    if len(keys) + len(prefixes) > MAX_ASKED or not all(type(each) is str for each in keys + prefixes):
        raise FormatError(f"a question has up to {MAX_ASKED} keys and prefixes")
    return keys, prefixes


def write_reading(reading: StateReading) -> bytes:
    """Return the answer to a question for several values."""
    return dump({"values": reading.values, "prefixed": reading.prefixed, "block_time": reading.block_time})


def read_reading(content: bytes) -> StateReading:
    """Read the answer to a question for several values; raises ``FormatError``."""
    fields = load(content)
    values, prefixed = _field(fields, "values", dict), _field(fields, "prefixed", dict)
    return StateReading(
        {key: None if value is None else _object(value) for key, value in values.items()},
        {prefix: {key: _object(value) for key, value in _object(found).items()} for prefix, found in prefixed.items()},
        _field(fields, "block_time", int),
    )


def write_health(health: Health) -> bytes:
    """Return a health answer."""
    return dump(
        {
            "ok": health.ok,
            "engine": health.engine,
            "height": health.height,
            "block_time": health.block_time,
            "log_size": health.log_size,
            "detail": health.detail,
        }
    )


def read_health(content: bytes) -> Health:
    """Read a health answer; raises ``FormatError``."""
    fields = load(content)
    return Health(
        ok=_field(fields, "ok", bool),
        engine=_field(fields, "engine", str),
        height=_field(fields, "height", int),
        block_time=_field(fields, "block_time", int),
        log_size=_field(fields, "log_size", int),
        detail=_field(fields, "detail", str),
    )


def read_integer(content: bytes, name: str) -> int:
    """Read one whole number from an answer; raises ``FormatError``."""
    number: int = _field(load(content), name, int)
    return number


def read_list(content: bytes, name: str) -> list[Any]:
    """Read one array from an answer; raises ``FormatError``."""
    items: list[Any] = _field(load(content), name, list)
    return items


def read_states(content: bytes) -> dict[str, dict[str, Any]]:
    """Read state values by key; raises ``FormatError``."""
    return {key: _object(value) for key, value in _field(load(content), "states", dict).items()}


def _result(value: Any) -> TransactionResult:
    fields = _object(value)
    return TransactionResult(
        tx_id=_field(fields, "tx_id", str),
        code=_field(fields, "code", str),
        message=_field(fields, "message", str),
        height=_optional_integer(fields, "height"),
        index=_optional_integer(fields, "index"),
        block_time=_optional_integer(fields, "block_time"),
        expected_seq=_optional_integer(fields, "expected_seq"),
    )


def _field(fields: Mapping[str, Any], name: str, kind: type) -> Any:
    value = fields.get(name)
    if type(value) is not kind:
        raise FormatError(f"the field {name} is missing or not of its type")
    return value


def _optional_integer(fields: Mapping[str, Any], name: str) -> int | None:
    return None if fields.get(name) is None else int(_field(fields, name, int))


def _object(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise FormatError("an object was expected")
    return value


def _hash(value: Any) -> bytes:
    if type(value) is not str or not _HASH.match(value):
        raise FormatError("a hash is 64 lower-case hexadecimal digits")
    return bytes.fromhex(value)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise FormatError("a document travels in base64") from None
