"""The embedded engine's derived tables, held against what a replay of its transactions gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from anchor import checkpoint
from anchor.chain.embedded_store import LedgerFile
from anchor.contracts.view import Value
from anchor.errors import FormatError, VerificationError
from anchor.gm import PublicKey

_Key = TypeVar("_Key", str, int)


@dataclass(frozen=True, slots=True)
class Difference:
    """One contradiction: ``where`` names the row, ``what`` says in a sentence what does not hold."""

    where: str
    what: str


class MemberStates(Protocol):
    """Knows the members' records of a replayed ledger."""

    def get(self, key: str) -> Value | None:
        """Return a value of the state, or None."""


def compare_tiles(file: LedgerFile, replayed: LedgerFile, *, whole: bool) -> list[Difference]:
    """Return the tiles that are not those of a replay; ``whole``: it came to the log's end, so there are no others."""
    differences: list[Difference] = []
    seen = set()
    for level, index, data in replayed.all_tiles():
        seen.add((level, index))
        stored = file.read(level, index) or b""
        if (stored if whole else stored[: len(data)]) != data:
            differences.append(Difference(f"tile {level}/{index}", "is not what the transactions give"))
    if whole:
        beyond = [(level, index) for level, index, _ in file.all_tiles() if (level, index) not in seen]
        differences += [Difference(f"tile {level}/{index}", "is beyond the log's end") for level, index in beyond]
    return differences


def compare_state(file: LedgerFile, replayed: LedgerFile) -> list[Difference]:
    """Return the state values and buckets that are not those of a replay."""
    differences: list[Difference] = []
    for key, content, expected in _merged(file.all_states(), replayed.all_states()):
        if expected is None:
            differences.append(Difference(f"state {key}", "is in the file and follows from no transaction"))
        elif content is None:
            differences.append(Difference(f"state {key}", "is missing"))
        elif content != expected:
            differences.append(Difference(f"state {key}", "is not what the transactions give"))
    for number, pairs, wanted in _merged(file.buckets(), replayed.buckets()):
        if wanted is None:
            differences.append(Difference(f"bucket {number}", "is of no state value"))
        elif pairs != wanted:
            differences.append(Difference(f"bucket {number}", "is not what the state gives"))
    return differences


def _merged(
    stored: Iterator[tuple[_Key, bytes]], replayed: Iterator[tuple[_Key, bytes]]
) -> Iterator[tuple[_Key, bytes | None, bytes | None]]:
    """Yield (key, stored value, replayed value) of two sequences in key order, None where one has no such key."""
    left, right = next(stored, None), next(replayed, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            assert left is not None
            yield left[0], left[1], None
            left = next(stored, None)
        elif left is None or right[0] < left[0]:
            yield right[0], None, right[1]
            right = next(replayed, None)
        else:
            yield left[0], left[1], right[1]
            left, right = next(stored, None), next(replayed, None)


def compare_cosignatures(file: LedgerFile, state: MemberStates) -> list[Difference]:
    """Return the cosignatures that are of no checkpoint of this ledger, or by no key of a member."""
    differences: list[Difference] = []
    for log_size in file.cosigned_sizes():
        row = file.block_of_size(log_size)
        for org, key_hash, time, value in file.cosignatures(log_size):
            where = f"cosignature {log_size}/{org}"
            if row is None:
                differences.append(Difference(where, "is of no checkpoint of this ledger"))
                continue
            try:
                signature = checkpoint.Signature(org, key_hash, time, value)
                holds = signed_by_member(checkpoint.parse(row.note).checkpoint, signature, state)
            except FormatError:
                holds = False
            if not holds:
                differences.append(Difference(where, "does not verify under any key of that member"))
    return differences


def signed_by_member(point: checkpoint.Checkpoint, signature: checkpoint.Signature, state: MemberStates) -> bool:
    """Whether a signature verifies under one of its member's signing keys, past ones included."""
    member: Value = state.get(f"member/{signature.org}") or {"keys": []}
    for key in member["keys"]:
        public = bytes.fromhex(key["public"])
        if key["use"] == "sign" and checkpoint.key_hash(signature.org, public) == signature.key_hash:
            try:
                checkpoint.verify_signature(point, signature, PublicKey.from_bytes(public))
            except VerificationError:
                return False
            return True
    return False
