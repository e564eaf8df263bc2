"""Our protobuf codec and messages against Google's runtime with the definitions of an independent package (cosmpy)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor import light_block
from anchor.chain.cometbft import messages
from anchor.errors import FormatError
from anchor.protobuf import MAX_DEPTH, Message, read_fields, read_varint, varint
from tests.cometbft_oracle import oracle

NAMES: dict[type[Message], str] = {
    light_block.Timestamp: "google.protobuf.Timestamp",
    light_block.PublicKey: "tendermint.crypto.PublicKey",
    light_block.ConsensusVersion: "tendermint.version.Consensus",
    messages.ProofOp: "tendermint.crypto.ProofOp",
    messages.ProofOps: "tendermint.crypto.ProofOps",
    messages.AbciValidator: "tendermint.abci.Validator",
    messages.ExecTxResult: "tendermint.abci.ExecTxResult",
    messages.Snapshot: "tendermint.abci.Snapshot",
    messages.ValidatorUpdate: "tendermint.abci.ValidatorUpdate",
    messages.Misbehavior: "tendermint.abci.Misbehavior",
    **{each: f"tendermint.abci.{each.__name__}" for each in (*messages.REQUESTS.values(), *messages.RESPONSES)},
    **{
        each: f"tendermint.types.{each.__name__}"
        for each in (
            light_block.PartSetHeader,
            light_block.BlockID,
            light_block.Header,
            light_block.CommitSig,
            light_block.Commit,
            light_block.Validator,
            light_block.SimpleValidator,
            light_block.ValidatorSet,
            light_block.SignedHeader,
            light_block.LightBlock,
        )
    },
}
KINDS = {
    FieldDescriptor.TYPE_UINT32: "uint",
    FieldDescriptor.TYPE_UINT64: "uint",
    FieldDescriptor.TYPE_ENUM: "uint",
    FieldDescriptor.TYPE_INT32: "int",
    FieldDescriptor.TYPE_INT64: "int",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_MESSAGE: "message",
}
CLASSES = pytest.mark.parametrize("message", NAMES, ids=lambda each: each.__name__)


def specs(message: type[Message]) -> dict[str, Any]:
    return {one.name: one.metadata["protobuf"] for one in dataclasses.fields(message)}


@CLASSES
def test_every_field_is_declared_as_in_the_independent_definitions(message: type[Message]) -> None:
    theirs = oracle(NAMES[message]).DESCRIPTOR.fields_by_name
    for name, spec in specs(message).items():
        field = theirs[name]
        assert (spec.number, spec.kind, spec.repeated) == (field.number, KINDS[field.type], field.is_repeated)
        if spec.message is not None:
            assert NAMES[spec.message] == field.message_type.full_name


def test_requests_and_responses_have_their_numbers() -> None:
    request = oracle("tendermint.abci.Request").DESCRIPTOR.fields_by_number
    assert {n: f"tendermint.abci.{each.__name__}" for n, each in messages.REQUESTS.items()} == {
        n: request[n].message_type.full_name for n in messages.REQUESTS
    }
    response = oracle("tendermint.abci.Response").DESCRIPTOR.fields_by_number
    assert {n: f"tendermint.abci.{each.__name__}" for each, n in messages.RESPONSES.items()} == {
        n: response[n].message_type.full_name for n in messages.RESPONSES.values()
    }


def scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    bits = 31 if field.type in (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_INT32) else 63
    strategies: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "uint": lambda: (
            st.integers(0, 2) if field.type == FieldDescriptor.TYPE_ENUM else st.integers(0, (2 << bits) - 1)
        ),
        "int": lambda: st.integers(-(1 << bits), (1 << bits) - 1),
        "bool": st.booleans,
        "bytes": lambda: st.binary(max_size=200),
        "string": lambda: st.text(max_size=40),
    }
    return strategies[KINDS[field.type]]()


def values(message: type[Message]) -> st.SearchStrategy[Message]:
    theirs = oracle(NAMES[message]).DESCRIPTOR.fields_by_name
    parts: dict[str, st.SearchStrategy[Any]] = {}
    for name, spec in specs(message).items():
        if message is light_block.PublicKey and name == "secp256k1":
            continue  # one of the two, never both
        each = scalars(theirs[name]) if spec.message is None else values(spec.message)
        if spec.repeated:
            each = st.lists(each, max_size=3)
        elif spec.message is not None and dataclasses.fields(message)[0].default is None:
            each = st.none() | each
        parts[name] = each
    return st.builds(message, **parts)


def fill(theirs: Any, ours: Message) -> Any:
    """Set the same values in the other implementation's message."""
    for name, spec in specs(type(ours)).items():
        value = getattr(ours, name)
        if spec.message is None and not spec.repeated:
            if value:
                setattr(theirs, name, value)
        elif spec.message is None:
            getattr(theirs, name).extend(value)
        elif spec.repeated:
            for item in value:
                fill(getattr(theirs, name).add(), item)
        elif value is not None:
            getattr(theirs, name).SetInParent()
            fill(getattr(theirs, name), value)
    return theirs


@settings(max_examples=25, deadline=None)
@CLASSES
@given(data=st.data())
def test_both_implementations_write_the_same_bytes_and_read_each_other(
    message: type[Message], data: st.DataObject
) -> None:
    ours = data.draw(values(message))
    theirs = fill(oracle(NAMES[message])(), ours)
    assert ours.encode() == theirs.SerializeToString(deterministic=True)
    assert message.decode(theirs.SerializeToString()) == ours


def test_a_request_of_the_other_implementation_is_read_with_what_we_do_not_declare() -> None:
    request = oracle("tendermint.abci.Request")()
    block = request.finalize_block
    block.txs.extend([b"one", b"", b"three"])
    block.height, block.time.seconds, block.hash = 7, 1_767_225_600, b"h" * 32
    block.decided_last_commit.votes.add().validator.power = 5
    block.misbehavior.add(type=1, height=3).validator.address = b"a" * 20
    block.next_validators_hash = b"n" * 32
    read = messages.read_request(request.SerializeToString())
    assert isinstance(read, messages.RequestFinalizeBlock)
    assert (read.txs, read.height, read.time.seconds, read.hash) == (
        [b"one", b"", b"three"],
        7,
        1_767_225_600,
        b"h" * 32,
    )
    assert (read.misbehavior[0].type, read.misbehavior[0].validator.address) == (1, b"a" * 20)


def test_a_response_is_read_by_the_other_implementation_after_its_length() -> None:
    ours = messages.ResponseFinalizeBlock(
        tx_results=[messages.ExecTxResult(code=1, data=b"[]", log="why"), messages.ExecTxResult()],
        validator_updates=[messages.ValidatorUpdate(light_block.PublicKey(b"k" * 32), 0)],
        app_hash=b"a" * 32,
    )
    wire = messages.write_response(ours)
    length, start = read_varint(wire, 0)
    assert length == len(wire) - start
    read = oracle("tendermint.abci.Response").FromString(wire[start:])
    assert read.WhichOneof("value") == "finalize_block"
    assert [one.code for one in read.finalize_block.tx_results] == [1, 0]
    assert read.finalize_block.validator_updates[0].pub_key.ed25519 == b"k" * 32
    assert read.finalize_block.app_hash == b"a" * 32


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x0a", id="no-length"),
        pytest.param(b"\x0a\x05ab", id="shorter-than-its-length"),
        pytest.param(b"\x08" + b"\xff" * 10, id="endless-number"),
        pytest.param(b"\x08" + b"\x80" * 9 + b"\x02", id="more-than-64-bits"),
        pytest.param(b"\x02\x00", id="field-number-zero"),
        pytest.param(b"\x0b", id="group"),
        pytest.param(b"\x0f\x00", id="wire-type-seven"),
        pytest.param(b"\x08\x01", id="number-where-bytes-should-be"),
        pytest.param(b"\x2d\x00\x00", id="cut-fixed32"),
    ],
)
def test_what_is_no_message_is_a_format_error(content: bytes) -> None:
    with pytest.raises(FormatError):
        messages.RequestCheckTx.decode(content)


def test_text_that_is_not_utf8_and_endless_nesting_are_format_errors() -> None:
    with pytest.raises(FormatError):
        messages.RequestEcho.decode(b"\x0a\x01\xff")
    with pytest.raises(FormatError):
        messages.RequestEcho.decode(b"", depth=0)
    assert MAX_DEPTH > 6


@pytest.mark.parametrize("content", [b"", b"\x22\x00\x22\x00", b"\x92\x01\x00", b"\x08\x01"])
def test_a_request_that_holds_not_exactly_one_known_message_is_a_format_error(content: bytes) -> None:
    with pytest.raises(FormatError):
        messages.read_request(content)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_format_errors(content: bytes) -> None:
    for message in (messages.RequestFinalizeBlock, light_block.LightBlock, messages.RequestOfferSnapshot):
        try:
            decoded = message.decode(content)
        except FormatError:
            continue
        assert message.decode(decoded.encode()) == decoded


@given(st.integers(0, (1 << 64) - 1))
def test_numbers_come_back(value: int) -> None:
    assert read_varint(b"\x00" + varint(value), 1) == (value, len(varint(value)) + 1)


def test_fields_are_read_in_their_order() -> None:
    assert list(read_fields(b"\x08\x05\x12\x01a\x1d\x01\x02\x03\x04")) == [
        (1, 0, 5),
        (2, 2, b"a"),
        (3, 5, b"\x01\x02\x03\x04"),
    ]
