"""Where the ledger's state values are read from: the contract that an engine's storage fulfils, and one in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from anchor.contracts.view import Changes, Value
from anchor.state_tree import MemoryBuckets


class StateStore(Protocol):
    """Committed state values. What ``get`` returns is shared and must not be altered."""

    def get(self, key: str) -> Value | None:
        """Return a committed value, or None."""

    def install(self, changes: Changes, buckets: Mapping[int, bytes]) -> None:
        """Take over the changes of a committed block (an engine has persisted them before)."""


class MemoryState:
    """State values and the tree's buckets in memory."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.buckets = MemoryBuckets()

    def get(self, key: str) -> Value | None:
        """Return a committed value, or None."""
        return self.values.get(key)

    def install(self, changes: Changes, buckets: Mapping[int, bytes]) -> None:
        """Take over the changes of a committed block."""
        self.values.update(changes)
        self.buckets.write(buckets)
