"""Founding, joining and moving to a replicated ledger: what `yiqiao ledger` does, apart from talking to people.

No private key leaves its machine: a member hands out its card, and takes the ledger file back.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from anchor import genesis as chain_genesis
from anchor.chain.client import ChainClient
from anchor.chain.cometbft import history, node_files
from anchor.chain.cometbft.application import app_state
from anchor.chain.cometbft.replica_store import ReplicaStore
from anchor.chain.embedded_replay import check_ledger
from anchor.chain.embedded_store import LedgerFile as EmbeddedFile
from anchor.chain.remote import RemoteChain
from anchor.contracts import members, nodes
from anchor.contracts.view import WRITERS
from anchor.errors import ChainError, FormatError
from anchor.gm import sm3
from bridge.errors import InvalidRequest, SettingsError
from bridge.ledger_files import Card, LedgerFile, Peer, found, write_card
from bridge.ledger_wiring import peer_rules
from bridge.node_keys import Signer, load_signer
from bridge.peer_signature import PeerAuth
from bridge.replica_process import comet_home, prepare_home
from bridge.services.peers import open_session
from bridge.settings import Settings, load_settings
from bridge.settings_file import change_settings
from bridge.settings_rules import check_settings

DEFAULT_POWER = 10
KEYS_BACKDATED_SECONDS = 60
"""A card's keys are live from a little before it was made: the ledger admits by block time, which on an idle replicated
ledger is a heartbeat old, and clocks differ. The ledger itself dates no key before the block that admits it."""
HISTORY_MAGIC = b"yiqiao/history/v1\n"
SCRATCH = "scratch.sqlite3"


def make_card(settings: Settings, address: str) -> bytes:
    """Return this node's card, making the validator's and the node's keys when there are none yet."""
    registration = node_registration(settings, address)
    return write_card(member_card(settings, load_signer(settings)), registration)


def member_card(settings: Settings, signer: Signer) -> dict[str, Any]:
    """Return what an authority needs to admit this member: name, address, public keys, and the proof of having them."""
    return members.card(
        chain=settings.ledger.chain,
        org=settings.node.org,
        name=settings.node.name,
        roles=list(settings.node.roles),
        endpoint=settings.node.endpoint,
        signing=signer.sign,
        encryption=signer.decrypt,
        since=int(time.time()) - KEYS_BACKDATED_SECONDS,
    )


def node_registration(settings: Settings, address: str) -> dict[str, Any]:
    """Return the registration of this node's keys under an address, making the keys when there are none yet."""
    if not nodes.address(address):
        raise InvalidRequest(
            f"{address or 'the address'} is not HOST:PORT; set --p2p-address to what the other members reach / "
            "请用 --p2p-address 指明其他成员可达的地址"
        )
    home = comet_home(settings)
    identity = node_files.read_identity(home) if node_files.has_keys(home) else node_files.create_keys(home)
    return _registration(settings, node_files.read_validator_key(home), identity.node, address)


def _registration(settings: Settings, validator: Ed25519PrivateKey, node: str, address: str) -> dict[str, Any]:
    key = validator.public_key().public_bytes_raw().hex()
    message = nodes.registration_message(settings.ledger.chain, settings.node.org, key, node)
    return {"key": key, "node": node, "address": address, "proof": validator.sign(message).hex()}


def found_ledger(
    settings: Settings, cards: Sequence[Card], *, threshold: int, minimum: int, powers: dict[str, int]
) -> LedgerFile:
    """Assemble a new ledger from the members' cards, the founding authority's own among them.

    ``powers``: voting power by organisation, where it is not the default; observers have none.
    """
    if settings.path(settings.ledger.path).exists():
        raise SettingsError(
            "this node has a ledger already; a pilot moves with: yiqiao ledger migrate / 本节点已有账本"
        )

    def power(card: Card) -> int:
        if WRITERS.isdisjoint(card.member["roles"]):
            return 0
        return powers.get(card.org, DEFAULT_POWER)

    def begins(genesis: bytes) -> dict[str, Any]:
        return _state_of(settings, settings.home / SCRATCH, genesis)

    unknown = powers.keys() - {card.org for card in cards}
    if unknown:
        raise InvalidRequest(f"there is no card of {sorted(unknown)[0]} / 缺少该机构的名片")
    try:
        return found(
            sorted(cards, key=lambda card: card.org), chain=settings.ledger.chain, time=int(time.time()),
            threshold=threshold, minimum=minimum, power=power, begins=begins,
        )  # fmt: skip
    except FormatError as error:
        raise InvalidRequest(f"the cards make no ledger: {error} / 名片无法组成账本") from None
    finally:
        history.remove_database(settings.home / SCRATCH)


def join_ledger(settings: Settings, ledger: LedgerFile, chunks: Path | None = None) -> Settings:
    """Make this node one that replicates a ledger; return its settings as they are then.

    ``chunks``: the history of a ledger that moved from another engine. Raises ``InvalidRequest`` when the ledger file
    is another chain's, or names this member with other keys than it has.
    """
    genesis = chain_genesis.parse(ledger.genesis)
    _check_own(settings, ledger, genesis)
    home, path = comet_home(settings), settings.path(settings.ledger.path)
    if not node_files.has_keys(home):
        node_files.create_keys(home)
    size = ledger.app_state["size"]
    if chunks is not None:
        _take_history(settings, ledger, chunks)
    elif size and not path.exists() and not settings.cometbft.state_sync:
        raise InvalidRequest(f"the ledger begins after {size} transactions: give --history FILE / 请提供历史文件")
    genesis_file = settings.path(settings.ledger.genesis)
    if genesis_file.exists() and genesis_file.read_bytes() != ledger.genesis:
        raise InvalidRequest(f"{genesis_file} is another ledger's genesis / 创世文件不一致")
    genesis_file.write_bytes(ledger.genesis)
    prepare_home(settings, ledger)
    founder = next(each for each in genesis.members if "authority" in each["roles"])
    tables: dict[str, dict[str, Any]] = {"ledger": {"engine": "cometbft", "chain": genesis.chain, "url": ""}}
    if not settings.exchange.authority:
        tables["exchange"] = {"authority": founder["org"], "authority_url": founder["endpoint"]}
    change_settings(settings.home, tables)
    joined = load_settings(settings.home)
    check_settings(joined)
    return joined


def register_node(settings: Settings, chain: ChainClient, address: str, submit: Any) -> bool:
    """Put this node's keys and address on the ledger when they are not there yet; return whether it had to."""
    registration = node_registration(settings, address)
    current = chain.state(f"node/{settings.node.org}") or {}
    if all(current.get(name) == registration[name] for name in ("key", "node", "address")):
        return False
    submit("node.register", registration)
    return True


def rotate_validator_key(settings: Settings, chain: ChainClient, submit: Any) -> str:
    """Make a new validator key, bind it to this member on the ledger, and lay it where the node's next start takes it.

    Returns the new key in hexadecimal. Run again after an interruption, it goes on with the key it had made. Raises
    ``InvalidRequest`` for a node that is not on the ledger, ``ChainError``.
    """
    home = comet_home(settings)
    current = chain.state(f"node/{settings.node.org}")
    if current is None:
        raise InvalidRequest("this node is not on the ledger; run: yiqiao ledger register / 本节点尚未在账本登记")
    fresh = node_files.next_validator_key(home)
    key = fresh.public_key().public_bytes_raw().hex()
    if current["key"] != key:
        submit("node.register", _registration(settings, fresh, current["node"], current["address"]))
    node_files.take_next_key(home)
    return key


def ledger_over(settings: Settings, url: str, org: str, signer: Signer) -> RemoteChain:
    """Return a client of another member's ledger, for a node whose own replica does not run yet."""
    session = open_session(peer_rules(settings), settings.tls_identity(), org, check_address=False)
    auth = PeerAuth(org=signer.org, key=signer.sign, audience=org)
    return RemoteChain(url, auth=auth, timeout_seconds=settings.ledger.timeout_seconds, session=lambda: session)


def move_ledger(settings: Settings, chunks: Path) -> LedgerFile:
    """Prepare a pilot's ledger, which this node hosts, to go on under CometBFT; return the ledger file.

    ``chunks``: where the history is written for the other members. The ledger is checked from end to end before.
    Raises ``InvalidRequest`` when its members have registered too few nodes with voting power, ``ChainError``.
    """
    path = settings.path(settings.ledger.path)
    genesis = settings.path(settings.ledger.genesis).read_bytes()
    differences = check_ledger(path, genesis)
    if differences:
        raise ChainError(f"the ledger contradicts itself at {differences[0].where}; run: yiqiao fsck / 账本自检不通过")
    signer = load_signer(settings)
    scratch = settings.home / SCRATCH
    history.remove_database(scratch)
    source = EmbeddedFile(path)
    try:
        with source.reading():
            description = history.describe(source, source.height())
            _write_history(chunks, description, source)
    finally:
        source.close()
    try:
        with read_history(chunks) as (described, content):  # rehearsed, as every member will do it
            history.restore(scratch, described, content, genesis=genesis, org=signer.org, key=signer.sign)
        store = ReplicaStore(scratch, genesis=genesis, org=signer.org, key=signer.sign)
        try:
            return _begins_after(store)
        finally:
            store.close()
    finally:
        history.remove_database(scratch)


@contextmanager
def read_history(file: Path) -> Iterator[tuple[history.Description, Iterator[bytes]]]:
    """Open a history file: its description and chunks. ``FormatError`` for what is none, also while iterating."""
    with file.open("rb") as stream:

        def part(most: int) -> bytes:
            head = stream.read(4)
            length = struct.unpack(">I", head)[0] if len(head) == 4 else -1
            content = stream.read(length) if 0 <= length <= most else b""
            if length < 0 or len(content) != length:
                raise FormatError(f"{file} is cut or not a history of a ledger")
            return content

        def chunks(count: int) -> Iterator[bytes]:
            for _ in range(count):
                yield part(history.MAX_CHUNK_BYTES)
            if stream.read(1):
                raise FormatError(f"{file} goes on behind its end")

        if stream.read(len(HISTORY_MAGIC)) != HISTORY_MAGIC:
            raise FormatError(f"{file} is no history of a ledger")
        description = history.Description.parse(part(history.MAX_DESCRIPTION_BYTES))
        yield description, chunks(len(description.chunks))


def _write_history(file: Path, description: history.Description, source: EmbeddedFile) -> None:
    with file.open("wb") as stream:
        stream.write(HISTORY_MAGIC)
        numbers = range(len(description.chunks))
        for content in (description.encode(), *(history.read_chunk(source, n, description.size) for n in numbers)):
            stream.write(struct.pack(">I", len(content)) + content)


def _take_history(settings: Settings, ledger: LedgerFile, chunks: Path) -> None:
    """Build this node's file from the history, unless it holds it already (the member that hosted the pilot)."""
    path, signer = settings.path(settings.ledger.path), load_signer(settings)
    with read_history(chunks) as (described, content):
        if described.app_hash.hex() != ledger.app_state["app_hash"] or described.size != ledger.app_state["size"]:
            raise InvalidRequest(
                "the history is not the one that the ledger file begins after / 历史文件与账本文件不符"
            )
        if path.exists() and _state_of(settings, path, ledger.genesis) == ledger.app_state:
            return
        history.restore(path, described, content, genesis=ledger.genesis, org=signer.org, key=signer.sign)


def _begins_after(store: ReplicaStore) -> LedgerFile:
    value = store.ledger.get("validators") or {"set": [], "minimum": 0}
    if not value["set"] or len(value["set"]) < value["minimum"]:
        raise InvalidRequest(
            f"{len(value['set'])} members have a node with voting power and {value['minimum'] or 4} are needed: "
            "each runs `yiqiao ledger register`, the authority `yiqiao ledger validator` / 验证节点不足"
        )
    validators = tuple(
        node_files.Validator(each["org"], bytes.fromhex(each["key"]), each["power"]) for each in value["set"]
    )
    registered = [store.ledger.get(key) or {} for key, _ in store.file.states("node/", 1_000)]
    peers = tuple(Peer(each["org"], each["node"], each["address"]) for each in registered)
    return LedgerFile(store.content, store.ledger.head.time, app_state(store), validators, peers)


def _state_of(settings: Settings, path: Path, genesis: bytes) -> dict[str, Any]:
    """Return where a ledger's file stands, as CometBFT's genesis says it."""
    signer = load_signer(settings)
    store = ReplicaStore(path, genesis=genesis, org=signer.org, key=signer.sign)
    try:
        return app_state(store)
    finally:
        store.close()


def _check_own(settings: Settings, ledger: LedgerFile, genesis: chain_genesis.Genesis) -> None:
    """Refuse a ledger file of another chain, and one that names this member with keys that are not its own."""
    if settings.ledger.chain != genesis.chain:
        raise InvalidRequest(f"the ledger file is of the chain {genesis.chain}, this node's settings name another")
    own = load_signer(settings).sign.public_key.key_id
    for member in genesis.members:
        named = {key["id"] for key in member["keys"]}
        if member["org"] == settings.node.org and ledger.app_state["size"] == 0 and own not in named:
            raise InvalidRequest(
                "the ledger file names this member with another signing key / 账本文件中的签名公钥不是本节点的"
            )
    home = comet_home(settings)
    if not node_files.has_keys(home):
        return
    identity = node_files.read_identity(home)
    for validator in ledger.validators:
        if validator.name == settings.node.org and validator.key != identity.key and ledger.app_state["size"] == 0:
            raise InvalidRequest("the ledger file names this member with another validator key / 验证公钥不符")


def fingerprint(content: bytes) -> str:
    """Return the SM3 of a file's bytes, for people to compare."""
    return sm3(content).hex()
