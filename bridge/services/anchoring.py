"""Anchoring: from the outbox into the institution's log, and from the log onto the ledger.

Draining is one database transaction: entries, tiles, the log's head and the emptied outbox become durable together or
not at all, so that every stored version is logged exactly once whatever is killed when. Publishing signs the log's
head and submits it; the ledger's own state ``log/<origin>`` says what has been published, so a crash between
submission and the local note of it is made good by asking. Nothing here waits for anything while a database
transaction is open, and nobody's care waits for any of it.

A year's log is a shard. The first entry of a new shard holds the last checkpoint of the one before, so that the
shards form one chain.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Protocol

from sqlalchemy import Connection, Engine

from anchor import merkle
from anchor.chain.client import ChainClient
from anchor.checkpoint import Checkpoint, SignedCheckpoint, log_origin, render, sign
from anchor.errors import ChainError, TransactionRejected
from anchor.gm import PrivateKey, sm3
from anchor.receipt import LogEntry
from anchor.tiles import TileLog
from anchor.transaction import parse as parse_transaction
from bridge.errors import Conflict
from bridge.process_identity import process_name
from bridge.services.submission import TransactionSubmitter
from bridge.stopping import Stopping, never
from bridge.storage import evidence
from bridge.storage.database import read_transaction, transact
from bridge.storage.evidence import DatabaseTiles, LogHead, PublishedCheckpoint, SealedEntry
from bridge.storage.keyring import NODE, KeyRing
from bridge.storage.leases import JobLeases
from bridge.storage.outbox import Outbox, PendingEntry

SALT_BYTES = 32
"""Bytes of randomness in an entry: a leaf must not be found by guessing the record."""
DEFAULT_BATCH = 1000
"""Entries per transaction: bounds how long a writer of the same SQLite file waits, to some tens of milliseconds."""
LEASE_NAME = "anchoring"
LEASE_SECONDS = 120
"""Seconds one run may take before another process may take over; an outage's backlog takes several runs."""
SHARD_ADAPTER = "yiqiao/shard"
"""Adapter of the entry that ties a new shard to the last checkpoint of the one before."""
PUBLISH = "checkpoint.publish"
CHINA_TIME = timezone(timedelta(hours=8))
"""China's one time zone, without daylight saving since 1991."""


class LogDiverged(Conflict):
    """The ledger holds a checkpoint of this node's log that the node's own log contradicts: run ``yiqiao fsck``."""

    default_message = (
        "the ledger holds a checkpoint that this node's log contradicts: nothing is published until `yiqiao fsck` "
        "has named the difference / 账本上的检查点与本节点日志不符，请运行 yiqiao fsck"
    )


class NodeSigner(Protocol):
    """The signing half of the node's identity (``bridge.node_keys.Signer``)."""

    @property
    def sign(self) -> PrivateKey:
        """The organisation's signing key."""


@dataclass(frozen=True, slots=True)
class AnchoringRun:
    """What one run did: entries logged, checkpoints published; ``skipped`` when another process was running it."""

    logged: int
    published: tuple[PublishedCheckpoint, ...]
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class AnchoringStatus:
    """How far behind anchoring is.

    ``pending``: versions not in a log yet; ``oldest``: Unix seconds of the longest waiting one; ``unpublished``:
    entries of the logs that no published checkpoint covers, ``logged`` when the first of them was logged;
    ``published``: block time of the newest checkpoint, Unix seconds.
    """

    pending: int
    oldest: float | None
    unpublished: int
    published: int | None
    logged: int | None = None

    @property
    def waiting_since(self) -> float | None:
        """When what has waited longest for the ledger was stored or logged (Unix seconds); None when nothing waits."""
        return min((each for each in (self.oldest, self.logged) if each is not None), default=None)


class AnchoringService:
    """Drains the outbox of one node into its log and publishes the log's checkpoints."""

    def __init__(
        self,
        engine: Engine,
        keyring: KeyRing,
        chain: ChainClient,
        signer: NodeSigner,
        org: str,
        clock: Callable[[], float] = time.time,
        *,
        submitter: TransactionSubmitter,
        shard: str | None = None,
        batch: int = DEFAULT_BATCH,
        publishes: bool = True,
        stopping: Stopping = never,
    ) -> None:
        """``shard`` names the log that new entries go into ("2026"); None: the year, by China's clocks, at each run.

        ``publishes`` False: an observer logs its own audit events and has nothing to show the others.
        ``stopping``: what still waits is left to the next run.
        """
        self._engine = engine
        self._keyring = keyring
        self._chain = chain
        self._signer = signer
        self._org = org
        self._clock = clock
        self._submitter = submitter
        self._shard = shard
        self._batch = batch
        self._publishes = publishes
        self._stopping = stopping
        self._outbox = Outbox()
        self._leases = JobLeases(engine, clock)
        self._holder = process_name("anchor")
        self._mutex = threading.Lock()

    @property
    def origin(self) -> str:
        """The log that new entries go into now."""
        return log_origin(self._org, self._shard or datetime.fromtimestamp(self._clock(), CHINA_TIME).strftime("%Y"))

    def run(self) -> AnchoringRun:
        """Drain everything that waits and publish; at most one process of the node does so at a time.

        Raises ``ChainError`` when the ledger could not be reached (what was drained stays drained, the next run
        publishes it) and ``LogDiverged``.
        """
        if not self._mutex.acquire(blocking=False):
            return AnchoringRun(0, (), skipped=True)
        try:
            if not self._leases.acquire(LEASE_NAME, self._holder, LEASE_SECONDS):
                return AnchoringRun(0, (), skipped=True)
            try:
                logged = 0
                while not self._stopping() and (drained := self.drain(self._batch)):
                    logged += drained
                    if drained < self._batch or not self._leases.renew(LEASE_NAME, self._holder, LEASE_SECONDS):
                        break
                return AnchoringRun(logged, () if self._stopping() else tuple(self.publish()))
            finally:
                self._leases.release(LEASE_NAME, self._holder)
        finally:
            self._mutex.release()

    def drain(self, limit: int = DEFAULT_BATCH) -> int:
        """Log up to ``limit`` waiting versions in one database transaction; returns how many."""
        return transact(self._engine, lambda conn: self._drain(conn, limit))

    def _drain(self, conn: Connection, limit: int) -> int:
        pending = self._outbox.pending(conn, limit)
        if not pending:
            return 0
        origin = self.origin
        ids = [row.id for row in pending if row.id is not None]
        logged = evidence.logged_refs(conn, ids)
        waiting = [row for row in pending if row.id is None or logged.get(row.id) != row.ref]
        head = evidence.log_head(conn, origin)
        if head is None:
            waiting = [*self._shard_opening(conn, origin), *waiting]
        self._append(conn, origin, 0 if head is None else head.size, waiting)
        self._outbox.remove(conn, ids)
        return len(pending)

    def _append(self, conn: Connection, origin: str, size: int, rows: Sequence[PendingEntry]) -> None:
        if not rows:
            return
        keys = self._keyring.data_keys(conn, {row.subject for row in rows})
        now = int(self._clock())
        salts = secrets.token_bytes(SALT_BYTES * len(rows))  # one call: an eighth of the time of one for each
        entries = []
        for offset, row in enumerate(rows):
            position, salt = size + offset, salts[offset * SALT_BYTES : (offset + 1) * SALT_BYTES]
            content = LogEntry(self._org, row.ref, row.digest, row.source_digest, row.adapter, salt).dump()
            sealed = keys[row.subject].seal(content, evidence.entry_aad(origin, position))
            leaf = merkle.leaf_hash(content)
            entries.append(SealedEntry(origin, position, row.ref, row.subject, leaf, sealed, now, row.id))
        log = TileLog(DatabaseTiles(conn, origin), size)
        grown = log.append([entry.leaf for entry in entries])
        evidence.add_entries(conn, entries)
        if not evidence.set_log_head(conn, LogHead(origin, grown, log.root()), previous_size=size):
            raise LogDiverged(cause="the log's head moved inside its own transaction")

    def _shard_opening(self, conn: Connection, origin: str) -> list[PendingEntry]:
        """Return the entry a new shard begins with: the last checkpoint of the newest shard before it, if any."""
        before = [head.origin for head in evidence.log_heads(conn) if head.origin < origin]
        last = evidence.last_checkpoint(conn, before[-1]) if before else None
        if last is None:
            return []
        ref = f"Checkpoint/{last.origin.rpartition('/')[2]}/{last.number}"
        return [PendingEntry(None, ref, NODE, sm3(last.note), b"", SHARD_ADAPTER, 0)]

    def publish(self) -> list[PublishedCheckpoint]:
        """Publish every log that has grown since its last checkpoint; returns the checkpoints the ledger took.

        Safe to repeat after any failure: what the ledger has is asked first. Raises ``ChainError``, ``LogDiverged``, or
        ``TransactionRejected`` with the ledger's code.
        """
        if not self._publishes:
            return []
        with read_transaction(self._engine) as conn:
            heads = evidence.log_heads(conn)
        published = [self._publish(head) for head in heads]
        return [checkpoint for checkpoint in published if checkpoint is not None]

    def _publish(self, head: LogHead) -> PublishedCheckpoint | None:
        with read_transaction(self._engine) as conn:
            recorded = evidence.last_checkpoint(conn, head.origin)
        if recorded is not None and recorded.size == head.size:
            return None
        state = self._chain.state(f"log/{head.origin}")
        if state is not None:
            recovered = self._reconcile(head, recorded, state["number"], state["size"], state["root"], state["tx"])
            if state["size"] == head.size:
                return recovered
        elif recorded is not None:
            raise LogDiverged(cause="the ledger does not know a checkpoint it once took")
        number = 1 if state is None else state["number"] + 1
        previous = 0 if state is None else state["size"]
        try:
            return self._submit(head, number, previous)
        except TransactionRejected:
            state = self._chain.state(f"log/{head.origin}")
            if state is None or state["number"] != number:
                raise
            # An earlier submission of this node's, believed lost, got there first.
            return self._reconcile(head, recorded, state["number"], state["size"], state["root"], state["tx"])

    def _submit(self, head: LogHead, number: int, previous: int) -> PublishedCheckpoint:
        with read_transaction(self._engine) as conn:
            proof = TileLog(DatabaseTiles(conn, head.origin), head.size).consistency_proof(previous, head.size)
        now = int(self._clock())
        checkpoint = Checkpoint(head.origin, head.size, head.root, (("time", str(now)),))
        note = render(SignedCheckpoint(checkpoint, (sign(checkpoint, self._org, self._signer.sign, now),)))
        body = {"note": note.decode("utf-8"), "number": number, "proof": [node.hex() for node in proof]}
        result = self._submitter.submit(PUBLISH, body)
        if result.height is None or result.index is None or result.block_time is None:
            raise ChainError("the ledger accepted a checkpoint without saying where")
        published = PublishedCheckpoint(
            head.origin,
            number,
            head.size,
            head.root,
            note,
            result.tx_id,
            result.height,
            result.index,
            result.block_time,
        )
        transact(self._engine, lambda conn: evidence.add_checkpoint(conn, published))
        return published

    def _reconcile(
        self, head: LogHead, recorded: PublishedCheckpoint | None, number: int, size: int, root: str, tx_id: str
    ) -> PublishedCheckpoint | None:
        """Compare the ledger's newest checkpoint of this log with the log, and record it if a crash kept us from it."""
        if size > head.size:
            raise LogDiverged(cause="the ledger holds a longer log of this node than the node does")
        if recorded is not None and number < recorded.number:
            raise LogDiverged(cause="the ledger has lost a checkpoint it once took")
        with read_transaction(self._engine) as conn:
            own = TileLog(DatabaseTiles(conn, head.origin), head.size).root(size)
        if own.hex() != root:
            raise LogDiverged(cause="the ledger holds another root of this node's log")
        if recorded is not None and recorded.number == number:
            return None
        committed = self._chain.transaction(tx_id)
        if committed is None:
            raise ChainError("the ledger names a transaction that it does not hold")
        note = parse_transaction(committed.envelope).body["note"].encode("utf-8")
        place = (committed.height, committed.index, committed.block_time)
        found = PublishedCheckpoint(head.origin, number, size, own, note, tx_id, *place)
        transact(self._engine, lambda conn: evidence.add_checkpoint(conn, found))
        return found

    def status(self) -> AnchoringStatus:
        """Return how far behind anchoring is, from the node's own database."""
        with read_transaction(self._engine) as conn:
            heads = evidence.log_heads(conn) if self._publishes else []
            last = [evidence.last_checkpoint(conn, head.origin) for head in heads]
            oldest = self._outbox.oldest(conn)
            pending = self._outbox.count(conn)
            sizes = [0 if each is None else each.size for each in last]
            logged = [evidence.logged_at(conn, head.origin, size) for head, size in zip(heads, sizes, strict=True)]
        times = [each.block_time for each in last if each is not None]
        return AnchoringStatus(
            pending=pending,
            oldest=None if oldest is None else oldest / 1000,
            unpublished=sum(head.size - size for head, size in zip(heads, sizes, strict=True)),
            published=max(times, default=None),
            logged=min((time for time in logged if time is not None), default=None),
        )
