"""From CometBFT's JSON answers to a light block in protobuf, checked to be of one piece before it is handed on."""

from __future__ import annotations

import base64
import binascii
import calendar
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from anchor.chain.cometbft.rpc import CometRpc
from anchor.errors import ChainError
from anchor.light_block import (
    BlockID,
    Commit,
    CommitSig,
    ConsensusVersion,
    Header,
    LightBlock,
    PartSetHeader,
    PublicKey,
    SignedHeader,
    Timestamp,
    Validator,
    ValidatorSet,
    header_hash,
    validators_hash,
)

PER_PAGE = 100
"""Validators of one RPC page, the most that CometBFT gives."""
MAX_PAGES = 10

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z\Z")


def fetch(rpc: CometRpc, height: int) -> LightBlock:
    """Return the light block of a height; raises ``ChainError``, also when the parts do not belong together."""
    answer = rpc.call("commit", {"height": str(height)})
    validators: list[Validator] = []
    for page in range(1, MAX_PAGES + 1):
        part = rpc.call("validators", {"height": str(height), "page": str(page), "per_page": str(PER_PAGE)})
        validators += [_read(_validator, each) for each in part.get("validators") or ()]
        if len(validators) >= int(part.get("total", 0)):
            break
    signed = _read(_signed_header, answer.get("signed_header"))
    header = signed.header
    if header_hash(header) != signed.commit.block_id.hash or validators_hash(validators) != header.validators_hash:
        raise ChainError("the consensus engine's header, commit and validators do not belong together")
    proposer = next((each for each in validators if each.address == header.proposer_address), None)
    total = sum(each.voting_power for each in validators)
    return LightBlock(signed, ValidatorSet(validators, proposer, total))


def read_time(text: Any) -> tuple[int, int]:
    """Return Unix seconds and nanoseconds of an RFC 3339 instant; raises ``ChainError``."""
    match = _TIME.match(text) if isinstance(text, str) else None
    if match is None:
        raise ChainError("the consensus engine's answer holds a time that is none")
    try:
        moment = datetime.fromisoformat(match.group(1))
    except ValueError:
        raise ChainError("the consensus engine's answer holds a time that is none") from None
    return calendar.timegm(moment.timetuple()), int((match.group(2) or "").ljust(9, "0"))


def _read(read: Any, value: Any) -> Any:
    try:
        return read(value)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        raise ChainError("the consensus engine's block cannot be read") from None


def _signed_header(value: Mapping[str, Any]) -> SignedHeader:
    return SignedHeader(_header(value["header"]), _commit(value["commit"]))


def _header(value: Mapping[str, Any]) -> Header:
    version = value["version"]
    hashes = (
        "last_commit_hash", "data_hash", "validators_hash", "next_validators_hash", "consensus_hash", "app_hash",
        "last_results_hash", "evidence_hash", "proposer_address",
    )  # fmt: skip
    return Header(
        version=ConsensusVersion(int(version.get("block", 0)), int(version.get("app", 0))),
        chain_id=str(value["chain_id"]),
        height=int(value["height"]),
        time=Timestamp(*read_time(value["time"])),
        last_block_id=_block_id(value["last_block_id"]),
        **{name: bytes.fromhex(value[name]) for name in hashes},
    )


def _commit(value: Mapping[str, Any]) -> Commit:
    return Commit(
        height=int(value["height"]),
        round=int(value["round"]),
        block_id=_block_id(value["block_id"]),
        signatures=[
            CommitSig(
                block_id_flag=int(each["block_id_flag"]),
                validator_address=bytes.fromhex(each["validator_address"]),
                timestamp=Timestamp(*read_time(each["timestamp"])),
                signature=base64.b64decode(each["signature"] or "", validate=True),
            )
            for each in value["signatures"]
        ],
    )


def _block_id(value: Mapping[str, Any]) -> BlockID:
    parts = value["parts"]
    return BlockID(bytes.fromhex(value["hash"]), PartSetHeader(int(parts["total"]), bytes.fromhex(parts["hash"])))


def _validator(value: Mapping[str, Any]) -> Validator:
    return Validator(
        address=bytes.fromhex(value["address"]),
        pub_key=PublicKey(ed25519=base64.b64decode(value["pub_key"]["value"], validate=True)),
        voting_power=int(value["voting_power"]),
    )
