"""The embedded engine's queue: submissions wait, one thread drains them into blocks, each submitter gets its answers.

Group commit without artificial delay: a block takes what waits when the thread is free, so a lone transaction is
committed at once and a crowd shares one durable write.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from anchor.chain.client import TransactionResult
from anchor.errors import AnchorError, ChainCorrupt, ChainError, ChainUnavailable

MAX_WAITING = 16_384
"""Envelopes that may wait; beyond it a submitter is told to come back rather than left hanging."""
SUBMIT_SECONDS = 60.0
"""How long a submitter waits for an answer: the file's own bound for its lock, and a few blocks."""

MakeBlock = Callable[[Sequence[bytes]], list[TransactionResult]]
"""Computes and persists one block over envelopes; raises ``ChainError`` when it could not, having changed nothing."""


@dataclass(slots=True)
class _Submission:
    """Envelopes of one submitter and the answers so far."""

    envelopes: tuple[bytes, ...]
    results: list[TransactionResult] = field(default_factory=list)
    error: AnchorError | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Sequencer:
    """Orders submissions into blocks of at most ``max_block`` envelopes; its thread starts with the first of them."""

    def __init__(self, make_block: MakeBlock, max_block: int) -> None:
        self._make_block = make_block
        self._max_block = max_block
        self._waiting: deque[tuple[_Submission, bytes]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        self.failure = ""

    def submit(self, envelopes: Sequence[bytes]) -> list[TransactionResult]:
        """Queue envelopes and wait for all answers; raises ``ChainError``."""
        submission = _Submission(tuple(envelopes))
        if not submission.envelopes:
            return []
        with self._changed:
            if self._closing or self.failure:
                raise ChainUnavailable(self.failure or "the ledger is closed")
            if len(self._waiting) + len(submission.envelopes) > MAX_WAITING:
                raise ChainUnavailable("too many transactions wait for the ledger; try again later")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ledger-sequencer", daemon=True)
                self._thread.start()
            self._waiting.extend((submission, envelope) for envelope in submission.envelopes)
            self._changed.notify_all()
        if not submission.done.wait(SUBMIT_SECONDS):
            raise ChainUnavailable("the ledger did not answer in time; the transactions may still be committed")
        if submission.error is not None:
            raise submission.error
        return submission.results

    def close(self) -> None:
        """Take no more, finish what waits, stop the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                results = self._make_block([envelope for _, envelope in batch])
            except ChainError as error:
                self._refuse(batch, error)
            except Exception as error:  # noqa: BLE001 - the thread's boundary: whoever waits must hear of it
                self.failure = f"the ledger's sequencer stopped ({type(error).__name__})"
                with self._changed:  # whoever comes later sees the failure
                    batch += self._waiting
                self._refuse(batch, ChainCorrupt(self.failure))
                return
            else:
                _answer(batch, results)

    def _next_batch(self) -> list[tuple[_Submission, bytes]]:
        """Wait for work and take up to a block of it; empty when closed and nothing waits."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_block))]

    def _refuse(self, batch: Iterable[tuple[_Submission, bytes]], error: AnchorError) -> None:
        """Tell a batch's submitters, and drop what else they have waiting: a submission's order is kept to the end."""
        failed = {id(submission): submission for submission, _ in batch}
        with self._changed:
            self._waiting = deque(item for item in self._waiting if id(item[0]) not in failed)
        for submission in failed.values():
            submission.error = error
            submission.done.set()


def _answer(batch: Sequence[tuple[_Submission, bytes]], results: Sequence[TransactionResult]) -> None:
    for (submission, _), result in zip(batch, results, strict=True):
        submission.results.append(result)
        if len(submission.results) == len(submission.envelopes):
            submission.done.set()
