"""The ledger's history as it is handed on: to a node that joins by state sync, and from a pilot that changes engines.

What is handed on is the transactions, nothing derived from them. The description names the roots; the transactions come
in chunks of 4,096, each of which is a subtree of the log and so is checked by itself, whoever sent it. The receiver
computes the blocks anew, without verifying again the signatures that the validators have verified: the log's root,
which is in the ``app_hash`` that they signed, covers every transaction with its signature, height and time.

::

    description = canonical {"chunks":[root…],"height","size","state_root","time","v":1}
    chunk       = zlib(run …)        run = height ‖ time ‖ count ‖ (length ‖ envelope) …    numbers as uvarint

A block may begin in one chunk and end in the next.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from anchor import merkle
from anchor.chain.cometbft.replica_store import ReplicaStore
from anchor.chain.embedded_store import LedgerFile, TransactionRow
from anchor.errors import ChainCorrupt, FormatError, TransactionRejected, VerificationError
from anchor.gm import PrivateKey, PublicKey
from anchor.ledger import app_hash, log_entry
from anchor.protobuf import read_varint, varint
from anchor.signature_cache import SignatureCache
from anchor.tiles import HASH_BYTES, TILE_WIDTH
from anchor.transaction import MAX_ENVELOPE_BYTES, Transaction, encode, parse

CHUNK_ENTRIES = 16 * TILE_WIDTH
"""Transactions of a chunk: 3 MB at their ordinary size, one when compressed; CometBFT takes up to 16 MB."""
MAX_CHUNK_BYTES = 16_000_000
"""Bytes of a compressed chunk (CometBFT's chunkMsgSize)."""
MAX_CHUNK_CONTENT = CHUNK_ENTRIES * 32 * 1024
"""Bytes of a chunk's content: far above what a consortium writes, a bound for what a stranger may send."""
MAX_DESCRIPTION_BYTES = 4_000_000
"""Bytes (CometBFT's snapshotMsgSize): a log of 200 million transactions."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a history is: where the ledger stands after it, and the root of each chunk."""

    height: int
    time: int
    size: int
    state_root: bytes
    chunks: tuple[bytes, ...]

    @property
    def app_hash(self) -> bytes:
        """The hash that the validators have signed for this state and log."""
        return app_hash(self.state_root, merkle.root_from_leaves(list(self.chunks)))  # chunks are subtrees of the log

    def encode(self) -> bytes:
        """Return its canonical bytes."""
        return encode(
            {
                "v": 1,
                "height": self.height,
                "time": self.time,
                "size": self.size,
                "state_root": self.state_root.hex(),
                "chunks": [one.hex() for one in self.chunks],
            }
        )

    @classmethod
    def parse(cls, content: bytes) -> Description:
        """Read a description; raises ``FormatError``."""
        if len(content) > MAX_DESCRIPTION_BYTES:
            raise FormatError(f"a history's description is at most {MAX_DESCRIPTION_BYTES} bytes")
        try:
            value: Any = orjson.loads(content)
            made = cls(
                height=value["height"],
                time=value["time"],
                size=value["size"],
                state_root=bytes.fromhex(value["state_root"]),
                chunks=tuple(bytes.fromhex(one) for one in value["chunks"]),
            )
            canonical = made.encode() == content
        except (ValueError, KeyError, TypeError):
            raise FormatError("the history's description cannot be read") from None
        numbers = (made.height, made.time, made.size)
        if not canonical or any(type(one) is not int or one < 0 for one in numbers):
            raise FormatError("the history's description is not in its one encoding")
        if len(made.chunks) != chunk_count(made.size) or any(
            len(one) != HASH_BYTES for one in (made.state_root, *made.chunks)
        ):
            raise FormatError("the history's description has another number of chunks than its size")
        return made


def chunk_count(size: int) -> int:
    """Return in how many chunks a log of ``size`` entries is handed on."""
    return -(-size // CHUNK_ENTRIES)


def describe(file: LedgerFile, height: int) -> Description:
    """Describe the history of a file up to one of the ledger's heights; raises ``ChainCorrupt``."""
    (row,) = file.blocks(height, 1)
    if row.height != height:
        raise ChainCorrupt(f"block {height} is missing")
    chunks = tuple(
        merkle.root_from_leaves(_leaves(file, number, row.log_size)) for number in range(chunk_count(row.log_size))
    )
    return Description(row.height, row.time, row.log_size, row.state_root, chunks)


def read_chunk(file: LedgerFile, number: int, size: int) -> bytes:
    """Return a chunk of the history up to ``size`` entries, empty for one that it has not."""
    start = number * CHUNK_ENTRIES
    rows = file.transactions(start, max(0, min(CHUNK_ENTRIES, size - start)))
    runs: list[bytes] = []
    position = 0
    while position < len(rows):
        same = [one for one in rows[position:] if one.height == rows[position].height]
        runs += [varint(same[0].height), varint(same[0].time), varint(len(same))]
        for one in same:
            runs += [varint(len(one.envelope)), one.envelope]
        position += len(same)
    return zlib.compress(b"".join(runs), 1) if rows else b""


def open_chunk(content: bytes, number: int, description: Description) -> list[TransactionRow]:
    """Return a chunk's transactions; raises ``FormatError``, or ``VerificationError`` when they are not the log's."""
    start = number * CHUNK_ENTRIES
    expected = min(CHUNK_ENTRIES, description.size - start)
    rows = list(_runs(_inflated(content), start))
    if len(rows) != expected:
        raise VerificationError("the chunk has another number of transactions than the log")
    leaves = [merkle.leaf_hash(log_entry(_parsed(one), one.height, one.time, one.index)) for one in rows]
    if merkle.root_from_leaves(leaves) != description.chunks[number]:
        raise VerificationError("the chunk's transactions are not those of the log")
    return rows


class Restoration:
    """Builds a replica's file from a history, chunk by chunk in order, beside whatever is there until it is whole."""

    def __init__(self, path: Path, description: Description, *, genesis: bytes, org: str, key: PrivateKey) -> None:
        self._path = path
        self._fresh = path.with_name(path.name + ".restoring")
        remove_database(self._fresh)
        self._description = description
        self._next = 0
        self._waiting: list[TransactionRow] = []
        self._store = ReplicaStore(self._fresh, genesis=genesis, org=org, key=key, signatures=VerifiedElsewhere())

    def add(self, content: bytes) -> None:
        """Take the next chunk; raises ``FormatError`` or ``VerificationError``, having taken nothing."""
        rows = open_chunk(content, self._next, self._description)
        self._next += 1
        self._waiting += rows
        last = self._next == len(self._description.chunks)
        with self._store.file.writing():
            for block in self._whole_blocks(last=last):
                self._replay(block)

    @property
    def complete(self) -> bool:
        """Whether every chunk has been taken."""
        return self._next == len(self._description.chunks)

    def finish(self, comet_height: int) -> None:
        """Put the file in its place, at a CometBFT height; ``VerificationError`` when it is not as described."""
        head, wanted = self._store.ledger.head, self._description
        found = (head.height, head.time, head.log.size, self._store.app_hash)
        if found != (wanted.height, wanted.time, wanted.size, wanted.app_hash):
            raise VerificationError("the history's transactions lead to another state than the one described")
        if comet_height:
            self._store.settle(comet_height)
        else:
            self._store.begin_after_history()
        self._store.close()
        remove_database(self._path)
        self._fresh.replace(self._path)
        for suffix in ("-wal", "-shm"):
            Path(f"{self._fresh}{suffix}").unlink(missing_ok=True)

    def discard(self) -> None:
        """Let go of what was built."""
        self._store.close()
        remove_database(self._fresh)

    def _whole_blocks(self, *, last: bool) -> Iterator[list[TransactionRow]]:
        """Yield the waiting rows of each block that has ended; the newest may go on in the next chunk."""
        while self._waiting:
            height = self._waiting[0].height
            count = next((n for n, one in enumerate(self._waiting) if one.height != height), None)
            if count is None and not last:
                return
            block = self._waiting[:count]
            del self._waiting[: len(block)]
            yield block

    def _replay(self, rows: Sequence[TransactionRow]) -> None:
        block = self._store.compute([one.envelope for one in rows], rows[0].time)
        same = block.height == rows[0].height and block.time == rows[0].time
        if not same or len(block.accepted) != len(rows):
            raise VerificationError(f"block {rows[0].height} of the history does not follow from those before it")
        self._store.take_over(block)


class VerifiedElsewhere(SignatureCache):
    """Takes transactions' signatures as verified: for transactions under a log root that the validators have signed."""

    def verify(self, public: PublicKey, tx: Transaction) -> None:
        """Do nothing."""


def restore(
    path: Path, description: Description, chunks: Iterator[bytes], *, genesis: bytes, org: str, key: PrivateKey
) -> None:
    """Build a replica's file, for a CometBFT that begins after the history. Raises ``FormatError``, ``ChainError``."""
    restoration = Restoration(path, description, genesis=genesis, org=org, key=key)
    try:
        for content in chunks:
            if restoration.complete:
                raise FormatError("the history has more chunks than its description")
            restoration.add(content)
        if not restoration.complete:
            raise FormatError("the history has fewer chunks than its description")
        restoration.finish(0)
    except BaseException:
        restoration.discard()
        raise


def remove_database(path: Path) -> None:
    """Remove an SQLite file with what lies beside it."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _leaves(file: LedgerFile, number: int, size: int) -> list[bytes]:
    """Return the leaf hashes of a chunk from the log's tiles."""
    leaves: list[bytes] = []
    tiles = CHUNK_ENTRIES // TILE_WIDTH
    for tile in range(number * tiles, min((number + 1) * tiles, -(-size // TILE_WIDTH))):
        hashes = file.read(0, tile) or b""
        count = min(TILE_WIDTH, size - tile * TILE_WIDTH)
        if len(hashes) < count * HASH_BYTES:
            raise ChainCorrupt("the stored log lacks a tile")
        leaves += [hashes[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in range(count)]
    return leaves


def _inflated(content: bytes) -> bytes:
    if len(content) > MAX_CHUNK_BYTES:
        raise FormatError(f"a chunk is at most {MAX_CHUNK_BYTES} bytes")
    reader = zlib.decompressobj()
    try:
        inflated = reader.decompress(content, MAX_CHUNK_CONTENT)
    except zlib.error:
        raise FormatError("a chunk is compressed with zlib") from None
    if not reader.eof or reader.unused_data:
        raise FormatError("a chunk ends early, goes on behind its end, or is too large")
    return inflated


def _runs(content: bytes, index: int) -> Iterator[TransactionRow]:
    position = 0
    while position < len(content):
        height, position = read_varint(content, position)
        time, position = read_varint(content, position)
        count, position = read_varint(content, position)
        if not 0 < count <= CHUNK_ENTRIES:
            raise FormatError("a run in the chunk has no transactions, or too many")
        for _ in range(count):
            length, position = read_varint(content, position)
            envelope = content[position : position + length]
            if len(envelope) != length or length > MAX_ENVELOPE_BYTES:
                raise FormatError("a transaction in the chunk is cut or too large")
            position += length
            yield TransactionRow(index, b"", height, envelope, time)
            index += 1


def _parsed(row: TransactionRow) -> Transaction:
    try:
        return parse(row.envelope)
    except TransactionRejected:
        raise FormatError("the chunk holds what is no transaction") from None
