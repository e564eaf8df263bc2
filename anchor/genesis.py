"""Genesis: the file that a chain begins with, and that every node of it must hold byte for byte.

``{"v":1,"chain","time","threshold","members":[{"org","name","roles","endpoint","status","keys":[…]}]}`` as canonical
JSON. Its SM3 is the first block's predecessor, so two chains with different beginnings never share a block.

A chain that begins on the consortium engine has one field more, its validators and the followers' nodes (power 0):
``"validators":{"minimum","nodes":[{"org","power","key","node","address","proof"}]}`` (``anchor.contracts.nodes``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anchor import canonical
from anchor.contracts import member_keys, members, nodes, schema, validators
from anchor.contracts.schema import check_body
from anchor.contracts.view import Value
from anchor.errors import CanonicalError, FormatError, TransactionRejected
from anchor.gm import PrivateKey, PublicKey, sm3
from anchor.transaction import MAX_INTEGER, encode

MAX_GENESIS_BYTES = 1024 * 1024
"""Bytes: 256 members with a name, roles and four keys each."""
MAX_MEMBERS = 256

_CHAIN = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Genesis:
    """A checked genesis: chain id, time (Unix seconds), authorities needed for a decision, first members.

    ``digest`` is the SM3 of the file's bytes. ``nodes`` are the members' nodes with their powers, none for a chain that
    begins on another engine; ``minimum`` is below how many validators it must not fall.
    """

    chain: str
    time: int
    threshold: int
    members: tuple[Value, ...]
    digest: bytes
    nodes: tuple[Value, ...] = field(default=())
    minimum: int = validators.MINIMUM

    def state(self) -> dict[str, Value]:
        """Return the state at height 0."""
        authorities = sorted(member["org"] for member in self.members if "authority" in member["roles"])
        values: dict[str, Value] = {
            "chain": {"chain": self.chain, "threshold": self.threshold, "authorities": authorities, "time": self.time}
        }
        for member in self.members:
            values[f"member/{member['org']}"] = member
        for node in self.nodes:
            values |= nodes.node_values(node["org"], node, self.time, None)
        if self.nodes:
            voting = [{name: node[name] for name in ("org", "key", "power")} for node in self.nodes if node["power"]]
            values |= validators.initial(voting, self.minimum, self.time)
        return values


def parse(content: bytes) -> Genesis:
    """Read a genesis file; raises ``FormatError``."""
    if len(content) > MAX_GENESIS_BYTES:
        raise FormatError(f"a genesis file is at most {MAX_GENESIS_BYTES} bytes")
    try:
        value = canonical.load(content)
        is_canonical = canonical.dump(value) == content
    except CanonicalError as error:
        raise FormatError(f"the genesis file is not canonical JSON: {error}") from None
    if not is_canonical:
        raise FormatError("the genesis file is not canonical JSON")
    if type(value) is not dict or value.keys() - {"validators"} != {"v", "chain", "time", "threshold", "members"}:
        raise FormatError("a genesis file has exactly the fields v, chain, time, threshold, members and validators")
    if type(value["v"]) is not int or value["v"] != 1:
        raise FormatError("the genesis file is of another version than 1")
    if type(value["chain"]) is not str or not _CHAIN.match(value["chain"]):
        raise FormatError("a chain id is 1 to 64 lower-case letters, digits and hyphens")
    if type(value["time"]) is not int or not 0 <= value["time"] <= MAX_INTEGER:
        raise FormatError("the genesis time is in Unix seconds")
    records = _members(value["members"])
    authorities = [record for record in records if "authority" in record["roles"] and record["status"] == "active"]
    if type(value["threshold"]) is not int or not 1 <= value["threshold"] <= len(authorities):
        raise FormatError("the threshold is from 1 to the number of active authorities")
    named: tuple[Value, ...] = ()
    minimum = validators.MINIMUM
    if "validators" in value:
        named, minimum = _nodes(value["chain"], value["validators"], records)
    return Genesis(value["chain"], value["time"], value["threshold"], tuple(records), sm3(content), named, minimum)


def build(
    *,
    chain: str,
    time: int,
    threshold: int,
    members: Sequence[Mapping[str, Any]],
    nodes: Sequence[Mapping[str, Any]] = (),
    minimum: int = validators.MINIMUM,
) -> bytes:
    """Return a genesis file; ``members`` are records as in ``member_record``.

    ``nodes``: registrations (``anchor.contracts.nodes.FIELDS``) with "org" and "power". Raises ``FormatError``.
    """
    value: Value = {"v": 1, "chain": chain, "time": time, "threshold": threshold, "members": list(members)}
    if nodes:
        value["validators"] = {"minimum": minimum, "nodes": list(nodes)}
    content = encode(value)
    parse(content)
    return content


def genesis_for(
    *,
    chain: str,
    org: str,
    name: str,
    endpoint: str,
    signing: PrivateKey | PublicKey,
    encryption: PrivateKey | PublicKey,
    time: int,
    roles: Sequence[str] = ("authority",),
    threshold: int = 1,
) -> bytes:
    """Return the genesis file of a chain that one authority begins; it admits the others by transactions."""
    record = member_record(
        org=org, name=name, roles=roles, endpoint=endpoint, signing=signing, encryption=encryption, time=time
    )
    return build(chain=chain, time=time, threshold=threshold, members=[record])


def member_record(
    *,
    org: str,
    name: str,
    roles: Sequence[str],
    endpoint: str,
    signing: PrivateKey | PublicKey,
    encryption: PrivateKey | PublicKey,
    time: int,
) -> Value:
    """Return a member record as genesis holds it; the keys are valid from ``time`` (Unix seconds) on."""
    public = [key.public_key if isinstance(key, PrivateKey) else key for key in (signing, encryption)]
    return {
        "org": org,
        "name": name,
        "roles": sorted(roles),
        "endpoint": endpoint,
        "status": "active",
        "keys": [
            member_keys.key_record(public[0], "sign", since=time),
            member_keys.key_record(public[1], "encrypt", since=time),
        ],
    }


def _members(value: Any) -> list[Value]:
    if type(value) is not list or not 1 <= len(value) <= MAX_MEMBERS:
        raise FormatError(f"a genesis file has 1 to {MAX_MEMBERS} members")
    for record in value:
        if type(record) is not dict:
            raise FormatError("a genesis member is an object")
        try:
            members.check_record(record, lambda public: PublicKey.from_bytes(bytes.fromhex(public)))
        except TransactionRejected as error:
            raise FormatError(f"a genesis member is not right: {error}") from None
    orgs = [record["org"] for record in value]
    if len(set(orgs)) != len(orgs):
        raise FormatError("a genesis file names a member twice")
    records: list[Value] = value
    return records


_NODE_FIELDS: Mapping[str, schema.Check] = {
    **nodes.FIELDS,
    "org": schema.organisation,
    "power": lambda value: schema.natural(value) and value <= validators.MAX_POWER,
}


def _nodes(chain: str, value: Any, records: Sequence[Value]) -> tuple[tuple[Value, ...], int]:
    """Return the nodes and the minimum of validators that a genesis file names."""
    try:
        if type(value) is not dict:
            raise FormatError("a genesis file's validators are an object")
        check_body(value, {"minimum": schema.positive, "nodes": lambda found: type(found) is list and bool(found)})
        for node in value["nodes"]:
            if type(node) is not dict:
                raise FormatError("a genesis node is an object")
            check_body(node, _NODE_FIELDS)
            nodes.check_registration(chain, node["org"], {name: node[name] for name in nodes.FIELDS})
    except TransactionRejected as error:
        raise FormatError(f"a genesis node is not right: {error}") from None
    active = {record["org"] for record in records if record["status"] == "active"}
    for name in ("org", "key", "node"):
        if len({node[name] for node in value["nodes"]}) != len(value["nodes"]):
            raise FormatError("a genesis file names a node twice")
    if not {node["org"] for node in value["nodes"]} <= active:
        raise FormatError("a genesis file names a node of no active member")
    voting = sum(node["power"] > 0 for node in value["nodes"])
    if not value["minimum"] <= voting <= validators.MAX_VALIDATORS:
        raise FormatError(f"a genesis file names {voting} validators and its minimum is {value['minimum']}")
    return tuple(value["nodes"]), value["minimum"]
