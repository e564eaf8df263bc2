"""The process of one replica in a test network: ``python -m tests.comet_node FOLDER``."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from anchor.chain.cometbft import node_files
from anchor.chain.cometbft.replica import Replica, ReplicaOptions
from anchor.errors import ChainError
from tests.ledger_consortium import sign_key


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
        ),
        bootstrap=frozenset(settings["peers"]),
    )
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
