"""Recomputing what the embedded engine has stored, from its genesis and transactions.

``replay`` runs stored blocks through a fresh state machine from genesis on. ``check_ledger`` does that for a whole file
and compares every derived table (state, buckets, tiles, checkpoints) with what the replay gives; it names each
difference and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from anchor import checkpoint
from anchor import genesis as genesis_file
from anchor.chain.embedded_compare import (
    Difference,
    compare_cosignatures,
    compare_state,
    compare_tiles,
    signed_by_member,
)
from anchor.chain.embedded_scratch import IN_MEMORY, ScratchLedger, replay_block
from anchor.chain.embedded_store import BlockRow, LedgerFile, pack_buckets
from anchor.chain.embedded_stored import StoredBlock
from anchor.errors import ChainCorrupt, FormatError
from anchor.gm import sm3
from anchor.ledger import BlockResult, Head, Ledger, ledger_checkpoint
from anchor.merkle import FrontierTree

__all__ = ["Difference", "Progress", "StoredBlock", "check_ledger", "replay"]

_PAGE = 64
_MISSING = "is missing"

Progress = Callable[[int, int], None]
"""Called with the height reached and the last height."""


def replay(genesis: bytes, blocks: Iterable[StoredBlock]) -> Ledger:
    """Run stored blocks from height 1 on through a fresh state machine and return it.

    Raises ``ChainCorrupt`` at the first block whose header, transactions or hashes are not what the machine gives.
    """
    parsed = genesis_file.parse(genesis)
    ledger = Ledger.in_memory(parsed)
    previous = parsed.digest
    for block in blocks:
        found = replay_block(ledger, block, previous)
        if isinstance(found, Difference):
            raise ChainCorrupt(f"{found.where}: {found.what}")
        previous = sm3(block.header)
    return ledger


def check_ledger(
    path: str | Path, genesis: bytes, progress: Progress | None = None, *, scratch: str | Path = IN_MEMORY
) -> list[Difference]:
    """Recompute a ledger file from its genesis and transactions, and return every difference found.

    The replay itself stops at the first block that does not follow; what is derived from the blocks before it is
    compared all the same. ``scratch``: a file for the replay, which then needs no memory for the state and goes on
    from where an interrupted check left that file; the caller removes it. Raises ``ChainUnavailable`` or
    ``ChainCorrupt`` when the file cannot be read at all.
    """
    file = LedgerFile(path)
    try:
        with file.reading():
            if file.meta("genesis") != genesis:
                return [Difference("genesis", "the file was begun with another genesis")]
            replayed = ScratchLedger(genesis, scratch)
            try:
                return _FileCheck(file, genesis, replayed).run(progress)
            finally:
                replayed.close()
    finally:
        file.close()


class _FileCheck:
    """One run over a ledger file: the replay, block by block, and then the tables that follow from it."""

    def __init__(self, file: LedgerFile, genesis: bytes, replayed: ScratchLedger) -> None:
        self.differences: list[Difference] = []
        self._file = file
        self._genesis = genesis
        self._replayed = replayed

    def run(self, progress: Progress | None) -> list[Difference]:
        """Check everything and return the differences."""
        last = self._file.height()
        self._check_genesis()
        whole = not any(each.what == _MISSING for each in self.differences)
        while whole and self._replayed.height < last:
            whole = self._take(self._file.blocks(self._replayed.height + 1, _PAGE))
            if progress is not None:
                progress(self._replayed.height, last)
        if progress is not None:
            progress(self._replayed.height, last)
        self.differences[:0] = self._replayed.differences
        self.differences += compare_tiles(self._file, self._replayed.file, whole=whole)
        if whole:
            if self._file.transaction_count() != self._replayed.ledger.head.log.size:
                self.differences.append(Difference("transactions", "there are others than the blocks name"))
            self.differences += compare_state(self._file, self._replayed.file)
            self.differences += compare_cosignatures(self._file, self._replayed.state)
        return self.differences

    def _take(self, rows: list[BlockRow]) -> bool:
        """Replay a page of stored blocks; returns whether all follow."""
        expected = self._replayed.height + 1
        following = [row for number, row in enumerate(rows, start=expected) if row.height == number]
        blocks = [(row, StoredBlock.read(self._file, row)) for row in following]
        difference = self._replayed.take(blocks, self._check_row)
        if difference is not None:
            self.differences.append(difference)
            return False
        if len(following) < len(rows) or not rows:
            self.differences.append(Difference(f"block {self._replayed.height + 1}", _MISSING))
            return False
        return True

    def _check_row(self, row: BlockRow, result: BlockResult) -> list[Difference]:
        """Check what a block's row holds beside header and checkpoint, and that a member signed the latter."""
        where = f"block {row.height}"
        found = self._check_note(where, row.note)
        if row.frontier != b"".join(result.log.frontier):
            found.append(Difference(where, "has another log frontier than its transactions give"))
        if row.buckets != pack_buckets(result.tree.buckets):
            found.append(Difference(where, "names other buckets than its transactions changed"))
        return found

    def _check_note(self, where: str, note: bytes) -> list[Difference]:
        """Check the host's signature on the checkpoint after a block; its host may be any member, at any time.

        A replica's member may have been admitted after the block: it has not signed that checkpoint. An observer's copy
        has none that are signed.
        """
        signed = checkpoint.parse(note)
        if not signed.signatures and (self._file.is_replica() or self._file.is_followed()):
            return []
        if any(signed_by_member(signed.checkpoint, one, self._replayed.state) for one in signed.signatures):
            return []
        return [Difference(where, "has a checkpoint that no member signed")]

    def _check_genesis(self) -> None:
        """Check the row of height 0, which follows from the genesis file alone."""
        rows = self._file.blocks(0, 1)
        if not rows or rows[0].height != 0:
            self.differences.append(Difference("block 0", _MISSING))
            return
        row, (first, *_) = rows[0], self._replayed.file.blocks(0, 1)
        expected = (first.time, 0, self._genesis, first.state_root, b"", b"")
        if (row.time, row.log_size, row.header, row.state_root, row.frontier, row.buckets) != expected:
            self.differences.append(Difference("block 0", "is not what the genesis file gives"))
        try:
            signed = checkpoint.parse(row.note)
        except FormatError:
            self.differences.append(Difference("block 0", "has a checkpoint that cannot be read"))
            return
        head = Head(0, first.time, FrontierTree())
        if signed.checkpoint != ledger_checkpoint(self._replayed.ledger.chain, head, first.state_root):
            self.differences.append(Difference("block 0", "has a checkpoint of another state or log"))
        else:
            self.differences += self._check_note("block 0", row.note)
