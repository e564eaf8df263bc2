"""Which genesis files are accepted, and the organisation ids in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anchor import genesis
from anchor.contracts.org_id import is_org_id
from anchor.errors import FormatError
from anchor.transaction import encode
from tests.ledger_consortium import AUTHORITY, CHAIN, HOSPITAL_A, START, encrypt_key, genesis_bytes, member, sign_key


def test_one_authority_begins_a_chain() -> None:
    content = genesis.genesis_for(
        chain=CHAIN,
        org=AUTHORITY,
        name="卫健委",
        endpoint="https://a.invalid",
        signing=sign_key(AUTHORITY),
        encryption=encrypt_key(AUTHORITY).public_key,
        time=START,
    )
    parsed = genesis.parse(content)
    assert (parsed.chain, parsed.threshold, parsed.state()["chain"]["authorities"]) == (CHAIN, 1, [AUTHORITY])
    assert b"private" not in content


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"v": 2}, id="version"),
        pytest.param({"chain": "Has Space"}, id="chain"),
        pytest.param({"time": -1}, id="time"),
        pytest.param({"time": True}, id="time-true"),
        pytest.param({"threshold": 0}, id="threshold-zero"),
        pytest.param({"threshold": 2}, id="threshold-above-authorities"),
        pytest.param({"members": []}, id="no-members"),
        pytest.param({"members": [1]}, id="member-not-an-object"),
        pytest.param({"members": [member(HOSPITAL_A)]}, id="no-authority"),
        pytest.param({"members": [member(AUTHORITY), member(AUTHORITY)]}, id="member-twice"),
        pytest.param({"members": [{**member(AUTHORITY), "status": "suspended"}]}, id="authority-suspended"),
        pytest.param({"members": [{**member(AUTHORITY), "org": "1" * 18}]}, id="org-id"),
        pytest.param({"members": [{**member(AUTHORITY), "keys": []}]}, id="no-keys"),
        pytest.param({"members": [{**member(AUTHORITY), "roles": ["authority"] * 2}]}, id="role-twice"),
        pytest.param({"extra": 1}, id="unknown-field"),
    ],
)
def test_a_genesis_file_of_another_shape_is_refused(changes: dict[str, Any]) -> None:
    value = {**json.loads(genesis_bytes((AUTHORITY, HOSPITAL_A))), **changes}
    with pytest.raises(FormatError):
        genesis.parse(encode(value))


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", genesis_bytes() + b"\n", b" " + genesis_bytes(), b"x" * 2**21])
def test_bytes_that_are_no_canonical_genesis_are_refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        genesis.parse(content)


@pytest.mark.parametrize(
    ("value", "right"),
    [
        pytest.param("91350100M000100Y43", True, id="the-example-of-GB-32100-2015"),
        pytest.param("91350100M000100Y44", False, id="wrong-check-character"),
        pytest.param("91350100M000100I43", False, id="a-letter-that-is-not-used"),
        pytest.param("91350100M000100Y4", False, id="too-short"),
        pytest.param("91350100M000100Y43\n", False, id="with-line-feed"),
        pytest.param("91350100m000100y43", False, id="small-letters"),
        pytest.param("９1350100M000100Y43", False, id="full-width-digit"),
        pytest.param("", False, id="empty"),
    ],
)
def test_organisation_ids(value: str, right: bool) -> None:
    assert is_org_id(value) is right
