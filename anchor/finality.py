"""Finality: that validators with more than two thirds of the power committed a block after the ledger stood thus.

CometBFT's header of height H+1 carries the application's hash after block H, and ``app_hash`` commits to the ledger's
whole state and log: so a light block whose header carries the hash of a ledger checkpoint's roots makes that checkpoint
final, whoever handed it over. It is checked in these steps:

(1) header, commit and validators belong together by their SHA-256 hashes, and are of this chain;
(2) the validators, with their keys and powers, are a set that the trust file names, at a time when it was in office;
(3) of their power, more than two thirds signed this very block (Ed25519 over the canonical precommit);
(4) the header's application hash is the one of the checkpoint's roots.

The keys are the consensus engine's; which institution each belongs to is bound on the ledger by SM2 signatures, and the
members' own SM2 cosignatures stand beside this proof, not behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from anchor import ed25519
from anchor.errors import AnchorError, FormatError, VerificationError
from anchor.gm import sm3
from anchor.light_block import (
    FLAG_COMMIT,
    LightBlock,
    header_hash,
    parse_light_block,
    validator_address,
    validators_hash,
    vote_sign_bytes,
)

ENGINE = "cometbft"
MAX_SETS = 4_096
"""Sets of validators in a trust file, past ones included: one a week for eighty years."""
MAX_VALIDATORS = 100
MAX_POWER = 1_000
MAX_TIME = 253_402_300_799
SETTLE_SECONDS = 86_400
"""Seconds for which a set still signs after the block that replaced it: two blocks, even if they take a day."""
APP_DOMAIN = b"yiqiao/app/v1"

_ORG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z")
_KEY = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class ValidatorSet:
    """The validators from a block's time on (Unix seconds): (organisation, key in hexadecimal, power) each."""

    time: int
    members: tuple[tuple[str, str, int], ...]

    @classmethod
    def read(cls, value: Any) -> ValidatorSet:
        """Read a set as the ledger's state (``validators/<n>``) or a trust file holds it; raises ``FormatError``."""
        if not isinstance(value, Mapping) or not {"time", "set"} <= value.keys():
            raise FormatError("a set of validators has a time and its members")
        time, members = value["time"], value["set"]
        if not _natural(time, MAX_TIME) or not isinstance(members, list) or len(members) > MAX_VALIDATORS:
            raise FormatError("a set of validators has a time and a list of members")
        found = []
        for each in members:
            if not isinstance(each, Mapping) or each.keys() != {"org", "key", "power"}:
                raise FormatError("a validator has an org, a key and a power")
            if not _text(each["org"], _ORG) or not _text(each["key"], _KEY):
                raise FormatError("a validator's org or key is not of its form")
            if not _natural(each["power"], MAX_POWER) or not each["power"]:
                raise FormatError("a validator's power is a whole number from 1")
            found.append((each["org"], each["key"], each["power"]))
        if len({key for _, key, _ in found}) != len(found):
            raise FormatError("a set of validators names a key twice")
        return cls(time, tuple(found))

    def value(self) -> dict[str, Any]:
        """Return the set as JSON values."""
        return {
            "time": self.time,
            "set": [{"org": org, "key": key, "power": power} for org, key, power in self.members],
        }

    def powers(self) -> dict[bytes, int]:
        """Return each key's power."""
        return {bytes.fromhex(key): power for _, key, power in self.members}


@dataclass(frozen=True, slots=True)
class Finality:
    """What a light block proves: the block's height and time (Unix seconds), who signed, and with how much power."""

    height: int
    time: int
    signers: tuple[str, ...]
    signed: int
    total: int


def read_sets(values: Iterable[Any]) -> tuple[ValidatorSet, ...]:
    """Read the sets of a trust file or of the ledger's state, in the order of their time; raises ``FormatError``."""
    sets = tuple(ValidatorSet.read(value) for value in values)
    if len(sets) > MAX_SETS or any(later.time < earlier.time for earlier, later in pairwise(sets)):
        raise FormatError(f"there are at most {MAX_SETS} sets of validators, in the order of their time")
    return sets


def checkpoint_app_hash(state_root: bytes, log_root: bytes) -> bytes:
    """Return the application's hash of a state and a log (``anchor.ledger.app_hash``)."""
    return sm3(APP_DOMAIN + state_root + log_root)


def verify_finality(content: bytes, *, chain: str, app_hash: bytes, trusted: Sequence[ValidatorSet]) -> Finality:
    """Check a light block against the validators that are trusted; raises ``FormatError`` or ``VerificationError``."""
    block = parse_light_block(content)
    _check_whole(block, chain)
    header = block.signed_header.header
    names = _trusted_names(block, trusted)
    signed, signers = _signatures(block, names)
    total = sum(each.voting_power for each in block.validator_set.validators)
    if 3 * signed <= 2 * total:
        raise VerificationError(f"validators with {signed} of {total} power signed the block, not more than two thirds")
    if header.app_hash != app_hash:
        raise VerificationError("the final block commits to another state or log than the checkpoint")
    return Finality(header.height, header.time.seconds, tuple(signers), signed, total)


def _check_whole(block: LightBlock, chain: str) -> None:
    """Step (1)."""
    header, commit, validators = (
        block.signed_header.header,
        block.signed_header.commit,
        block.validator_set.validators,
    )
    if header.chain_id != chain:
        raise VerificationError("the final block is of another chain")
    if commit.height != header.height or commit.block_id.hash != header_hash(header):
        raise VerificationError("the signatures are of another block than the header")
    if len(validators) > MAX_VALIDATORS or len(commit.signatures) != len(validators):
        raise VerificationError("there is not one signature, or its absence, for each validator")
    if validators_hash(validators) != header.validators_hash:
        raise VerificationError("the validators are not those that the header names")


def _trusted_names(block: LightBlock, trusted: Sequence[ValidatorSet]) -> dict[bytes, str]:
    """Step (2): return the organisations by key."""
    validators, time = block.validator_set.validators, block.signed_header.header.time.seconds
    powers = {each.pub_key.ed25519: each.voting_power for each in validators}
    if len(powers) != len(validators):
        raise VerificationError("the block's validators have a key twice")
    if not trusted:
        raise VerificationError("the trust file names no validators; get one that does")
    known = [number for number, each in enumerate(trusted) if each.powers() == powers]
    if not known:
        raise VerificationError("the trust file knows no such validators; a newer one may")
    for number in known:
        ends = trusted[number + 1].time + SETTLE_SECONDS if number + 1 < len(trusted) else MAX_TIME
        if trusted[number].time <= time <= ends:
            return {bytes.fromhex(key): org for org, key, _ in trusted[number].members}
    raise VerificationError("the block's validators were not in office at its time")


def _signatures(block: LightBlock, names: Mapping[bytes, str]) -> tuple[int, list[str]]:
    """Step (3): return the power that signed, and whose it is."""
    header, commit = block.signed_header.header, block.signed_header.commit
    power, signers = 0, []
    for validator, signature in zip(block.validator_set.validators, commit.signatures, strict=True):
        if signature.block_id_flag != FLAG_COMMIT:
            continue  # absent, or for no block: it counts for nothing
        key = validator.pub_key.ed25519
        if signature.validator_address != validator_address(key):
            raise VerificationError("a signature names another validator than its place")
        try:
            ed25519.verify(key, vote_sign_bytes(header.chain_id, commit, signature), signature.signature)
        except AnchorError:
            raise VerificationError(f"the signature of {names[key]}'s validator does not verify") from None
        power += validator.voting_power
        signers.append(names[key])
    return power, signers


def _natural(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _text(value: Any, form: re.Pattern[str]) -> bool:
    return isinstance(value, str) and form.match(value) is not None
