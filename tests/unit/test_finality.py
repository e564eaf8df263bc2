"""Light blocks as proofs of finality: one that CometBFT made, ones made here, and every way in which one may lie."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor import ledger
from anchor.errors import AnchorError, FormatError, VerificationError
from anchor.finality import (
    SETTLE_SECONDS,
    Finality,
    ValidatorSet,
    checkpoint_app_hash,
    read_sets,
    verify_finality,
)
from anchor.light_block import (
    FLAG_ABSENT,
    FLAG_COMMIT,
    FLAG_NIL,
    BlockID,
    Commit,
    CommitSig,
    Header,
    LightBlock,
    PartSetHeader,
    PublicKey,
    SignedHeader,
    Timestamp,
    Validator,
    header_hash,
    parse_light_block,
    validator_address,
    validators_hash,
    vote_sign_bytes,
)
from anchor.light_block import ValidatorSet as BlockValidators
from tests.ledger_consortium import AUTHORITY, CHAIN, HOSPITAL_A, HOSPITAL_B, PAYER, START, validator_key

GOLDEN = Path(__file__).parents[1] / "golden" / "cometbft" / "light_block.json"
ORGS = (AUTHORITY, HOSPITAL_A, HOSPITAL_B, PAYER)
APP_HASH = b"a" * 32


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def trusted(powers: tuple[int, ...] = (10, 10, 10, 10), time: int = START) -> ValidatorSet:
    return ValidatorSet(
        time, tuple((org, public(validator_key(org)).hex(), power) for org, power in zip(ORGS, powers, strict=True))
    )


def light_block(
    flags: tuple[int, ...] = (FLAG_COMMIT,) * 4,
    powers: tuple[int, ...] = (10, 10, 10, 10),
    change_header: Callable[[Header], None] = lambda _: None,
    change_commit: Callable[[Commit], None] = lambda _: None,
    time: int = START + 60,
) -> LightBlock:
    validators = [
        Validator(validator_address(public(validator_key(org))), PublicKey(public(validator_key(org))), power)
        for org, power in zip(ORGS, powers, strict=True)
    ]
    header = Header(chain_id=CHAIN, height=7, time=Timestamp(time, 5), app_hash=APP_HASH)
    header.validators_hash = validators_hash(validators)
    change_header(header)
    commit = Commit(7, 0, BlockID(header_hash(header), PartSetHeader(1, b"p" * 32)))
    for org, flag in zip(ORGS, flags, strict=True):
        key = validator_key(org)
        signature = CommitSig(flag, validator_address(public(key)), Timestamp(time + 1, 9))
        if flag == FLAG_ABSENT:
            signature = CommitSig(flag, b"", Timestamp(-62_135_596_800))
        else:
            signature.signature = key.sign(vote_sign_bytes(header.chain_id, commit, signature))
        commit.signatures.append(signature)
    change_commit(commit)
    return LightBlock(SignedHeader(header, commit), BlockValidators(validators, validators[0], sum(powers)))


def verify(block: LightBlock, *sets: ValidatorSet, app_hash: bytes = APP_HASH) -> Finality:
    return verify_finality(block.encode(), chain=CHAIN, app_hash=app_hash, trusted=sets or (trusted(),))


class TestCometBFTsOwn:
    """A light block of a network of four, written down from CometBFT v0.38.25: hashes and signatures are not ours."""

    def test_it_proves_what_it_should(self) -> None:
        golden = json.loads(GOLDEN.read_text())
        content = base64.b64decode(golden["light_block"])
        final = verify_finality(
            content,
            chain=golden["chain"],
            app_hash=bytes.fromhex(golden["app_hash"]),
            trusted=read_sets(golden["validators"]),
        )
        assert (final.signed, final.total) == (golden["signed"], 40)
        assert final.height == golden["height"]

    def test_its_header_hashes_to_its_block_id(self) -> None:
        golden = json.loads(GOLDEN.read_text())
        block = parse_light_block(base64.b64decode(golden["light_block"]))
        assert header_hash(block.signed_header.header) == block.signed_header.commit.block_id.hash

    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def test_no_byte_of_it_can_be_changed(self, data: st.DataObject) -> None:
        golden = json.loads(GOLDEN.read_text())
        content = bytearray(base64.b64decode(golden["light_block"]))
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= data.draw(st.integers(1, 255))
        try:
            final = verify_finality(
                bytes(content),
                chain=golden["chain"],
                app_hash=bytes.fromhex(golden["app_hash"]),
                trusted=read_sets(golden["validators"]),
            )
        except AnchorError:
            return
        # What is not hashed or signed: the proposer's copy and priorities, and flags of absent votes.
        assert (final.height, final.signed) == (golden["height"], golden["signed"])


class TestPower:
    @pytest.mark.parametrize(
        ("flags", "powers", "signed"),
        [
            pytest.param((2, 2, 2, 2), (10, 10, 10, 10), 40, id="all"),
            pytest.param((2, 2, 2, 1), (10, 10, 10, 10), 30, id="one-absent"),
            pytest.param((2, 3, 2, 2), (10, 10, 10, 10), 30, id="one-for-nil"),
            pytest.param((2, 1, 1, 1), (91, 10, 10, 10), 91, id="by-power-not-by-number"),
        ],
    )
    def test_more_than_two_thirds_is_final(self, flags: tuple[int, ...], powers: tuple[int, ...], signed: int) -> None:
        final = verify(light_block(flags, powers), trusted(powers))
        assert (final.signed, final.total, final.time) == (signed, sum(powers), START + 60)

    @pytest.mark.parametrize(
        ("flags", "powers"),
        [
            pytest.param((2, 2, 1, 1), (10, 10, 10, 10), id="half"),
            pytest.param((2, 2, FLAG_NIL, FLAG_NIL), (10, 10, 10, 10), id="half-for-nil"),
            pytest.param((2, 2, 1, 1), (10, 10, 5, 5), id="exactly-two-thirds"),
            pytest.param((1, 1, 1, 1), (10, 10, 10, 10), id="none"),
        ],
    )
    def test_two_thirds_or_less_is_not(self, flags: tuple[int, ...], powers: tuple[int, ...]) -> None:
        with pytest.raises(VerificationError, match="two thirds"):
            verify(light_block(flags, powers), trusted(powers))


def set_signature(commit: Commit) -> None:
    commit.signatures[1].signature = commit.signatures[2].signature


def repeat_validator(commit: Commit) -> None:
    commit.signatures[1] = commit.signatures[0]


LIES: list[Any] = [
    pytest.param(light_block(change_header=lambda h: setattr(h, "chain_id", "another")), "another chain", id="chain"),
    pytest.param(
        light_block(change_header=lambda h: setattr(h, "app_hash", b"b" * 32)), "another state", id="other-app-hash"
    ),
    pytest.param(light_block(change_commit=lambda c: setattr(c, "height", 8)), "another block", id="commit-height"),
    pytest.param(
        light_block(change_commit=lambda c: setattr(c.block_id, "hash", b"x" * 32)), "another block", id="block-id"
    ),
    pytest.param(light_block(change_commit=lambda c: c.signatures.pop()), "not one signature", id="signature-missing"),
    pytest.param(light_block(change_commit=set_signature), "does not verify", id="anothers-signature"),
    pytest.param(light_block(change_commit=repeat_validator), "another validator", id="one-signature-twice"),
    pytest.param(light_block(change_commit=lambda c: setattr(c, "round", 3)), "does not verify", id="another-round"),
    pytest.param(
        light_block(change_commit=lambda c: setattr(c.signatures[0].timestamp, "nanos", 10)),
        "does not verify",
        id="another-time",
    ),
    pytest.param(
        light_block(change_header=lambda h: setattr(h, "validators_hash", b"v" * 32)), "validators are not", id="set"
    ),
]


class TestLies:
    @pytest.mark.parametrize(("block", "words"), LIES)
    def test_a_light_block_that_lies_proves_nothing(self, block: LightBlock, words: str) -> None:
        with pytest.raises(VerificationError, match=words):
            verify(block)

    def test_a_validator_that_the_trust_file_does_not_name_proves_nothing(self) -> None:
        with pytest.raises(VerificationError, match="knows no such validators"):
            verify(light_block(powers=(11, 10, 10, 10)))
        with pytest.raises(VerificationError, match="names no validators"):
            verify_finality(light_block().encode(), chain=CHAIN, app_hash=APP_HASH, trusted=())

    def test_a_set_counts_while_it_is_in_office(self) -> None:
        later = trusted((10, 10, 10, 11), START + 1000)
        assert verify(light_block(time=START + 1000 + SETTLE_SECONDS), trusted(), later).height == 7
        with pytest.raises(VerificationError, match="not in office"):
            verify(light_block(time=START + 1001 + SETTLE_SECONDS), trusted(), later)
        with pytest.raises(VerificationError, match="not in office"):
            verify(light_block(time=START - 1))

    def test_a_set_that_comes_back_counts_again(self) -> None:
        other = trusted((10, 10, 10, 11), START + 1000)
        again = trusted(time=START + 10 * SETTLE_SECONDS)
        assert verify(light_block(time=START + 11 * SETTLE_SECONDS), trusted(), other, again).signed == 40

    @pytest.mark.parametrize("content", [b"", b"x", b"\x0a\x00", light_block().encode() + b"\x20\x01"])
    def test_what_is_no_light_block_is_refused(self, content: bytes) -> None:
        with pytest.raises((FormatError, VerificationError)):
            verify_finality(content, chain=CHAIN, app_hash=APP_HASH, trusted=(trusted(),))

    def test_a_light_block_beyond_its_bound_is_refused(self) -> None:
        with pytest.raises(FormatError, match="at most"):
            verify_finality(b"x" * 300_000, chain=CHAIN, app_hash=APP_HASH, trusted=(trusted(),))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([], id="not-an-object"),
        pytest.param({"time": 1}, id="no-set"),
        pytest.param({"time": "1", "set": []}, id="time"),
        pytest.param({"time": 1, "set": [{"org": AUTHORITY, "key": "00" * 32}]}, id="no-power"),
        pytest.param({"time": 1, "set": [{"org": AUTHORITY, "key": "00", "power": 1}]}, id="key"),
        pytest.param({"time": 1, "set": [{"org": "a b", "key": "00" * 32, "power": 1}]}, id="org"),
        pytest.param({"time": 1, "set": [{"org": AUTHORITY, "key": "00" * 32, "power": 0}]}, id="power"),
        pytest.param({"time": 1, "set": [{"org": AUTHORITY, "key": "00" * 32, "power": 1}] * 2}, id="key-twice"),
    ],
)
def test_a_set_has_its_form(value: object) -> None:
    with pytest.raises(FormatError):
        read_sets([value])


def test_sets_are_in_order_and_come_back() -> None:
    values = [trusted(time=START).value(), trusted((1, 2, 3, 4), START + 1).value()]
    assert [one.value() for one in read_sets(values)] == values
    with pytest.raises(FormatError):
        read_sets(values[::-1])


def test_the_offline_verifier_computes_the_ledgers_app_hash() -> None:
    assert checkpoint_app_hash(b"s" * 32, b"l" * 32) == ledger.app_hash(b"s" * 32, b"l" * 32)
