"""A host that breaks its own ledger's rules and covers its tracks: everything hashed anew, everything signed again.

What it writes opens without complaint, is consistent with every checkpoint shown before, and carries the host's valid
signature: only who replays the transactions by the rules can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from anchor import genesis as genesis_file
from anchor.chain.embedded_writer import BlockWriter
from anchor.contracts.view import Value
from anchor.gm import PrivateKey, sm3
from anchor.ledger import Accepted, BlockResult, app_hash, log_entry
from anchor.merkle import leaf_hash
from anchor.transaction import encode, parse

Change = Callable[[Callable[[str], Value | None]], Mapping[str, Value]]
"""From a reader of the state to the values that the host would like to be there."""


class CrookedHost:
    """The embedded ledger's file in the hands of its host."""

    def __init__(self, path: Path, genesis: bytes, org: str, key: PrivateKey, clock: Callable[[], float]) -> None:
        self._arguments: dict[str, Any] = {
            "genesis": genesis_file.parse(genesis), "content": genesis, "host_key": key, "host_org": org,
            "clock": clock,
        }  # fmt: skip
        self._path, self._clock = path, clock

    def append(self, envelope: bytes, *, changes: Change = lambda _: {}, force: bool = False) -> None:
        """Add a block with one transaction and whatever ``changes`` of the state besides.

        ``force``: the transaction is taken although the rules refuse it.
        """
        with self._writer() as writer, writer.file.writing():
            block = writer.ledger.apply_block([envelope], int(self._clock()))
            if force:
                block = _with_transaction(block, envelope)
            assert block.accepted, "an honest transaction that the rules refuse"
            values = dict(changes(writer.ledger.get))
            block = _with_state(block, values, writer)
            header = writer._persist(block)
            writer.ledger.commit(block)
            writer._previous = sm3(header)

    @contextmanager
    def _writer(self) -> Any:
        writer = BlockWriter(self._path, **self._arguments)
        try:
            yield writer
        finally:
            writer.close()


def _with_transaction(block: BlockResult, envelope: bytes) -> BlockResult:
    tx, log = parse(envelope), block.log.copy()
    entry = log_entry(tx, block.height, block.time, log.size)
    leaf = leaf_hash(entry)
    accepted = Accepted(tx, envelope, log.size, entry, leaf)
    log.append(leaf)
    return replace(block, accepted=(accepted,), log=log, log_root=log.root())


def _with_state(block: BlockResult, changes: Mapping[str, Value], writer: BlockWriter) -> BlockResult:
    merged = {**block.changes, **changes}
    values = {key: encode(value) for key, value in merged.items()}
    tree = writer.ledger.tree.update(values)
    root = app_hash(tree.root, block.log_root)
    return replace(block, changes=merged, values=values, tree=tree, app_hash=root)
