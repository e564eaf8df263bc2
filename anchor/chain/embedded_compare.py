"""The embedded engine's derived tables, held against what a replay of its transactions gives."""

from __future__ import annotations

from dataclasses import dataclass

from anchor import checkpoint
from anchor.chain.embedded_store import LedgerFile
from anchor.contracts.view import Value
from anchor.errors import FormatError, VerificationError
from anchor.gm import PublicKey
from anchor.state_store import MemoryState
from anchor.tiles import HASH_BYTES, TILE_WIDTH
from anchor.transaction import encode


@dataclass(frozen=True, slots=True)
class Difference:
    """One contradiction: ``where`` names the row, ``what`` says in a sentence what does not hold."""

    where: str
    what: str


class ComparedTiles:
    """Tiles as a replay gives them, held against those in the file."""

    def __init__(self, file: LedgerFile, differences: list[Difference]) -> None:
        self._file = file
        self._differences = differences
        self._open: dict[int, tuple[int, bytes]] = {}

    def read(self, level: int, index: int) -> bytes | None:
        """Return the last tile written at a level (a log that only appends asks for no other)."""
        kept = self._open.get(level)
        return kept[1] if kept is not None and kept[0] == index else None

    def write(self, level: int, index: int, data: bytes) -> None:
        """Compare a tile with the file's, once it is whole or the log has ended (``finish``)."""
        self._open[level] = (index, data)
        if len(data) == TILE_WIDTH * HASH_BYTES:
            self._compare(level, index, data)

    def finish(self, *, whole: bool) -> None:
        """Compare the partial tiles at the log's end; ``whole``: the replay came to it, so they hold nothing more."""
        for level, (index, data) in self._open.items():
            if len(data) < TILE_WIDTH * HASH_BYTES:
                self._compare(level, index, data, whole=whole)

    def _compare(self, level: int, index: int, data: bytes, *, whole: bool = True) -> None:
        stored = self._file.read(level, index) or b""
        if (stored if whole else stored[: len(data)]) != data:
            self._differences.append(Difference(f"tile {level}/{index}", "is not what the transactions give"))


def compare_state(file: LedgerFile, state: MemoryState) -> list[Difference]:
    """Return the state values and buckets that are not those of a replay."""
    differences: list[Difference] = []
    stored = set()
    for key, content in file.all_states():
        stored.add(key)
        value = state.get(key)
        if value is None:
            differences.append(Difference(f"state {key}", "is in the file and follows from no transaction"))
        elif encode(value) != content:
            differences.append(Difference(f"state {key}", "is not what the transactions give"))
    differences += [Difference(f"state {key}", "is missing") for key in sorted(state.values.keys() - stored)]
    buckets = dict(file.buckets())
    for number, pairs in state.buckets.items():
        if buckets.pop(number, b"") != pairs:
            differences.append(Difference(f"bucket {number}", "is not what the state gives"))
    differences += [Difference(f"bucket {number}", "is of no state value") for number in sorted(buckets)]
    return differences


def compare_cosignatures(file: LedgerFile, state: MemoryState) -> list[Difference]:
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


def signed_by_member(point: checkpoint.Checkpoint, signature: checkpoint.Signature, state: MemoryState) -> bool:
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
