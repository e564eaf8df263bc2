"""Four validators and an observer on this machine, each a process of its own with CometBFT's binary below it."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from anchor import genesis
from anchor.chain.cometbft import node_files
from anchor.chain.cometbft.application import app_state
from anchor.chain.cometbft.client import CometChain
from anchor.chain.cometbft.process import CometProcess, find_binary
from anchor.chain.cometbft.replica_store import ReplicaStore
from anchor.chain.cometbft.rpc import CometRpc
from anchor.contracts import nodes as node_contract
from anchor.errors import ChainError
from anchor.gm import PrivateKey
from bridge.demo.nodes import free_ports

CHAIN = "bench"
VALIDATORS = 4
POWER = 10
READY_SECONDS = 60.0
POLL_SECONDS = 0.02
NEAR = node_files.Timeouts()
"""What a node of one region runs with, as its settings give it."""
FAR = node_files.Timeouts(propose=1_500, vote=800, commit=200)
"""For members whose messages take 50 ms and longer."""
FILES = {
    "the ledger's file": ("ledger.sqlite3*",),
    "CometBFT's blocks and results": ("cometbft/data/*.db/*",),
    "its write-ahead log, of which 1 GB is kept": ("cometbft/data/cs.wal/*",),
}

Links = Callable[[str, str], str]
"""From the name of a link and the address behind it to the address that the dialling node is given."""


@dataclass
class Member:
    """One institution: its organisation id, signing key and next sequence number."""

    org: str
    role: str
    key: PrivateKey = field(default_factory=PrivateKey.generate)
    seq: int = 0


@dataclass
class Place:
    """One node: its folder, its member, its ports and, once started, its process."""

    folder: Path
    member: Member
    identity: node_files.Identity
    rpc_port: int
    p2p_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where its RPC answers."""
        return f"http://127.0.0.1:{self.rpc_port}"

    def client(self) -> CometChain:
        """Return a client of this node, to be closed."""
        return CometChain(self.url, timeout_seconds=30)

    def start(self) -> None:
        """Start the replica's process."""
        with (self.folder / "replica.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.comet_replica", str(self.folder)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        """Kill the replica; CometBFT dies with it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def sync(self) -> dict[str, Any]:
        """Return CometBFT's own view of how far it is, nothing while it does not answer."""
        rpc = CometRpc(self.url)
        try:
            return dict(rpc.call("status")["sync_info"])
        except ChainError:
            return {}
        finally:
            rpc.close()

    def sizes(self) -> dict[str, int]:
        """Return the bytes on disk by what they are for."""
        return {
            what: sum(file.stat().st_size for name in names for file in self.folder.glob(name) if file.is_file())
            for what, names in FILES.items()
        }


class Site:
    """The network. Member 0 is the authority; each of the first four nodes votes, the fifth follows once started.

    ``powers`` by the node's folder name, for those with another than 10.
    """

    def __init__(
        self,
        folder: Path,
        members: Sequence[Member],
        timeouts: node_files.Timeouts,
        links: Links,
        powers: Mapping[str, int],
    ) -> None:
        self._powers = powers
        ports = free_ports(2 * (VALIDATORS + 1))
        self.members = members
        self.nodes: list[Place] = []
        for number in range(VALIDATORS + 1):
            place = folder / f"node{number}"
            place.mkdir()
            identity = node_files.create_keys(place / "cometbft")
            self.nodes.append(Place(place, members[number], identity, ports[2 * number], ports[2 * number + 1]))
        self.voting, self.follower = self.nodes[:VALIDATORS], self.nodes[VALIDATORS]
        content = self._genesis()
        document = self._comet_genesis(content, folder / "scratch.sqlite3")
        for node in self.nodes:
            (node.folder / "genesis.json").write_bytes(content)
            node_files.write_genesis(node.folder / "cometbft", document)
            peers = {
                each.identity.node: links(f"{node.folder.name}-{each.folder.name}", f"127.0.0.1:{each.p2p_port}")
                for each in self.voting
                if each is not node
            }
            settings = {
                "org": node.member.org, "key": node.member.key.to_bytes().hex(), "rpc_port": node.rpc_port,
                "p2p_port": node.p2p_port, "peers": peers,
                "timeouts": {name: getattr(timeouts, name) for name in timeouts.__slots__},
            }  # fmt: skip
            (node.folder / "node.json").write_text(json.dumps(settings))

    def _power(self, node: Place) -> int:
        return self._powers.get(node.folder.name, POWER)

    def _genesis(self) -> bytes:
        now = int(time.time())
        records = [
            genesis.member_record(
                org=each.org, name=f"Member {each.org}", roles=[each.role], endpoint="http://127.0.0.1:1",
                signing=each.key, encryption=PrivateKey.generate(), time=now,
            )
            for each in self.members
        ]  # fmt: skip
        named = []
        for node in self.nodes:
            key = node.identity.key.hex()
            message = node_contract.registration_message(CHAIN, node.member.org, key, node.identity.node)
            proof = node_files.read_validator_key(node.folder / "cometbft").sign(message).hex()
            address = f"127.0.0.1:{node.p2p_port}"
            power = self._power(node) if node in self.voting else 0
            registration = {"key": key, "node": node.identity.node, "address": address, "proof": proof}
            named.append({"org": node.member.org, "power": power, **registration})
        return genesis.build(chain=CHAIN, time=now, threshold=1, members=records, nodes=named, minimum=VALIDATORS)

    def _comet_genesis(self, content: bytes, scratch: Path) -> bytes:
        first = self.members[0]
        store = ReplicaStore(scratch, genesis=content, org=first.org, key=first.key)
        try:
            state = app_state(store)
        finally:
            store.close()
        named = [node_files.Validator(node.member.org, node.identity.key, self._power(node)) for node in self.voting]
        return node_files.genesis_document(
            chain=CHAIN, time=genesis.parse(content).time, validators=named, app_state=state
        )

    def start(self) -> None:
        """Start the validators and wait for the third block."""
        for node in self.voting:
            node.start()
        for node in self.voting:
            wait_for(lambda node=node: int(node.sync().get("latest_block_height", 0)) >= 3, f"{node.folder.name}")

    def close(self) -> None:
        """Kill every node."""
        for node in self.nodes:
            node.kill()


@contextmanager
def site(
    members: Sequence[Member],
    timeouts: node_files.Timeouts = NEAR,
    links: Links = lambda _name, address: address,
    powers: Mapping[str, int] = MappingProxyType({}),
) -> Iterator[Site]:
    """Give a running network in a folder of its own, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="yiqiao-bench-") as folder:
        made = Site(Path(folder), members, timeouts, links, powers)
        try:
            made.start()
            yield made
        finally:
            made.close()


@contextmanager
def kvstore(timeouts: node_files.Timeouts = NEAR) -> Iterator[list[str]]:
    """Run CometBFT's own kvstore application on four validators with the same settings; yields their RPC URLs."""
    ports = free_ports(2 * VALIDATORS)
    with tempfile.TemporaryDirectory(prefix="yiqiao-bench-") as folder, ExitStack() as running:
        homes = [Path(folder) / f"node{number}" for number in range(VALIDATORS)]
        identities = [node_files.create_keys(home) for home in homes]
        named = [node_files.Validator(f"n{n}", each.key, POWER) for n, each in enumerate(identities)]
        document = node_files.genesis_document(chain=CHAIN, time=int(time.time()), validators=named, app_state={})
        for number, home in enumerate(homes):
            peers = {
                each.node: f"127.0.0.1:{ports[2 * other + 1]}"
                for other, each in enumerate(identities)
                if other != number
            }
            node_files.write_genesis(home, document)
            options = node_files.NodeOptions(
                rpc_port=ports[2 * number], p2p_host="127.0.0.1", p2p_port=ports[2 * number + 1], peers=peers,
                timeouts=timeouts,
            )  # fmt: skip
            node_files.write_config(home, options)
            process = CometProcess(
                find_binary(), home, ["--proxy_app", "kvstore"], on_log=lambda *_: None, on_end=lambda: None
            )
            running.callback(process.close)
        urls = [f"http://127.0.0.1:{ports[2 * number]}" for number in range(VALIDATORS)]
        for url in urls:
            wait_for(lambda url=url: kvstore_size(url) >= 0, url)
        yield urls


def kvstore_size(url: str) -> int:
    """Return how many transactions a kvstore node has committed, -1 while it makes no blocks."""
    rpc = CometRpc(url)
    try:
        if int(rpc.call("status")["sync_info"]["latest_block_height"]) < 2:
            return -1
        return int(json.loads(rpc.call("abci_info")["response"]["data"])["size"])
    except ChainError:
        return -1
    finally:
        rpc.close()


def noise(size: int) -> bytes:
    """Return a kvstore transaction of a size: a random key and value."""
    return f"{secrets.token_hex(8)}={secrets.token_hex((size - 17) // 2)}".encode()


def wait_for(condition: Callable[[], Any], what: str, seconds: float = READY_SECONDS) -> None:
    """Wait until something is true; raises ``AssertionError`` naming it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} was not there within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)
