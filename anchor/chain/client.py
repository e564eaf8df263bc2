"""What every ledger engine offers, whatever orders its transactions.

All engines run the one state machine of ``anchor.ledger`` and must give the same ``app_hash`` at every height.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """What became of one submitted transaction.

    ``code`` is "ok" or a stable refusal code (``anchor.transaction.Code``). ``height`` (block), ``index`` (position in
    the ledger's log) and ``block_time`` (Unix seconds) are set when the code is "ok". ``expected_seq`` is set with code
    "bad-sequence": the number the ledger would have taken from this sender.
    """

    tx_id: str
    code: str
    message: str = ""
    height: int | None = None
    index: int | None = None
    block_time: int | None = None
    expected_seq: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the transaction was accepted and committed."""
        return self.code == "ok"


@dataclass(frozen=True, slots=True)
class CommittedTransaction:
    """One accepted transaction as the ledger's log holds it.

    ``envelope``: the signed transaction's wire bytes; ``entry``: the log entry's bytes, whose RFC 6962 leaf hash is at
    ``index`` of the ledger's log.
    """

    tx_id: str
    envelope: bytes
    entry: bytes
    height: int
    index: int
    block_time: int


@dataclass(frozen=True, slots=True)
class StateProof:
    """A value of the ledger's state at one height, and the proof that the state root commits to it.

    ``value`` is None for a key that does not exist (the proof then shows its absence).
    """

    key: str
    value: dict[str, Any] | None
    height: int
    state_root: bytes
    proof: bytes


@dataclass(frozen=True, slots=True)
class StateReading:
    """Values of the state, asked for together.

    ``values``: by key, None for one that does not exist; ``prefixed``: by prefix, at most 1,000 values by key each;
    ``block_time``: of the newest block then, Unix seconds.
    """

    values: Mapping[str, dict[str, Any] | None]
    prefixed: Mapping[str, Mapping[str, dict[str, Any]]]
    block_time: int


@dataclass(frozen=True, slots=True)
class Health:
    """Whether an engine takes transactions now; ``detail`` says why not."""

    ok: bool
    engine: str
    height: int
    block_time: int
    log_size: int
    detail: str = ""


class ChainClient(Protocol):
    """Submits to and reads from the consortium ledger; every method but ``health`` may raise ``ChainUnavailable``.

    ``lag_seconds``: for how long, at most in ordinary operation, what another member knows to be committed may not be
    seen here yet; 0 where all read one ledger.
    """

    lag_seconds: float

    def submit(self, envelopes: Sequence[bytes]) -> list[TransactionResult]:
        """Submit signed transactions in order and wait until each is committed or refused; safe to repeat."""

    def next_seq(self, org: str) -> int:
        """Return the sequence number the ledger expects next from ``org``."""

    def transaction(self, tx_id: str) -> CommittedTransaction | None:
        """Return a committed transaction, or None when the ledger holds none of that id."""

    def transactions(self, start: int, limit: int) -> list[CommittedTransaction]:
        """Return up to ``limit`` committed transactions from log index ``start`` on, in log order."""

    def checkpoint(self) -> bytes:
        """Return the newest ledger checkpoint with the cosignatures collected for it (``anchor.checkpoint`` text)."""

    def witnessed_checkpoint(self) -> bytes | None:
        """Return the newest ledger checkpoint that carries a quorum of cosignatures, or None when there is none yet."""

    def cosign(self, note: bytes) -> None:
        """Hand in a cosigned checkpoint; its valid cosignatures are kept beside the checkpoint of that size."""

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the RFC 6962 inclusion proof of log entry ``index`` in the tree of ``size`` entries."""

    def consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        """Return the RFC 6962 consistency proof between two sizes of the ledger's log."""

    def state(self, key: str) -> dict[str, Any] | None:
        """Return a committed value of the state (keys are listed in ``anchor.ledger``), or None."""

    def state_with_prefix(self, prefix: str, limit: int = 1000) -> dict[str, dict[str, Any]]:
        """Return committed values whose keys start with ``prefix``, in key order."""

    def states(self, keys: Sequence[str], prefixes: Sequence[str] = ()) -> StateReading:
        """Return several committed values and all those whose keys start with a prefix, in one question.

        They are as they were at one moment or another while it was answered, each as ``state`` would have given it.
        """

    def state_proof(self, key: str) -> StateProof:
        """Return a value of the latest state with its proof."""

    def finality(self, size: int) -> bytes | None:
        """Return the engine's own proof that the log of ``size`` entries, with its state, is final, where it has one.

        CometBFT's is a light block (``anchor.finality``); engines of one host have none, and a new block's may still be
        to come: None.
        """

    def health(self) -> Health:
        """Return the engine's condition; does not raise."""

    def close(self) -> None:
        """Let go of files, threads and connections."""
