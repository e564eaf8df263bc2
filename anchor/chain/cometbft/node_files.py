"""The files of CometBFT's own folder: keys, genesis and configuration, written without its binary.

::

    config/priv_validator_key.json   the validator's Ed25519 key; it never leaves this machine and is in no backup
    config/node_key.json             the key that names this node to its peers
    config/genesis.json              the same at every member, assembled from public keys
    config/config.toml               written anew at every start
    data/                            CometBFT's blocks and the record of what the validator has signed

RPC listens on loopback only and peers are only those that the ledger names: both are fixed here, not settings.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from anchor.errors import FormatError
from anchor.light_block import validator_address

MAX_CHAIN_ID = 50
"""Characters of a chain id that CometBFT takes (types.MaxChainIDLen)."""
BLOCK_BYTES = 8 * 1024 * 1024
"""Bytes of one CometBFT block: some ten thousand transactions."""
RPC_BODY_BYTES = 16 * 1024 * 1024
"""Bytes of one RPC request: a batch of packs in base64."""
RPC_BATCH = 20
"""RPC calls in one request."""
ED25519_TYPE, ED25519_PRIVATE_TYPE = "tendermint/PubKeyEd25519", "tendermint/PrivKeyEd25519"

_VALIDATOR_KEY, _NODE_KEY = "config/priv_validator_key.json", "config/node_key.json"
_NEXT_KEY = "config/priv_validator_key.next.json"
_SIGNING_STATE = "data/priv_validator_state.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's public side: the validator's key (32 bytes) and the id (40 hexadecimal digits) its peers know it by."""

    key: bytes
    node: str


@dataclass(frozen=True, slots=True)
class Validator:
    """A validator of the genesis file; ``name`` is the member's organisation id."""

    name: str
    key: bytes
    power: int


@dataclass(frozen=True, slots=True)
class Timeouts:
    """CometBFT's consensus timeouts in milliseconds, and how long it waits for transactions before an empty block.

    The defaults suit hospitals of one region (50 ms apart and less). ``propose`` is what each turn of a dead proposer
    costs.
    """

    propose: int = 700
    propose_delta: int = 200
    vote: int = 400
    vote_delta: int = 200
    commit: int = 200
    heartbeat: int = 10_000


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """How a node listens and whom it knows. ``peers``: node id to ``host:port``. ``external``: as peers reach it.

    ``sync_servers``: RPC addresses (on loopback) for the headers of a state sync, empty for none; ``trust`` is then the
    height and hash of a header that the operator trusts.
    """

    rpc_port: int
    p2p_host: str
    p2p_port: int
    external: str = ""
    peers: Mapping[str, str] | None = None
    timeouts: Timeouts = Timeouts()
    sync_servers: Sequence[str] = ()
    trust: tuple[int, str] | None = None


def create_keys(home: Path) -> Identity:
    """Create the validator's and the node's keys below ``home``; raises ``FileExistsError`` when there are some."""
    for folder in (home, home / "config", home / "data"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    validator, node = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = _public(validator)
    _create(home / _VALIDATOR_KEY, _validator_file(validator))
    private = {"type": ED25519_PRIVATE_TYPE, "value": _base64(_private(node) + _public(node))}
    _create(home / _NODE_KEY, {"priv_key": private})
    _create(home / _SIGNING_STATE, {"height": "0", "round": 0, "step": 0})
    return Identity(public, validator_address(_public(node)).hex())


def next_validator_key(home: Path) -> Ed25519PrivateKey:
    """Return the validator's next key, which is made and kept beside the one in use until ``take_next_key``."""
    file = home / _NEXT_KEY
    if not file.is_file():
        _create(file, _validator_file(Ed25519PrivateKey.generate()))
    return _read_private(file)


def take_next_key(home: Path) -> None:
    """Put the validator's next key in the place of the one in use; a node that runs goes on with that until its end."""
    (home / _NEXT_KEY).replace(home / _VALIDATOR_KEY)


def has_keys(home: Path) -> bool:
    """Whether ``home`` holds a node's keys."""
    return (home / _VALIDATOR_KEY).is_file() and (home / _NODE_KEY).is_file()


def read_identity(home: Path) -> Identity:
    """Return the public side of a node's keys; raises ``FormatError`` or ``OSError``."""
    node = _read_private(home / _NODE_KEY)
    return Identity(_public(read_validator_key(home)), validator_address(_public(node)).hex())


def read_validator_key(home: Path) -> Ed25519PrivateKey:
    """Return the validator's key; raises ``FormatError`` or ``OSError``."""
    return _read_private(home / _VALIDATOR_KEY)


def genesis_document(
    *,
    chain: str,
    time: int,
    validators: Sequence[Validator],
    app_state: Mapping[str, Any],
    block_bytes: int = BLOCK_BYTES,
) -> bytes:
    """Return CometBFT's genesis file; ``time`` in Unix seconds. Every member must hold the same bytes."""
    if len(chain) > MAX_CHAIN_ID:
        raise FormatError(f"CometBFT takes a chain id of at most {MAX_CHAIN_ID} characters")
    document = {
        "genesis_time": datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "chain_id": chain,
        "initial_height": "1",
        "consensus_params": {
            "block": {"max_bytes": str(block_bytes), "max_gas": "-1"},
            "evidence": {
                "max_age_num_blocks": "1000000",
                "max_age_duration": "2592000000000000",
                "max_bytes": "1048576",
            },
            "validator": {"pub_key_types": ["ed25519"]},
            "version": {"app": "1"},
            "abci": {"vote_extensions_enable_height": "0"},
        },
        "validators": [
            {
                "address": validator_address(each.key).hex().upper(),
                "pub_key": {"type": ED25519_TYPE, "value": _base64(each.key)},
                "power": str(each.power),
                "name": each.name,
            }
            for each in validators
        ],
        "app_hash": "",
        "app_state": dict(app_state),
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def write_genesis(home: Path, content: bytes) -> None:
    """Write CometBFT's genesis file."""
    _replace(home / "config/genesis.json", content)


def write_config(home: Path, options: NodeOptions) -> None:
    """Write config.toml."""
    _replace(home / "config/config.toml", _config(options).encode())


def _config(options: NodeOptions) -> str:
    times = options.timeouts
    peers = ",".join(f"{node}@{address}" for node, address in sorted((options.peers or {}).items()))
    trust_height, trust_hash = options.trust or (0, "")
    tables: dict[str, dict[str, str | int | bool]] = {
        "": {
            "db_backend": "goleveldb", "log_level": "error", "log_format": "json", "abci": "socket",
            "filter_peers": True,
        },
        "rpc": {
            "laddr": f"tcp://127.0.0.1:{options.rpc_port}", "max_body_bytes": RPC_BODY_BYTES,
            "max_request_batch_size": RPC_BATCH, "unsafe": False,
        },
        "p2p": {
            "laddr": f"tcp://{options.p2p_host}:{options.p2p_port}", "external_address": options.external,
            "persistent_peers": peers, "pex": False, "addr_book_strict": False, "allow_duplicate_ip": True,
            "max_num_inbound_peers": 256, "flush_throttle_timeout": "10ms", "send_rate": 20_480_000,
            "recv_rate": 20_480_000,
        },
        "mempool": {
            "type": "flood", "recheck": False, "size": 5_000, "cache_size": 10_000, "max_tx_bytes": 1_048_576,
            "max_txs_bytes": 268_435_456,
        },
        "consensus": {
            "timeout_propose": f"{times.propose}ms", "timeout_propose_delta": f"{times.propose_delta}ms",
            "timeout_prevote": f"{times.vote}ms", "timeout_prevote_delta": f"{times.vote_delta}ms",
            "timeout_precommit": f"{times.vote}ms", "timeout_precommit_delta": f"{times.vote_delta}ms",
            "timeout_commit": f"{times.commit}ms", "create_empty_blocks": True,
            "create_empty_blocks_interval": f"{times.heartbeat}ms", "peer_gossip_sleep_duration": "10ms",
        },
        "statesync": {
            "enable": bool(options.sync_servers), "rpc_servers": ",".join(options.sync_servers),
            "trust_height": trust_height, "trust_hash": trust_hash, "trust_period": "87600h",
            "discovery_time": "5s",
        },
        "tx_index": {"indexer": "null"},
        "instrumentation": {"prometheus": False},
    }  # fmt: skip
    lines = ["# Written anew at every start; the settings are those of the Yiqiao node."]
    for table, values in tables.items():
        lines += ["", f"[{table}]"] if table else []
        lines += [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def _validator_file(key: Ed25519PrivateKey) -> dict[str, Any]:
    public = _public(key)
    return {
        "address": validator_address(public).hex().upper(),
        "pub_key": {"type": ED25519_TYPE, "value": _base64(public)},
        "priv_key": {"type": ED25519_PRIVATE_TYPE, "value": _base64(_private(key) + public)},
    }


def _read_private(file: Path) -> Ed25519PrivateKey:
    try:
        value = json.loads(file.read_bytes())["priv_key"]
        content = base64.b64decode(value["value"], validate=True)
        if value["type"] != ED25519_PRIVATE_TYPE or len(content) != 64:
            raise ValueError
        return Ed25519PrivateKey.from_private_bytes(content[:32])
    except (ValueError, KeyError, TypeError):
        raise FormatError(f"{file.name} does not hold an Ed25519 key") from None


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _private(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _create(file: Path, content: Mapping[str, Any]) -> None:
    """Write a new file that its owner alone can read."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(json.dumps(content, indent=2).encode())
        stream.flush()
        os.fsync(stream.fileno())


def _replace(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)
