"""fsck of a node: everything stored is recomputed, and each thing that differs is named.

What is compared with what:

(1) every log entry opens under its key and is the leaf its row and its tile name;
(2) every record version opens, its bytes have the digest its row names, and its log entry names the same;
(3) every version is logged or waits to be, or its patient was erased, and the current version of a record is its
    newest; a data key that is gone was destroyed by a recorded erasure;
(4) leaves -> tiles -> root -> every published checkpoint, each with this node's signature (``anchor.fsck``);
(5) the ledger holds exactly these checkpoints, and none that this node has lost;
(6) the ledger's newest checkpoint extends what this node has cosigned; where the ledger's file is here, all of it is
    replayed from genesis; an observer replays it in any case.

Someone who alters a row and everything that follows from it inside the node still fails at (5), because the ledger is
not the node's; someone who rewrites the ledger's file as well fails at (6), because what the members cosigned is not
the host's.

The node's database is read as it was at one moment, so that work going on meanwhile is no difference. A check of a
large store keeps its progress and can be left and taken up again; it then is of two moments.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine

from anchor.chain.client import ChainClient
from anchor.chain.embedded_replay import check_ledger
from anchor.chain.embedded_scratch import IN_MEMORY
from anchor.errors import AnchorError, ChainError
from anchor.fsck import Difference
from bridge.services.integrity_ledger import check_published
from bridge.services.integrity_report import CheckProgress, IntegrityReport
from bridge.services.integrity_store import Progress, StoreCheck
from bridge.services.witnessing import BROKEN_RULES, CLOCK, SHRUNK, UNPROVEN, WitnessService
from bridge.storage.database import read_transaction
from bridge.storage.keyring import KeyRing

_KINDS = {
    "conflict": "ledger-forked",
    SHRUNK: "ledger-rolled-back",
    "invalid": "ledger-altered",
    UNPROVEN: "ledger-unproven",
    CLOCK: "ledger-clock",
    BROKEN_RULES: "ledger-breaks-rules",
}
"""Outcome of a look that is alarming to the kind of difference."""

__all__ = ["CheckProgress", "Difference", "IntegrityReport", "IntegrityService", "Progress"]


class IntegrityService:
    """Checks one node's store against itself and against the ledger."""

    def __init__(
        self,
        engine: Engine,
        keyring: KeyRing,
        chain: ChainClient,
        org: str,
        *,
        witness: WitnessService | None = None,
        ledger_path: Path | str | None = None,
        genesis: bytes | None = None,
    ) -> None:
        """``ledger_path`` and ``genesis``: the ledger's file, where this node hosts it or has its own copy."""
        self._engine = engine
        self._keyring = keyring
        self._chain = chain
        self._org = org
        self._witness = witness
        self._ledger_path = ledger_path
        self._genesis = genesis

    def check(self, progress: Progress | None = None, state: CheckProgress | None = None) -> IntegrityReport:
        """Recompute everything and return what differs; raises only when the node's database cannot be read.

        ``state``: where progress is kept, begun by the caller; an interrupted check leaves it to be taken up again.
        """
        kept, told = state or CheckProgress(), progress or _silent
        self._take_stages(kept, told)
        kept.end()
        return kept.report

    def _take_stages(self, kept: CheckProgress, told: Progress) -> None:
        report, done = kept.report, kept.position
        if "store" not in done:
            with read_transaction(self._engine) as conn:
                if conn.dialect.name == "postgresql":
                    conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                StoreCheck(conn, self._keyring, self._org, kept, told).run()
            done["store"] = True
            kept.save(now=True)
        if "published" not in done:
            self._check_ledger(report)
            done["published"] = True
            kept.save(now=True)
        self._check_hosted(kept, told)

    def _check_ledger(self, report: IntegrityReport) -> None:
        """Comparisons (5) and (6), asking the ledger."""
        try:
            published, differences = check_published(self._engine, self._chain, self._org)
            report.checkpoints = published
            report.add(differences)
            report.add(self._check_witnessed())
        except ChainError as error:
            report.add([Difference("ledger-unreachable", type(error).__name__, "an answer from the ledger")])
        except AnchorError as error:
            report.add([Difference("ledger-altered", type(error).__name__, str(error))])
        except (KeyError, TypeError, ValueError) as error:  # an altered value of the state has any shape at all
            report.add([Difference("ledger-altered", type(error).__name__, "answers of the ledger that can be read")])

    def _check_witnessed(self) -> Iterator[Difference]:
        """Comparison (6), against what this node has cosigned."""
        if self._witness is None:
            return
        run = self._witness.inspect()
        if run.alarm:
            yield Difference(_KINDS[run.outcome], f"ledger at {run.size} entries", run.detail)
        for conflict in self._witness.status().conflicts:
            detail = f"one history of the ledger; {conflict.kind} shown by {conflict.source}"
            yield Difference("ledger-forked", conflict.origin, detail)

    def _check_hosted(self, kept: CheckProgress, progress: Progress) -> None:
        """Comparison (6), of the ledger's own file; its replay goes on from where the scratch file has it."""
        report = kept.report
        if self._ledger_path is None or self._genesis is None:
            return

        def count(done: int, total: int) -> None:
            report.blocks = done
            progress("ledger", done, total)

        try:
            found = check_ledger(self._ledger_path, self._genesis, count, scratch=kept.scratch or IN_MEMORY)
        except AnchorError as error:
            report.add([Difference("ledger-altered", "file", str(error))])
            return
        report.add([Difference("ledger-altered", each.where, f"what follows from its transactions; it {each.what}")
                    for each in found])  # fmt: skip


def _silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
