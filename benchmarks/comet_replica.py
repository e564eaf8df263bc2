"""The process of one replica in a benchmark's network: python -m benchmarks.comet_replica FOLDER."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from anchor.chain.cometbft import node_files
from anchor.chain.cometbft.replica import Replica, ReplicaOptions
from anchor.gm import PrivateKey


def main(folder: Path) -> int:
    """Run the replica that a folder describes until SIGTERM."""
    settings = json.loads((folder / "node.json").read_text())
    options = ReplicaOptions(
        home=folder / "cometbft",
        ledger=folder / "ledger.sqlite3",
        genesis=(folder / "genesis.json").read_bytes(),
        org=settings["org"],
        node=node_files.NodeOptions(
            rpc_port=settings["rpc_port"], p2p_host="127.0.0.1", p2p_port=settings["p2p_port"],
            peers=settings["peers"], timeouts=node_files.Timeouts(**settings["timeouts"]),
        ),
    )  # fmt: skip
    replica = Replica(
        options, PrivateKey.from_bytes(bytes.fromhex(settings["key"])), lambda level, text: print(level, text)
    )
    signal.signal(signal.SIGTERM, lambda *_: replica.stop())
    reason = replica.run()
    print("ended:", reason or "stopped", flush=True)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
