"""A ledger followed by full replay: an observer computes every block of another member's ledger in a file of its own.

What a witness checks is that the ledger's log only grows. This checks that the ledger keeps its rules: every
transaction the host hands out is judged by the same state machine, and what that gives (log root, state root, height
and time) is held against the checkpoint that the host has signed. A host that rewrote its state, hashed everything anew
and signed it is found out here even when nobody saw an older checkpoint.

A page of blocks is one durable transaction of the file: whoever is stopped goes on from there. Several processes may
use one file; one at a time brings it on.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NoReturn

from anchor import checkpoint
from anchor.chain.client import ChainClient, CommittedTransaction
from anchor.chain.embedded_scratch import ScratchLedger
from anchor.chain.embedded_store import FOLLOWED, LedgerFile, decode_state
from anchor.chain.embedded_tail import check_tail
from anchor.checkpoint import Checkpoint, SignedCheckpoint
from anchor.contracts.view import Value
from anchor.errors import ChainCorrupt, ChainError, ChainUnavailable, ReplayDiffers
from anchor.ledger import ledger_checkpoint
from anchor.transaction import encode

PAGE = 1_000
"""Transactions asked for at a time: what one answer of a host holds at most."""
MAX_BLOCK_TRANSACTIONS = 20_000
"""Transactions of one block, many times what any engine puts into one: a bound on what a host can make us hold."""
MAX_EVIDENCE_BYTES = 1024 * 1024
"""Bytes of transactions kept as evidence; whoever wants more asks the ledger for the block by its height."""
MAX_MEMBERS = 1_000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a ledger has been replayed: height of the last block, entries of the log, that block's time."""

    height: int
    size: int
    time: int


class FollowedLedger:
    """The replay of one ledger in the file at ``path``, opened at the first use. Threads may share it."""

    def __init__(self, path: Path, genesis: bytes) -> None:
        self._path = path
        self._genesis = genesis
        self._lock = threading.Lock()
        self._opened: ScratchLedger | None = None

    def follow(self, chain: ChainClient, point: Checkpoint) -> None:
        """Replay the ledger up to the size of ``point`` and hold what that gives against it.

        Raises ``ReplayDiffers`` when a transaction breaks the rules or another checkpoint results, ``ChainError`` when
        the ledger does not answer or hands out less than its host has signed.
        """
        with self._lock:
            try:
                replayed = self._current()
                while replayed.ledger.head.log.size < point.size:
                    self._take(replayed, _next_blocks(chain, replayed, point.size))
                row = replayed.file.block_of_size(point.size)
            except ReplayDiffers:
                raise
            except BaseException:
                self._close()  # what is in memory may be ahead of what was written
                raise
            if row is None:
                _differs(replayed, "state", f"no block of the ledger ends after {point.size} entries")
            own = checkpoint.parse(row.note)
        if own.checkpoint != point:
            raise ReplayDiffers(
                f"after {point.size} entries the ledger's host has signed another {_difference(own.checkpoint, point)} "
                "than its transactions give",
                place="state",
                own=row.note,
            )

    def members(self) -> list[Value]:
        """Return the members' records as the replay has them."""
        with self._lock:
            rows = self._current().file.states("member/", MAX_MEMBERS)
        return [decode_state(content) for _, content in rows]

    def progress(self) -> Progress | None:
        """Return how far the file has come, whoever brought it there; None before the first block was looked for."""
        if not self._path.exists():
            return None
        file = LedgerFile(self._path)
        try:
            if file.is_new():
                return None
            head = file.head()
            return Progress(head.height, head.log_size, head.time)
        finally:
            file.close()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _current(self) -> ScratchLedger:
        """Return the replay as the file has it: another process of the node may have brought it on."""
        if self._opened is not None and self._opened.file.height() != self._opened.height:
            self._close()
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> ScratchLedger:
        """Open the copy; a damaged one must not be taken for a fault of the host's."""
        opened = ScratchLedger(self._genesis, self._path, durable=True)
        try:
            if opened.height == 0:
                with opened.file.writing():
                    opened.file.set_meta(FOLLOWED, b"1")
            if not opened.file.is_followed():
                raise ChainCorrupt(f"{self._path.name} is no observer's copy of a ledger; move it away")
            check_tail(opened.file, opened.ledger.chain)
            if opened.ledger.tree.root != opened.file.head().state_root:
                raise ChainCorrupt(f"{self._path.name}, this observer's copy, is damaged; remove it to compute it anew")
        except BaseException:
            opened.close()
            raise
        return opened

    @staticmethod
    def _take(replayed: ScratchLedger, blocks: Sequence[Sequence[CommittedTransaction]]) -> None:
        """Replay blocks and make them durable, up to the first that does not follow."""
        with replayed.file.writing():
            if replayed.file.height() != replayed.height:
                raise ChainUnavailable("another process of this node is replaying the ledger")
            broken = next((found for block in blocks if (found := _take_block(replayed, block))), None)
        if broken is not None:
            raise broken


def _next_blocks(chain: ChainClient, replayed: ScratchLedger, size: int) -> list[list[CommittedTransaction]]:
    """Return the next whole blocks, at least one, of a ledger whose log has ``size`` entries."""
    start = replayed.ledger.head.log.size
    found: list[CommittedTransaction] = []
    while start + len(found) < size:
        limit = min(PAGE, size - start - len(found))
        page = chain.transactions(start + len(found), limit)[:limit]
        if not page:
            raise ChainError(f"the ledger's host has signed {size} entries and hands out {start + len(found)}")
        found += page
        whole = [one for one in found if one.height != found[-1].height]
        if whole and start + len(found) < size:
            found = whole
            break
        if len(found) - len(whole) > MAX_BLOCK_TRANSACTIONS:
            _differs(replayed, f"block {found[-1].height}", f"has more than {MAX_BLOCK_TRANSACTIONS} transactions")
    return [list(block) for _, block in groupby(found, key=lambda one: one.height)]


def _take_block(replayed: ScratchLedger, block: Sequence[CommittedTransaction]) -> ReplayDiffers | None:
    """Compute a block and write it, within ``file.writing``; or return what does not hold of it."""
    ledger = replayed.ledger
    height, time = block[0].height, block[0].block_time
    problem = ""
    result = ledger.apply_block([one.envelope for one in block], time)
    refused = next(((n, each) for n, each in enumerate(result.results) if not each.ok), None)
    if result.height != height or result.time != time:
        problem = "does not follow the block before it in height and time"
    elif refused is not None:
        problem = f"has a transaction {refused[0]} that the rules refuse ({refused[1].code})"
    elif [one.entry for one in block] != [one.entry for one in result.accepted]:
        problem = "has entries in the log that are not those of its transactions"
    if not problem:
        replayed.add(result)
        return None
    return _difference_at(replayed, f"block {height}", problem, block)


def _differs(replayed: ScratchLedger, place: str, what: str) -> NoReturn:
    raise _difference_at(replayed, place, what, ())


def _difference_at(
    replayed: ScratchLedger, place: str, what: str, block: Sequence[CommittedTransaction]
) -> ReplayDiffers:
    ledger = replayed.ledger
    own = SignedCheckpoint(ledger_checkpoint(ledger.chain, ledger.head, ledger.tree.root))
    text = what if place == "state" else f"{place} {what}"
    evidence = _evidence(ledger.chain, text, block) if block else b""
    return ReplayDiffers(text, place=place, own=checkpoint.render(own), evidence=evidence)


def _evidence(chain: str, what: str, block: Sequence[CommittedTransaction]) -> bytes:
    """Return the transactions of a block as they were handed out, in JSON."""
    kept: list[Value] = []
    total = 0
    for one in block:
        total += len(one.envelope) + len(one.entry)
        if total > MAX_EVIDENCE_BYTES:
            break
        texts = {"envelope": one.envelope, "entry": one.entry}
        kept.append({name: base64.b64encode(content).decode("ascii") for name, content in texts.items()})
    place = {"height": block[0].height, "time": block[0].block_time, "first": block[0].index, "count": len(block)}
    return encode({"v": 1, "chain": chain, "what": what, **place, "transactions": kept})


def _difference(own: Checkpoint, shown: Checkpoint) -> str:
    """Name what two checkpoints of one size differ in."""
    if own.root != shown.root:
        return "log"
    names = [name for name, value in own.extensions if (name, value) not in shown.extensions]
    return " and ".join(names) or "checkpoint"
