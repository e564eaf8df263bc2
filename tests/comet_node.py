"""The process of one replica in a test network: ``python -m tests.comet_node FOLDER``."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from anchor.chain.cometbft import node_files
from anchor.chain.cometbft.messages import PROPOSAL_ACCEPT
from anchor.chain.cometbft.replica import Replica, ReplicaOptions
from anchor.errors import ChainError
from anchor.ledger import BlockResult
from anchor.protobuf import Message
from bridge.stop_signals import on_stop_signal
from tests.ledger_consortium import sign_key


def diverge() -> None:
    """Make this process's state machine give other hashes than everybody else's: a replica with a wrong version."""
    from anchor.chain.cometbft.application import Application
    from anchor.chain.cometbft.messages import ResponseFinalizeBlock

    handle = Application.handle

    def lie(self: Application, request: Message) -> Message:
        answer = handle(self, request)
        if isinstance(answer, ResponseFinalizeBlock) and answer.tx_results:
            answer.app_hash = bytes(32)
        return answer

    Application.handle = lie  # type: ignore[method-assign]


def crash(when: str) -> None:
    """End this process by SIGKILL in the Commit of the next block that holds transactions."""
    from anchor.chain.cometbft.replica_store import ReplicaStore

    persist = ReplicaStore.persist

    def end(self: ReplicaStore, block: BlockResult | None, comet_height: int) -> None:
        if block is not None and when == "before-persisting":
            os.kill(os.getpid(), signal.SIGKILL)
        persist(self, block, comet_height)
        if block is not None:
            os.kill(os.getpid(), signal.SIGKILL)

    ReplicaStore.persist = end  # type: ignore[method-assign]


def lie() -> None:
    """Make this process a proposer whose blocks are never right, and which finds them so."""
    from anchor.chain.cometbft.application import Application
    from anchor.chain.cometbft.messages import ResponsePrepareProposal, ResponseProcessProposal

    handle = Application.handle

    def propose(self: Application, request: Message) -> Message:
        answer = handle(self, request)
        if isinstance(answer, ResponsePrepareProposal):
            answer.txs = [*answer.txs, b"\x01no pack at all"]
        if isinstance(answer, ResponseProcessProposal):
            answer.status = PROPOSAL_ACCEPT
        return answer

    Application.handle = propose  # type: ignore[method-assign]


def main(folder: Path) -> int:
    settings = json.loads((folder / "node.json").read_text())
    options = ReplicaOptions(
        home=folder / "cometbft",
        ledger=folder / "ledger.sqlite3",
        genesis=(folder / "genesis.json").read_bytes(),
        org=settings["org"],
        node=node_files.NodeOptions(
            rpc_port=settings["rpc_port"],
            p2p_host=settings["p2p_host"],
            p2p_port=settings["p2p_port"],
            peers=settings["peers"],
            timeouts=node_files.Timeouts(**settings["timeouts"]),
            sync_servers=tuple(settings.get("sync_servers", ())),
            trust=tuple(settings["trust"]) if "trust" in settings else None,
        ),
        binary=settings.get("binary", "cometbft"),
        bootstrap=frozenset(settings.get("bootstrap", settings["peers"])),
        snapshot_interval=settings.get("snapshot_interval", 1_000),
    )
    if settings.get("diverge"):
        diverge()
    if when := settings.get("crash"):
        crash(when)
    if settings.get("lie"):
        lie()
    key = sign_key(settings["org"], settings.get("sign_key", 1))
    replica = Replica(options, key, lambda level, text: print(level, text, flush=True))
    on_stop_signal(replica.stop)
    try:
        reason = replica.run()
    except ChainError as error:
        print("halted:", error, flush=True)
        return 3
    print("ended:", reason or "stopped", flush=True)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
