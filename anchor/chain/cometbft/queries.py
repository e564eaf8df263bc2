"""What a replica answers to ABCI queries: the ledger's log, state, checkpoints and proofs, in ``remote_wire``'s forms.

A query's ``path`` names the question, its ``data`` is a JSON object of parameters (for ``/cosign`` the note itself).
The answers are this node's own, from what it has computed and persisted itself; RPC is on loopback, so that only the
member's own processes ask. ``/cosign`` writes, but only cosignatures: they are no part of the replicated state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from anchor import checkpoint
from anchor.chain import remote_wire as wire
from anchor.chain.client import CommittedTransaction, Health, TransactionResult
from anchor.chain.cometbft.messages import ProofOp, ProofOps, RequestQuery, ResponseQuery
from anchor.chain.cometbft.replica_store import ReplicaStore
from anchor.chain.embedded_store import TransactionRow, storage_errors
from anchor.chain.embedded_witness import accept_cosignatures, with_cosignatures, witnessed_size
from anchor.errors import AnchorError, FormatError, VerificationError
from anchor.ledger import log_entry
from anchor.tiles import TileLog
from anchor.transaction import Code, parse

FAILED, MALFORMED, REFUSED, UNKNOWN_PATH = 1, 2, 3, 4
"""``ResponseQuery.code``: the file cannot be used; not a question; the proof or note cannot be; no such question."""
MAX_PAGE = 1_000
"""Rows that one answer holds."""
MAX_ASKED = 1_024
"""Packs asked after in one question."""
STATE_PROOF, LOG_PROOF = "yiqiao:state/v1", "yiqiao:log/v1"
"""Types of the proof operations in answers that were asked to prove (docs/ledger.md)."""
FILTER = "/p2p/filter/"

Results = Mapping[str, tuple[TransactionResult, ...]]
"""Pack id to the results of its envelopes."""
_Parameters = Mapping[str, Any]


class Queries:
    """Answers questions from one replica's store; ``results`` are those of the packs in recent blocks."""

    def __init__(self, store: ReplicaStore, results: Results, bootstrap: frozenset[str], quorum: int | None) -> None:
        """``bootstrap``: ids of the nodes that are let in while the ledger does not name them yet."""
        self._quorum = quorum
        self._store = store
        self._file = store.file
        self._results = results
        self._bootstrap = bootstrap
        self._answers: Mapping[str, Callable[[_Parameters], bytes]] = {
            "/results": self._packs,
            "/transaction": self._transaction,
            "/transactions": self._transactions,
            "/next-seq": self._next_seq,
            "/checkpoint": self._checkpoint,
            "/checkpoint/witnessed": self._witnessed,
            "/proofs/inclusion": self._inclusion,
            "/proofs/consistency": self._consistency,
            "/state": self._state,
            "/states": self._states,
            "/state-proof": self._state_proof,
            "/place": self._place,
            "/health": self._health,
        }

    def answer(self, request: RequestQuery) -> ResponseQuery:
        """Answer one query; every failure is a code and a sentence."""
        height = self._store.comet_height
        try:
            with storage_errors():
                return self._answer(request, height)
        except FormatError as error:
            return ResponseQuery(code=MALFORMED, log=str(error), height=height)
        except VerificationError as error:
            return ResponseQuery(code=REFUSED, log=str(error), height=height)
        except AnchorError as error:
            return ResponseQuery(code=FAILED, log=str(error), height=height)

    def _answer(self, request: RequestQuery, height: int) -> ResponseQuery:
        if request.path.startswith(FILTER):
            return self._filter(request.path, height)
        if request.path == "/cosign":
            return ResponseQuery(value=self._cosign(request.data), height=height)
        answer = self._answers.get(request.path)
        if answer is None:
            return ResponseQuery(code=UNKNOWN_PATH, log="there is no such query", height=height)
        parameters = wire.load(request.data or b"{}")
        value = answer(parameters)
        proof = self._proof(request.path, parameters) if request.prove else None
        return ResponseQuery(value=value, proof_ops=proof, height=height)

    def _packs(self, parameters: _Parameters) -> bytes:
        """What became of the packs asked after; those not in a recent block are left out."""
        asked = _field(parameters, "packs", list)
        if len(asked) > MAX_ASKED:
            raise FormatError(f"at most {MAX_ASKED} packs are asked after at once")
        known = {one: self._results[one] for one in asked if type(one) is str and one in self._results}
        return orjson.dumps(
            {one: orjson.Fragment(wire.write_results([self._placed(r) for r in found])) for one, found in known.items()}
        )

    def _placed(self, result: TransactionResult) -> TransactionResult:
        """Answer a transaction that was committed before with its place, whatever it was refused for this time."""
        if result.ok or result.code == Code.BAD_ENCODING:
            return result
        row = self._file.transaction(bytes.fromhex(result.tx_id))
        if row is None:
            return result
        return TransactionResult(result.tx_id, Code.OK, "", row.height, row.index, row.time)

    def _transaction(self, parameters: _Parameters) -> bytes:
        row = self._row(parameters)
        return wire.dump({"transaction": wire.write_transaction(None if row is None else _committed(row))})

    def _row(self, parameters: _Parameters) -> TransactionRow | None:
        try:
            return self._file.transaction(bytes.fromhex(_field(parameters, "tx_id", str)))
        except ValueError:
            return None

    def _transactions(self, parameters: _Parameters) -> bytes:
        start, limit = _natural(parameters, "from"), min(_natural(parameters, "limit"), MAX_PAGE)
        found = [wire.write_transaction(_committed(row)) for row in self._file.transactions(start, limit)]
        return wire.dump({"transactions": found})

    def _next_seq(self, parameters: _Parameters) -> bytes:
        value = self._file.state(f"seq/{_field(parameters, 'org', str)}")
        return wire.dump({"seq": 1 if value is None else orjson.loads(value)["seq"] + 1})

    def _checkpoint(self, parameters: _Parameters) -> bytes:
        """The newest checkpoint, or that of ``size`` entries."""
        row = self._file.head()
        if parameters.get("size") is not None:
            found = self._file.block_of_size(_natural(parameters, "size"))
            if found is None:
                raise VerificationError("this ledger has no checkpoint of that size")
            row = found
        return checkpoint.render(with_cosignatures(self._file, row))

    def _witnessed(self, _parameters: _Parameters) -> bytes:
        row = self._file.block_of_size(witnessed_size(self._file))
        return b"" if row is None else checkpoint.render(with_cosignatures(self._file, row))

    def _cosign(self, note: bytes) -> bytes:
        with self._file.writing():
            accept_cosignatures(self._file, note, self._quorum)
        return b""

    def _log(self, size: int) -> TileLog:
        now = self._store.ledger.head.log.size
        if size > now:
            raise VerificationError("the ledger's log has no tree of that size")
        return TileLog(self._file, now)

    def _inclusion(self, parameters: _Parameters) -> bytes:
        index, size = _natural(parameters, "index"), _natural(parameters, "size")
        return wire.write_hashes(self._log(size).inclusion_proof(index, size))

    def _consistency(self, parameters: _Parameters) -> bytes:
        size1, size2 = _natural(parameters, "size1"), _natural(parameters, "size2")
        return wire.write_hashes(self._log(size2).consistency_proof(size1, size2))

    def _state(self, parameters: _Parameters) -> bytes:
        content = self._file.state(_field(parameters, "key", str))
        return orjson.dumps({"value": None if content is None else orjson.Fragment(content)})

    def _states(self, parameters: _Parameters) -> bytes:
        limit = min(_natural(parameters, "limit"), MAX_PAGE)
        rows = self._file.states(_field(parameters, "prefix", str), limit)
        return orjson.dumps({"states": {key: orjson.Fragment(content) for key, content in rows}})

    def _state_proof(self, parameters: _Parameters) -> bytes:
        return wire.write_state_proof(self._store.prove(_field(parameters, "key", str)))

    def _place(self, parameters: _Parameters) -> bytes:
        """In which CometBFT block the log got a size; 0: where CometBFT began; null: before that, or never."""
        place = self._file.place_of_size(_natural(parameters, "size"))
        return wire.dump({"comet_height": None if place is None else place.comet_height})

    def _health(self, _parameters: _Parameters) -> bytes:
        head = self._store.ledger.head
        return wire.write_health(Health(True, "cometbft", head.height, head.time, head.log.size))

    def _proof(self, path: str, parameters: _Parameters) -> ProofOps | None:
        """Prove an answer: a state value under the state root, a transaction under the log's root."""
        if path == "/state":
            key = _field(parameters, "key", str)
            return ProofOps([ProofOp(STATE_PROOF, key.encode(), self._store.prove(key).proof)])
        row = self._row(parameters) if path == "/transaction" else None
        if row is None:
            return None
        size = self._store.ledger.head.log.size
        hashes = [one.hex() for one in self._log(size).inclusion_proof(row.index, size)]
        content = wire.dump({"index": row.index, "size": size, "proof": hashes})
        return ProofOps([ProofOp(LOG_PROOF, row.tx_id, content)])

    def _filter(self, path: str, height: int) -> ResponseQuery:
        """Let in the nodes of active members, and those of the bootstrap list that the ledger does not name."""
        kind, _, value = path.removeprefix(FILTER).partition("/")
        if kind != "id":
            return ResponseQuery(height=height)  # by address: the node's key is what counts
        named = {
            node["node"]: node["org"]
            for node in (orjson.loads(content) for _, content in self._file.states("node/", MAX_PAGE))
        }
        if value in named:
            member = self._file.state(f"member/{named[value]}")
            allowed = member is not None and orjson.loads(member)["status"] == "active"
        else:
            allowed = value in self._bootstrap
        if allowed:
            return ResponseQuery(height=height)
        return ResponseQuery(code=REFUSED, log="the ledger names no active member with that node", height=height)


def _committed(row: TransactionRow) -> CommittedTransaction:
    tx = parse(row.envelope)
    entry = log_entry(tx, row.height, row.time, row.index)
    return CommittedTransaction(tx.tx_id, row.envelope, entry, row.height, row.index, row.time)


def _field(parameters: _Parameters, name: str, kind: type) -> Any:
    value = parameters.get(name)
    if type(value) is not kind:
        raise FormatError(f"the parameter {name} is missing or not of its type")
    return value


def _natural(parameters: _Parameters, name: str) -> int:
    value: int = _field(parameters, name, int)
    if not 0 <= value < 1 << 63:
        raise FormatError(f"the parameter {name} is not a count")
    return value
