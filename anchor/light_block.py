"""CometBFT's light blocks: a block header, the signatures that committed it, and the validators they are held against.

The messages and hashes are those of CometBFT v0.38 (proto/tendermint/{types,crypto,version}; block protocol 11). Every
hash here is SHA-256 in an RFC 6962 tree; the ledger's own SM3 hashes stand in the header's ``app_hash``. What a light
block proves is for ``anchor.finality`` to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from anchor import merkle
from anchor.errors import FormatError
from anchor.protobuf import Message, always, binary, integer, many, optional, sfixed64, text, uint, varint

MAX_LIGHT_BLOCK_BYTES = 256 * 1024
"""Bytes: 256 validators with their signatures take about 60,000."""
PRECOMMIT = 2
"""SignedMsgType of the votes that a commit is made of."""
FLAG_ABSENT, FLAG_COMMIT, FLAG_NIL = 1, 2, 3
"""BlockIDFlag: what a validator's vote in a commit was for."""
ADDRESS_BYTES = 20


@dataclass
class Timestamp(Message):
    """google.protobuf.Timestamp."""

    seconds: int = integer(1)
    nanos: int = integer(2)


@dataclass
class PublicKey(Message):
    """tendermint.crypto.PublicKey; only Ed25519 keys are used."""

    ed25519: bytes = binary(1)
    secp256k1: bytes = binary(2)


@dataclass
class ConsensusVersion(Message):
    """tendermint.version.Consensus."""

    block: int = uint(1)
    app: int = uint(2)


@dataclass
class PartSetHeader(Message):
    """tendermint.types.PartSetHeader, and CanonicalPartSetHeader, which has the same fields."""

    total: int = uint(1)
    hash: bytes = binary(2)


@dataclass
class BlockID(Message):
    """tendermint.types.BlockID, and CanonicalBlockID."""

    hash: bytes = binary(1)
    part_set_header: PartSetHeader = always(2, PartSetHeader)


@dataclass
class Header(Message):
    """tendermint.types.Header. ``app_hash`` is the application's after the block before this one."""

    version: ConsensusVersion = always(1, ConsensusVersion)
    chain_id: str = text(2)
    height: int = integer(3)
    time: Timestamp = always(4, Timestamp)
    last_block_id: BlockID = always(5, BlockID)
    last_commit_hash: bytes = binary(6)
    data_hash: bytes = binary(7)
    validators_hash: bytes = binary(8)
    next_validators_hash: bytes = binary(9)
    consensus_hash: bytes = binary(10)
    app_hash: bytes = binary(11)
    last_results_hash: bytes = binary(12)
    evidence_hash: bytes = binary(13)
    proposer_address: bytes = binary(14)


@dataclass
class CommitSig(Message):
    """tendermint.types.CommitSig: one validator's part in a commit."""

    block_id_flag: int = uint(1)
    validator_address: bytes = binary(2)
    timestamp: Timestamp = always(3, Timestamp)
    signature: bytes = binary(4)


@dataclass
class Commit(Message):
    """tendermint.types.Commit: the votes that committed a block, in the order of its validator set."""

    height: int = integer(1)
    round: int = integer(2)
    block_id: BlockID = always(3, BlockID)
    signatures: list[CommitSig] = many(4, CommitSig)


@dataclass
class Validator(Message):
    """tendermint.types.Validator."""

    address: bytes = binary(1)
    pub_key: PublicKey = always(2, PublicKey)
    voting_power: int = integer(3)
    proposer_priority: int = integer(4)


@dataclass
class SimpleValidator(Message):
    """tendermint.types.SimpleValidator: what of a validator is hashed."""

    pub_key: PublicKey | None = optional(1, PublicKey)
    voting_power: int = integer(2)


@dataclass
class ValidatorSet(Message):
    """tendermint.types.ValidatorSet; its order counts. Only ``validators`` is hashed."""

    validators: list[Validator] = many(1, Validator)
    proposer: Validator | None = optional(2, Validator)
    total_voting_power: int = integer(3)


@dataclass
class SignedHeader(Message):
    """tendermint.types.SignedHeader."""

    header: Header = always(1, Header)
    commit: Commit = always(2, Commit)


@dataclass
class LightBlock(Message):
    """tendermint.types.LightBlock."""

    signed_header: SignedHeader = always(1, SignedHeader)
    validator_set: ValidatorSet = always(2, ValidatorSet)


@dataclass
class CanonicalVote(Message):
    """tendermint.types.CanonicalVote: what a validator signs."""

    type: int = uint(1)
    height: int = sfixed64(2)
    round: int = sfixed64(3)
    block_id: BlockID | None = optional(4, BlockID)
    timestamp: Timestamp = always(5, Timestamp)
    chain_id: str = text(6)


@dataclass
class _StringValue(Message):
    value: str = text(1)


@dataclass
class _IntegerValue(Message):
    value: int = integer(1)


@dataclass
class _BytesValue(Message):
    value: bytes = binary(1)


def parse_light_block(content: bytes) -> LightBlock:
    """Read a light block; raises ``FormatError`` for anything but the one encoding of a complete one."""
    if len(content) > MAX_LIGHT_BLOCK_BYTES:
        raise FormatError(f"a light block is at most {MAX_LIGHT_BLOCK_BYTES} bytes")
    block = LightBlock.decode(content)
    if block.encode() != content:
        raise FormatError("the light block is not in its one encoding")
    return block


def header_hash(header: Header) -> bytes:
    """Return a block's hash: the root over its header's 14 fields, each encoded by itself (types/block.go)."""
    return _root(
        [
            header.version.encode(),
            _StringValue(header.chain_id).encode(),
            _IntegerValue(header.height).encode(),
            header.time.encode(),
            header.last_block_id.encode(),
            *(
                _BytesValue(value).encode()
                for value in (
                    header.last_commit_hash,
                    header.data_hash,
                    header.validators_hash,
                    header.next_validators_hash,
                    header.consensus_hash,
                    header.app_hash,
                    header.last_results_hash,
                    header.evidence_hash,
                    header.proposer_address,
                )
            ),
        ]
    )


def validators_hash(validators: Sequence[Validator]) -> bytes:
    """Return the hash of a validator set, which depends on its order."""
    return _root([SimpleValidator(each.pub_key, each.voting_power).encode() for each in validators])


def validator_address(public: bytes) -> bytes:
    """Return the 20 bytes by which CometBFT names an Ed25519 key, of a validator or of a node."""
    return sha256(public).digest()[:ADDRESS_BYTES]


def vote_sign_bytes(chain: str, commit: Commit, signature: CommitSig) -> bytes:
    """Return what a validator signed for the block of ``commit``: the length and the canonical precommit."""
    vote = CanonicalVote(
        type=PRECOMMIT,
        height=commit.height,
        round=commit.round,
        block_id=commit.block_id,
        timestamp=signature.timestamp,
        chain_id=chain,
    ).encode()
    return varint(len(vote)) + vote


def _sha256(content: bytes) -> bytes:
    return sha256(content).digest()


def _root(leaves: Sequence[bytes]) -> bytes:
    return merkle.root_from_leaves([merkle.leaf_hash(leaf, hash=_sha256) for leaf in leaves], hash=_sha256)
