"""A network of replicas on this machine for tests: each a process of its own with CometBFT's real binary below it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from anchor.chain.cometbft import node_files
from anchor.chain.cometbft.application import Application, app_state
from anchor.chain.cometbft.messages import RequestFinalizeBlock
from anchor.chain.cometbft.process import find_binary
from anchor.chain.cometbft.replica import Replica, ReplicaOptions
from anchor.chain.cometbft.replica_store import ReplicaStore
from anchor.chain.cometbft.rpc import CometRpc
from anchor.contracts import nodes
from anchor.errors import ChainError, ChainUnavailable
from anchor.genesis import parse
from anchor.protobuf import Message
from bridge.demo.nodes import free_ports
from tests.comet_link import Link
from tests.ledger_consortium import CHAIN, sign_key
from tests.network_namespaces import Switch

ROOT = Path(__file__).parents[1]
FAST = node_files.Timeouts(propose=500, propose_delta=200, vote=300, vote_delta=100, commit=50, heartbeat=1_000)
WAIT_SECONDS = 120.0
"""For what takes seconds on an idle machine and a minute on a busy one."""
RPC_SECONDS = 30.0
STOP_SECONDS = 90.0


def require_cometbft() -> None:
    """Skip where CometBFT's binary is missing, unless services are required."""
    try:
        find_binary()
    except ChainUnavailable as error:
        if os.environ.get("YIQIAO_REQUIRE_SERVICES") == "1":
            raise
        pytest.skip(str(error))


def wait_until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """Call ``condition`` until it is true; a ``ChainError`` counts as not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except ChainError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s")


@dataclass
class Node:
    """One replica: its folder, its ports, its process."""

    folder: Path
    org: str
    identity: node_files.Identity
    rpc_port: int
    p2p_port: int
    process: subprocess.Popen[bytes] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    log_file: Path | None = None
    host: str = "127.0.0.1"
    namespace: str = ""
    rpc_link: Link | None = None
    """To the RPC of a node in a network namespace, where it listens on loopback as everywhere."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.rpc_port}" if self.rpc_link is None else f"http://{self.rpc_link.address}"

    @property
    def address(self) -> str:
        return f"{self.host}:{self.p2p_port}"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.sqlite3"

    @property
    def home(self) -> Path:
        return self.folder / "cometbft"

    def start(self) -> None:
        """Start the replica's process; its log goes to replica.log."""
        (self.folder / "node.json").write_text(json.dumps(self.settings))
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        with self._log_file().open("ab") as log:
            self.process = subprocess.Popen(
                [*inside, sys.executable, "-m", "tests.comet_node", str(self.folder)],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        """Kill the replica with SIGKILL; CometBFT dies with it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """Ask the replica to end and return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS)
        self.process = None
        return code

    def log(self) -> str:
        return self._log_file().read_text("utf-8", "replace")

    def _log_file(self) -> Path:
        return self.log_file or self.folder / "replica.log"

    def rpc(self) -> CometRpc:
        return CometRpc(self.url, timeout_seconds=RPC_SECONDS)

    def status(self) -> dict[str, Any]:
        rpc = self.rpc()
        try:
            return dict(rpc.call("status"))
        finally:
            rpc.close()

    def height(self) -> int:
        return int(self.status()["sync_info"]["latest_block_height"])


class Network:
    """Replicas of ``orgs`` with one genesis; those in ``validators`` vote, the others only follow.

    ``severable``: they reach each other through ``links``, by the numbers of the node that dials and the one it dials.
    ``switch``: each is in a network namespace of its own.
    """

    def __init__(
        self,
        folder: Path,
        genesis: bytes | Callable[[Sequence[Node]], bytes],
        orgs: Sequence[str],
        *,
        validators: Sequence[str] | None = None,
        timeouts: node_files.Timeouts = FAST,
        severable: bool = False,
        switch: Switch | None = None,
    ) -> None:
        ports = free_ports(2 * len(orgs))
        self.nodes: list[Node] = []
        for number, org in enumerate(orgs):
            place = folder / f"node{number}"
            place.mkdir(parents=True)
            identity = node_files.create_keys(place / "cometbft")
            node = Node(place, org, identity, ports[2 * number], ports[2 * number + 1])
            if switch is not None:
                node.host, node.namespace = switch.addresses[number], switch.names[number]
                node.rpc_link = Link(f"127.0.0.1:{node.rpc_port}", node.namespace)
            self.nodes.append(node)
        voting = set(orgs if validators is None else validators)
        genesis = genesis if isinstance(genesis, bytes) else genesis(self.nodes)
        self.genesis = genesis
        self.document = comet_genesis(genesis, [node for node in self.nodes if node.org in voting], folder)
        self.links: dict[tuple[int, int], Link] = {}
        if severable:
            pairs = [(one, other) for one in range(len(orgs)) for other in range(len(orgs)) if one != other]
            self.links = {pair: Link(f"127.0.0.1:{self.nodes[pair[1]].p2p_port}") for pair in pairs}
        for node in self.nodes:
            (node.folder / "genesis.json").write_bytes(genesis)
            node_files.write_genesis(node.home, self.document)
            node.settings = {
                "org": node.org,
                "rpc_port": node.rpc_port,
                "p2p_host": node.host,
                "p2p_port": node.p2p_port,
                "peers": self._peers(node),
                "timeouts": {name: getattr(timeouts, name) for name in timeouts.__slots__},
            }

    def _peers(self, node: Node) -> dict[str, str]:
        """Return node id and address of every other node, as ``node`` reaches it."""
        own = self.nodes.index(node)
        numbered = [(number, each) for number, each in enumerate(self.nodes) if number != own]
        if self.links:
            return {each.identity.node: self.links[own, number].address for number, each in numbered}
        return {each.identity.node: each.address for _, each in numbered}

    def start(self) -> None:
        for node in self.nodes:
            node.start()

    def add(self, org: str, **settings: Any) -> Node:
        """Return a further node, not started, that knows the others; they let it in once the ledger names it."""
        place = self.nodes[0].folder.parent / f"node{len(self.nodes)}"
        place.mkdir()
        rpc_port, p2p_port = free_ports(2)
        node = Node(place, org, node_files.create_keys(place / "cometbft"), rpc_port, p2p_port)
        (place / "genesis.json").write_bytes(self.genesis)
        node_files.write_genesis(node.home, self.document)
        peers = {each.identity.node: each.address for each in self.nodes}
        timeouts = self.nodes[0].settings["timeouts"]
        own = {"org": org, "rpc_port": rpc_port, "p2p_host": node.host, "p2p_port": p2p_port, "peers": peers}
        node.settings = {**own, "timeouts": timeouts, **settings}
        self.nodes.append(node)
        return node

    def wait_for_height(self, height: int, nodes: Sequence[Node] | None = None, seconds: float = WAIT_SECONDS) -> None:
        for node in nodes or self.nodes:
            wait_until(lambda node=node: node.height() >= height, f"height {height} at {node.folder.name}", seconds)

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        for link in [*self.links.values(), *(node.rpc_link for node in self.nodes if node.rpc_link)]:
            link.close()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def registration(node: Node, home: Path | None = None) -> dict[str, Any]:
    """Return the body with which a node's member registers it; ``home``: where the key is that is not in use yet."""
    key = node.identity.key.hex()
    message = nodes.registration_message(CHAIN, node.org, key, node.identity.node)
    proof = node_files.read_validator_key(home or node.home).sign(message).hex()
    return {"key": key, "node": node.identity.node, "address": node.address, "proof": proof}


def comet_genesis(genesis: bytes, validators: Sequence[Node], folder: Path) -> bytes:
    """Return CometBFT's genesis file for a ledger that begins at its genesis."""
    scratch = folder / "scratch.sqlite3"
    store = ReplicaStore(scratch, genesis=genesis, org=validators[0].org, key=sign_key(validators[0].org))
    try:
        state = app_state(store)
    finally:
        store.close()
        for each in folder.glob("scratch.sqlite3*"):
            each.unlink()
    parsed = parse(genesis)
    named = [node_files.Validator(node.org, node.identity.key, 10) for node in validators]
    return node_files.genesis_document(chain=parsed.chain, time=parsed.time, validators=named, app_state=state)


@contextmanager
def single_replica(ledger: Path, genesis: bytes, org: str, now: Callable[[], float]) -> Iterator[str]:
    """Run one validator with CometBFT's binary here, its blocks' times set by ``now``; yields its RPC URL."""
    home = ledger.parent / "cometbft"
    rpc_port, p2p_port = free_ports(2)
    node = Node(ledger.parent, org, node_files.create_keys(home), rpc_port, p2p_port)
    node_files.write_genesis(home, comet_genesis(genesis, [node], ledger.parent))

    class Timed(Application):
        """Gives blocks the time that the test wants."""

        def handle(self, request: Message) -> Message:
            if isinstance(request, RequestFinalizeBlock):
                request.time.seconds = int(now())
            return super().handle(request)

    options = ReplicaOptions(
        home=home, ledger=ledger, genesis=genesis, org=org,
        node=node_files.NodeOptions(rpc_port=rpc_port, p2p_host="127.0.0.1", p2p_port=p2p_port, timeouts=FAST),
    )  # fmt: skip
    replica = Replica(options, sign_key(org), lambda *_: None)
    outcome: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anchor.chain.cometbft.replica.Application", Timed)
        thread = threading.Thread(target=lambda: outcome.append(replica.run()))
        thread.start()
        try:
            wait_until(lambda: node.height() >= 1, "the first block")
            yield node.url
        finally:
            replica.stop()
            thread.join(STOP_SECONDS)
    assert outcome == [""]
