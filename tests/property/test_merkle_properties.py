"""Merkle proofs under random changes: what was shown holds, what was changed does not."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from anchor.gm import sm3
from anchor.merkle import (
    Hash,
    VerificationError,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_from_leaves,
    verify_consistency,
    verify_inclusion,
)

HASHES = st.sampled_from([sm3, lambda data: hashlib.sha256(data).digest(), lambda data: hashlib.sha1(data).digest()])
BIG = st.integers(-3, 2**64)


def leaves_of(size: int, hash: Hash) -> list[bytes]:
    return [leaf_hash(number.to_bytes(2, "big"), hash=hash) for number in range(size)]


@st.composite
def mutations(draw: st.DrawFn, proof: list[bytes]) -> list[bytes]:
    """The proof with a bit flipped, or a hash removed, added, doubled or moved."""
    kind = draw(st.sampled_from(["flip", "remove", "insert", "repeat", "swap"]))
    at = draw(st.integers(0, max(0, len(proof) - 1)))
    if kind == "insert" or not proof:
        return [*proof[:at], draw(st.binary(min_size=32, max_size=32)), *proof[at:]]
    if kind == "flip":
        bit = draw(st.integers(0, 8 * len(proof[at]) - 1))
        flipped = int.from_bytes(proof[at], "big") ^ 1 << bit
        return [*proof[:at], flipped.to_bytes(len(proof[at]), "big"), *proof[at + 1 :]]
    if kind == "remove":
        return proof[:at] + proof[at + 1 :]
    if kind == "repeat":
        return [*proof[: at + 1], *proof[at:]]
    other = draw(st.integers(0, len(proof) - 1))
    swapped = list(proof)
    swapped[at], swapped[other] = proof[other], proof[at]
    return swapped


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.data(), HASHES)
def test_an_inclusion_proof_holds_and_no_changed_one_does(size: int, data: st.DataObject, hash: Hash) -> None:
    leaves = leaves_of(size, hash)
    index = data.draw(st.integers(0, size - 1))
    root, proof = root_from_leaves(leaves, hash), inclusion_proof(leaves, index, hash)
    verify_inclusion(index=index, size=size, leaf_hash=leaves[index], proof=proof, root=root, hash=hash)
    changed = data.draw(mutations(proof))
    assume(changed != proof)
    with pytest.raises(VerificationError):
        verify_inclusion(index=index, size=size, leaf_hash=leaves[index], proof=changed, root=root, hash=hash)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.data())
def test_an_inclusion_proof_holds_for_one_position_only(size: int, data: st.DataObject) -> None:
    leaves = leaves_of(size, sm3)
    index = data.draw(st.integers(0, size - 1))
    root, proof = root_from_leaves(leaves), inclusion_proof(leaves, index)
    other = data.draw(st.integers(0, size - 1) | BIG)
    assume(other != index)
    with pytest.raises(VerificationError):
        verify_inclusion(index=other, size=size, leaf_hash=leaves[index], proof=proof, root=root)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.data(), HASHES)
def test_a_consistency_proof_holds_and_no_changed_one_does(size2: int, data: st.DataObject, hash: Hash) -> None:
    leaves = leaves_of(size2, hash)
    size1 = data.draw(st.integers(1, size2))
    root1, root2 = root_from_leaves(leaves[:size1], hash), root_from_leaves(leaves, hash)
    proof = consistency_proof(leaves, size1, hash)
    verify_consistency(size1=size1, size2=size2, root1=root1, root2=root2, proof=proof, hash=hash)
    changed = data.draw(mutations(proof))
    assume(changed != proof)
    with pytest.raises(VerificationError):
        verify_consistency(size1=size1, size2=size2, root1=root1, root2=root2, proof=changed, hash=hash)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 300), st.data())
def test_a_rewritten_history_has_no_consistency_proof(size2: int, data: st.DataObject) -> None:
    leaves = leaves_of(size2, sm3)
    size1 = data.draw(st.integers(1, size2))
    rewritten = data.draw(st.integers(0, size1 - 1))
    forged = [*leaves[:rewritten], leaf_hash(b"forged"), *leaves[rewritten + 1 :]]
    with pytest.raises(VerificationError):
        verify_consistency(
            size1=size1,
            size2=size2,
            root1=root_from_leaves(leaves[:size1]),
            root2=root_from_leaves(forged),
            proof=consistency_proof(forged, size1),
        )


@settings(max_examples=100, deadline=None)
@given(BIG, BIG, st.lists(st.binary(min_size=30, max_size=33) | st.just(b"h" * 32), max_size=130))
def test_strange_arguments_give_only_its_own_error(first: int, second: int, proof: list[bytes]) -> None:
    with pytest.raises(VerificationError):
        verify_inclusion(index=first, size=second, leaf_hash=b"l" * 32, proof=proof, root=b"r" * 32)
    with pytest.raises(VerificationError):
        verify_consistency(size1=first, size2=second, root1=b"o" * 32, root2=b"n" * 32, proof=proof)
