"""One member's replica as it runs: the ABCI application in this process, CometBFT's binary as its child.

They live and die together. A replica that cannot go on (its state contradicts what the validators signed, its file is
damaged) halts: CometBFT is stopped, the reason is written to ``halted.json`` and told in ``health``, and nothing starts
it again but the operator. The other members go on without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from anchor.chain.cometbft import node_files
from anchor.chain.cometbft.application import Application
from anchor.chain.cometbft.process import CometProcess, contradiction, find_binary
from anchor.chain.cometbft.replica_store import ReplicaStore
from anchor.chain.cometbft.server import AbciServer
from anchor.chain.cometbft.snapshots import INTERVAL
from anchor.errors import AnchorError, ChainCorrupt
from anchor.gm import PrivateKey

HALTED_FILE = "halted.json"
"""Below CometBFT's folder: why a replica stopped for good, {"reason"}."""

SOCKET_FILE = "abci.sock"
"""Where the two processes meet: below CometBFT's folder, the owner's alone and CometBFT's working directory."""

Log = Callable[[str, str], None]
"""Called with a level ("info", "warning", "error") and a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaOptions:
    """Where a replica's files are and how its node runs. ``home`` is CometBFT's folder, ``ledger`` the SQLite file."""

    home: Path
    ledger: Path
    genesis: bytes
    org: str
    node: node_files.NodeOptions
    binary: str = "cometbft"
    bootstrap: frozenset[str] = field(default_factory=frozenset)
    quorum: int | None = None
    snapshot_interval: int = INTERVAL


class ReplicaHalted(ChainCorrupt):
    """The replica contradicts the others or itself, and was stopped."""


class Replica:
    """Runs one replica; ``run`` returns when stopped or when CometBFT ended, and raises when it cannot go on."""

    def __init__(self, options: ReplicaOptions, key: PrivateKey, log: Log) -> None:
        self._options = options
        self._key = key
        self._log = log
        self._stopping = False
        self._comet: CometProcess | None = None

    def stop(self) -> None:
        """Make ``run`` return; safe from a signal handler and from other threads."""
        self._stopping = True  # no event: a handler that sets one may wait for itself
        if self._comet is not None:
            self._comet.terminate()  # which ends its connections in order, and with them the server

    def run(self) -> str:
        """Serve until stopped; return "" then, or why CometBFT ended (another try may help).

        Raises ``ReplicaHalted``, ``ChainUnavailable`` (the disk is full, the binary is missing) or ``ChainCorrupt``.
        """
        options = self._options
        halted = options.home / HALTED_FILE
        halted.unlink(missing_ok=True)
        try:
            return self._run()
        except ChainCorrupt as error:
            halted.write_text(json.dumps({"reason": str(error)}) + "\n", "utf-8")
            raise

    def _run(self) -> str:
        options = self._options
        binary = find_binary(options.binary)
        store = ReplicaStore(options.ledger, genesis=options.genesis, org=options.org, key=self._key)
        application = Application(
            store,
            bootstrap=options.bootstrap,
            quorum=options.quorum,
            snapshot_interval=options.snapshot_interval,
            on_misbehaviour=self._misbehaviour,
        )
        try:
            with AbciServer(options.home / SOCKET_FILE, application) as server:
                node_files.write_config(options.home, options.node)
                return self._serve(server, binary, f"unix://{SOCKET_FILE}")
        finally:
            application.close()

    def _serve(self, server: AbciServer, binary: str, address: str) -> str:
        comet = CometProcess(
            binary, self._options.home, ["--proxy_app", address], on_log=self._comet_log, on_end=server.stop
        )
        self._comet = comet
        if self._stopping:
            comet.terminate()
        self._log("info", f"cometbft started as process {comet.pid}")
        try:
            server.run()
        except AnchorError as error:
            self._log("error", f"the replica cannot go on: {error}")
            raise
        finally:
            self._comet = None
            comet.close()
        if self._stopping:
            return ""
        if comet.contradiction:
            why = f"this replica contradicts the other validators and was stopped: {comet.contradiction}"
            self._log("error", why)
            raise ReplicaHalted(why)
        return comet.failure or "cometbft ended"

    def _comet_log(self, level: str, message: str, reason: str) -> None:
        # What it calls errors are mostly peers coming and going.
        grave = bool(contradiction(message, reason))
        self._log("error" if grave else "info", f"cometbft {level}: {message} {reason}".strip())

    def _misbehaviour(self, what: object) -> None:
        self._log("error", f"a validator was proven to have misbehaved: {what}")


def halted_reason(home: Path) -> str:
    """Return why the replica whose CometBFT folder is ``home`` halted, "" when it did not."""
    try:
        value = json.loads((home / HALTED_FILE).read_text("utf-8"))
        return str(value["reason"])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError):
        return "the reason cannot be read"
