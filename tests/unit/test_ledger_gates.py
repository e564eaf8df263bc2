"""What every transaction must pass, whatever its type, and the code it is refused with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anchor import transaction
from anchor.errors import TransactionRejected
from anchor.transaction import MAX_ENVELOPE_BYTES, Code
from tests.ledger_consortium import (
    AUTHORITY,
    HOSPITAL_A,
    HOSPITAL_B,
    START,
    STRANGER,
    Sender,
    encrypt_key,
    grant_body,
    key,
    propose,
    sign_key,
)

ENDPOINT = {"endpoint": "https://moved.invalid"}


def send(**changes: Any) -> str:
    sender = changes.pop("sender", HOSPITAL_A)
    return Sender().send(sender, changes.pop("type", "membership.endpoint"), ENDPOINT, **changes).code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({}, Code.OK, id="right"),
        pytest.param({"expires": START}, Code.OK, id="expires-with-this-very-block"),
        pytest.param({"expires": START - 1}, Code.EXPIRED, id="expired"),
        pytest.param({"expires": START + 900}, Code.OK, id="expires-as-late-as-it-may"),
        pytest.param({"expires": START + 901}, Code.EXPIRES_TOO_LATE, id="expires-too-late"),
        pytest.param({"chain": "another"}, Code.WRONG_CHAIN, id="another-chain"),
        pytest.param({"sender": STRANGER}, Code.UNKNOWN_SENDER, id="not-a-member"),
        pytest.param({"key": key("nobody")}, Code.UNKNOWN_KEY, id="a-key-nobody-registered"),
        pytest.param({"key": sign_key(HOSPITAL_B)}, Code.UNKNOWN_KEY, id="another-members-key"),
        pytest.param({"key": encrypt_key(HOSPITAL_A)}, Code.UNKNOWN_KEY, id="an-encryption-key"),
        pytest.param({"seq": 2}, Code.BAD_SEQUENCE, id="a-gap"),
        pytest.param({"type": "membership.resign"}, Code.UNKNOWN_TYPE, id="unknown-type"),
        pytest.param({"type": "membership"}, Code.UNKNOWN_TYPE, id="half-a-type"),
    ],
)
def test_gate(changes: dict[str, Any], code: str) -> None:
    assert send(**changes) == code


def test_a_signature_by_another_key_under_a_known_key_id_is_refused() -> None:
    sender = Sender()
    good = sender.envelope(HOSPITAL_A, "membership.endpoint", ENDPOINT)
    forged = sign_key(HOSPITAL_B).sign(good[143:-1]).hex().encode()
    assert sender.send_envelope(b'{"sig":"' + forged + good[136:]).code == Code.BAD_SIGNATURE


def test_a_replay_is_refused_and_says_which_number_is_next() -> None:
    sender = Sender()
    envelope = sender.envelope(HOSPITAL_A, "membership.endpoint", ENDPOINT)
    assert sender.send_envelope(envelope).ok
    again = sender.send_envelope(envelope)
    assert (again.code, again.expected_seq) == (Code.BAD_SEQUENCE, 2)


def test_a_refused_transaction_does_not_use_up_its_number() -> None:
    sender = Sender()
    assert sender.send(HOSPITAL_A, "consent.grant", {"grant": "x"}).code == Code.BAD_BODY
    assert sender.send(HOSPITAL_A, "membership.endpoint", ENDPOINT, seq=1).ok


def test_two_senders_count_for_themselves() -> None:
    sender = Sender()
    assert sender.send(HOSPITAL_A, "membership.endpoint", ENDPOINT, seq=1).ok
    assert sender.send(HOSPITAL_B, "membership.endpoint", ENDPOINT, seq=1).ok


def test_a_suspended_members_writes_stop_within_the_same_block() -> None:
    sender = Sender()
    suspend = sender.envelope(AUTHORITY, "membership.propose", propose({"kind": "suspend", "org": HOSPITAL_A}))
    write = sender.envelope(HOSPITAL_A, "membership.endpoint", ENDPOINT)
    block = sender.ledger.apply_block([suspend, write], START)
    assert [one.code for one in block.results] == [Code.OK, Code.SUSPENDED_SENDER]


def test_block_time_never_goes_back() -> None:
    sender = Sender()
    sender.time = START + 100
    sender.accepted(HOSPITAL_A, "membership.endpoint", ENDPOINT)
    block = sender.ledger.apply_block([], START)
    assert block.time == START + 100


def test_an_empty_block_leaves_the_app_hash() -> None:
    sender = Sender()
    sender.accepted(HOSPITAL_A, "consent.grant", grant_body())
    before = sender.ledger.app_hash
    block = sender.ledger.apply_block([], START + 50)
    sender.ledger.commit(block)
    assert (sender.ledger.app_hash, sender.ledger.head.height) == (before, 2)


def test_computing_a_block_changes_nothing_until_it_is_committed() -> None:
    sender = Sender()
    envelope = sender.envelope(HOSPITAL_A, "consent.grant", grant_body())
    before = sender.ledger.app_hash
    first, second = sender.ledger.apply_block([envelope], START), sender.ledger.apply_block([envelope], START)
    assert first.app_hash == second.app_hash != before
    assert sender.ledger.app_hash == before
    sender.ledger.commit(second)
    assert sender.ledger.app_hash == first.app_hash


def test_a_block_that_is_not_the_next_is_not_committed() -> None:
    sender = Sender()
    block = sender.ledger.apply_block([], START)
    sender.ledger.commit(block)
    with pytest.raises(ValueError, match="not the next"):
        sender.ledger.commit(block)


def test_check_takes_a_future_number_and_refuses_a_past_one() -> None:
    sender = Sender()
    sender.accepted(HOSPITAL_A, "membership.endpoint", ENDPOINT)
    assert sender.ledger.check(sender.envelope(HOSPITAL_A, "membership.endpoint", ENDPOINT, seq=9)).seq == 9
    with pytest.raises(TransactionRejected) as refused:
        sender.ledger.check(sender.envelope(HOSPITAL_A, "membership.endpoint", ENDPOINT, seq=1))
    assert refused.value.code == Code.BAD_SEQUENCE


def reshaped(change: str) -> bytes:
    """Return the envelope of a right transaction, encoded otherwise."""
    good = Sender().envelope(HOSPITAL_A, "membership.endpoint", ENDPOINT)
    value = json.loads(good)
    if change == "spaces":
        return json.dumps(value, sort_keys=True).encode()
    if change == "order":
        return json.dumps({"tx": value["tx"], "sig": value["sig"]}, separators=(",", ":")).encode()
    if change == "twice":
        return good.replace(b'"v":1', b'"v":1,"v":1')
    if change == "escape":
        return good.replace(b'"https:', b'"\\u0068ttps:')
    if change == "upper":
        return good[:8] + good[8:136].upper() + good[136:]
    if change == "tail":
        return good + b"\n"
    if change == "bom":
        return b"\xef\xbb\xbf" + good
    return b""


@pytest.mark.parametrize("change", ["spaces", "order", "twice", "escape", "upper", "tail", "bom", "nothing"])
def test_another_encoding_of_a_right_transaction_is_refused(change: str) -> None:
    assert Sender().send_envelope(reshaped(change)).code == Code.BAD_ENCODING


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("v", 2, id="another-version"),
        pytest.param("v", True, id="true-is-not-one"),
        pytest.param("seq", 0, id="sequence-zero"),
        pytest.param("seq", "1", id="sequence-as-text"),
        pytest.param("seq", 2**53, id="sequence-beyond-2^53"),
        pytest.param("seq", 1.0, id="sequence-as-float"),
        pytest.param("expires", -1, id="negative-expiry"),
        pytest.param("expires", None, id="no-expiry"),
        pytest.param("chain", "", id="empty-chain"),
        pytest.param("sender", "a b", id="sender-with-space"),
        pytest.param("key", "ABCDEF0123456789", id="key-in-capitals"),
        pytest.param("type", ["x"], id="type-as-list"),
        pytest.param("body", [], id="body-as-list"),
        pytest.param("body", {"x": 1.5}, id="float-in-body"),
        pytest.param("body", {"x": [{"y": 2**60}]}, id="large-integer-in-body"),
        pytest.param("body", {"x": "a" * MAX_ENVELOPE_BYTES}, id="too-large"),
        pytest.param("extra", 1, id="unknown-field"),
    ],
)
def test_a_field_of_the_wrong_form_is_bad_encoding(field: str, value: Any) -> None:
    good = json.loads(Sender().envelope(HOSPITAL_A, "membership.endpoint", ENDPOINT))
    good["tx"][field] = value
    content = transaction.encode(good)
    with pytest.raises(TransactionRejected) as refused:
        transaction.parse(content)
    assert refused.value.code == Code.BAD_ENCODING


@pytest.mark.parametrize("field", ["v", "chain", "type", "sender", "key", "seq", "expires", "body"])
def test_a_missing_field_is_bad_encoding(field: str) -> None:
    good = json.loads(Sender().envelope(HOSPITAL_A, "membership.endpoint", ENDPOINT))
    del good["tx"][field]
    with pytest.raises(TransactionRejected):
        transaction.parse(transaction.encode(good))


def test_a_deeply_nested_body_is_refused() -> None:
    body: dict[str, Any] = {}
    for _ in range(17):
        body = {"x": body}
    with pytest.raises(TransactionRejected):
        Sender().envelope(HOSPITAL_A, "membership.endpoint", body)


def test_a_refusal_repeats_nothing_of_the_body() -> None:
    result = Sender().send(HOSPITAL_A, "membership.endpoint", {"endpoint": "张三 13800000000"})
    assert result.code == Code.BAD_BODY
    assert "张三" not in result.message
