"""Members' nodes of the consortium engine: which keys and which address they have, bound to the member both ways.

``node.register`` {"key", "node", "address", "proof"} by any active member, observers included. The member's SM2
signature over the transaction vouches for the validator key; the validator key's Ed25519 signature over chain, member,
key and node (``proof``) shows that its owner means to be that member's. A member's new registration replaces its former
one, and takes its place among the validators; a key or node once a member's is never another's.

State: ``node/<org>`` {"org","key","node","address","time","tx"}; ``node-key/<key>`` and ``node-id/<node>`` {"org"}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from anchor import ed25519
from anchor.contracts import schema, validators
from anchor.contracts.schema import bad_body, check_body
from anchor.contracts.view import Changes, Value, View, refuse
from anchor.errors import KeyFormatError, SignatureInvalid
from anchor.transaction import Code, Transaction, encode

PURPOSE = "yiqiao/validator/v1"

_ADDRESS = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-f:]{2,39}\]):[1-9][0-9]{0,4}\Z")


def address(value: Any) -> bool:
    """Whether a value is a host name or IP address with a port."""
    return type(value) is str and _ADDRESS.match(value) is not None and int(value.rpartition(":")[2]) <= 65_535


FIELDS: Mapping[str, schema.Check] = {
    "key": schema.digest,
    "node": schema.hex_of(40),
    "address": address,
    "proof": schema.signature,
}
"""A registration: Ed25519 key and node id in hexadecimal, where the node is reached, and the key's signature."""


def registration_message(chain: str, org: str, key: str, node: str) -> bytes:
    """Return what a validator's key signs to be a member's."""
    return encode({"chain": chain, "key": key, "node": node, "org": org, "purpose": PURPOSE})


def check_registration(chain: str, org: str, registration: Mapping[str, Any]) -> None:
    """Refuse ("bad-body") a registration whose fields, key or proof are not right."""
    check_body(registration, FIELDS)
    key = bytes.fromhex(registration["key"])
    message = registration_message(chain, org, registration["key"], registration["node"])
    try:
        ed25519.verify(key, message, bytes.fromhex(registration["proof"]))
    except KeyFormatError:
        raise bad_body("the validator's key is not an Ed25519 key") from None
    except SignatureInvalid:
        raise bad_body("the validator's key has not signed for this member") from None


def register(tx: Transaction, view: View) -> Changes:
    """Bind a node's keys and address to the sender."""
    check_registration(view.chain, tx.sender, tx.body)
    changes = node_values(tx.sender, tx.body, view.time, tx.tx_id)
    for name, value in changes.items():
        owner = view.get(name)
        if owner is not None and owner["org"] != value["org"]:
            refuse(Code.CONFLICT, "another member has that validator key or node")
    return {**changes, **validators.with_key(view, tx.sender, tx.body["key"])}


def node_values(org: str, registration: Mapping[str, Any], time: int, tx_id: str | None) -> dict[str, Value]:
    """Return the state values of a registration; ``tx_id`` is None for one of the genesis."""
    kept = {name: registration[name] for name in ("key", "node", "address")}
    return {
        f"node/{org}": {"org": org, **kept, "time": time, "tx": tx_id},
        f"node-key/{kept['key']}": {"org": org},
        f"node-id/{kept['node']}": {"org": org},
    }


RULES: Mapping[str, Callable[[Transaction, View], Changes]] = {"node.register": register}
