"""Recomputing what the embedded engine has stored, from its genesis and transactions.

``replay`` runs stored blocks through a fresh state machine from genesis on. ``check_ledger`` does that for a whole file
and compares every derived table (state, buckets, tiles, checkpoints) with what the replay gives; it names each
difference and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from anchor import checkpoint
from anchor import genesis as genesis_file
from anchor.chain.embedded_compare import (
    ComparedTiles,
    Difference,
    compare_cosignatures,
    compare_state,
    signed_by_member,
)
from anchor.chain.embedded_store import BlockRow, LedgerFile, pack_buckets
from anchor.errors import ChainCorrupt, FormatError
from anchor.gm import sm3
from anchor.ledger import BlockResult, Head, Ledger, block_header, ledger_checkpoint
from anchor.state_store import MemoryState
from anchor.tiles import TileLog

_PAGE = 64
_MISSING = "is missing"


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block as stored: its header and the envelopes of its transactions, and what the host signed after it."""

    height: int
    time: int
    log_size: int
    header: bytes
    state_root: bytes
    note: bytes
    envelopes: tuple[bytes, ...]
    tx_ids: tuple[str, ...]

    @classmethod
    def read(cls, file: LedgerFile, row: BlockRow) -> StoredBlock:
        """Return a block with its transactions."""
        before = file.log_size_before(row.height)
        rows = file.transactions(before, max(row.log_size - before, 0))
        return cls(
            height=row.height,
            time=row.time,
            log_size=row.log_size,
            header=row.header,
            state_root=row.state_root,
            note=row.note,
            envelopes=tuple(one.envelope for one in rows),
            tx_ids=tuple(one.tx_id.hex() for one in rows),
        )


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
        replay_block(ledger, block, previous)
        previous = sm3(block.header)
    return ledger


def check_ledger(path: str | Path, genesis: bytes, progress: Progress | None = None) -> list[Difference]:
    """Recompute a ledger file from its genesis and transactions, and return every difference found.

    The replay itself stops at the first block that does not follow; what is derived from the blocks before it is
    compared all the same. Raises ``ChainUnavailable`` or ``ChainCorrupt`` when the file cannot be read at all.
    """
    file = LedgerFile(path)
    try:
        with file.reading():
            if file.meta("genesis") != genesis:
                return [Difference("genesis", "the file was begun with another genesis")]
            return _FileCheck(file, genesis).run(progress)
    finally:
        file.close()


class _FileCheck:
    """One run over a ledger file: the replay, block by block, and then the tables that follow from it."""

    def __init__(self, file: LedgerFile, genesis: bytes) -> None:
        self.differences: list[Difference] = []
        self._file = file
        self._genesis = genesis
        self._state = MemoryState()
        self._ledger = Ledger.in_memory(genesis_file.parse(genesis), state=self._state)
        self._tiles = ComparedTiles(file, self.differences)
        self._log = TileLog(self._tiles)
        self._previous = sm3(genesis)

    def run(self, progress: Progress | None) -> list[Difference]:
        """Check everything and return the differences."""
        last = self._file.height()
        self._check_genesis()
        whole = not any(each.what == _MISSING for each in self.differences)
        while whole and self._height < last:
            whole = all(self._take(row) for row in self._file.blocks(self._height + 1, _PAGE))
            if progress is not None:
                progress(self._height, last)
        self._tiles.finish(whole=whole)
        if whole:
            if self._file.transaction_count() != self._ledger.head.log.size:
                self.differences.append(Difference("transactions", "there are others than the blocks name"))
            self.differences += compare_state(self._file, self._state)
            self.differences += compare_cosignatures(self._file, self._state)
        return self.differences

    @property
    def _height(self) -> int:
        return self._ledger.head.height

    def _take(self, row: BlockRow) -> bool:
        """Replay one stored block; returns whether it follows."""
        if row.height != self._height + 1:
            self.differences.append(Difference(f"block {self._height + 1}", _MISSING))
            return False
        block = StoredBlock.read(self._file, row)
        found = _replay_block(self._ledger, block, self._previous)
        if isinstance(found, Difference):
            self.differences.append(found)
            return False
        self._check_row(row, found)
        self._log.append([one.leaf for one in found.accepted])
        self._previous = sm3(block.header)
        return True

    def _check_row(self, row: BlockRow, result: BlockResult) -> None:
        """Check what a block's row holds beside header and checkpoint, and that a member signed the latter."""
        where = f"block {row.height}"
        if row.frontier != b"".join(result.log.frontier):
            self.differences.append(Difference(where, "has another log frontier than its transactions give"))
        if row.buckets != pack_buckets(result.tree.buckets):
            self.differences.append(Difference(where, "names other buckets than its transactions changed"))
        self._check_note(where, row.note)

    def _check_note(self, where: str, note: bytes) -> None:
        """Check the host's signature on the checkpoint after a block; its host may be any member, at any time."""
        signed = checkpoint.parse(note)
        if not any(signed_by_member(signed.checkpoint, one, self._state) for one in signed.signatures):
            self.differences.append(Difference(where, "has a checkpoint that no member signed"))

    def _check_genesis(self) -> None:
        """Check the row of height 0, which follows from the genesis file alone."""
        rows = self._file.blocks(0, 1)
        if not rows or rows[0].height != 0:
            self.differences.append(Difference("block 0", _MISSING))
            return
        row, head = rows[0], self._ledger.head
        expected = (head.time, 0, self._genesis, self._ledger.tree.root, b"", b"")
        if (row.time, row.log_size, row.header, row.state_root, row.frontier, row.buckets) != expected:
            self.differences.append(Difference("block 0", "is not what the genesis file gives"))
        try:
            signed = checkpoint.parse(row.note)
        except FormatError:
            self.differences.append(Difference("block 0", "has a checkpoint that cannot be read"))
            return
        if signed.checkpoint != ledger_checkpoint(self._ledger.chain, head, self._ledger.tree.root):
            self.differences.append(Difference("block 0", "has a checkpoint of another state or log"))
        else:
            self._check_note("block 0", row.note)


def replay_block(ledger: Ledger, block: StoredBlock, previous: bytes) -> BlockResult:
    """Apply a stored block to ``ledger``, commit it and return it; ``previous`` is the hash of the block before.

    Raises ``ChainCorrupt``, leaving the ledger before the block, when it does not follow.
    """
    found = _replay_block(ledger, block, previous)
    if isinstance(found, Difference):
        raise ChainCorrupt(f"{found.where}: {found.what}")
    return found


def _replay_block(ledger: Ledger, block: StoredBlock, previous: bytes) -> BlockResult | Difference:
    """Apply a stored block and commit it; or return what does not hold, leaving the ledger before the block."""
    where = f"block {block.height}"
    result = ledger.apply_block(block.envelopes, block.time)
    if result.height != block.height or result.time != block.time:
        return Difference(where, "does not follow the block before it in height and time")
    for position, answer in enumerate(result.results):
        if not answer.ok:
            return Difference(f"{where}, transaction {position}", f"is refused on replay ({answer.code})")
    if tuple(answer.tx_id for answer in result.results) != block.tx_ids:
        return Difference(where, "has transactions under other ids than their own")
    header = block_header(
        chain=ledger.chain,
        height=result.height,
        time=result.time,
        previous=previous,
        tx_ids=[one.transaction.tx_id for one in result.accepted],
        app_hash=result.app_hash,
        log_size=result.log.size,
    )
    if header != block.header or result.state_root != block.state_root or result.log.size != block.log_size:
        return Difference(where, "has another header, state root or size than its transactions give")
    head = Head(result.height, result.time, result.log)
    try:
        signed = checkpoint.parse(block.note)
    except FormatError:
        return Difference(where, "has a checkpoint that cannot be read")
    if signed.checkpoint != ledger_checkpoint(ledger.chain, head, result.state_root):
        return Difference(where, "has a checkpoint of another state or log")
    ledger.commit(result)
    return result
