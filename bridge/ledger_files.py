"""The files with which members found and join a replicated ledger. They hold public keys and addresses, no secret.

A **card** is what a member hands to the authority: its member card (``anchor.contracts.members``) and its node's
registration (``anchor.contracts.nodes``)::

    {"v":1,"card":{…},"node":{"key","node","address","proof"}}

The **ledger file** is what the authority hands back, the same to all: genesis, where CometBFT begins, the validators it
begins with, and every node's address::

    {"v":1,"genesis":"<text>","time":T,"app_state":{…},"validators":[{"org","key","power"}],
     "peers":[{"org","node","address"}]}

CometBFT's own genesis file follows from it byte for byte, so that members who hold one ledger file hold one genesis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anchor import canonical
from anchor import genesis as chain_genesis
from anchor.chain.cometbft import node_files
from anchor.contracts import nodes, schema
from anchor.contracts.members import admission, check_admission
from anchor.errors import CanonicalError, FormatError, TransactionRejected
from anchor.gm import PublicKey, sm3
from anchor.transaction import encode
from bridge.errors import InvalidRequest

MAX_FILE_BYTES = 4 * 1024 * 1024
"""Bytes: a ledger file with 256 members."""
MAX_PEERS = 256

_STATE_FIELDS = {"genesis", "height", "size", "app_hash"}


@dataclass(frozen=True, slots=True)
class Card:
    """A member's card: the member object of an admission, and its node's registration."""

    member: dict[str, Any]
    node: dict[str, Any]

    @property
    def org(self) -> str:
        """The organisation."""
        return str(self.member["org"])


@dataclass(frozen=True, slots=True)
class Peer:
    """A member's node as others reach it."""

    org: str
    node: str
    address: str


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """What a member needs to join: see the module's description. ``time``: CometBFT's genesis time, Unix seconds."""

    genesis: bytes
    time: int
    app_state: dict[str, Any]
    validators: tuple[node_files.Validator, ...]
    peers: tuple[Peer, ...]

    def encode(self) -> bytes:
        """Return the file's bytes."""
        return encode(
            {
                "v": 1,
                "genesis": self.genesis.decode("utf-8"),
                "time": self.time,
                "app_state": self.app_state,
                "validators": [{"org": v.name, "key": v.key.hex(), "power": v.power} for v in self.validators],
                "peers": [{"org": p.org, "node": p.node, "address": p.address} for p in self.peers],
            }
        )

    def fingerprint(self) -> str:
        """Return what members compare over another channel: SM3 of CometBFT's genesis, which fixes the ledger."""
        return sm3(self.comet_genesis()).hex()

    def comet_genesis(self) -> bytes:
        """Return CometBFT's genesis file."""
        return node_files.genesis_document(
            chain=chain_genesis.parse(self.genesis).chain,
            time=self.time,
            validators=self.validators,
            app_state=self.app_state,
        )


def write_card(member_card: Mapping[str, Any], node: Mapping[str, Any]) -> bytes:
    """Return a card's bytes."""
    return encode({"v": 1, "card": dict(member_card), "node": dict(node)})


def read_card(file: Path, chain: str) -> Card:
    """Read a card and check its proofs; raises ``InvalidRequest`` naming the file."""
    value = _load(file)
    try:
        if value.keys() != {"v", "card", "node"} or value["v"] != 1:
            raise FormatError("it has not the fields of a ledger card")
        member = admission(value["card"])
        check_admission(chain, member, lambda public: PublicKey.from_bytes(bytes.fromhex(public)))
        nodes.check_registration(chain, member["org"], value["node"])
    except (FormatError, TransactionRejected) as error:
        raise InvalidRequest(f"{file} is no card for the ledger {chain}: {error} / 账本名片无效") from None
    return Card(member, value["node"])


def read_ledger_file(file: Path) -> LedgerFile:
    """Read a ledger file; raises ``InvalidRequest`` naming it."""
    value = _load(file)
    try:
        return _ledger_file(value)
    except (FormatError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error) if isinstance(error, FormatError) else "a field is missing or not of its form"
        raise InvalidRequest(f"{file} is no ledger file: {reason} / 不是账本文件") from None


def found(
    cards: Sequence[Card],
    *,
    chain: str,
    time: int,
    threshold: int,
    minimum: int,
    power: Callable[[Card], int],
    begins: Callable[[bytes], dict[str, Any]],
) -> LedgerFile:
    """Assemble a new ledger from its members' cards; ``begins`` gives the application's state for a genesis file.

    Raises ``FormatError`` when the cards make no ledger.
    """
    members = [{**{n: v for n, v in card.member.items() if n != "proofs"}, "status": "active"} for card in cards]
    nodes_of = [{"org": card.org, "power": power(card), **card.node} for card in cards]
    genesis = chain_genesis.build(
        chain=chain, time=time, threshold=threshold, members=members, nodes=nodes_of, minimum=minimum
    )
    validators = [node_files.Validator(n["org"], bytes.fromhex(n["key"]), n["power"]) for n in nodes_of if n["power"]]
    peers = tuple(Peer(card.org, card.node["node"], card.node["address"]) for card in cards)
    ordered = tuple(sorted(validators, key=lambda each: each.name))
    return LedgerFile(genesis, time, begins(genesis), ordered, peers)


def _ledger_file(value: dict[str, Any]) -> LedgerFile:
    if value.keys() != {"v", "genesis", "time", "app_state", "validators", "peers"} or value["v"] != 1:
        raise FormatError("it has not the fields of a ledger file")
    genesis = value["genesis"].encode("utf-8")
    chain_genesis.parse(genesis)
    state = value["app_state"]
    if state.keys() != _STATE_FIELDS or not schema.natural(value["time"]):
        raise FormatError("it does not say where the ledger begins")
    validators = [
        node_files.Validator(str(each["org"]), bytes.fromhex(each["key"]), int(each["power"]))
        for each in value["validators"]
    ]
    if not validators or not all(len(each.key) == 32 and each.power > 0 for each in validators):
        raise FormatError("it names no validators, or none with a key and power")
    peers = [Peer(str(each["org"]), str(each["node"]), str(each["address"])) for each in value["peers"]]
    if len(peers) > MAX_PEERS or not all(nodes.address(p.address) and schema.hex_of(40)(p.node) for p in peers):
        raise FormatError("it names peers without a node or address")
    return LedgerFile(genesis, value["time"], state, tuple(validators), tuple(peers))


def _load(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    try:
        value = canonical.load(content) if len(content) <= MAX_FILE_BYTES else None
    except CanonicalError:
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest(f"{file} is not a JSON file of this program / 文件格式不正确")
    return value
