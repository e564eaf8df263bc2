"""The state machine over a replica's file: computing a block changes nothing, persisting it is one durable write.

CometBFT decides the order; this is what the embedded engine's writer is there. A block is computed any number of times
(FinalizeBlock, and again after a crash) and persisted once (Commit), together with the CometBFT height it came at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from anchor import checkpoint
from anchor import genesis as genesis_file
from anchor.chain.client import StateProof
from anchor.chain.cometbft.replica_file import Place, ReplicaFile
from anchor.chain.embedded_store import BlockRow, CachedState
from anchor.chain.embedded_tail import check_tail
from anchor.contracts.member_keys import live_keys
from anchor.contracts.view import Value
from anchor.errors import ChainCorrupt
from anchor.gm import PrivateKey, sm3
from anchor.ledger import BlockResult, Head, Ledger, ledger_checkpoint
from anchor.merkle import FrontierTree
from anchor.signature_cache import SignatureCache
from anchor.state_tree import StateTree
from anchor.tiles import TileLog
from anchor.transaction import encode


class ReplicaStore:
    """One connection to a replica's file and the state machine in step with it. For one thread at a time.

    ``genesis``: the genesis file's bytes; the file is begun with them, or must have been. ``key`` signs, as ``org``,
    the checkpoint after each block: what a member cosigns here it has computed itself. Checkpoints from before its
    admission, or at which its key was not valid, stay unsigned. Raises ``FormatError``, ``ChainUnavailable`` or
    ``ChainCorrupt``.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        genesis: bytes,
        org: str,
        key: PrivateKey,
        signatures: SignatureCache | None = None,
    ) -> None:
        self._signatures = signatures or SignatureCache()
        self.genesis = genesis_file.parse(genesis)
        self.content = genesis
        self.path = Path(path)
        self.org = org
        self.key = key
        self.file = ReplicaFile(path)
        try:
            self._begin()
            check_tail(self.file, self.genesis.chain)
            self._load()
        except BaseException:
            self.file.close()
            raise

    @property
    def app_hash(self) -> bytes:
        """The hash that commits to everything persisted."""
        return self.ledger.app_hash

    def compute(self, envelopes: Sequence[bytes], time: int) -> BlockResult:
        """Compute the ledger's next block; nothing is persisted."""
        return self.ledger.apply_block(envelopes, time)

    def persist(self, block: BlockResult | None, comet_height: int) -> None:
        """Write, durably, that CometBFT is at ``comet_height``, and the ledger's block made there, if there is one."""
        header = b""
        with self.file.writing():
            if block is not None:
                header = self._write(block)
                self.file.add_place(Place(block.height, comet_height, block.log.size))
            self.file.set_comet_height(comet_height)
        self.comet_height = comet_height
        if block is not None:
            self.ledger.commit(block)
            self._previous = sm3(header)

    def take_over(self, block: BlockResult) -> None:
        """Write a block of a history, within the caller's ``file.writing``; an error there spoils this store."""
        header = self._write(block)
        self.ledger.commit(block)
        self._previous = sm3(header)

    def settle(self, comet_height: int) -> None:
        """Note that a history that was taken over ends at a CometBFT height."""
        head = self.ledger.head
        with self.file.writing():
            if head.height:
                self.file.add_place(Place(head.height, comet_height, head.log.size))
            self.file.set_comet_height(comet_height)
        self.comet_height = comet_height

    def begin_after_history(self) -> None:
        """Note that CometBFT begins its chain after what is in the file."""
        head = self.ledger.head
        with self.file.writing():
            self.file.begin_at(Place(head.height, 0, head.log.size))

    def prove(self, key: str) -> StateProof:
        """Return a committed value with its proof."""
        content = self.file.state(key)
        value = None if content is None else orjson.loads(content)
        tree = self.ledger.tree
        return StateProof(key, value, self.ledger.head.height, tree.root, tree.prove(key))

    def close(self) -> None:
        """Close the connection."""
        self.file.close()

    def _begin(self) -> None:
        with self.file.writing():
            if self.file.is_new():
                self.file.create(self.content)
                self._write_genesis()
            if self.file.meta("genesis") != self.content:
                raise ChainCorrupt("the ledger file was begun with another genesis")
            self.file.add_replica_tables()
            if self.file.place_before(0) is None:
                head = self.file.head()
                self.file.add_place(Place(head.height, 0, head.log_size))

    def _write_genesis(self) -> None:
        values = {key: encode(value) for key, value in self.genesis.state().items()}
        update = StateTree(self.file).update(values)
        self.file.write_state(values, update.buckets)
        head = Head(0, self.genesis.time, FrontierTree())
        note = self._note(head, update.root, self.genesis.state().get(f"member/{self.org}"))
        self.file.write_block(BlockRow(0, head.time, 0, self.content, update.root, b"", b"", note))

    def _load(self) -> None:
        with self.file.reading():
            head = self.file.head()
            tree = StateTree(self.file)
            tree.load(self.file.buckets())
            if tree.root != head.state_root:
                raise ChainCorrupt("the stored state is not the one that the last block left")
            self.comet_height = self.file.comet_height()
            self.ledger = Ledger(
                self.genesis.chain,
                Head(head.height, head.time, head.log()),
                CachedState(self.file),
                tree,
                self._signatures,
            )
            self._previous = sm3(head.header)

    def _write(self, block: BlockResult) -> bytes:
        """Write a block, within ``writing``, and return its header."""
        TileLog(self.file, self.ledger.head.log.size).append([one.leaf for one in block.accepted])
        header = block.header(self.ledger.chain, self._previous)
        name = f"member/{self.org}"
        member = block.changes.get(name) or self.ledger.get(name)
        note = self._note(block.head, block.state_root, member)
        self.file.append(block, header, note)
        return header

    def _note(self, head: Head, state_root: bytes, member: Value | None) -> bytes:
        """Return the ledger's checkpoint after a block, signed at the block's time if its member's key was good then.

        A signature that no one could accept would spoil the whole checkpoint for whoever verifies it.
        """
        point = ledger_checkpoint(self.genesis.chain, head, state_root)
        live = [] if member is None or member["status"] != "active" else live_keys(member, "sign", head.time)
        if all(each["id"] != self.key.public_key.key_id for each in live):
            return checkpoint.render(checkpoint.SignedCheckpoint(point))
        signature = checkpoint.sign(point, self.org, self.key, head.time)
        return checkpoint.render(checkpoint.SignedCheckpoint(point, (signature,)))
