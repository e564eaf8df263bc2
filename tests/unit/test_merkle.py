"""RFC 6962 trees: the published vectors (SHA-256), the definition itself, and sizes no log reaches."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from pathlib import Path

import pytest

from anchor.gm import sm3
from anchor.merkle import (
    MAX_TREE_SIZE,
    FrontierTree,
    VerificationError,
    consistency_proof,
    empty_root,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_from_leaves,
    verify_consistency,
    verify_inclusion,
)
from tests.published_vectors import read_json, vector_files

LEAVES = [leaf_hash(bytes([number])) for number in range(40)]
ROOTS = [root_from_leaves(LEAVES[:size]) for size in range(41)]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.mark.parametrize("path", vector_files("merkle-inclusion-*.json"))
def test_published_inclusion_vector(path: Path) -> None:
    vector = read_json(path)
    arguments = {
        "index": vector["leafIdx"],
        "size": vector["treeSize"],
        "leaf_hash": b64decode(vector["leafHash"]),
        "proof": [b64decode(value) for value in vector["proof"] or []],
        "root": b64decode(vector["root"]),
    }
    if vector["wantErr"]:
        with pytest.raises(VerificationError):
            verify_inclusion(**arguments, hash=sha256)
    else:
        verify_inclusion(**arguments, hash=sha256)


@pytest.mark.parametrize("path", vector_files("merkle-consistency-*.json"))
def test_published_consistency_vector(path: Path) -> None:
    vector = read_json(path)
    arguments = {
        "size1": vector["size1"],
        "size2": vector["size2"],
        "root1": b64decode(vector["root1"]),
        "root2": b64decode(vector["root2"]),
        "proof": [b64decode(value) for value in vector["proof"] or []],
    }
    if vector["wantErr"]:
        with pytest.raises(VerificationError):
            verify_consistency(**arguments, hash=sha256)
    else:
        verify_consistency(**arguments, hash=sha256)


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, word for word."""
    if not leaves:
        return sm3(b"")
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sm3(b"\x01" + defined_root(leaves[:split]) + defined_root(leaves[split:]))


def defined_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962, 2.1.1, word for word."""
    if len(leaves) <= 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*defined_path(index, leaves[:split]), defined_root(leaves[split:])]
    return [*defined_path(index - split, leaves[split:]), defined_root(leaves[:split])]


def defined_proof(size: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962, 2.1.2, word for word."""
    if size == len(leaves):
        return [] if whole else [defined_root(leaves)]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if size <= split:
        return [*defined_proof(size, leaves[:split], whole), defined_root(leaves[split:])]
    return [*defined_proof(size - split, leaves[split:], False), defined_root(leaves[:split])]


@pytest.mark.parametrize("size", range(41))
def test_roots_and_proofs_are_those_of_the_definition(size: int) -> None:
    leaves = LEAVES[:size]
    assert ROOTS[size] == defined_root(leaves)
    for index in range(size):
        proof = inclusion_proof(leaves, index)
        assert proof == defined_path(index, leaves)
        verify_inclusion(index=index, size=size, leaf_hash=leaves[index], proof=proof, root=ROOTS[size])
    for older in range(1, size + 1):
        proof = consistency_proof(leaves, older)
        assert proof == defined_proof(older, leaves)
        verify_consistency(size1=older, size2=size, root1=ROOTS[older], root2=ROOTS[size], proof=proof)


def test_leaf_and_node_hashes_are_kept_apart() -> None:
    assert leaf_hash(b"x") == sm3(b"\x00x")
    assert node_hash(b"l", b"r") == sm3(b"\x01lr")
    assert empty_root() == sm3(b"") == root_from_leaves([])
    assert leaf_hash(b"x", hash=sha256) == sha256(b"\x00x")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"index": 4}, id="another index"),
        pytest.param({"index": -1}, id="negative index"),
        pytest.param({"index": 7}, id="index beyond the tree"),
        pytest.param({"index": True}, id="index of another type"),
        pytest.param({"size": 4}, id="another size"),
        pytest.param({"size": 0}, id="no tree"),
        pytest.param({"size": -7}, id="negative size"),
        pytest.param({"size": 2**63}, id="size beyond 63 bits"),
        pytest.param({"size": "7"}, id="size of another type"),
        pytest.param({"leaf_hash": LEAVES[5]}, id="another leaf"),
        pytest.param({"leaf_hash": b""}, id="no leaf"),
        pytest.param({"root": ROOTS[8]}, id="another root"),
        pytest.param({"root": ROOTS[7][:31]}, id="short root"),
        pytest.param({"proof": []}, id="no proof"),
        pytest.param({"proof": inclusion_proof(LEAVES[:7], 3)[:-1]}, id="proof cut"),
        pytest.param({"proof": [*inclusion_proof(LEAVES[:7], 3), LEAVES[0]]}, id="proof extended"),
        pytest.param({"proof": inclusion_proof(LEAVES[:7], 3)[::-1]}, id="proof reversed"),
        pytest.param({"proof": [b"", *inclusion_proof(LEAVES[:7], 3)[1:]]}, id="an empty hash in the proof"),
        pytest.param({"proof": [b"x" * 33, *inclusion_proof(LEAVES[:7], 3)[1:]]}, id="a long hash in the proof"),
        pytest.param({"proof": ["", *inclusion_proof(LEAVES[:7], 3)[1:]]}, id="text in the proof"),
    ],
)
def test_a_false_inclusion_is_refused(change: dict[str, object]) -> None:
    holds = {"index": 3, "size": 7, "leaf_hash": LEAVES[3], "proof": inclusion_proof(LEAVES[:7], 3), "root": ROOTS[7]}
    verify_inclusion(**holds)  # type: ignore[arg-type]
    with pytest.raises(VerificationError):
        verify_inclusion(**{**holds, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"size1": 7}, id="another older size"),
        pytest.param({"size2": 17}, id="another newer size"),
        pytest.param({"size1": 0}, id="from the empty tree"),
        pytest.param({"size1": 0, "proof": []}, id="from the empty tree without a proof"),
        pytest.param({"size1": 13}, id="shrinking"),
        pytest.param({"size1": 11, "proof": []}, id="one size, two roots"),
        pytest.param({"size1": 11, "root1": ROOTS[11]}, id="one size with a proof"),
        pytest.param({"root1": ROOTS[7]}, id="another older root"),
        pytest.param({"root2": ROOTS[12]}, id="another newer root"),
        pytest.param({"root1": ROOTS[11], "root2": ROOTS[6]}, id="roots exchanged"),
        pytest.param({"proof": consistency_proof(LEAVES[:11], 6)[:-1]}, id="proof cut"),
        pytest.param({"proof": [*consistency_proof(LEAVES[:11], 6), LEAVES[0]]}, id="proof extended"),
        pytest.param({"proof": []}, id="no proof"),
        pytest.param({"size2": 2**63}, id="size beyond 63 bits"),
    ],
)
def test_a_false_consistency_is_refused(change: dict[str, object]) -> None:
    proof = consistency_proof(LEAVES[:11], 6)
    holds = {"size1": 6, "size2": 11, "root1": ROOTS[6], "root2": ROOTS[11], "proof": proof}
    verify_consistency(**holds)  # type: ignore[arg-type]
    with pytest.raises(VerificationError):
        verify_consistency(**{**holds, **change})  # type: ignore[arg-type]


def test_two_equal_trees_need_no_proof() -> None:
    verify_consistency(size1=5, size2=5, root1=ROOTS[5], root2=ROOTS[5], proof=[])


@pytest.mark.parametrize("size", [2**62 + 1, 2**63 - 1])
def test_the_largest_sizes_need_at_most_63_hashes(size: int) -> None:
    """A proof of the right length folds to some root; the root it folds to is accepted and its neighbour is not."""
    for index in (0, 1, 2**62, size - 1):
        inner = (index ^ (size - 1)).bit_length()
        length = inner + (index >> inner).bit_count()
        assert length <= 63
        proof = [sm3(number.to_bytes(4, "big")) for number in range(length)]
        root = LEAVES[0]
        for level, sibling in enumerate(proof):
            on_right = level >= inner or index >> level & 1
            root = node_hash(sibling, root) if on_right else node_hash(root, sibling)
        verify_inclusion(index=index, size=size, leaf_hash=LEAVES[0], proof=proof, root=root)
        with pytest.raises(VerificationError):
            verify_inclusion(index=index ^ 1, size=size, leaf_hash=LEAVES[0], proof=proof, root=root)


def test_there_is_no_proof_of_what_is_not_there() -> None:
    for index in (-1, 3):
        with pytest.raises(VerificationError):
            inclusion_proof(LEAVES[:3], index)
    for size in (-1, 4):
        with pytest.raises(VerificationError):
            consistency_proof(LEAVES[:3], size)
    assert consistency_proof(LEAVES[:3], 0) == []


def test_a_frontier_continues_where_it_was_kept() -> None:
    tree = FrontierTree()
    assert tree.root() == ROOTS[0]
    for size, leaf in enumerate(LEAVES):
        assert tree.append(leaf) == size
        assert tree.size == size + 1
        assert tree.root() == ROOTS[size + 1]
        tree = FrontierTree(tree.size, tree.frontier)
    branch = tree.copy()
    branch.append(LEAVES[0])
    assert tree.root() == ROOTS[40]
    assert branch.root() != ROOTS[40]


@pytest.mark.parametrize(("size", "frontier"), [(3, [LEAVES[0]]), (0, [LEAVES[0]]), (-1, []), (2**63, [LEAVES[0]])])
def test_a_frontier_fits_its_size(size: int, frontier: list[bytes]) -> None:
    with pytest.raises(VerificationError):
        FrontierTree(size, frontier)


def test_a_frontier_is_small_at_any_size() -> None:
    tree = FrontierTree(MAX_TREE_SIZE, [LEAVES[0]] * 63)
    assert len(tree.root()) == 32
    with pytest.raises(VerificationError):
        tree.append(LEAVES[0])
