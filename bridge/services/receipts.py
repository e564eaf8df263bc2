"""Receipts: from what this node and the ledger hold to one file that an outsider checks offline.

A receipt is made anew each time it is asked for, so asking again later turns a pending one into a committed and a
committed one into a witnessed one; each stays valid for ever. A receipt for a record holds that record's log entry
and hashes, and nothing of any other record. Once a patient's data key is destroyed no new receipt of that record can
be made (its salt is gone); those made before stay valid, and ``upgrade`` still brings them on, for they hold their
entry themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from sqlalchemy import Engine, Table, select

from anchor.chain.client import ChainClient, CommittedTransaction, StateProof
from anchor.checkpoint import Checkpoint, parse
from anchor.errors import ChainCorrupt, ChainError
from anchor.receipt import (
    GRANT,
    MAX_DISCLOSED,
    PERMIT,
    RECEIVE,
    RELEASE,
    REQUEST,
    REVOKE,
    STATES,
    Committed,
    DisclosureReceipt,
    LogEntry,
    LogProof,
    RecordReceipt,
    State,
    StateEvidence,
    TimestampEvidence,
    disclosed_root,
    dump_receipt,
    parse_receipt,
)
from anchor.transaction import parse as parse_transaction
from bridge.errors import Conflict, Gone, NotFound
from bridge.services.access_request import parse as parse_request
from bridge.services.anchoring import NodeSigner
from bridge.services.logged_entries import Logged, LoggedEntries
from bridge.storage import witness_store
from bridge.storage.database import read_transaction
from bridge.storage.exchange import DisclosedRecord, Disclosure, ExchangeRequest
from bridge.storage.keyring import NODE, KeyRing

PAGE = 1000
"""Transactions read at a time when the ledger is searched for an amendment."""
STATE_ATTEMPTS = 20
"""Tries to read a state proof and the checkpoint of the very same block from a ledger that goes on."""
_EVENTS = {PERMIT: "permit", RELEASE: "release", RECEIVE: "receive"}
NOT_STAMPED = "no time stamp covers it yet; ask again after the next one, or without / 尚无时间戳覆盖，请稍后再试"

_DISCLOSED: Table = DisclosedRecord.__table__  # type: ignore[attr-defined]
_ANSWERED: Table = Disclosure.__table__  # type: ignore[attr-defined]
_ASKED: Table = ExchangeRequest.__table__  # type: ignore[attr-defined]


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
        self._org = org
        self._entries = LoggedEntries(engine, keyring, signer, org, clock)
        self._chain_id = chain_id
        self._records = records

    def for_record(self, type: str, id: str, version: int | None = None, *, stamped: bool = False) -> bytes:
        """Return the receipt of a record version (the current one when None), canonical JSON.

        ``stamped``: with an RFC 3161 time stamp. Raises ``NotFound``, ``Conflict`` when the version is not logged or no
        stamp covers it yet, ``KeyDestroyed``, or ``ChainError``.
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
        return dump_receipt(self.record(f"{type}/{id}/_history/{version}", stamped=stamped))

    def record(self, ref: str, entry: LogEntry | None = None, *, stamped: bool = False) -> RecordReceipt:
        """Return the receipt of the record version ``ref``; raises as ``for_record`` does.

        ``entry``: the entry itself where the caller has it (an older receipt does), None to open the sealed one.
        """
        [logged] = self._entries.find([ref], {} if entry is None else {ref: entry})
        return self._of_entry(logged, stamped=stamped)

    def records(self, refs: Sequence[str], *, published: bool = True) -> list[RecordReceipt]:
        """Return the receipts of several record versions, in their order; raises as ``for_record`` does.

        ``published`` False: pending ones in any case, for which the ledger is not asked.
        """
        made: dict[str, RecordReceipt] = {}  # receipts of one publication differ in the entry and its place only
        receipts = []
        for logged in self._entries.find(refs, published=published):
            like = made.get(logged.tx_id) if logged.tx_id is not None else None
            if like is None:
                receipt = self._of_entry(logged, stamped=False)
            else:
                receipt = replace(like, entry=logged.entry, log=logged.log)
            if logged.tx_id is not None:
                made[logged.tx_id] = receipt
            receipts.append(receipt)
        return receipts

    def _of_entry(self, logged: Logged, *, stamped: bool) -> RecordReceipt:
        if logged.tx_id is not None:
            return self.published(logged.entry, logged.log, logged.tx_id, stamped=stamped)
        if stamped:
            raise Conflict(NOT_STAMPED)
        return RecordReceipt(self._chain_id, "pending", logged.entry, logged.log, None, None)

    def published(self, entry: LogEntry, log: LogProof, tx_id: str, *, stamped: bool = False) -> RecordReceipt:
        """Return the receipt of an entry whose log was published by a transaction; the log may be another member's."""
        committed = self._transaction(tx_id)
        note, state = self._ledger_checkpoint(committed.index)
        point = parse(note).checkpoint
        return RecordReceipt(
            chain=self._chain_id,
            state=state,
            entry=entry,
            log=log,
            publication=self._placed(committed, point.size),
            ledger=note,
            timestamp=self._timestamp(point) if stamped else None,
            finality=self._chain.finality(point.size),
        )

    def for_disclosure(
        self, request_id: str, statement: Mapping[str, Any] | None = None, *, stamped: bool = False
    ) -> bytes:
        """Return the receipt of a released disclosure, canonical JSON; holder and requester make the same one.

        ``statement`` is what the request's commitment opens to (``statement_of``); given, it becomes part of the
        receipt, and so does what it says about the patient. Raises ``NotFound``, ``Conflict`` when nothing has been
        released yet, ``ChainError``.
        """
        return dump_receipt(self.disclosure(request_id, statement, None, stamped=stamped))

    def upgrade(self, content: bytes, *, stamped: bool = False) -> bytes:
        """Return a receipt brought as far as the ledger is now: pending, committed, witnessed; never less than before.

        Works for receipts of any member's records and of erased ones, from the receipt itself; a pending receipt of
        another member's record that its institution has published in another size since is for that institution to
        renew. Raises ``FormatError``, ``Conflict``, ``NotFound``, or ``ChainError``.
        """
        receipt = parse_receipt(content)
        if receipt.chain != self._chain_id:
            raise Conflict("the receipt is of another ledger than this node's / 回执属于另一账本")
        stamped = stamped or receipt.timestamp is not None
        made: RecordReceipt | DisclosureReceipt
        if isinstance(receipt, DisclosureReceipt):
            made = self.disclosure(receipt.request, receipt.statement, receipt.disclosed, stamped=stamped)
        elif receipt.entry.org == self._org:
            made = self.record(receipt.entry.ref, receipt.entry, stamped=stamped)
        else:
            log = LogProof(receipt.log.index, receipt.log.proof, None)
            made = self.published(receipt.entry, log, self._publication_of(receipt), stamped=stamped)
        return dump_receipt(receipt if STATES.index(made.state) < STATES.index(receipt.state) else made)

    def _publication_of(self, receipt: RecordReceipt) -> str:
        """Return the transaction that published the log head which another member's receipt leads to."""
        if receipt.publication is not None:
            return parse_transaction(receipt.publication.envelope).tx_id
        point = parse(receipt.log.checkpoint or b"").checkpoint
        state = self._chain.state(f"log/{point.origin}") or {}
        if (state.get("size"), state.get("root")) != (point.size, point.root.hex()):
            raise Conflict(f"only {receipt.entry.org} can renew its pending receipt / 待上链回执只能由出具机构更新")
        return str(state["tx"])

    def statement_of(self, request_id: str) -> dict[str, Any] | None:
        """Return the signed request's statement as this node has it, as holder or requester; None when it has none."""
        for table, kind in ((_ANSWERED, "request"), (_ASKED, "asked")):
            with read_transaction(self._engine) as conn:
                row = conn.execute(select(table).where(table.c.request_id == request_id)).first()
                if row is None or not row.request_sealed:
                    continue
                sealed = bytes(row.request_sealed)
                raw = self._keyring.open(conn, NODE, sealed, f"{kind}|{request_id}".encode())
            return dict(parse_request(raw).statement)
        return None

    def disclosure(
        self,
        request_id: str,
        statement: Mapping[str, Any] | None,
        disclosed: tuple[bytes, ...] | None,
        *,
        stamped: bool = False,
    ) -> DisclosureReceipt:
        """Return the receipt of a disclosure; ``disclosed``: its digests where the caller has them, None for ours."""
        request = self._chain.state(f"request/{request_id}")
        if request is None:
            raise NotFound("the ledger has no such request")
        if request["release"] is None:
            raise Conflict("nothing has been released for this request")
        if disclosed is not None and disclosed_root(disclosed).hex() != request["release"]["disclosed"]:
            raise Conflict("the receipt is of other records than were released / 回执与账本上的披露不符")
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
        point = parse(note).checkpoint
        size = point.size
        return DisclosureReceipt(
            chain=self._chain_id,
            state=state,
            request=request_id,
            statement=None if statement is None else dict(statement),
            transactions={role: self._placed(each, size) for role, each in committed.items()},
            amendments=tuple(self._placed(each, size) for each in history),
            disclosed=self._disclosed(request_id, request["release"]["count"]) if disclosed is None else disclosed,
            grant=grant,
            ledger=note,
            timestamp=self._timestamp(point) if stamped else None,
            finality=self._chain.finality(point.size),
        )

    def _timestamp(self, point: Checkpoint) -> TimestampEvidence:
        """Return the earliest time stamp over a checkpoint that covers ``point``; ``Conflict`` when there is none."""
        with read_transaction(self._engine) as conn:
            found = witness_store.timestamp_from(conn, point.origin, point.size)
        if found is None:
            raise Conflict(NOT_STAMPED)
        proof = self._chain.consistency_proof(point.size, found.size)
        return TimestampEvidence(found.note, tuple(proof), found.token)

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
