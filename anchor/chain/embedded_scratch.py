"""A ledger rebuilt from its genesis and stored blocks, in a scratch file or in memory.

A full check replays every block into one of these and then compares table by table. In a file it needs no memory for
the state and can be left and taken up again: a page of blocks is one transaction of the scratch file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import orjson

from anchor import checkpoint
from anchor import genesis as genesis_file
from anchor.chain.embedded_compare import Difference
from anchor.chain.embedded_store import BlockRow, CachedState, LedgerFile
from anchor.chain.embedded_stored import StoredBlock
from anchor.errors import ChainCorrupt, FormatError
from anchor.gm import sm3
from anchor.ledger import BlockResult, Head, Ledger, ledger_checkpoint
from anchor.merkle import FrontierTree
from anchor.signature_cache import SignatureCache
from anchor.state_tree import StateTree
from anchor.tiles import TileLog
from anchor.transaction import encode

IN_MEMORY = ":memory:"
MAX_DIFFERENCES = 10_000
"""Differing rows that are kept: past it a list helps nobody."""

_DIFFERENCES = "differences"


class ScratchLedger:
    """The replay of one ledger; ``height`` is how far it has come."""

    def __init__(self, genesis: bytes, path: str | Path = IN_MEMORY, *, durable: bool = False) -> None:
        """Begin, or go on with what a run left at ``path``; ``ChainCorrupt`` when that is of another ledger.

        ``durable``: what is kept survives a loss of power, for a copy that is more than scratch.
        """
        parsed = genesis_file.parse(genesis)
        self.file = LedgerFile(path, durable=durable)
        try:
            with self.file.writing():
                if self.file.is_new():
                    self._begin(parsed, genesis)
                if self.file.meta("genesis") != genesis:
                    raise ChainCorrupt("the scratch file of the check is of another ledger; remove it")
            self.state = CachedState(self.file)
            tree = StateTree(self.file)
            tree.load(self.file.buckets())
            head = self.file.head()
            self.ledger = Ledger(
                parsed.chain, Head(head.height, head.time, head.log()), self.state, tree, SignatureCache()
            )
            self._previous = sm3(head.header)
        except BaseException:
            self.file.close()
            raise

    @property
    def height(self) -> int:
        """The last block taken."""
        return self.ledger.head.height

    def take(
        self, blocks: Iterable[tuple[BlockRow, StoredBlock]], judge: Callable[[BlockRow, BlockResult], list[Difference]]
    ) -> Difference | None:
        """Replay blocks in order; return what does not hold of the first that does not follow.

        ``judge`` says what else differs in a block's row; that is kept with the blocks (``differences``), so that it is
        not lost when the check is left.
        """
        with self.file.writing():
            for row, block in blocks:
                size = self.ledger.head.log.size
                found = replay_block(self.ledger, block, self._previous)
                if isinstance(found, Difference):
                    return found
                TileLog(self.file, size).append([one.leaf for one in found.accepted])
                self.file.append(found, block.header, block.note)
                self._previous = sm3(block.header)
                differing = judge(row, found)
                if differing:
                    self._keep([*self.differences, *differing])
        return None

    def add(self, result: BlockResult) -> None:
        """Commit a computed block and write it, within ``file.writing``; its checkpoint stays unsigned."""
        ledger = self.ledger
        TileLog(self.file, ledger.head.log.size).append([one.leaf for one in result.accepted])
        header = result.header(ledger.chain, self._previous)
        point = ledger_checkpoint(ledger.chain, result.head, result.state_root)
        self.file.append(result, header, checkpoint.render(checkpoint.SignedCheckpoint(point)))
        ledger.commit(result)
        self._previous = sm3(header)

    @property
    def differences(self) -> list[Difference]:
        """What the blocks taken so far, in this run and earlier ones, were judged to differ in."""
        content = self.file.meta(_DIFFERENCES)
        return [] if content is None else [Difference(where, what) for where, what in orjson.loads(content)]

    def _keep(self, differences: list[Difference]) -> None:
        content = orjson.dumps([[each.where, each.what] for each in differences[:MAX_DIFFERENCES]])
        self.file.set_meta(_DIFFERENCES, content)

    def close(self) -> None:
        """Close the scratch file."""
        self.file.close()

    def _begin(self, parsed: genesis_file.Genesis, content: bytes) -> None:
        self.file.create(content)
        values = {key: encode(value) for key, value in parsed.state().items()}
        update = StateTree(self.file).update(values)
        self.file.write_state(values, update.buckets)
        head = Head(0, parsed.time, FrontierTree())
        note = checkpoint.render(checkpoint.SignedCheckpoint(ledger_checkpoint(parsed.chain, head, update.root)))
        self.file.write_block(BlockRow(0, head.time, 0, content, update.root, b"", b"", note))


def replay_block(ledger: Ledger, block: StoredBlock, previous: bytes) -> BlockResult | Difference:
    """Apply a stored block and commit it; or return what does not hold, leaving the ledger before the block.

    ``previous`` is the hash of the block before.
    """
    where = f"block {block.height}"
    result = ledger.apply_block(block.envelopes, block.time)
    if result.height != block.height or result.time != block.time:
        return Difference(where, "does not follow the block before it in height and time")
    for position, answer in enumerate(result.results):
        if not answer.ok:
            return Difference(f"{where}, transaction {position}", f"is refused on replay ({answer.code})")
    if tuple(answer.tx_id for answer in result.results) != block.tx_ids:
        return Difference(where, "has transactions under other ids than their own")
    header = result.header(ledger.chain, previous)
    if header != block.header or result.state_root != block.state_root or result.log.size != block.log_size:
        return Difference(where, "has another header, state root or size than its transactions give")
    head = result.head
    try:
        signed = checkpoint.parse(block.note)
    except FormatError:
        return Difference(where, "has a checkpoint that cannot be read")
    if signed.checkpoint != ledger_checkpoint(ledger.chain, head, result.state_root):
        return Difference(where, "has a checkpoint of another state or log")
    ledger.commit(result)
    return result
