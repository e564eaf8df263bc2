"""Checking what the embedded engine has stored: the tail on every opening, everything on demand.

``replay`` runs stored blocks through a fresh state machine from genesis on. ``check_ledger`` does that for a whole file
and compares every derived table (state, buckets, tiles, checkpoints) with what the replay gives; it names each
difference and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from anchor import checkpoint
from anchor import genesis as genesis_file
from anchor.chain.embedded_store import BlockRow, LedgerFile
from anchor.errors import ChainCorrupt, FormatError, TransactionRejected
from anchor.gm import sm3
from anchor.ledger import Head, Ledger, app_hash, block_header, ledger_checkpoint, log_entry
from anchor.merkle import leaf_hash
from anchor.state_store import MemoryState
from anchor.tiles import HASH_BYTES, TILE_WIDTH, TileLog
from anchor.transaction import encode, parse

TAIL_BLOCKS = 8
"""Blocks checked on every opening: what a torn write or a careless copy could have damaged last."""
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

    @classmethod
    def read(cls, file: LedgerFile, row: BlockRow) -> StoredBlock:
        """Return a block with its transactions."""
        before = file.log_size_before(row.height)
        rows = file.transactions(before, max(row.log_size - before, 0))
        envelopes = tuple(one.envelope for one in rows)
        return cls(row.height, row.time, row.log_size, row.header, row.state_root, row.note, envelopes)


@dataclass(frozen=True, slots=True)
class Difference:
    """One contradiction: ``where`` names the row, ``what`` says in a sentence what does not hold."""

    where: str
    what: str


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
            return _check_file(file, genesis, progress)
    finally:
        file.close()


def check_tail(file: LedgerFile, chain: str) -> None:
    """Check, on opening, the last blocks and the log's root; raises ``ChainCorrupt``. The writer checks the state."""
    with file.reading():
        head = file.head()
        if file.transaction_end() != head.log_size:
            raise ChainCorrupt("the stored transactions are not those that the last block counts")
        log = TileLog(file, head.log_size)
        try:
            if log.root() != head.log().root():
                raise ChainCorrupt("the stored log is not the one that the last block left")
            rows = file.blocks(max(head.height - TAIL_BLOCKS, 0), TAIL_BLOCKS + 1)
            for before, row in pairwise(rows):
                _check_tail_block(file, chain, before, row, log)
        except FormatError as error:
            raise ChainCorrupt(f"the ledger's log cannot be read: {error}") from error


def _check_tail_block(file: LedgerFile, chain: str, before: BlockRow, row: BlockRow, log: TileLog) -> None:
    """Check that a stored block follows the one before it and that its transactions are in the log."""
    transactions = file.transactions(before.log_size, row.log_size - before.log_size)
    head = Head(row.height, row.time, row.log())
    expected = block_header(
        chain=chain,
        height=before.height + 1,
        time=max(row.time, before.time),
        previous=sm3(before.header),
        tx_ids=[one.tx_id.hex() for one in transactions],
        app_hash=app_hash(row.state_root, head.log.root()),
        log_size=before.log_size + len(transactions),
    )
    if row.header != expected:
        raise ChainCorrupt(f"block {row.height} does not follow from what is stored")
    if checkpoint.parse(row.note).checkpoint != ledger_checkpoint(chain, head, row.state_root):
        raise ChainCorrupt(f"the checkpoint after block {row.height} is not that of the block")
    for one in transactions:
        try:
            tx = parse(one.envelope)
        except TransactionRejected:
            raise ChainCorrupt(f"transaction {one.index} cannot be read") from None
        entry = log_entry(tx, row.height, row.time, one.index)
        if tx.tx_id != one.tx_id.hex() or log.leaf(one.index) != leaf_hash(entry):
            raise ChainCorrupt(f"transaction {one.index} is not the one that is in the log")


class _ComparedTiles:
    """Tiles as a replay gives them, held against those in the file."""

    def __init__(self, file: LedgerFile, differences: list[Difference]) -> None:
        self._file = file
        self._differences = differences
        self._open: dict[int, tuple[int, bytes]] = {}

    def read(self, level: int, index: int) -> bytes | None:
        """Return the last tile written at a level (a log that only appends asks for no other)."""
        kept = self._open.get(level)
        return kept[1] if kept is not None and kept[0] == index else None

    def write(self, level: int, index: int, data: bytes) -> None:
        """Compare a tile with the file's, once it is whole or the log has ended (``finish``)."""
        self._open[level] = (index, data)
        if len(data) == TILE_WIDTH * HASH_BYTES:
            self._compare(level, index, data)

    def finish(self) -> None:
        """Compare the partial tiles at the log's end."""
        for level, (index, data) in self._open.items():
            if len(data) < TILE_WIDTH * HASH_BYTES:
                self._compare(level, index, data)

    def _compare(self, level: int, index: int, data: bytes) -> None:
        if self._file.read(level, index) != data:
            self._differences.append(Difference(f"tile {level}/{index}", "is not what the transactions give"))


def _check_file(file: LedgerFile, genesis: bytes, progress: Progress | None) -> list[Difference]:
    parsed = genesis_file.parse(genesis)
    if file.meta("genesis") != genesis:
        return [Difference("genesis", "the file was begun with another genesis")]
    differences: list[Difference] = []
    state = MemoryState()
    ledger = Ledger.in_memory(parsed, state=state)
    tiles = _ComparedTiles(file, differences)
    log = TileLog(tiles)
    previous, last = sm3(genesis), file.height()
    height = 1
    broken = False
    while not broken and height <= last:
        for row in file.blocks(height, _PAGE):
            block = StoredBlock.read(file, row)
            found = Difference(f"block {height}", "is missing") if block.height != height else None
            found = found or _replay_block(ledger, block, previous)
            if found is not None:
                differences.append(found)
                broken = True
                break
            log.append([leaf_hash(entry) for entry in _entries(block)])
            previous = sm3(block.header)
            height += 1
        if progress is not None:
            progress(min(height - 1, last), last)
    tiles.finish()
    if not broken:
        if file.transaction_count() != ledger.head.log.size:
            differences.append(Difference("transactions", "there are others than the blocks name"))
        differences += _compare_state(file, state)
    return differences


def _replay_block(ledger: Ledger, block: StoredBlock, previous: bytes) -> Difference | None:
    """Apply a stored block and commit it; return what does not hold, leaving the ledger before the block."""
    where = f"block {block.height}"
    result = ledger.apply_block(block.envelopes, block.time)
    if result.height != block.height or result.time != block.time:
        return Difference(where, "does not follow the block before it in height and time")
    for position, answer in enumerate(result.results):
        if not answer.ok:
            return Difference(f"{where}, transaction {position}", f"is refused on replay ({answer.code})")
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


def _compare_state(file: LedgerFile, state: MemoryState) -> list[Difference]:
    """Return the state values and buckets that are not those of a replay."""
    differences: list[Difference] = []
    stored = set()
    for key, content in file.all_states():
        stored.add(key)
        value = state.get(key)
        if value is None:
            differences.append(Difference(f"state {key}", "is in the file and follows from no transaction"))
        elif encode(value) != content:
            differences.append(Difference(f"state {key}", "is not what the transactions give"))
    differences += [Difference(f"state {key}", "is missing") for key in sorted(state.values.keys() - stored)]
    buckets = dict(file.buckets())
    for number, pairs in state.buckets.items():
        if buckets.pop(number, b"") != pairs:
            differences.append(Difference(f"bucket {number}", "is not what the state gives"))
    differences += [Difference(f"bucket {number}", "is of no state value") for number in sorted(buckets)]
    return differences
