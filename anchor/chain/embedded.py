"""The embedded engine: one SQLite file, one block at a time, for a pilot or a region that one machine serves.

A submission waits in a queue (``embedded_sequencer``); one thread drains it into a block, computes it with the state
machine, writes it in one durable SQLite transaction (``embedded_writer``), and only then answers. Several processes may
open the same file: the file's write lock orders their blocks, and each takes over what the others wrote before it
computes its own. After kill -9 the file holds every acknowledged block and no part of any other.

What makes a single host tamper-evident is outside this module: the members cosign its checkpoints as witnesses, and
each of them would notice a rewritten log.

An instance belongs to the process that made it: after a fork, open another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anchor import checkpoint
from anchor import genesis as genesis_file
from anchor.chain.client import CommittedTransaction, Health, StateProof, StateReading, TransactionResult
from anchor.chain.embedded_sequencer import Sequencer
from anchor.chain.embedded_store import LedgerFile, TransactionRow, decode_state, storage_errors
from anchor.chain.embedded_stored import StoredBlock
from anchor.chain.embedded_tail import check_tail
from anchor.chain.embedded_witness import accept_cosignatures, with_cosignatures, witnessed_size
from anchor.chain.embedded_writer import BlockWriter
from anchor.errors import AnchorError, ChainError, VerificationError
from anchor.gm import PrivateKey
from anchor.ledger import log_entry
from anchor.tiles import TileLog
from anchor.transaction import parse

MAX_BLOCK = 256
"""Transactions of one block: what a group commit gathers under load, and a bound on a block's size and time."""
MAX_PAGE = 1_000
"""Rows that one read returns."""


class EmbeddedChain:
    """``ChainClient`` over one SQLite file.

    ``genesis``: the genesis file's bytes, which must be those the file was begun with. ``host_key`` signs every block's
    checkpoint as ``host_org``. ``clock`` gives Unix seconds; a block's time is never before the last one's.
    ``quorum``: members (the host included) whose signatures make a checkpoint witnessed; a majority of the active ones
    unless given. Raises ``FormatError``, ``ChainUnavailable``, or ``ChainCorrupt`` when what is stored contradicts
    itself: the last blocks, the state root and the log root are recomputed on opening, the rest by ``embedded_replay``.
    """

    lag_seconds = 0.0

    def __init__(
        self,
        path: str | Path,
        *,
        genesis: bytes,
        host_key: PrivateKey,
        host_org: str,
        clock: Callable[[], float] = time.time,
        max_block: int = MAX_BLOCK,
        quorum: int | None = None,
    ) -> None:
        parsed = genesis_file.parse(genesis)
        self.chain_id = parsed.chain
        self.genesis = genesis
        self._quorum = quorum
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._writer = BlockWriter(
            path, genesis=parsed, content=genesis, host_key=host_key, host_org=host_org, clock=clock
        )
        try:
            check_tail(self._writer.file, self.chain_id)
            self._reader = LedgerFile(path)
        except BaseException:
            self._writer.close()
            raise
        self._sequencer = Sequencer(self._make_block, max_block)

    def submit(self, envelopes: Sequence[bytes]) -> list[TransactionResult]:
        """Submit signed transactions in order and wait for their blocks; one committed before answers its place."""
        return self._sequencer.submit(envelopes)

    def next_seq(self, org: str) -> int:
        """Return the sequence number the ledger expects next from ``org``."""
        value = self.state(f"seq/{org}")
        return 1 if value is None else int(value["seq"]) + 1

    def transaction(self, tx_id: str) -> CommittedTransaction | None:
        """Return a committed transaction, or None when the ledger holds none of that id."""
        try:
            key = bytes.fromhex(tx_id)
        except ValueError:
            return None
        with self._read() as file:
            row = file.transaction(key)
        return None if row is None else _committed(row)

    def transactions(self, start: int, limit: int) -> list[CommittedTransaction]:
        """Return up to ``limit`` (at most 1,000) committed transactions from log index ``start`` on, in log order."""
        with self._read() as file:
            rows = file.transactions(max(start, 0), _page(limit))
        return [_committed(row) for row in rows]

    def blocks(self, start: int, limit: int) -> list[StoredBlock]:
        """Return up to ``limit`` (at most 1,000) stored blocks from height ``start`` (at least 1) on, for replays."""
        with self._read() as file:
            return [StoredBlock.read(file, row) for row in file.blocks(max(start, 1), _page(limit))]

    def checkpoint(self) -> bytes:
        """Return the newest ledger checkpoint with the host's signature and the cosignatures collected for it."""
        with self._read() as file:
            return checkpoint.render(with_cosignatures(file, file.head()))

    def witnessed_checkpoint(self) -> bytes | None:
        """Return the newest ledger checkpoint that a quorum has signed, or None when there is none yet."""
        with self._read() as file:
            row = file.block_of_size(witnessed_size(file))
            return None if row is None else checkpoint.render(with_cosignatures(file, row))

    def cosign(self, note: bytes) -> None:
        """Keep the valid cosignatures of a note; raises ``FormatError`` or ``VerificationError`` for one of no use."""
        with self._writing, self._writer.file.writing():
            accept_cosignatures(self._writer.file, note, self._quorum)

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the inclusion proof of log entry ``index`` in the tree of ``size``; raises ``VerificationError``."""
        with self._read() as file:
            return _log(file, size).inclusion_proof(index, size)

    def consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        """Return the consistency proof between two sizes of the ledger's log; raises ``VerificationError``."""
        with self._read() as file:
            return _log(file, size2).consistency_proof(size1, size2)

    def state(self, key: str) -> dict[str, Any] | None:
        """Return a committed value of the state (keys are listed in ``anchor.ledger``), or None."""
        with self._read() as file:
            content = file.state(key)
        return None if content is None else decode_state(content)

    def state_with_prefix(self, prefix: str, limit: int = 1000) -> dict[str, dict[str, Any]]:
        """Return up to ``limit`` (at most 1,000) committed values whose keys start with ``prefix``, in key order."""
        with self._read() as file:
            rows = file.states(prefix, _page(limit))
        return {key: decode_state(content) for key, content in rows}

    def states(self, keys: Sequence[str], prefixes: Sequence[str] = ()) -> StateReading:
        """Return several committed values, and those under prefixes, as they are between two blocks of this process."""
        with self._read() as file:
            values = {key: file.state(key) for key in keys}
            prefixed = {prefix: file.states(prefix, MAX_PAGE) for prefix in prefixes}
            time = file.head().time
        return StateReading(
            {key: None if content is None else decode_state(content) for key, content in values.items()},
            {prefix: {key: decode_state(content) for key, content in rows} for prefix, rows in prefixed.items()},
            time,
        )

    def state_proof(self, key: str) -> StateProof:
        """Return a value of the latest state with its proof."""
        with self._writing:
            return self._writer.prove(key)

    def finality(self, size: int) -> bytes | None:  # noqa: ARG002
        """Return None: what makes a host's checkpoint count is the members' cosignatures alone."""
        return None

    def health(self) -> Health:
        """Return the engine's condition; does not raise."""
        try:
            with self._read() as file:
                head = file.head()
        except AnchorError as error:
            return Health(False, "embedded", 0, 0, 0, str(error))
        failure = self._sequencer.failure
        return Health(not failure, "embedded", head.height, head.time, head.log_size, failure)

    def close(self) -> None:
        """Finish what waits, then let go of the file and the thread."""
        self._sequencer.close()
        with self._writing:
            self._writer.close()
        with self._reading:
            self._reader.close()

    def _make_block(self, envelopes: Sequence[bytes]) -> list[TransactionResult]:
        with self._writing:
            return self._writer.make_block(envelopes)

    @contextmanager
    def _read(self) -> Iterator[LedgerFile]:
        with self._reading, storage_errors():
            yield self._reader


def _committed(row: TransactionRow) -> CommittedTransaction:
    tx = parse(row.envelope)
    entry = log_entry(tx, row.height, row.time, row.index)
    return CommittedTransaction(tx.tx_id, row.envelope, entry, row.height, row.index, row.time)


def _log(file: LedgerFile, size: int) -> TileLog:
    """Return the ledger's log as it is now; raises ``VerificationError`` unless it has a tree of ``size``."""
    now = file.head().log_size
    if not 0 <= size <= now:
        raise VerificationError("the ledger's log has no tree of that size")
    return TileLog(file, now)


def _page(limit: int) -> int:
    if limit < 0:
        raise ChainError("a limit is not negative")
    return min(limit, MAX_PAGE)
