"""Receipts: from what this node and the ledger hold to one file that an outsider checks offline.

A receipt is made anew each time it is asked for, so asking again later turns a pending one into a committed and a
committed one into a witnessed one; each stays valid for ever. A receipt for a record holds that record's log entry
and hashes, and nothing of any other record. Once a patient's data key is destroyed no new receipt of that record can
be made
(its salt is gone); those made before stay valid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from sqlalchemy import Engine, select

from anchor.chain.client import ChainClient, CommittedTransaction, StateProof
from anchor.checkpoint import Checkpoint, SignedCheckpoint, parse, render, sign
from anchor.errors import ChainCorrupt, ChainError
from anchor.receipt import (
    GRANT,
    MAX_DISCLOSED,
    PERMIT,
    RECEIVE,
    RELEASE,
    REQUEST,
    REVOKE,
    Committed,
    DisclosureReceipt,
    LogEntry,
    LogProof,
    RecordReceipt,
    State,
    StateEvidence,
    dump_receipt,
)
from anchor.tiles import TileLog
from anchor.transaction import parse as parse_transaction
from bridge.errors import Conflict, Gone, NotFound, StorageError
from bridge.services.anchoring import NodeSigner
from bridge.storage import evidence
from bridge.storage.database import read_transaction
from bridge.storage.evidence import DatabaseTiles, PublishedCheckpoint, SealedEntry
from bridge.storage.exchange import DisclosedRecord
from bridge.storage.keyring import KeyRing

PAGE = 1000
"""Transactions read at a time when the ledger is searched for an amendment."""
STATE_ATTEMPTS = 20
"""Tries to read a state proof and the checkpoint of the very same block from a ledger that goes on."""
_EVENTS = {PERMIT: "permit", RELEASE: "release", RECEIVE: "receive"}
_DISCLOSED = DisclosedRecord.__table__  # type: ignore[attr-defined]


class CurrentVersions(Protocol):
    """Knows the current version of a record (``bridge.storage.records.RecordStore``)."""

    def read(self, type: str, id: str) -> Any:
        """Return the current version, which has a ``version``; raises ``NotFound``."""


class ReceiptService:
    """Makes receipts for the records and disclosures of one node."""

    def __init__(
        self,
        engine: Engine,
        keyring: KeyRing,
        chain: ChainClient,
        signer: NodeSigner,
        org: str,
        clock: Callable[[], float] = time.time,
        *,
        chain_id: str,
        records: CurrentVersions | None = None,
    ) -> None:
        self._engine = engine
        self._keyring = keyring
        self._chain = chain
        self._signer = signer
        self._org = org
        self._clock = clock
        self._chain_id = chain_id
        self._records = records

    def for_record(self, type: str, id: str, version: int | None = None) -> bytes:
        """Return the receipt of a record version (the current one when None), canonical JSON.

        Raises ``NotFound``, ``Conflict`` when the version is not logged yet, ``KeyDestroyed``, or ``ChainError``.
        """
        if version is None:
            if self._records is None:
                raise NotFound("name the version of the record")
            try:
                version = int(self._records.read(type, id).version)
            except Gone:
                raise Gone(f"{type}/{id} has been deleted: name the version / 该记录已删除，请指明版本") from None
            except NotFound:
                raise NotFound(f"there is no {type}/{id} here / 本节点没有该记录") from None
        return dump_receipt(self.record(f"{type}/{id}/_history/{version}"))

    def record(self, ref: str) -> RecordReceipt:
        """Return the receipt of the record version ``ref``; raises as ``for_record`` does."""
        with read_transaction(self._engine) as conn:
            stored = evidence.find_entry(conn, ref)
            if stored is None:
                raise Conflict(
                    f"{ref} is not in the log: it does not exist, or waits for the next run of `yiqiao anchor` / "
                    "该版本尚未写入日志，请先运行 yiqiao anchor"
                )
            aad = evidence.entry_aad(stored.origin, stored.position)
            entry = LogEntry.parse(self._keyring.open(conn, stored.subject, stored.sealed, aad))
            covering = evidence.checkpoint_covering(conn, stored.origin, stored.position)
            if covering is None:
                return self._pending(conn, stored, entry)
            proof = self._inclusion(conn, stored, covering.size)
        return self._published(stored, entry, covering, proof)

    def _pending(self, conn: Any, stored: SealedEntry, entry: LogEntry) -> RecordReceipt:
        head = evidence.log_head(conn, stored.origin)
        if head is None:
            raise StorageError(cause="an entry of a log without a head")
        now = int(self._clock())
        checkpoint = Checkpoint(head.origin, head.size, head.root, (("time", str(now)),))
        note = render(SignedCheckpoint(checkpoint, (sign(checkpoint, self._org, self._signer.sign, now),)))
        log = LogProof(stored.position, self._inclusion(conn, stored, head.size), note)
        return RecordReceipt(self._chain_id, "pending", entry, log, None, None)

    def _published(
        self, stored: SealedEntry, entry: LogEntry, covering: PublishedCheckpoint, proof: tuple[bytes, ...]
    ) -> RecordReceipt:
        committed = self._transaction(covering.tx_id)
        note, state = self._ledger_checkpoint(committed.index)
        size = parse(note).checkpoint.size
        return RecordReceipt(
            chain=self._chain_id,
            state=state,
            entry=entry,
            log=LogProof(stored.position, proof, None),
            publication=self._placed(committed, size),
            ledger=note,
        )

    def for_disclosure(self, request_id: str, statement: Mapping[str, Any] | None = None) -> bytes:
        """Return the receipt of a released disclosure, canonical JSON.

        ``statement`` is what the request's commitment opens to; given, it becomes part of the receipt, and so does what
        it says about the patient. Raises ``NotFound``, ``Conflict`` when nothing has been released yet, ``ChainError``.
        """
        request = self._chain.state(f"request/{request_id}")
        if request is None:
            raise NotFound("the ledger has no such request")
        if request["release"] is None:
            raise Conflict("nothing has been released for this request")
        roles = {REQUEST: request["tx"]}
        roles |= {role: request[name]["tx"] for role, name in _EVENTS.items() if request[name] is not None}
        committed = {role: self._transaction(tx_id) for role, tx_id in roles.items()}
        newest = max(each.index for each in committed.values())
        grant_id = request["grant"]
        if grant_id is None:
            note, state = self._ledger_checkpoint(newest)
            grant, history = None, []
        else:
            note, state, grant = self._grant_evidence(f"grant/{grant_id}", newest)
            history = self._grant_history(grant_id, grant.value or {}, committed[RELEASE].index)
            committed[GRANT] = history.pop(0)
            if (grant.value or {}).get("status") == "revoked":
                committed[REVOKE] = history.pop()
        size = parse(note).checkpoint.size
        receipt = DisclosureReceipt(
            chain=self._chain_id,
            state=state,
            request=request_id,
            statement=None if statement is None else dict(statement),
            transactions={role: self._placed(each, size) for role, each in committed.items()},
            amendments=tuple(self._placed(each, size) for each in history),
            disclosed=self._disclosed(request_id, request["release"]["count"]),
            grant=grant,
            ledger=note,
        )
        return dump_receipt(receipt)

    def _disclosed(self, request_id: str, count: int) -> tuple[bytes, ...]:
        query = select(_DISCLOSED.c.digest).where(_DISCLOSED.c.request_id == request_id).order_by(_DISCLOSED.c.position)
        with read_transaction(self._engine) as conn:
            digests = tuple(bytes.fromhex(digest) for digest in conn.execute(query).scalars())
        if len(digests) != count or count > MAX_DISCLOSED:
            raise NotFound("this node does not know what was disclosed: the holder of the records makes this receipt")
        return digests

    def _grant_evidence(self, key: str, newest: int) -> tuple[bytes, State, StateEvidence]:
        """Return a checkpoint that covers log index ``newest`` and proves the grant, a witnessed one if possible."""
        for _ in range(STATE_ATTEMPTS):
            proof = self._chain.state_proof(key)
            for note, state in self._checkpoints():
                checkpoint = parse(note).checkpoint
                if checkpoint.size > newest and checkpoint.binary("state") == proof.state_root:
                    return note, state, self._state_evidence(proof)
        raise ChainError("the ledger is too busy to prove the grant's state at one of its checkpoints; try again")

    @staticmethod
    def _state_evidence(proof: StateProof) -> StateEvidence:
        if proof.value is None:
            raise ChainCorrupt("the ledger does not know the grant that a release names")
        return StateEvidence(proof.key, proof.value, proof.proof)

    def _grant_history(self, grant_id: str, value: Mapping[str, Any], release: int) -> list[CommittedTransaction]:
        """Return the grant's transaction and every later change of it, in ledger order.

        The newest is known by id; the others are searched for backwards from there, the grant itself being among them.
        """
        newest = self._transaction(value["tx"])
        found = [newest]
        earlier = self._backwards(newest.index)
        while len(found) < value["version"] and (committed := next(earlier, None)) is not None:
            transaction = parse_transaction(committed.envelope)
            if transaction.type.startswith("consent.") and transaction.body.get("grant") == grant_id:
                found.append(committed)
        found.reverse()
        if len(found) != value["version"] or found[0].index >= release:
            raise ChainCorrupt("the ledger's log does not hold the changes its state counts")
        return found

    def _backwards(self, end: int) -> Iterator[CommittedTransaction]:
        """Yield the ledger's transactions before log index ``end``, newest first."""
        while end > 0:
            start = max(0, end - PAGE)
            yield from reversed(self._chain.transactions(start, end - start))
            end = start

    def _checkpoints(self) -> Iterator[tuple[bytes, State]]:
        """Yield the ledger's newest witnessed checkpoint, then its newest one."""
        witnessed = self._chain.witnessed_checkpoint()
        if witnessed is not None:
            yield witnessed, "witnessed"
        yield self._chain.checkpoint(), "committed"

    def _ledger_checkpoint(self, index: int) -> tuple[bytes, State]:
        """Return a checkpoint whose tree holds log index ``index``: a witnessed one if there is one."""
        for note, state in self._checkpoints():
            if parse(note).checkpoint.size > index:
                return note, state
        raise ChainCorrupt("the ledger's checkpoint does not cover a transaction that it committed")

    def _transaction(self, tx_id: str) -> CommittedTransaction:
        committed = self._chain.transaction(tx_id)
        if committed is None:
            raise ChainCorrupt("the ledger does not hold a transaction that it took; run `yiqiao fsck`")
        return committed

    def _placed(self, committed: CommittedTransaction, size: int) -> Committed:
        proof = tuple(self._chain.inclusion_proof(committed.index, size))
        return Committed(committed.envelope, committed.entry, committed.index, proof)

    @staticmethod
    def _inclusion(conn: Any, stored: SealedEntry, size: int) -> tuple[bytes, ...]:
        return tuple(TileLog(DatabaseTiles(conn, stored.origin), size).inclusion_proof(stored.position, size))
