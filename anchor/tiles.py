"""A Merkle log stored as tiles of 256 hashes, after C2SP tlog-tiles (with SM3, so "tlog-tiles-sm3").

Tile (level, index) holds the hashes of the tree's nodes at height ``8 * level``, numbers ``256 * index`` and up:
level 0 the leaf hashes, level 1 the roots of full level 0 tiles, and so on. Heights in between are recomputed from
the tile. Only the last tile of a level may hold fewer than 256 hashes; it is written again, longer, as the log grows.

An append touches the last tile of level 0 and, once in 256 entries, one of the level above: its cost does not grow
with the log. A root or a proof reads at most two tiles per level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from anchor.errors import FormatError, VerificationError
from anchor.gm.hashing import sm3
from anchor.merkle import MAX_TREE_SIZE, Hash, empty_root, node_hash

__all__ = ["HASH_BYTES", "TILE_WIDTH", "MemoryTileStore", "TileLog", "TileStore"]

HASH_BYTES = 32
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
TILE_BYTES = TILE_WIDTH * HASH_BYTES


class TileStore(Protocol):
    """Where the tiles are kept. Whoever calls ``TileLog.append`` makes its writes and the new size durable together."""

    def read(self, level: int, index: int) -> bytes | None:
        """Return the tile's 1 to 256 concatenated 32-byte hashes, or None when there is no such tile."""

    def write(self, level: int, index: int, data: bytes) -> None:
        """Keep the tile, in place of a shorter one of the same level and index."""


class MemoryTileStore:
    """Tiles in a dict, for logs that live as long as the process."""

    def __init__(self) -> None:
        self._tiles: dict[tuple[int, int], bytes] = {}

    def read(self, level: int, index: int) -> bytes | None:
        """Return a tile, or None."""
        return self._tiles.get((level, index))

    def write(self, level: int, index: int, data: bytes) -> None:
        """Keep a tile."""
        self._tiles[level, index] = data


class TileLog:
    """An append-only log of leaf hashes over a ``TileStore``.

    The size comes from the caller, who stores it (or a signed checkpoint of it) beside the tiles; hashes beyond it,
    left by a crash, are ignored and overwritten. One writer at a time. After a failed or rolled back append the
    object may be used on, at its old size, provided the store is back at that state. Memory: one tile per level.

    ``FormatError`` is raised wherever a tile that must exist is missing or short.
    """

    def __init__(self, store: TileStore, size: int = 0, hash: Hash = sm3) -> None:
        """Open the log of ``size`` entries kept in ``store``; raises ``VerificationError`` for an impossible size."""
        if not 0 <= size <= MAX_TREE_SIZE:
            raise VerificationError("a tree size is a whole number from 0 to 2^63 - 1")
        self._store = store
        self._size = size
        self._hash = hash
        self._edges: dict[int, bytes] = {}

    @property
    def size(self) -> int:
        """Number of entries."""
        return self._size

    def append(self, leaf_hashes: Sequence[bytes]) -> int:
        """Add leaf hashes in order and return the new size."""
        if set(map(len, leaf_hashes)) - {HASH_BYTES}:
            raise VerificationError(f"a leaf hash is {HASH_BYTES} bytes")
        size = self._size + len(leaf_hashes)
        if size > MAX_TREE_SIZE:
            raise VerificationError("a tree holds at most 2^63 - 1 entries")
        edges = dict(self._edges)
        fresh, level, before = b"".join(leaf_hashes), 0, self._size
        while fresh:
            index = before >> TILE_HEIGHT
            hashes = self._edge(level, before) + fresh
            whole = len(hashes) - len(hashes) % TILE_BYTES
            roots = []
            for start in range(0, whole, TILE_BYTES):
                tile = hashes[start : start + TILE_BYTES]
                self._store.write(level, index + start // TILE_BYTES, tile)
                roots.append(self._fold(tile))
            edges[level] = hashes[whole:]
            if whole < len(hashes):
                self._store.write(level, index + whole // TILE_BYTES, edges[level])
            fresh, level, before = b"".join(roots), level + 1, index
        self._edges, self._size = edges, size
        return size

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first ``size`` entries (all of them when None)."""
        size = self._known_size(size)
        if size == 0:
            return empty_root(self._hash)
        return _Reader(self, size).root(0, size)

    def leaf(self, index: int) -> bytes:
        """Return one leaf hash."""
        self._check_index(index, self._size)
        return _Reader(self, self._size).node(0, index)

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Return the audit path of entry ``index`` in the tree over the first ``size`` entries (RFC 6962, 2.1.1)."""
        return self.inclusion_proofs([index], size)[0]

    def inclusion_proofs(self, indexes: Sequence[int], size: int | None = None) -> list[list[bytes]]:
        """Return the audit paths of several entries in one tree; what they share is read and computed once.

        Memory: one tile and some subtrees for each entry, until it returns.
        """
        size = self._known_size(size)
        for index in indexes:
            self._check_index(index, size)
        reader = _Reader(self, size)
        return [self._path(reader, index, size) for index in indexes]

    @staticmethod
    def _path(reader: _Reader, index: int, size: int) -> list[bytes]:
        proof: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                proof.append(reader.root(middle, end))
                end = middle
            else:
                proof.append(reader.root(start, middle))
                start = middle
        proof.reverse()
        return proof

    def consistency_proof(self, size1: int, size2: int | None = None) -> list[bytes]:
        """Return the proof that the tree of ``size1`` is a prefix of that of ``size2`` (RFC 6962, 2.1.2).

        Empty for ``size1`` 0 and for two equal sizes.
        """
        size2 = self._known_size(size2)
        if not 0 <= size1 <= size2:
            raise VerificationError("the older tree is larger than the newer one")
        reader = _Reader(self, size2)
        proof: list[bytes] = []
        start, end = 0, size2
        while size1 not in (0, end):
            middle = start + _split(end - start)
            if size1 <= middle:
                proof.append(reader.root(middle, end))
                end = middle
            else:
                proof.append(reader.root(start, middle))
                start = middle
        if size1 and start:
            proof.append(reader.root(start, end))
        proof.reverse()
        return proof

    def _known_size(self, size: int | None) -> int:
        if size is None:
            return self._size
        if not 0 <= size <= self._size:
            raise VerificationError("the log has no tree of that size")
        return size

    @staticmethod
    def _check_index(index: int, size: int) -> None:
        if not 0 <= index < size:
            raise VerificationError("there is no leaf of that index")

    def _edge(self, level: int, count: int) -> bytes:
        """Return the hashes of a level's last, partial tile when the level has ``count`` nodes."""
        edge = self._edges.get(level)
        if edge is None:
            edge = self._edges[level] = self._tile(level, count >> TILE_HEIGHT, count % TILE_WIDTH)
        return edge

    def _tile(self, level: int, index: int, count: int) -> bytes:
        """Return the first ``count`` hashes of a tile."""
        if count == 0:
            return b""
        tile = self._store.read(level, index)
        if tile is None or len(tile) < count * HASH_BYTES:
            raise FormatError("a tile of the log is missing or too short")
        return tile[: count * HASH_BYTES]

    def _fold(self, hashes: bytes) -> bytes:
        """Return the root over 2^k concatenated hashes; a pair to be hashed is one slice, which makes this fast."""
        hash = self._hash
        while len(hashes) > HASH_BYTES:
            hashes = b"".join([hash(b"\x01" + hashes[at : at + 64]) for at in range(0, len(hashes), 64)])
        return hashes


class _Reader:
    """Reads the nodes needed for roots and proofs of the tree of ``size``, each tile and each root once."""

    def __init__(self, log: TileLog, size: int) -> None:
        self._log = log
        self._size = size
        self._tiles: dict[tuple[int, int], bytes] = {}
        self._roots: dict[tuple[int, int], bytes] = {}

    def root(self, start: int, end: int) -> bytes:
        """Return the hash of the (sub)tree over entries [start, end), ``start`` being where RFC 6962 lets one start."""
        found = self._roots.get((start, end))
        if found is None:
            found = self._roots[start, end] = self._root(start, end)
        return found

    def _root(self, start: int, end: int) -> bytes:
        parts: list[bytes] = []
        while start < end:
            height = (end - start).bit_length() - 1
            parts.append(self.node(height, start >> height))
            start += 1 << height
        root = parts.pop()
        while parts:
            root = node_hash(parts.pop(), root, self._log._hash)
        return root

    def node(self, height: int, number: int) -> bytes:
        """Return the root of the complete subtree of 2^height entries that begins at entry number * 2^height."""
        level, inside = divmod(height, TILE_HEIGHT)
        first = number << inside
        index, offset = first >> TILE_HEIGHT, first % TILE_WIDTH
        tile = self._tiles.get((level, index))
        if tile is None:
            count = min(TILE_WIDTH, (self._size >> level * TILE_HEIGHT) - index * TILE_WIDTH)
            tile = self._tiles[level, index] = self._log._tile(level, index, count)
        return self._log._fold(tile[offset * HASH_BYTES : (offset + (1 << inside)) * HASH_BYTES])


def _split(size: int) -> int:
    """Return the largest power of two smaller than ``size`` (> 1): where RFC 6962 divides a tree."""
    return 1 << ((size - 1).bit_length() - 1)
