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
from anchor.chain.embedded_store import BlockRow, LedgerFile
from anchor.errors import ChainCorrupt, FormatError
from anchor.gm import sm3
from anchor.ledger import Head, Ledger, block_header, ledger_checkpoint, log_entry
from anchor.merkle import leaf_hash
from anchor.state_store import MemoryState
from anchor.tiles import TileLog
from anchor.transaction import parse

_PAGE = 64


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
        difference = _replay_block(ledger, block, previous)
        if difference is not None:
            raise ChainCorrupt(f"{difference.where}: {difference.what}")
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
        self._state = MemoryState()
        self._ledger = Ledger.in_memory(genesis_file.parse(genesis), state=self._state)
        self._tiles = ComparedTiles(file, self.differences)
        self._log = TileLog(self._tiles)
        self._previous = sm3(genesis)

    def run(self, progress: Progress | None) -> list[Difference]:
        """Check everything and return the differences."""
        last = self._file.height()
        whole = True
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
            self.differences.append(Difference(f"block {self._height + 1}", "is missing"))
            return False
        block = StoredBlock.read(self._file, row)
        found = _replay_block(self._ledger, block, self._previous) or self._check_note(block)
        if found is not None:
            self.differences.append(found)
            return False
        self._log.append([leaf_hash(entry) for entry in _entries(block)])
        self._previous = sm3(block.header)
        return True

    def _check_note(self, block: StoredBlock) -> Difference | None:
        """Check the host's signature on the checkpoint after a block; its host may be any member, at any time."""
        signed = checkpoint.parse(block.note)
        for signature in signed.signatures:
            if signed_by_member(signed.checkpoint, signature, self._state):
                return None
        return Difference(f"block {block.height}", "has a checkpoint that no member signed")


def _replay_block(ledger: Ledger, block: StoredBlock, previous: bytes) -> Difference | None:
    """Apply a stored block and commit it; return what does not hold, leaving the ledger before the block."""
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
    return None


def _entries(block: StoredBlock) -> list[bytes]:
    start = block.log_size - len(block.envelopes)
    return [
        log_entry(parse(envelope), block.height, block.time, start + position)
        for position, envelope in enumerate(block.envelopes)
    ]
