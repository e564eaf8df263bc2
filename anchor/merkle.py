"""RFC 6962 Merkle trees: roots, inclusion and consistency proofs, and the compact form of a growing tree.

``leaf = hash(00 || entry)``, ``node = hash(01 || left || right)``, the empty tree is ``hash("")`` (RFC 6962, 2.1).
Every function takes ``hash``, any bytes -> bytes function, SM3 unless told otherwise; all hashes of one tree have the
length that function gives. Proofs are lists of hashes from the leaf upwards. Verification follows RFC 9162, 2.1.3.2 and
2.1.4.2; nothing here is recursive, and a proof's length is checked before anything is hashed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anchor.errors import VerificationError
from anchor.gm.hashing import sm3

__all__ = [
    "MAX_TREE_SIZE",
    "FrontierTree",
    "Hash",
    "VerificationError",
    "consistency_proof",
    "empty_root",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root_from_leaves",
    "verify_consistency",
    "verify_inclusion",
]

Hash = Callable[[bytes], bytes]

MAX_TREE_SIZE = 2**63 - 1
"""Largest tree a proof is checked for: what a signed 64-bit column or a C2SP checkpoint can hold."""


def leaf_hash(entry: bytes, hash: Hash = sm3) -> bytes:
    """Return the leaf hash of a log entry."""
    return hash(b"\x00" + entry)


def node_hash(left: bytes, right: bytes, hash: Hash = sm3) -> bytes:
    """Return the hash of an inner node."""
    return hash(b"\x01" + left + right)


def empty_root(hash: Hash = sm3) -> bytes:
    """Return the root of the tree without entries."""
    return hash(b"")


def root_from_leaves(leaf_hashes: Sequence[bytes], hash: Hash = sm3) -> bytes:
    """Return the root over leaf hashes, O(n)."""
    tree = FrontierTree(hash=hash)
    for leaf in leaf_hashes:
        tree.append(leaf)
    return tree.root()


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int, hash: Hash = sm3) -> list[bytes]:
    """Return the audit path of leaf ``index`` in the tree over all of ``leaf_hashes`` (RFC 6962, 2.1.1).

    Raises ``VerificationError`` when there is no such leaf.
    """
    if not 0 <= index < len(leaf_hashes):
        raise VerificationError("there is no leaf of that index")
    proof: list[bytes] = []
    start, end = 0, len(leaf_hashes)
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(root_from_leaves(leaf_hashes[middle:end], hash))
            end = middle
        else:
            proof.append(root_from_leaves(leaf_hashes[start:middle], hash))
            start = middle
    proof.reverse()
    return proof


def consistency_proof(leaf_hashes: Sequence[bytes], size1: int, hash: Hash = sm3) -> list[bytes]:
    """Return the proof that the tree over the first ``size1`` leaves is a prefix of the whole one (RFC 6962, 2.1.2).

    Empty for ``size1`` 0 and for the whole size. Raises ``VerificationError`` when ``size1`` is larger than the tree.
    """
    if not 0 <= size1 <= len(leaf_hashes):
        raise VerificationError("the older tree is larger than the newer one")
    proof: list[bytes] = []
    start, end, whole = 0, len(leaf_hashes), True
    while size1 not in (0, end):
        middle = start + _split(end - start)
        if size1 <= middle:
            proof.append(root_from_leaves(leaf_hashes[middle:end], hash))
            end = middle
        else:
            proof.append(root_from_leaves(leaf_hashes[start:middle], hash))
            start, whole = middle, False
    if size1 and not whole:
        proof.append(root_from_leaves(leaf_hashes[start:end], hash))
    proof.reverse()
    return proof


def verify_inclusion(
    *, index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes], root: bytes, hash: Hash = sm3
) -> None:
    """Return when ``proof`` shows that ``leaf_hash`` is leaf ``index`` of the tree of ``size`` leaves with ``root``.

    Raises ``VerificationError`` otherwise, also for a proof of another length than ``index`` and ``size`` call for.
    """
    _check_size(size)
    if not _is_integer(index) or not 0 <= index < size:
        raise VerificationError("the leaf's index is outside the tree")
    _check_hashes(hash, [leaf_hash, root, *proof])
    inner = (
        index ^ (size - 1)
    ).bit_length()  # levels below the point where the paths of this leaf and the last one part
    if len(proof) != inner + (index >> inner).bit_count():
        raise VerificationError("the inclusion proof has the wrong length")
    node = leaf_hash
    for level, sibling in enumerate(proof[:inner]):
        left, right = (sibling, node) if index >> level & 1 else (node, sibling)
        node = node_hash(left, right, hash)
    for sibling in proof[inner:]:
        node = node_hash(sibling, node, hash)
    if node != root:
        raise VerificationError("the inclusion proof does not lead to the root")


def verify_consistency(
    *, size1: int, size2: int, root1: bytes, root2: bytes, proof: Sequence[bytes], hash: Hash = sm3
) -> None:
    """Return when ``proof`` shows that the tree (size1, root1) is a prefix of the tree (size2, root2).

    Raises ``VerificationError`` otherwise. ``size1`` 0 is refused too: every log extends the empty one, so a proof
    from it shows nothing, and a caller without an older tree has nothing to verify.
    """
    _check_size(size1)
    _check_size(size2)
    if size1 > size2:
        raise VerificationError("the older tree is larger than the newer one")
    if size1 == 0:
        raise VerificationError("a proof from the empty tree shows nothing")
    _check_hashes(hash, [root1, root2, *proof])
    if size1 == size2:
        if len(proof):
            raise VerificationError("the consistency proof has the wrong length")
        if root1 != root2:
            raise VerificationError("two trees of one size have different roots")
        return
    older, newer = _replay_consistency(size1, size2, root1, proof, hash)
    if older != root1:
        raise VerificationError("the consistency proof does not lead to the older root")
    if newer != root2:
        raise VerificationError("the consistency proof does not lead to the newer root")


def _replay_consistency(
    size1: int, size2: int, root1: bytes, proof: Sequence[bytes], hash: Hash
) -> tuple[bytes, bytes]:
    """Return the two roots that a consistency proof for 0 < size1 < size2 leads to.

    The proof is an inclusion path of the largest complete subtree that ends the older tree; when that subtree is the
    whole older tree (size1 a power of two), its hash is ``root1`` and is left out of the proof.
    """
    shift = (size1 & -size1).bit_length() - 1  # height of that subtree
    position, last = (size1 - 1) >> shift, (size2 - 1) >> shift
    inner = (position ^ last).bit_length()
    seeded = size1 == 1 << shift
    if len(proof) != inner + (position >> inner).bit_count() + (0 if seeded else 1):
        raise VerificationError("the consistency proof has the wrong length")
    path = proof if seeded else proof[1:]
    older = newer = root1 if seeded else proof[0]
    for level, sibling in enumerate(path[:inner]):
        if position >> level & 1:
            older = node_hash(sibling, older, hash)
            newer = node_hash(sibling, newer, hash)
        else:
            newer = node_hash(newer, sibling, hash)
    for sibling in path[inner:]:
        older = node_hash(sibling, older, hash)
        newer = node_hash(sibling, newer, hash)
    return older, newer


class FrontierTree:
    """A growing tree kept as its complete subtrees only: at most 63 hashes for any size.

    ``size`` and ``frontier`` (largest subtree first, one per set bit of ``size``) are the whole state; pass them back
    to continue.
    """

    def __init__(self, size: int = 0, frontier: Sequence[bytes] = (), hash: Hash = sm3) -> None:
        """Start empty, or continue from a kept state; raises ``VerificationError`` when the two do not fit together."""
        _check_size(size)
        if len(frontier) != size.bit_count():
            raise VerificationError("the frontier does not belong to a tree of that size")
        self._size = size
        self._frontier = list(frontier)
        self._hash = hash

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._size

    @property
    def frontier(self) -> tuple[bytes, ...]:
        """Hashes of the complete subtrees, largest first."""
        return tuple(self._frontier)

    def append(self, leaf_hash: bytes) -> int:
        """Add a leaf; returns its index. One hash on average; ``VerificationError`` when the tree is full."""
        index = self._size
        if index >= MAX_TREE_SIZE:
            raise VerificationError("a tree holds at most 2^63 - 1 entries")
        node = leaf_hash
        merges = index
        while merges & 1:
            node = self._hash(b"\x01" + self._frontier.pop() + node)
            merges >>= 1
        self._frontier.append(node)
        self._size = index + 1
        return index

    def root(self) -> bytes:
        """Return the root over all leaves so far."""
        if not self._frontier:
            return empty_root(self._hash)
        node = self._frontier[-1]
        for left in reversed(self._frontier[:-1]):
            node = node_hash(left, node, self._hash)
        return node

    def copy(self) -> FrontierTree:
        """Return an independent tree in the same state."""
        return FrontierTree(self._size, self._frontier, self._hash)


def _split(size: int) -> int:
    """Return the largest power of two smaller than ``size`` (> 1): where RFC 6962 divides a tree."""
    return 1 << ((size - 1).bit_length() - 1)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_size(size: int) -> None:
    if not _is_integer(size) or not 0 <= size <= MAX_TREE_SIZE:
        raise VerificationError("a tree size is a whole number from 0 to 2^63 - 1")


def _check_hashes(hash: Hash, hashes: Sequence[bytes]) -> None:
    length = len(hash(b""))
    for value in hashes:
        if not isinstance(value, bytes) or len(value) != length:
            raise VerificationError(f"a hash in the proof is not {length} bytes")
