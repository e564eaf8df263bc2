"""The messages of ABCI 2.0 that pass between CometBFT and the application (v0.38, proto/tendermint/abci/types.proto).

Only what the application reads or writes is declared; unknown fields are skipped. On the wire each message is the one
field of a ``Request`` or ``Response``; mind that a response's field number is its request's plus one.
"""

from __future__ import annotations

from dataclasses import dataclass

from anchor.errors import FormatError
from anchor.light_block import PublicKey, Timestamp
from anchor.protobuf import (
    Message,
    always,
    binary,
    boolean,
    integer,
    many,
    optional,
    read_fields,
    text,
    uint,
    varint,
)

NEW, RECHECK = 0, 1
"""CheckTxType."""
PROPOSAL_ACCEPT, PROPOSAL_REJECT = 1, 2
"""ProposalStatus; 0 would be taken for an error."""
OFFER_ACCEPT, OFFER_ABORT, OFFER_REJECT, OFFER_REJECT_FORMAT = 1, 2, 3, 4
"""ResponseOfferSnapshot.Result."""
CHUNK_ACCEPT, CHUNK_ABORT, CHUNK_RETRY, CHUNK_RETRY_SNAPSHOT, CHUNK_REJECT_SNAPSHOT = 1, 2, 3, 4, 5
"""ResponseApplySnapshotChunk.Result."""

_LENGTH_DELIMITED = 2


@dataclass
class RequestEcho(Message):
    """Asks for the same text back."""

    message: str = text(1)


@dataclass
class RequestFlush(Message):
    """Asks for everything answered so far to be sent."""


@dataclass
class RequestInfo(Message):
    """The handshake: how far is the application?"""

    version: str = text(1)
    block_version: int = uint(2)
    p2p_version: int = uint(3)
    abci_version: str = text(4)


@dataclass
class ValidatorUpdate(Message):
    """A validator's key and its power from now on; 0 removes it."""

    pub_key: PublicKey = always(1, PublicKey)
    power: int = integer(2)


@dataclass
class RequestInitChain(Message):
    """The chain begins."""

    time: Timestamp = always(1, Timestamp)
    chain_id: str = text(2)
    validators: list[ValidatorUpdate] = many(4, ValidatorUpdate)
    app_state_bytes: bytes = binary(5)
    initial_height: int = integer(6)


@dataclass
class RequestQuery(Message):
    """A question to this node's application."""

    data: bytes = binary(1)
    path: str = text(2)
    height: int = integer(3)
    prove: bool = boolean(4)


@dataclass
class RequestCheckTx(Message):
    """May this transaction wait for a block?"""

    tx: bytes = binary(1)
    type: int = uint(2)


@dataclass
class RequestCommit(Message):
    """Persist the block finalised last."""


@dataclass
class RequestListSnapshots(Message):
    """Which snapshots can be served?"""


@dataclass
class Snapshot(Message):
    """A snapshot as it is offered to other nodes."""

    height: int = uint(1)
    format: int = uint(2)
    chunks: int = uint(3)
    hash: bytes = binary(4)
    metadata: bytes = binary(5)


@dataclass
class RequestOfferSnapshot(Message):
    """Another node offers a snapshot; ``app_hash`` is what the validators signed for its height."""

    snapshot: Snapshot = always(1, Snapshot)
    app_hash: bytes = binary(2)


@dataclass
class RequestLoadSnapshotChunk(Message):
    """Another node asks for a part of a snapshot."""

    height: int = uint(1)
    format: int = uint(2)
    chunk: int = uint(3)


@dataclass
class RequestApplySnapshotChunk(Message):
    """A part of the accepted snapshot; ``sender`` is the node it came from."""

    index: int = uint(1)
    chunk: bytes = binary(2)
    sender: str = text(3)


@dataclass
class AbciValidator(Message):
    """A validator by address."""

    address: bytes = binary(1)
    power: int = integer(3)


@dataclass
class Misbehavior(Message):
    """What a validator has been proven to have done: 1 voted twice, 2 attacked light clients."""

    type: int = uint(1)
    validator: AbciValidator = always(2, AbciValidator)
    height: int = integer(3)


@dataclass
class RequestPrepareProposal(Message):
    """This node proposes the next block: which of these transactions, in which order?"""

    max_tx_bytes: int = integer(1)
    txs: list[bytes] = many(2, "bytes")
    height: int = integer(5)
    time: Timestamp = always(6, Timestamp)


@dataclass
class RequestProcessProposal(Message):
    """Another node proposes a block: is it acceptable?"""

    txs: list[bytes] = many(1, "bytes")
    hash: bytes = binary(4)
    height: int = integer(5)
    time: Timestamp = always(6, Timestamp)
    proposer_address: bytes = binary(8)


@dataclass
class RequestFinalizeBlock(Message):
    """A block has been decided: compute it."""

    txs: list[bytes] = many(1, "bytes")
    misbehavior: list[Misbehavior] = many(3, Misbehavior)
    hash: bytes = binary(4)
    height: int = integer(5)
    time: Timestamp = always(6, Timestamp)
    proposer_address: bytes = binary(8)


@dataclass
class ResponseException(Message):
    """The application cannot go on; the node stops."""

    error: str = text(1)


@dataclass
class ResponseEcho(Message):
    """The same text."""

    message: str = text(1)


@dataclass
class ResponseFlush(Message):
    """Everything has been sent."""


@dataclass
class ResponseInfo(Message):
    """How far the application is."""

    data: str = text(1)
    version: str = text(2)
    app_version: int = uint(3)
    last_block_height: int = integer(4)
    last_block_app_hash: bytes = binary(5)


@dataclass
class ResponseInitChain(Message):
    """The application's state and validators at the beginning."""

    validators: list[ValidatorUpdate] = many(2, ValidatorUpdate)
    app_hash: bytes = binary(3)


@dataclass
class ProofOp(Message):
    """One step of a proof, of a type that names who can check it."""

    type: str = text(1)
    key: bytes = binary(2)
    data: bytes = binary(3)


@dataclass
class ProofOps(Message):
    """Steps of a proof."""

    ops: list[ProofOp] = many(1, ProofOp)


@dataclass
class ResponseQuery(Message):
    """The answer to a question; ``code`` 0 means that there is one."""

    code: int = uint(1)
    log: str = text(3)
    key: bytes = binary(6)
    value: bytes = binary(7)
    proof_ops: ProofOps | None = optional(8, ProofOps)
    height: int = integer(9)


@dataclass
class ResponseCheckTx(Message):
    """Whether a transaction may wait (``code`` 0)."""

    code: int = uint(1)
    data: bytes = binary(2)
    log: str = text(3)


@dataclass
class ResponseCommit(Message):
    """Persisted. ``retain_height`` 0: all blocks are kept."""

    retain_height: int = integer(3)


@dataclass
class ResponseListSnapshots(Message):
    """The snapshots that can be served."""

    snapshots: list[Snapshot] = many(1, Snapshot)


@dataclass
class ResponseOfferSnapshot(Message):
    """Whether a snapshot is taken."""

    result: int = uint(1)


@dataclass
class ResponseLoadSnapshotChunk(Message):
    """A part of a snapshot, empty when there is none."""

    chunk: bytes = binary(1)


@dataclass
class ResponseApplySnapshotChunk(Message):
    """What became of a part, which to fetch again, and from whom to take no more."""

    result: int = uint(1)
    refetch_chunks: list[int] = many(2, "uint")
    reject_senders: list[str] = many(3, "string")


@dataclass
class ResponsePrepareProposal(Message):
    """The transactions of the proposed block."""

    txs: list[bytes] = many(1, "bytes")


@dataclass
class ResponseProcessProposal(Message):
    """Whether a proposed block is acceptable."""

    status: int = uint(1)


@dataclass
class ExecTxResult(Message):
    """What became of one transaction; ``code`` and ``data`` are hashed into the next header, ``log`` is not."""

    code: int = uint(1)
    data: bytes = binary(2)
    log: str = text(3)


@dataclass
class ResponseFinalizeBlock(Message):
    """A computed block."""

    tx_results: list[ExecTxResult] = many(2, ExecTxResult)
    validator_updates: list[ValidatorUpdate] = many(3, ValidatorUpdate)
    app_hash: bytes = binary(5)


REQUESTS: dict[int, type[Message]] = {
    1: RequestEcho,
    2: RequestFlush,
    3: RequestInfo,
    5: RequestInitChain,
    6: RequestQuery,
    8: RequestCheckTx,
    11: RequestCommit,
    12: RequestListSnapshots,
    13: RequestOfferSnapshot,
    14: RequestLoadSnapshotChunk,
    15: RequestApplySnapshotChunk,
    16: RequestPrepareProposal,
    17: RequestProcessProposal,
    20: RequestFinalizeBlock,
}
"""Field number in ``Request`` to the message; vote extensions (18, 19) are never switched on."""

RESPONSES: dict[type[Message], int] = {
    ResponseException: 1,
    ResponseEcho: 2,
    ResponseFlush: 3,
    ResponseInfo: 4,
    ResponseInitChain: 6,
    ResponseQuery: 7,
    ResponseCheckTx: 9,
    ResponseCommit: 12,
    ResponseListSnapshots: 13,
    ResponseOfferSnapshot: 14,
    ResponseLoadSnapshotChunk: 15,
    ResponseApplySnapshotChunk: 16,
    ResponsePrepareProposal: 17,
    ResponseProcessProposal: 18,
    ResponseFinalizeBlock: 21,
}
"""A response to its field number in ``Response``."""


def read_request(content: bytes) -> Message:
    """Read the one message of a ``Request``; raises ``FormatError``."""
    found = [(number, value) for number, wire, value in read_fields(content) if wire == _LENGTH_DELIMITED]
    if len(found) != 1 or found[0][0] not in REQUESTS:
        raise FormatError("the request holds no message that the application knows")
    number, value = found[0]
    return REQUESTS[number].decode(value)


def write_response(message: Message) -> bytes:
    """Return a ``Response`` with its length before it, as it goes over the socket."""
    content = message.encode()
    body = varint(RESPONSES[type(message)] << 3 | _LENGTH_DELIMITED) + varint(len(content)) + content
    return varint(len(body)) + body
