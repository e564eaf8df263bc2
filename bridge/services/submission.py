"""One door through which every process of a node submits transactions to the ledger.

The ledger takes a sender's transactions in strict sequence, and several processes of a node submit at once (anchoring
in the worker, releases in the web workers). A node-wide lease orders them, or, where all of them are on one machine, a
locked file (``bridge.storage.local_turn``); where that did not help (the lease ran out while the ledger was slow,
another node of the same organisation submitted) the ledger's own "bad-sequence" answer does, and the transaction is
signed again with the number it expects. A transaction whose answer was lost is looked up before it is signed again, so
that a retry never commits one intention twice.

The number that comes next is left with the turn, so that the ledger is not asked for it each time; one that is wrong
costs what asking would have cost. It is kept only after an answer of the ledger, not after a failure.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from anchor import transaction
from anchor.chain.client import ChainClient, TransactionResult
from anchor.errors import ChainUnavailable, TransactionRejected
from anchor.gm import PrivateKey

if TYPE_CHECKING:
    from collections.abc import Iterator

from bridge.process_identity import process_name

LEASE_NAME = "ledger-submission"
LEASE_SECONDS = 30
"""Seconds: longer than one submission to a healthy ledger takes; a killed process delays nobody for longer."""
LEASE_WAIT_SECONDS = 15.0
"""Seconds a submitter waits for its turn before it says that the ledger is unavailable."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.001, 0.02
"""Seconds between two tries for the turn, doubled each time: a transaction before ours takes some milliseconds."""
MAX_ATTEMPTS = 5
"""Times one transaction is signed with a new sequence number before the contention is reported."""
BAD_SEQUENCE = "bad-sequence"


class Turns(Protocol):
    """Lets one process of a node submit at a time: ``JobLeases``, or a ``LocalTurn``."""

    def take(self, name: str, holder: str, seconds: float) -> str | None:
        """Return the note that was left, None while another has the turn."""

    def release(self, name: str, holder: str, note: str = "") -> None:
        """Give the turn back, with a note for the next."""


@dataclass(slots=True)
class _Turn:
    """A turn to submit. ``sequence``: the number that the ledger takes next, as far as it is known."""

    sequence: int | None


class TransactionSubmitter:
    """Signs a node's transactions with the next sequence number and submits them, one at a time node-wide."""

    def __init__(
        self,
        chain: ChainClient,
        leases: Turns,
        org: str,
        key: PrivateKey,
        chain_id: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._chain = chain
        self._leases = leases
        self._org = org
        self._key = key
        self._chain_id = chain_id
        self._clock = clock
        self._holder = process_name("submit")
        self._mutex = threading.Lock()

    def submit(self, type: str, body: Mapping[str, Any], expires_in: int = 300) -> TransactionResult:
        """Submit one transaction and wait for its commitment; ``expires_in`` is in seconds from now.

        Raises ``TransactionRejected`` with the ledger's code when its rules refuse it, and ``ChainUnavailable`` when no
        answer came within the bound: the transaction may then have been committed all the same, and the caller asks the
        ledger's state before it submits the same intention again.
        """
        with self._turn() as turn:
            sequence = turn.sequence or self._chain.next_seq(self._org)
            turn.sequence = None
            for _ in range(MAX_ATTEMPTS):
                envelope = self._signed(type, body, sequence, expires_in)
                result = self._committed(envelope)
                if result.code != BAD_SEQUENCE:
                    turn.sequence = sequence + 1 if result.ok else sequence  # what was refused has used up no number
                    break
                sequence = result.expected_seq or self._chain.next_seq(self._org)
        if not result.ok:
            raise TransactionRejected(result.code, result.message)
        return result

    def _signed(self, type: str, body: Mapping[str, Any], sequence: int, expires_in: int) -> bytes:
        return transaction.build(
            chain=self._chain_id,
            type=type,
            sender=self._org,
            key=self._key,
            seq=sequence,
            expires=int(self._clock()) + expires_in,
            body=dict(body),
        )

    def _committed(self, envelope: bytes) -> TransactionResult:
        """Submit one envelope; a lost answer or a taken number is checked against what the ledger has committed."""
        try:
            result = self._chain.submit([envelope])[0]
        except ChainUnavailable:
            found = self._lookup(envelope)
            if found is None:
                raise
            return found
        if result.code == BAD_SEQUENCE:
            return self._lookup(envelope) or result
        return result

    def _lookup(self, envelope: bytes) -> TransactionResult | None:
        tx_id = transaction.parse(envelope).tx_id
        found = self._chain.transaction(tx_id)
        if found is None:
            return None
        return TransactionResult(tx_id, "ok", "", found.height, found.index, found.block_time)

    @contextmanager
    def _turn(self) -> Iterator[_Turn]:
        """Hold this process's lock and the node-wide lease; ``ChainUnavailable`` when the turn does not come."""
        deadline = time.monotonic() + LEASE_WAIT_SECONDS
        if not self._mutex.acquire(timeout=LEASE_WAIT_SECONDS):
            raise ChainUnavailable("other transactions of this node are still waiting for the ledger; try again later")
        try:
            pause = FIRST_PAUSE_SECONDS
            while (note := self._leases.take(LEASE_NAME, self._holder, LEASE_SECONDS)) is None:
                if time.monotonic() >= deadline:
                    raise ChainUnavailable("another process of this node is submitting to the ledger; try again later")
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            org, _, number = note.partition(" ")
            turn = _Turn(int(number) if org == self._org and number.isdecimal() else None)
            try:
                yield turn
            finally:
                left = "" if turn.sequence is None else f"{self._org} {turn.sequence}"
                self._leases.release(LEASE_NAME, self._holder, left)
        finally:
            self._mutex.release()
