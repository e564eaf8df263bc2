"""The process of one replica in a test network: ``python -m tests.comet_node FOLDER``."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from anchor.chain.cometbft import node_files
from anchor.chain.cometbft.replica import Replica, ReplicaOptions
from anchor.errors import ChainError
from anchor.protobuf import Message
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


def fill_disk() -> None:
    """Let every durable write of a block fail as SQLite fails on a full disk."""
    from anchor.chain.cometbft.replica_file import ReplicaFile

    def fail(self: ReplicaFile, height: int) -> None:
        self._db.execute("PRAGMA max_page_count = 1")
        self._db.execute("CREATE TABLE filler AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
                         " LIMIT 100000) SELECT i, randomblob(4000) AS b FROM n")  # fmt: skip

    ReplicaFile.set_comet_height = fail  # type: ignore[method-assign]


def main(folder: Path) -> int:
    settings = json.loads((folder / "node.json").read_text())
    options = ReplicaOptions(
        home=folder / "cometbft",
        ledger=folder / "ledger.sqlite3",
        genesis=(folder / "genesis.json").read_bytes(),
        org=settings["org"],
        node=node_files.NodeOptions(
            rpc_port=settings["rpc_port"],
            p2p_host="127.0.0.1",
            p2p_port=settings["p2p_port"],
            peers=settings["peers"],
            timeouts=node_files.Timeouts(**settings["timeouts"]),
            sync_servers=tuple(settings.get("sync_servers", ())),
            trust=tuple(settings["trust"]) if "trust" in settings else None,
        ),
        bootstrap=frozenset(settings["peers"]),
        snapshot_interval=settings.get("snapshot_interval", 1_000),
    )
    if settings.get("diverge"):
        diverge()
    if settings.get("full"):
        fill_disk()
    replica = Replica(options, sign_key(settings["org"]), lambda level, text: print(level, text, flush=True))
    signal.signal(signal.SIGTERM, lambda *_: replica.stop())
    try:
        reason = replica.run()
    except ChainError as error:
        print("halted:", error, flush=True)
        return 3
    print("ended:", reason or "stopped", flush=True)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
