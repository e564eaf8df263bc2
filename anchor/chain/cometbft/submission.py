"""Submitting through CometBFT: waiting transactions are packed, sent in order, and followed until they are in a block.

One thread sends: it takes what waits (a transaction waits for company at most ``GATHER_SECONDS``), fills packs and
hands them to the node's mempool over one connection, so that a sender's order is kept. Another asks the node what
became of the packs in flight. A pack without an answer is sent again: a transaction that was committed meanwhile
answers its original place. What has no answer in time may still be committed, and its submitter is told so.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from anchor.chain import remote_wire as wire
from anchor.chain.client import TransactionResult
from anchor.chain.cometbft.node_files import RPC_BATCH
from anchor.chain.cometbft.packing import MAX_PACK_ENVELOPES, NONCE_BYTES, pack, pack_id, packs
from anchor.chain.cometbft.queries import MAX_ASKED
from anchor.chain.cometbft.rpc import TX_IN_CACHE, CometRpc, RpcError
from anchor.errors import AnchorError, ChainError, ChainUnavailable, FormatError, TransactionRejected
from anchor.ledger import unreadable_id
from anchor.transaction import MAX_ENVELOPE_BYTES, Code, parse

GATHER_SECONDS = 0.01
"""How long a transaction waits for others to share its pack: nothing beside a block's time."""
POLL_SECONDS = 0.03
"""Pause between two questions after the packs in flight."""
RESEND_SECONDS = 5.0
"""After which a pack without an answer is sent again: several blocks, and a node's restart."""
SUBMIT_SECONDS = 60.0
"""How long a submitter waits: as on the embedded engine."""
MAX_WAITING = 16_384
"""Envelopes that may wait to be sent; beyond it a submitter is told to come back."""
MAX_IN_FLIGHT = MAX_ASKED
"""Packs in flight: as many as one question asks after, and a fifth of what the mempool holds."""

PlaceOf = Callable[[str], TransactionResult | None]
"""From a transaction's id to its committed place, or None."""


@dataclass(slots=True)
class _Submission:
    """Envelopes of one submitter and the answers so far, by position."""

    count: int
    answers: dict[int, TransactionResult] = field(default_factory=dict)
    error: AnchorError | None = None
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class _Item:
    submission: _Submission
    position: int
    envelope: bytes


@dataclass(slots=True)
class _Flight:
    """A pack on its way: its bytes, whose envelopes it holds, and when it was sent last (monotonic seconds)."""

    content: bytes
    items: Sequence[_Item]
    sent: float


class Submitter:
    """Packs, sends and follows submissions to one node. Threads may share it; its own two start with the first use."""

    def __init__(self, rpc: CometRpc, place_of: PlaceOf, next_seq: Callable[[str], int]) -> None:
        self._rpc = rpc
        self._place_of = place_of
        self._next_seq = next_seq
        self._waiting: deque[_Item] = deque()
        self._flights: dict[str, _Flight] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._threads: list[threading.Thread] = []

    def submit(self, envelopes: Sequence[bytes]) -> list[TransactionResult]:
        """Queue envelopes and wait for every answer; raises ``ChainError``."""
        submission = _Submission(len(envelopes))
        items = [_Item(submission, position, envelope) for position, envelope in enumerate(envelopes)]
        oversized = [one for one in items if not 0 < len(one.envelope) <= MAX_ENVELOPE_BYTES]
        for one in oversized:  # no pack can hold it
            answer = TransactionResult(unreadable_id(one.envelope), Code.BAD_ENCODING, "an envelope has another size")
            submission.answers[one.position] = answer
        if len(oversized) == len(items):
            return [submission.answers[position] for position in range(len(items))]
        with self._changed:
            if self._closing:
                raise ChainUnavailable("the ledger is closed")
            if len(self._waiting) + len(items) > MAX_WAITING:
                raise ChainUnavailable("too many transactions wait for the ledger; try again later")
            self._start()
            self._waiting.extend(one for one in items if one.position not in submission.answers)
            self._changed.notify_all()
        if not submission.done.wait(SUBMIT_SECONDS):
            self._forget(submission)
            raise ChainUnavailable("the ledger did not answer in time; the transactions may still be committed")
        if submission.error is not None:
            raise submission.error
        return [submission.answers[position] for position in range(len(items))]

    def close(self) -> None:
        """Tell everybody who waits that the ledger is closed, and stop the threads."""
        with self._changed:
            self._closing = True
            left = [*self._waiting, *(item for flight in self._flights.values() for item in flight.items)]
            self._waiting.clear()
            self._flights.clear()
            self._changed.notify_all()
        _fail(left, ChainUnavailable("the ledger was closed; the transactions may still be committed"))
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        if not self._threads:
            for name, run in (("ledger-sending", self._send), ("ledger-following", self._follow)):
                thread = threading.Thread(target=run, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _send(self) -> None:
        while items := self._gathered():
            flights = []
            remaining = iter(items)
            for part in packs([item.envelope for item in items]):
                content = pack(part, os.urandom(NONCE_BYTES))
                flights.append(_Flight(content, [next(remaining) for _ in part], time.monotonic()))
            self._broadcast(flights)

    def _gathered(self) -> list[_Item]:
        """Wait for something to send and a moment for more; return it in order, nothing when closed."""
        with self._changed:
            while not self._closing and (not self._waiting or len(self._flights) >= MAX_IN_FLIGHT):
                self._changed.wait()
            if not self._closing and len(self._waiting) < MAX_PACK_ENVELOPES:
                self._changed.wait_for(
                    lambda: self._closing or len(self._waiting) >= MAX_PACK_ENVELOPES, GATHER_SECONDS
                )
            most = min(len(self._waiting), RPC_BATCH * MAX_PACK_ENVELOPES)
            return [self._waiting.popleft() for _ in range(most)]

    def _broadcast(self, flights: Sequence[_Flight]) -> None:
        """Hand packs to the mempool; what is not taken is answered now."""
        with self._changed:
            if self._closing:
                _fail([i for f in flights for i in f.items], ChainUnavailable("the ledger is closed"))
                return
            self._flights.update({pack_id(flight.content): flight for flight in flights})
            self._changed.notify_all()
        try:
            answers = self._rpc.broadcast([flight.content for flight in flights])
        except ChainError as error:
            self._give_up(flights, error)
            return
        for flight, answer in zip(flights, answers, strict=True):
            if isinstance(answer, RpcError):
                if TX_IN_CACHE not in answer.text:
                    self._give_up([flight], ChainUnavailable(f"the ledger's node took no transaction: {answer.text}"))
            elif int(answer.get("code", 0)) != 0:
                self._filtered(flight, answer)

    def _filtered(self, flight: _Flight, answer: Mapping[str, Any]) -> None:
        """Answer a pack of which CheckTx let nothing through."""
        try:
            codes = orjson.loads(bytes.fromhex(answer.get("data") or ""))
            results = [self._refused(item, str(code)) for item, code in zip(flight.items, codes, strict=True)]
        except (ValueError, TypeError):
            self._give_up([flight], ChainError("the ledger's node refused a pack without saying why"))
        except ChainError as error:
            self._give_up([flight], error)
        else:
            self._answer(flight, results)

    def _refused(self, item: _Item, code: str) -> TransactionResult:
        """Return a refusal in full, or the place of a transaction that was committed before."""
        try:
            tx = parse(item.envelope)
        except TransactionRejected as refusal:
            return TransactionResult(unreadable_id(item.envelope), refusal.code, str(refusal))
        placed = self._place_of(tx.tx_id)
        if placed is not None:
            return placed
        expected = self._next_seq(tx.sender) if code == Code.BAD_SEQUENCE else None
        return TransactionResult(tx.tx_id, code, f"the ledger refuses it: {code}", expected_seq=expected)

    def _follow(self) -> None:
        while True:
            with self._changed:
                while not self._closing and not self._flights:
                    self._changed.wait()
                if self._closing:
                    return
                asked = list(self._flights)
            try:
                self._take_answers(asked)
                self._send_again()
            except ChainError:
                pass  # the node restarts; whoever waits has a bound of its own
            time.sleep(POLL_SECONDS)

    def _take_answers(self, asked: Sequence[str]) -> None:
        answer = self._rpc.query("/results", orjson.dumps({"packs": asked[:MAX_ASKED]}))
        if answer.code:
            raise ChainError(answer.log)
        try:
            found = orjson.loads(answer.value)
            known = {name: wire.read_results(orjson.dumps(value)) for name, value in found.items()}
        except (ValueError, AttributeError, FormatError):
            raise ChainError("the ledger's node answers what cannot be read") from None
        for name, results in known.items():
            flight = self._flights.get(name)
            if flight is not None and len(results) == len(flight.items):
                self._answer(flight, results)

    def _send_again(self) -> None:
        """Send what has had no answer for long once more: the node may have lost it, or its result, in a restart."""
        now = time.monotonic()
        with self._changed:
            late = [flight for flight in self._flights.values() if now - flight.sent > RESEND_SECONDS]
        for flight in late:
            flight.sent = now
        for answer in self._rpc.broadcast([flight.content for flight in late]):
            if isinstance(answer, RpcError) and TX_IN_CACHE not in answer.text:
                raise ChainUnavailable(answer.text)

    def _answer(self, flight: _Flight, results: Sequence[TransactionResult]) -> None:
        self._land([flight])
        for item, result in zip(flight.items, results, strict=True):
            item.submission.answers[item.position] = result
            if len(item.submission.answers) == item.submission.count:
                item.submission.done.set()

    def _give_up(self, flights: Sequence[_Flight], error: AnchorError) -> None:
        self._land(flights)
        _fail([item for flight in flights for item in flight.items], error)

    def _land(self, flights: Sequence[_Flight]) -> None:
        with self._changed:
            for flight in flights:
                self._flights.pop(pack_id(flight.content), None)
            self._changed.notify_all()

    def _forget(self, submission: _Submission) -> None:
        """Stop sending what its submitter no longer waits for."""
        with self._changed:
            self._waiting = deque(item for item in self._waiting if item.submission is not submission)
            for name, flight in list(self._flights.items()):
                if all(item.submission is submission for item in flight.items):
                    del self._flights[name]
            self._changed.notify_all()


def _fail(items: Sequence[_Item], error: AnchorError) -> None:
    for item in items:
        item.submission.error = error
        item.submission.done.set()
