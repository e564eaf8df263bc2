"""The log over tiles against the naive tree, over every size up to a few tiles and some large ones."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from anchor.errors import FormatError, VerificationError
from anchor.gm import sm3
from anchor.merkle import (
    FrontierTree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_from_leaves,
    verify_consistency,
    verify_inclusion,
)
from anchor.tiles import HASH_BYTES, TILE_WIDTH, MemoryTileStore, TileLog

LEAVES = [leaf_hash(number.to_bytes(4, "big")) for number in range(600)]


class CountingStore(MemoryTileStore):
    """Counts what a log asks of its store, in tiles and bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def read(self, level: int, index: int) -> bytes | None:
        self.calls["read"] += 1
        return super().read(level, index)

    def write(self, level: int, index: int, data: bytes) -> None:
        self.calls["write"] += 1
        self.calls["bytes"] += len(data)
        assert 0 < len(data) <= TILE_WIDTH * HASH_BYTES
        super().write(level, index, data)


def test_every_size_has_the_root_of_the_naive_tree() -> None:
    log, tree = TileLog(MemoryTileStore()), FrontierTree()
    assert log.root() == tree.root()
    for size, leaf in enumerate(LEAVES, start=1):
        assert log.append([leaf]) == size
        tree.append(leaf)
        assert log.root() == tree.root()
    for size in range(len(LEAVES) + 1):
        assert log.root(size) == root_from_leaves(LEAVES[:size])


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 511, 512, 513, 600])
def test_proofs_are_those_of_the_naive_tree(size: int) -> None:
    log = TileLog(MemoryTileStore())
    log.append(LEAVES)
    chosen = random.Random(size)
    indexes = {0, size - 1, *(chosen.randrange(size) for _ in range(12))}
    for index in indexes:
        assert log.inclusion_proof(index, size) == inclusion_proof(LEAVES[:size], index)
        assert log.leaf(index) == LEAVES[index]
    for older in {index + 1 for index in indexes}:
        assert log.consistency_proof(older, size) == consistency_proof(LEAVES[:size], older)
    assert log.consistency_proof(0, size) == []


@pytest.mark.parametrize("seed", range(4))
def test_batches_of_any_size_give_one_log(seed: int) -> None:
    chosen, store, size = random.Random(seed), MemoryTileStore(), 0
    leaves = [leaf_hash(number.to_bytes(4, "big")) for number in range(chosen.randrange(1000, 3000))]
    while size < len(leaves):
        log = TileLog(store, size)  # opened again each time: all there is lies in the store
        size = log.append(leaves[size : size + chosen.choice([0, 1, 2, 255, 256, 257, 700])])
        assert log.root() == root_from_leaves(leaves[:size])


def test_a_large_log_proves_any_entry_and_any_growth() -> None:
    size = TILE_WIDTH * TILE_WIDTH + 3 * TILE_WIDTH + 77  # three levels of tiles
    leaves = [sm3(number.to_bytes(4, "big")) for number in range(size)]
    log = TileLog(MemoryTileStore())
    log.append(leaves)
    chosen = random.Random(6962)
    for _ in range(25):
        newer = chosen.randrange(2, size + 1)
        older, index = chosen.randrange(1, newer), chosen.randrange(newer)
        root = log.root(newer)
        verify_inclusion(
            index=index, size=newer, leaf_hash=leaves[index], proof=log.inclusion_proof(index, newer), root=root
        )
        proof = log.consistency_proof(older, newer)
        verify_consistency(size1=older, size2=newer, root1=log.root(older), root2=root, proof=proof)
    assert log.root() == root_from_leaves(leaves)


def test_reads_stay_few_as_the_log_grows() -> None:
    store = CountingStore()
    log = TileLog(store)
    log.append([sm3(number.to_bytes(4, "big")) for number in range(70_000)])
    for ask in (
        log.root,
        lambda: log.inclusion_proof(12_345),
        lambda: log.consistency_proof(1_000),
        lambda: log.leaf(7),
    ):
        store.calls.clear()
        ask()
        assert store.calls["read"] <= 2 * 3  # two tiles on each of three levels


def test_an_append_costs_the_same_at_any_size() -> None:
    """Written bytes per batch do not grow with the log."""
    store = CountingStore()
    log = TileLog(store)
    costs = []
    for start in range(0, 66_000, 600):
        store.calls.clear()
        log.append([sm3((start + number).to_bytes(4, "big")) for number in range(600)])
        costs.append(store.calls["bytes"])
    assert store.calls["read"] == 0
    assert max(costs) <= (600 + 2 * TILE_WIDTH + 3 * TILE_WIDTH) * HASH_BYTES
    assert max(costs[-10:]) <= max(costs[:20]) + 2 * TILE_WIDTH * HASH_BYTES


def test_hashes_left_by_a_crash_are_ignored_and_overwritten() -> None:
    store = MemoryTileStore()
    TileLog(store).append(LEAVES[:300])
    lost = TileLog(store, 300)
    lost.append([sm3(b"never committed")] * 400)
    log = TileLog(store, 300)
    assert log.root() == root_from_leaves(LEAVES[:300])
    assert log.inclusion_proof(299) == inclusion_proof(LEAVES[:300], 299)
    log.append(LEAVES[300:600])
    assert log.root() == root_from_leaves(LEAVES)
    assert log.consistency_proof(300) == consistency_proof(LEAVES, 300)


class FailingStore(MemoryTileStore):
    """Fails on the n-th write."""

    def __init__(self) -> None:
        super().__init__()
        self.left = -1

    def write(self, level: int, index: int, data: bytes) -> None:
        if self.left == 0:
            raise OSError("disk full")
        self.left -= 1
        super().write(level, index, data)


@pytest.mark.parametrize("good_writes", range(4))
def test_a_failed_append_leaves_the_log_as_it_was(good_writes: int) -> None:
    store = FailingStore()
    log = TileLog(store)
    log.append(LEAVES[:200])
    store.left = good_writes
    with pytest.raises(OSError, match="disk full"):
        log.append(LEAVES[200:])
    store.left = -1
    assert log.size == 200
    assert log.root() == root_from_leaves(LEAVES[:200])
    log.append(LEAVES[200:])
    assert log.root() == root_from_leaves(LEAVES)


@pytest.mark.parametrize(
    ("tile", "replacement"),
    [
        pytest.param((0, 0), None, id="a full tile is gone"),
        pytest.param((0, 2), None, id="the last tile is gone"),
        pytest.param((1, 0), None, id="an upper tile is gone"),
        pytest.param((0, 2), b"x" * 31, id="the last tile is short"),
        pytest.param((0, 0), b"", id="a full tile is empty"),
    ],
)
def test_a_damaged_store_is_reported(tile: tuple[int, int], replacement: bytes | None) -> None:
    store = MemoryTileStore()
    TileLog(store).append(LEAVES)
    if replacement is None:
        del store._tiles[tile]
    else:
        store._tiles[tile] = replacement
    log = TileLog(store, len(LEAVES))
    with pytest.raises(FormatError):
        log.consistency_proof(3)  # reads every tile there is


def test_a_changed_hash_changes_the_root() -> None:
    store = MemoryTileStore()
    TileLog(store).append(LEAVES)
    store._tiles[0, 2] = sm3(b"other") + store._tiles[0, 2][HASH_BYTES:]
    assert TileLog(store, len(LEAVES)).root() != root_from_leaves(LEAVES)


def test_what_the_log_does_not_hold_is_refused() -> None:
    log = TileLog(MemoryTileStore())
    log.append(LEAVES[:10])
    for wrong in (
        lambda: log.root(11),
        lambda: log.root(-1),
        lambda: log.leaf(10),
        lambda: log.leaf(-1),
        lambda: log.inclusion_proof(5, 5),
        lambda: log.inclusion_proof(5, 11),
        lambda: log.consistency_proof(6, 5),
        lambda: log.consistency_proof(-1),
        lambda: log.append([b"short"]),
        lambda: TileLog(MemoryTileStore(), -1),
        lambda: TileLog(MemoryTileStore(), 2**63),
        lambda: TileLog(MemoryTileStore(), 2**63 - 1).append(LEAVES[:1]),
    ):
        with pytest.raises(VerificationError):
            wrong()
    assert log.size == 10
