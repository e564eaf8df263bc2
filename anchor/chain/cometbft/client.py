"""The consortium engine's client: a ``ChainClient`` of the member's own replica, over CometBFT's RPC on loopback.

What it reads comes from a replica that has computed every block itself; what it submits is final when it is answered:
in a block that validators with more than two thirds of the power have signed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from anchor import checkpoint
from anchor.chain import remote_wire as wire
from anchor.chain.client import CommittedTransaction, Health, StateProof, StateReading, TransactionResult
from anchor.chain.cometbft import light_blocks
from anchor.chain.cometbft.queries import FAILED, MALFORMED, REFUSED
from anchor.chain.cometbft.replica import halted_reason
from anchor.chain.cometbft.rpc import CometRpc
from anchor.chain.cometbft.submission import Submitter
from anchor.errors import ChainError, ChainUnavailable, FormatError, VerificationError
from anchor.transaction import Code

SILENCE_SECONDS = 60
"""Seconds without a block after which the ledger is reported as standing still: six heartbeats."""
LAG_SECONDS = 5.0
"""A replica is a block behind another while the last precommits travel; a slow line and a busy machine multiply it."""
MAX_PAGE = 1_000

_Answer = TypeVar("_Answer")


class CometChain:
    """``ChainClient`` of the replica whose CometBFT node answers RPC at ``url``.

    ``home``: CometBFT's folder when it is on this machine, so that ``health`` can say why a halted replica halted.
    Threads may share an instance; it belongs to the process that made it.
    """

    lag_seconds = LAG_SECONDS

    def __init__(
        self,
        url: str,
        *,
        home: Path | None = None,
        timeout_seconds: float = 10,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rpc = CometRpc(url, timeout_seconds)
        self._home = home
        self._clock = clock
        self._submitter = Submitter(self._rpc, self._place_of, self.next_seq)

    def submit(self, envelopes: Sequence[bytes]) -> list[TransactionResult]:
        """Submit signed transactions in order and wait until each is committed or refused; safe to repeat."""
        return self._submitter.submit(envelopes) if envelopes else []

    def next_seq(self, org: str) -> int:
        """Return the sequence number the ledger expects next from ``org``."""
        return _understood(lambda value: wire.read_integer(value, "seq"), self._ask("/next-seq", org=org))

    def transaction(self, tx_id: str) -> CommittedTransaction | None:
        """Return a committed transaction, or None when the ledger holds none of that id."""
        content = self._ask("/transaction", tx_id=tx_id)
        return _understood(lambda value: wire.read_transaction(wire.load(value).get("transaction")), content)

    def transactions(self, start: int, limit: int) -> list[CommittedTransaction]:
        """Return up to ``limit`` (at most 1,000) committed transactions from log index ``start`` on, in log order."""
        content = self._ask("/transactions", **{"from": max(start, 0)}, limit=_page(limit))
        items = _understood(lambda value: wire.read_list(value, "transactions"), content)
        found = [_understood(wire.read_transaction, item) for item in items]
        return [one for one in found if one is not None]

    def checkpoint(self) -> bytes:
        """Return the newest ledger checkpoint with this member's signature and the cosignatures collected for it."""
        return self._ask("/checkpoint")

    def checkpoint_of(self, size: int) -> bytes:
        """Return the checkpoint of ``size`` entries; raises ``VerificationError`` when there is none."""
        return self._ask("/checkpoint", size=size)

    def witnessed_checkpoint(self) -> bytes | None:
        """Return the newest ledger checkpoint that a quorum has signed, or None when there is none yet."""
        return self._ask("/checkpoint/witnessed") or None

    def cosign(self, note: bytes) -> None:
        """Keep the valid cosignatures of a note; raises ``FormatError`` or ``VerificationError`` for one of no use."""
        checkpoint.parse(note)
        self._query("/cosign", note)

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the inclusion proof of log entry ``index`` in the tree of ``size``; raises ``VerificationError``."""
        return _understood(wire.read_hashes, self._ask("/proofs/inclusion", index=index, size=size))

    def consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        """Return the consistency proof between two sizes of the ledger's log; raises ``VerificationError``."""
        return _understood(wire.read_hashes, self._ask("/proofs/consistency", size1=size1, size2=size2))

    def state(self, key: str) -> dict[str, Any] | None:
        """Return a committed value of the state, or None."""
        return _understood(lambda value: wire.read_value(wire.load(value)), self._ask("/state", key=key))

    def state_with_prefix(self, prefix: str, limit: int = 1000) -> dict[str, dict[str, Any]]:
        """Return up to ``limit`` (at most 1,000) committed values whose keys start with ``prefix``, in key order."""
        return _understood(wire.read_states, self._ask("/states", prefix=prefix, limit=_page(limit)))

    def states(self, keys: Sequence[str], prefixes: Sequence[str] = ()) -> StateReading:
        """Return several committed values, and those under prefixes, one question to the replica after the other."""
        return StateReading(
            {key: self.state(key) for key in keys},
            {prefix: self.state_with_prefix(prefix, MAX_PAGE) for prefix in prefixes},
            self.health().block_time,
        )

    def state_proof(self, key: str) -> StateProof:
        """Return a value of the latest state with its proof."""
        return _understood(wire.read_state_proof, self._ask("/state-proof", key=key))

    def finality(self, size: int) -> bytes | None:
        """Return the light block (protobuf) whose header commits to the ledger's log of ``size`` entries and its state.

        None when CometBFT made no block of that size, or its next header is still to come.
        """
        place = _understood(wire.load, self._ask("/place", size=size)).get("comet_height")
        if type(place) is not int:
            return None
        status = _mapping(self._rpc.call("status"), "sync_info")
        if int(status.get("latest_block_height", 0)) <= place:
            return None
        return light_blocks.fetch(self._rpc, place + 1).encode()

    def status(self) -> Mapping[str, Any]:
        """Return CometBFT's own view of its node (RPC ``status``); raises ``ChainError``."""
        return self._rpc.call("status")

    def call(self, method: str, parameters: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Call one of CometBFT's RPC methods; raises ``ChainError``."""
        return self._rpc.call(method, parameters)

    def health(self) -> Health:
        """Return the engine's condition: behind, standing still or halted is not healthy; does not raise."""
        try:
            health = _understood(wire.read_health, self._ask("/health"))
            sync = _mapping(self.status(), "sync_info")
            seconds, _ = light_blocks.read_time(sync.get("latest_block_time"))
        except ChainError as error:
            reason = halted_reason(self._home) if self._home is not None else ""
            return Health(False, "cometbft", 0, 0, 0, f"halted: {reason}" if reason else str(error))
        silent = self._clock() - seconds
        detail = ""
        if sync.get("catching_up"):
            detail = f"behind the others, at CometBFT height {sync.get('latest_block_height')}"
        elif silent > SILENCE_SECONDS and int(sync.get("latest_block_height", 0)) > 1:  # block 1 is at genesis time
            detail = f"no block for {silent:.0f} s: validators of a third of the power or more do not take part"
        return Health(not detail, "cometbft", health.height, max(health.block_time, seconds), health.log_size, detail)

    def close(self) -> None:
        """Tell waiting submitters, stop the threads and close the connections."""
        self._submitter.close()
        self._rpc.close()

    def _place_of(self, tx_id: str) -> TransactionResult | None:
        found = self.transaction(tx_id)
        if found is None:
            return None
        return TransactionResult(tx_id, Code.OK, "", found.height, found.index, found.block_time)

    def _ask(self, path: str, **parameters: Any) -> bytes:
        return self._query(path, orjson.dumps(parameters))

    def _query(self, path: str, data: bytes) -> bytes:
        answer = self._rpc.query(path, data)
        if answer.code == 0:
            return answer.value
        if answer.code == REFUSED:
            raise VerificationError(answer.log)
        if answer.code == MALFORMED:
            raise FormatError(answer.log)
        if answer.code == FAILED:
            raise ChainUnavailable(answer.log)
        raise ChainError(answer.log or "the ledger's node refused the question")


def _understood(read: Callable[[Any], _Answer], content: Any) -> _Answer:
    try:
        return read(content)
    except FormatError as error:
        raise ChainError(f"the answer of this member's ledger node cannot be read: {error}") from None


def _mapping(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    if not isinstance(found, dict):
        raise ChainError("the consensus engine's answer lacks what was asked for")
    return found


def _page(limit: int) -> int:
    if limit < 0:
        raise ChainError("a limit is not negative")
    return min(limit, MAX_PAGE)
