"""The embedded engine's writing side: the state machine in step with the file, one durable transaction a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from anchor import checkpoint
from anchor.chain.client import StateProof, TransactionResult
from anchor.chain.embedded_store import BlockRow, CachedState, LedgerFile, decode_state
from anchor.errors import ChainCorrupt
from anchor.genesis import Genesis
from anchor.gm import PrivateKey, sm3
from anchor.ledger import BlockResult, Head, Ledger, ledger_checkpoint
from anchor.merkle import FrontierTree
from anchor.signature_cache import SignatureCache
from anchor.state_tree import StateTree
from anchor.tiles import TileLog
from anchor.transaction import Code, encode


class BlockWriter:
    """Owns the writing connection and the state machine over it. Its methods are called by one thread at a time."""

    def __init__(
        self,
        path: str | Path,
        *,
        genesis: Genesis,
        content: bytes,
        host_key: PrivateKey,
        host_org: str,
        clock: Callable[[], float],
    ) -> None:
        """Open the file, or begin it with ``genesis`` (whose bytes are ``content``)."""
        self._genesis = genesis
        self._host_key = host_key
        self._host_org = host_org
        self._clock = clock
        self.file = LedgerFile(path)
        try:
            self._begin(content)
            self._load()
        except BaseException:
            self.file.close()
            raise

    def make_block(self, envelopes: Sequence[bytes]) -> list[TransactionResult]:
        """Compute and persist one block over ``envelopes``; nothing is written when none is accepted.

        Raises ``ChainUnavailable`` or ``ChainCorrupt``, having changed nothing.
        """
        header = b""
        with self.file.writing():
            self._catch_up()
            block = self.ledger.apply_block(envelopes, int(self._clock()))
            results = [self._with_original_place(result, block) for result in block.results]
            if block.accepted:
                header = self._persist(block)
        if block.accepted:
            self.ledger.commit(block)
            self._previous = sm3(header)
        return results

    def prove(self, key: str) -> StateProof:
        """Return a committed value with its proof, both of the latest height."""
        with self.file.reading():
            self._catch_up()
            content = self.file.state(key)
            value = None if content is None else decode_state(content)
            tree = self.ledger.tree
            return StateProof(key, value, self.ledger.head.height, tree.root, tree.prove(key))

    def close(self) -> None:
        """Close the connection."""
        self.file.close()

    def _begin(self, content: bytes) -> None:
        """Create what an empty file needs, and make sure that a file in use is of this genesis and layout."""
        with self.file.writing():
            if self.file.is_new():
                self._write_genesis(content)
            if self.file.meta("genesis") != content:
                raise ChainCorrupt("the ledger file was begun with another genesis")
            if self.file.is_followed():
                raise ChainCorrupt("the ledger file is an observer's copy of another member's ledger")

    def _write_genesis(self, content: bytes) -> None:
        self.file.create(content)
        values = {key: encode(value) for key, value in self._genesis.state().items()}
        update = StateTree(self.file).update(values)
        self.file.write_state(values, update.buckets)
        head = Head(0, self._genesis.time, FrontierTree())
        note = self._signed_note(head, update.root)
        self.file.write_block(BlockRow(0, head.time, 0, content, update.root, b"", b"", note))

    def _load(self) -> None:
        """Read the whole of the tree and the head of the log."""
        self._state = CachedState(self.file)
        with self.file.reading():
            head = self.file.head()
            tree = StateTree(self.file)
            tree.load(self.file.buckets())
            self.ledger = Ledger(
                self._genesis.chain,
                Head(head.height, head.time, head.log()),
                self._state,
                tree,
                SignatureCache(),
            )
            self._take_over(head)

    def _catch_up(self) -> None:
        """Take over the blocks that other processes have written since."""
        height = self.file.height()
        if height == self.ledger.head.height:
            return
        if height < self.ledger.head.height:
            raise ChainCorrupt("the ledger file has fewer blocks than it had: an older copy was put in its place")
        self._state.forget()
        touched = self.file.touched_buckets(self.ledger.head.height)
        self.ledger.tree.load([(number, self.file.read_bucket(number)) for number in touched])
        self._take_over(self.file.head())

    def _take_over(self, head: BlockRow) -> None:
        if self.ledger.tree.root != head.state_root:
            raise ChainCorrupt("the stored state is not the one that the last block left")
        self.ledger.head = Head(head.height, head.time, head.log())
        self._previous = sm3(head.header)

    def _persist(self, block: BlockResult) -> bytes:
        """Write a block and return its header."""
        TileLog(self.file, self.ledger.head.log.size).append([one.leaf for one in block.accepted])
        header = block.header(self.ledger.chain, self._previous)
        self.file.append(block, header, self._signed_note(block.head, block.state_root))
        return header

    def _signed_note(self, head: Head, state_root: bytes) -> bytes:
        """Return the ledger's checkpoint after a block, signed by the host at the block's time."""
        point = ledger_checkpoint(self._genesis.chain, head, state_root)
        signature = checkpoint.sign(point, self._host_org, self._host_key, head.time)
        return checkpoint.render(checkpoint.SignedCheckpoint(point, (signature,)))

    def _with_original_place(self, result: TransactionResult, block: BlockResult) -> TransactionResult:
        """Answer a transaction that is committed already with its place, whatever it would be refused for now."""
        if result.ok or result.code == Code.BAD_ENCODING:
            return result
        for one in block.accepted:
            if one.transaction.tx_id == result.tx_id:
                return TransactionResult(result.tx_id, Code.OK, "", block.height, one.index, block.time)
        row = self.file.transaction(bytes.fromhex(result.tx_id))
        if row is None:
            return result
        return TransactionResult(result.tx_id, Code.OK, "", row.height, row.index, row.time)
