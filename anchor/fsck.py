"""Recomputing a log from its entries: every leaf, tile and root, and a name for each thing that differs.

Nothing is repaired and nothing is trusted: a tile is compared with the hashes of the entries below it, a root with the
tree over them, a published root with the tree at its size. Memory is one tile a level; the work is about two hashes
an entry. What the entries themselves have to agree with (records, ledger) is for the caller, who sees them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from anchor.errors import FormatError, VerificationError
from anchor.merkle import FrontierTree, root_from_leaves
from anchor.tiles import HASH_BYTES, TILE_WIDTH, TileStore


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not what it should be.

    ``kind`` is a stable name such as "tile-altered", ``place`` says where, ``expectation`` what should have been there.
    """

    kind: str
    place: str
    expectation: str

    def __str__(self) -> str:
        return f"{self.kind} {self.place}: {self.expectation}"


class LogCheck:
    """Takes a log's leaf hashes one by one in order, and names the tiles and roots that do not follow from them.

    ``roots``: size -> root for every head to be checked (the log's own and each published checkpoint).
    """

    def __init__(self, origin: str, tiles: TileStore, roots: Mapping[int, tuple[bytes, str]]) -> None:
        self._origin = origin
        self._tiles = tiles
        self._roots = roots
        self._tree = FrontierTree()
        self._open: list[list[bytes]] = []
        self._full: list[int] = []
        self._stopped = False

    def state(self) -> dict[str, Any]:
        """Return how far the check has come as JSON values, for ``restore``: some kilobytes whatever the log's size."""
        return {
            "size": self._tree.size,
            "frontier": [node.hex() for node in self._tree.frontier],
            "open": [[node.hex() for node in hashes] for hashes in self._open],
            "full": list(self._full),
            "stopped": self._stopped,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave; raises ``FormatError`` for anything else."""
        try:
            self._tree = FrontierTree(int(state["size"]), [bytes.fromhex(node) for node in state["frontier"]])
            self._open = [[bytes.fromhex(node) for node in hashes] for hashes in state["open"]]
            self._full = [int(number) for number in state["full"]]
            self._stopped = bool(state["stopped"])
        except (KeyError, TypeError, ValueError, VerificationError):
            raise FormatError("the state of an earlier check cannot be read") from None

    @property
    def size(self) -> int:
        """How many leaves have been taken."""
        return self._tree.size

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopped

    def stop(self) -> None:
        """Compare nothing further: a leaf is known from nowhere, so that nothing after it can be computed."""
        self._stopped = True

    def stored_leaf(self, position: int) -> bytes | None:
        """Return the leaf hash that the stored level 0 tile holds at ``position``, or None."""
        tile = self._tiles.read(0, position // TILE_WIDTH)
        start = position % TILE_WIDTH * HASH_BYTES
        leaf = b"" if tile is None else tile[start : start + HASH_BYTES]
        return leaf if len(leaf) == HASH_BYTES else None

    def take(self, leaf: bytes) -> Iterator[Difference]:
        """Take the next leaf hash and yield what it shows to differ: full tiles above it, a root at this size."""
        self._tree.append(leaf)
        yield from self._push(0, leaf)
        expected = self._roots.get(self._tree.size)
        if expected is not None and self._tree.root() != expected[0]:
            yield Difference(
                "root-differs",
                f"{self._origin} {expected[1]}",
                f"the root over its first {self._tree.size} entries is {self._tree.root().hex()}",
            )

    def finish(self) -> Iterator[Difference]:
        """Yield what differs in the last, partial tiles, and tiles beyond the end."""
        if self._stopped:
            return
        for level, hashes in enumerate(self._open):
            if hashes:
                yield from self._compare(level, self._full[level], hashes, whole=False)
            if self._tiles.read(level, self._full[level] + (1 if hashes else 0)) is not None:
                yield self._beyond(level)
        if not self._open and self._tiles.read(0, 0) is not None:
            yield self._beyond(0)

    def _push(self, level: int, node: bytes) -> Iterator[Difference]:
        if level == len(self._open):
            self._open.append([])
            self._full.append(0)
        hashes = self._open[level]
        hashes.append(node)
        if len(hashes) < TILE_WIDTH:
            return
        yield from self._compare(level, self._full[level], hashes, whole=True)
        self._full[level] += 1
        self._open[level] = []
        yield from self._push(level + 1, root_from_leaves(hashes))

    def _compare(self, level: int, index: int, hashes: list[bytes], *, whole: bool) -> Iterator[Difference]:
        place = f"{self._origin} tile {level}/{index}"
        stored = self._tiles.read(level, index)
        expected = b"".join(hashes)
        if stored is None:
            yield Difference("tile-missing", place, f"a tile of {len(hashes)} hashes")
        elif stored[: len(expected)] != expected:
            wrong = [
                number
                for number, node in enumerate(hashes)
                if stored[number * HASH_BYTES : (number + 1) * HASH_BYTES] != node
            ]
            numbers = ", ".join(str(number) for number in wrong[:8]) + (", …" if len(wrong) > 8 else "")
            yield Difference("tile-altered", place, f"hash {numbers} of it follows from the entries and differs")
        elif len(stored) != len(expected) and not whole:
            yield self._beyond(level)

    def _beyond(self, level: int) -> Difference:
        return Difference(
            "tail-cut",
            f"{self._origin} tiles of level {level}",
            f"no hashes beyond the {self._tree.size} entries: entries were removed from the end",
        )
