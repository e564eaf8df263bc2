"""The tree that commits to the ledger's state: 65,536 buckets under one root, with proofs of presence and absence.

A state value lives at a text key. With ``kh = SM3(key)`` and ``vh = SM3(canonical value)``, the pair ``kh ‖ vh`` (64
bytes) belongs to the bucket numbered by the first 16 bits of ``kh``. A bucket's pairs are sorted by ``kh``::

    bucket = SM3(00 ‖ pair ‖ pair ‖ …)        an empty bucket: SM3(00)
    node   = SM3(01 ‖ left ‖ right)           16 levels; the root is the state root

A proof is the whole bucket and the 16 sibling hashes of its path: it shows the value that is there, or that none is.
An empty state has a root like any other, and the same state has the same root whatever order it was built in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from anchor.errors import FormatError, VerificationError
from anchor.gm import sm3
from anchor.transaction import encode

LEVELS = 16
BUCKETS = 1 << LEVELS
HASH_BYTES = 32
PAIR_BYTES = 2 * HASH_BYTES
MAX_PROOF_BYTES = 1024 * 1024
"""Bytes: a bucket of some 8,000 pairs, which random keys reach at 500 million values."""

_BUCKET = b"\x00"
_NODE = b"\x01"


def _empty_hashes() -> list[bytes]:
    """Return the hash of an empty subtree by its height: 0 for a bucket, 16 for the root."""
    hashes = [sm3(_BUCKET)]
    for _ in range(LEVELS):
        hashes.append(sm3(_NODE + hashes[-1] + hashes[-1]))
    return hashes


_EMPTY = _empty_hashes()
EMPTY_ROOT = _EMPTY[LEVELS]


class BucketStore(Protocol):
    """Where the buckets' pairs are kept."""

    def read_bucket(self, index: int) -> bytes:
        """Return a bucket's sorted pairs, 64 bytes each; empty for an empty bucket."""


class MemoryBuckets:
    """Buckets in memory."""

    def __init__(self) -> None:
        self._pairs: dict[int, bytes] = {}

    def read_bucket(self, index: int) -> bytes:
        """Return a bucket's sorted pairs."""
        return self._pairs.get(index, b"")

    def write(self, buckets: Mapping[int, bytes]) -> None:
        """Replace buckets."""
        self._pairs.update(buckets)

    def items(self) -> list[tuple[int, bytes]]:
        """Return the numbers and pairs of all buckets that are not empty, in order."""
        return sorted(self._pairs.items())


@dataclass(frozen=True, slots=True)
class TreeUpdate:
    """What a set of changed values does to the tree, computed and not yet taken over.

    ``buckets``: number -> new pairs; ``nodes``: heap number (root 1, bucket b at 65536 + b) -> new hash.
    """

    root: bytes
    buckets: dict[int, bytes] = field(default_factory=dict)
    nodes: dict[int, bytes] = field(default_factory=dict)


class StateTree:
    """The hashes above the buckets, in memory (only those that are not of an empty subtree)."""

    def __init__(self, store: BucketStore) -> None:
        self._store = store
        self._nodes: dict[int, bytes] = {}

    @property
    def root(self) -> bytes:
        """The state root, 32 bytes."""
        return self._nodes.get(1, EMPTY_ROOT)

    def load(self, bucket_pairs: Iterable[tuple[int, bytes]]) -> None:
        """Take over buckets that were written elsewhere: their numbers and pairs, in any order."""
        self.commit(self._rehash({index: _bucket_hash(pairs) for index, pairs in bucket_pairs}, {}))

    def update(self, changes: Mapping[str, bytes]) -> TreeUpdate:
        """Compute what setting state keys to canonical value bytes does, without doing it."""
        by_bucket: dict[int, dict[bytes, bytes]] = {}
        for key, value in changes.items():
            key_hash = sm3(key.encode("utf-8"))
            by_bucket.setdefault(int.from_bytes(key_hash[:2], "big"), {})[key_hash] = sm3(value)
        buckets: dict[int, bytes] = {}
        hashes: dict[int, bytes] = {}
        for index, pairs in by_bucket.items():
            buckets[index] = _merged(self._store.read_bucket(index), pairs)
            hashes[index] = _bucket_hash(buckets[index])
        return self._rehash(hashes, buckets)

    def commit(self, update: TreeUpdate) -> None:
        """Take over a computed update. The store must be given ``update.buckets`` by the caller."""
        self._nodes.update(update.nodes)

    def prove(self, key: str) -> bytes:
        """Return the proof of what is at ``key``: canonical JSON of the bucket's pairs and the path to the root."""
        index = bucket_of(key)
        pairs = self._store.read_bucket(index)
        path = []
        position = BUCKETS + index
        for height in range(LEVELS):
            path.append(self._nodes.get(position ^ 1, _EMPTY[height]))
            position >>= 1
        split = [pairs[start : start + PAIR_BYTES] for start in range(0, len(pairs), PAIR_BYTES)]
        return _render_proof(split, path)

    def _rehash(self, hashes: Mapping[int, bytes], buckets: dict[int, bytes]) -> TreeUpdate:
        level = {BUCKETS + index: digest for index, digest in hashes.items()}
        nodes = dict(level)
        for height in range(LEVELS):
            empty = _EMPTY[height]
            above: dict[int, bytes] = {}
            for position in level:
                parent = position >> 1
                if parent not in above:
                    left, right = parent << 1, (parent << 1) | 1
                    left_hash = level.get(left) or self._nodes.get(left, empty)
                    right_hash = level.get(right) or self._nodes.get(right, empty)
                    above[parent] = sm3(_NODE + left_hash + right_hash)
            nodes.update(above)
            level = above
        return TreeUpdate(root=nodes.get(1, self.root), buckets=buckets, nodes=nodes)


def bucket_of(key: str) -> int:
    """Return the number of the bucket that holds a state key."""
    return int.from_bytes(sm3(key.encode("utf-8"))[:2], "big")


def verify_state_proof(*, key: str, value: Mapping[str, Any] | None, root: bytes, proof: bytes) -> None:
    """Check that ``root`` commits to ``value`` at ``key`` (None: to nothing there).

    Raises ``FormatError`` for bytes that are not a proof and ``VerificationError`` for one that does not hold.
    """
    pairs, path = _read_proof(proof)
    try:
        key_hash = sm3(key.encode("utf-8"))
        expected = None if value is None else sm3(encode(value))
    except (TypeError, ValueError):  # a fraction, an integer beyond 64 bits, half a surrogate pair
        raise VerificationError("the state proof is for another value: the state holds none of this kind") from None
    index = int.from_bytes(key_hash[:2], "big")
    found: bytes | None = None
    last = b""
    for pair in pairs:
        if pair[:HASH_BYTES] <= last or int.from_bytes(pair[:2], "big") != index:
            raise VerificationError("the state proof's bucket is not sorted or holds a stranger")
        last = pair[:HASH_BYTES]
        if last == key_hash:
            found = pair[HASH_BYTES:]
    if found != expected:
        raise VerificationError("the state proof is for another value")
    digest, position = _bucket_hash(b"".join(pairs)), index
    for sibling in path:
        digest = sm3(_NODE + (sibling + digest if position & 1 else digest + sibling))
        position >>= 1
    if digest != root:
        raise VerificationError("the state proof does not lead to the state root")


def _read_proof(proof: bytes) -> tuple[list[bytes], list[bytes]]:
    if len(proof) > MAX_PROOF_BYTES:
        raise FormatError(f"a state proof is at most {MAX_PROOF_BYTES} bytes")
    try:
        value = orjson.loads(proof)
        if type(value) is not dict or value.keys() != {"v", "pairs", "path"}:
            raise FormatError("a state proof has exactly the fields v, pairs and path")
        pairs = [bytes.fromhex(pair) for pair in value["pairs"]]
        path = [bytes.fromhex(node) for node in value["path"]]
        if _render_proof(pairs, path) != proof:
            raise FormatError("a state proof is canonical JSON in lower-case hexadecimal")
    except (orjson.JSONDecodeError, TypeError, ValueError):
        raise FormatError("a state proof is JSON with hexadecimal pairs and path") from None
    if any(len(pair) != PAIR_BYTES for pair in pairs) or [len(node) for node in path] != [HASH_BYTES] * LEVELS:
        raise FormatError(f"a state proof has pairs of {PAIR_BYTES} bytes and {LEVELS} path hashes")
    return pairs, path


def _render_proof(pairs: Iterable[bytes], path: Iterable[bytes]) -> bytes:
    return encode({"v": 1, "pairs": [pair.hex() for pair in pairs], "path": [node.hex() for node in path]})


def _bucket_hash(pairs: bytes) -> bytes:
    return sm3(_BUCKET + pairs)


def _merged(pairs: bytes, changes: Mapping[bytes, bytes]) -> bytes:
    """Return a bucket's pairs with some values set, sorted by key hash."""
    merged = {
        pairs[start : start + HASH_BYTES]: pairs[start + HASH_BYTES : start + PAIR_BYTES]
        for start in range(0, len(pairs), PAIR_BYTES)
    }
    merged.update(changes)
    return b"".join(key_hash + merged[key_hash] for key_hash in sorted(merged))
