"""This node's part in the replicated ledger, as a process: the ABCI application with CometBFT's binary below it.

It is one child of the node's supervisor, and can be run alone (`yiqiao ledger start`) on a machine that does nothing
else. When CometBFT ends it is started again after a growing pause; a replica that contradicts the others stays halted,
and the rest of the node goes on without the ledger.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from anchor.chain.cometbft import node_files
from anchor.chain.cometbft.replica import Replica, ReplicaOptions
from anchor.chain.cometbft.replica_file import ReplicaFile
from anchor.errors import AnchorError, ChainCorrupt
from anchor.gm import PrivateKey
from bridge.header_relay import HeaderRelay
from bridge.ledger_files import LedgerFile, Peer
from bridge.log import get_logger
from bridge.settings import Settings
from bridge.stop_signals import on_stop_signal

PEERS_FILE = "peers.json"
"""Below CometBFT's folder: the nodes that the ledger file named, for as long as the ledger itself is not there."""
PAUSE_FIRST_SECONDS = 1.0
PAUSE_MAX_SECONDS = 30.0
_MAX_NODES = 1_000


def comet_home(settings: Settings) -> Path:
    """Return CometBFT's folder."""
    return settings.path(settings.cometbft.directory)


def prepare_home(settings: Settings, ledger: LedgerFile) -> None:
    """Write what a replica of ``ledger`` needs beside its keys: CometBFT's genesis and the first peers."""
    home = comet_home(settings)
    node_files.write_genesis(home, ledger.comet_genesis())
    peers = [{"org": peer.org, "node": peer.node, "address": peer.address} for peer in ledger.peers]
    (home / PEERS_FILE).write_text(json.dumps(peers, indent=1) + "\n", "utf-8")


def first_peers(settings: Settings) -> tuple[Peer, ...]:
    """Return the peers that the ledger file named."""
    try:
        value: list[dict[str, Any]] = json.loads((comet_home(settings) / PEERS_FILE).read_text("utf-8"))
        return tuple(Peer(each["org"], each["node"], each["address"]) for each in value)
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def known_peers(settings: Settings) -> dict[str, str]:
    """Return node id -> address of every other member's node: the ledger's word goes before the ledger file's."""
    own = node_files.read_identity(comet_home(settings)).node
    peers = {peer.org: (peer.node, peer.address) for peer in first_peers(settings)}
    path = settings.path(settings.ledger.path)
    if path.is_file():
        for org, node in _on_ledger(path):
            peers[org] = node
    return {node: address for node, address in peers.values() if node != own and address}


def replica_options(
    settings: Settings, sync_servers: tuple[str, ...] = (), trust: tuple[int, str] | None = None
) -> ReplicaOptions:
    """Return how this node's replica runs.

    To begin by state sync: ``sync_servers``, where its light client asks, and ``trust``, the header it begins with.
    """
    comet = settings.cometbft
    node = node_files.NodeOptions(
        rpc_port=comet.rpc_port,
        p2p_host=comet.p2p_host,
        p2p_port=comet.p2p_port,
        external=comet.p2p_address,
        peers=known_peers(settings),
        timeouts=node_files.Timeouts(
            propose=comet.propose_ms, vote=comet.vote_ms, commit=comet.commit_ms, heartbeat=comet.heartbeat_ms
        ),
        sync_servers=sync_servers,
        trust=trust,
    )
    return ReplicaOptions(
        home=comet_home(settings),
        ledger=settings.path(settings.ledger.path),
        genesis=settings.path(settings.ledger.genesis).read_bytes(),
        org=settings.node.org,
        node=node,
        binary=comet.binary,
        bootstrap=frozenset(peer.node for peer in first_peers(settings)),
        quorum=settings.witness.quorum or None,
        snapshot_interval=comet.snapshot_blocks,
    )


def run_replica(settings: Settings, key: PrivateKey) -> None:
    """Run this node's replica until SIGTERM or SIGINT."""
    runner = _Runner(settings, key)
    on_stop_signal(runner.stop)
    runner.run()


class _Runner:
    """Keeps a replica running."""

    def __init__(self, settings: Settings, key: PrivateKey) -> None:
        self._settings = settings
        self._key = key
        self._stop = threading.Event()
        self._replica: Replica | None = None
        self._log = get_logger("ledger")

    def stop(self) -> None:
        self._stop.set()
        if self._replica is not None:
            self._replica.stop()

    def run(self) -> None:
        pause = PAUSE_FIRST_SECONDS
        while not self._stop.is_set():
            try:
                reason = self._run_once()
            except ChainCorrupt as error:
                self._log.error("the replica is halted", why=str(error))
                self._stop.wait()  # the rest of the node goes on; a person has to look
                return
            except (AnchorError, OSError) as error:
                reason = str(error)
            if self._stop.is_set():
                return
            self._log.error("the replica ended", why=reason, restart_in_seconds=pause)
            self._stop.wait(pause)
            pause = min(pause * 2, PAUSE_MAX_SECONDS)

    def _run_once(self) -> str:
        with ExitStack() as resources:
            servers: tuple[str, ...] = ()
            trust = None
            if self._settings.cometbft.state_sync and not self._settings.path(self._settings.ledger.path).is_file():
                relay = resources.enter_context(HeaderRelay.between(self._settings, self._key))
                servers, trust = relay.servers, relay.trust()
            options = replica_options(self._settings, servers, trust)
            self._replica = Replica(options, self._key, self._replica_log)
            if self._stop.is_set():
                return ""
            return self._replica.run()

    def _replica_log(self, level: str, text: str) -> None:
        getattr(self._log, level)(text)


def _on_ledger(path: Path) -> list[tuple[str, tuple[str, str]]]:
    """Return the nodes of active members in a replica's file: (org, (node id, address))."""
    file = ReplicaFile(path)
    try:
        if file.is_new():
            return []
        found = []
        for _, content in file.states("node/", _MAX_NODES):
            node: Mapping[str, Any] = orjson.loads(content)
            member = file.state(f"member/{node['org']}")
            active = member is not None and orjson.loads(member)["status"] == "active"
            found.append((str(node["org"]), (str(node["node"]), str(node["address"]) if active else "")))
        return found
    finally:
        file.close()
