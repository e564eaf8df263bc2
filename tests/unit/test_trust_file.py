"""The trust file: what it may say, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from anchor import canonical
from anchor.checkpoint import Checkpoint, SignedCheckpoint, sign
from anchor.errors import FormatError, SignatureInvalid, VerificationError
from anchor.gm import PrivateKey
from anchor.trust import Cosignature, Trust

KEYS = [PrivateKey.from_bytes(bytes([n]) * 32) for n in (1, 2, 3)]


def key(n: int, **changes: Any) -> dict[str, Any]:
    public = KEYS[n].public_key
    return {"id": public.key_id, "use": "sign", "public": public.to_bytes().hex(), "from": 100, "until": None} | changes


def member(n: int, **changes: Any) -> dict[str, Any]:
    return {
        "org": f"ORG{n}",
        "name": f"医院{n}",
        "roles": ["hospital"],
        "status": "active",
        "keys": [key(n)],
    } | changes


FILE: dict[str, Any] = {"v": 1, "chain": "c", "quorum": 2, "mandatory": ["ORG1"], "members": [member(0), member(1)]}


def changed(*path: Any, to: Any) -> bytes:
    value = copy.deepcopy(FILE)
    place = value
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = to
    return canonical.dump(value)


def test_it_comes_back_as_it_was() -> None:
    trust = Trust.parse(canonical.dump(FILE))
    assert trust.dump() == canonical.dump(FILE)
    assert Trust.parse(trust.dump()).fingerprint() == trust.fingerprint()
    assert trust.member("ORG0").signing_key(KEYS[0].public_key.key_id, 100).public == KEYS[0].public_key


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="no object"),
        pytest.param(canonical.dump(FILE).replace(b'"v":1', b'"v":1,"v":1'), id="a property twice"),
        pytest.param(changed("v", to=2), id="another version"),
        pytest.param(changed("v", to=True), id="true for 1"),
        pytest.param(changed("extra", to=1), id="an unknown field"),
        pytest.param(changed("quorum", to=0), id="no quorum"),
        pytest.param(changed("quorum", to=3), id="a quorum nobody reaches"),
        pytest.param(changed("mandatory", to=["ORG7"]), id="a stranger is mandatory"),
        pytest.param(changed("members", to=[member(0), member(0)]), id="a member twice"),
        pytest.param(changed("members", 0, to=1), id="a member that is a number"),
        pytest.param(changed("members", 0, "org", to="two words"), id="an id with a space"),
        pytest.param(changed("members", 0, "status", to="gone"), id="an unknown status"),
        pytest.param(changed("members", 0, "keys", to={}), id="keys that are no list"),
        pytest.param(changed("members", 0, "keys", 0, "use", to="both"), id="an unknown use"),
        pytest.param(changed("members", 0, "keys", 0, "public", to="04" + "0" * 127), id="a short key"),
        pytest.param(changed("members", 0, "keys", 0, "from", to="100"), id="a time in quotes"),
        pytest.param(changed("members", 0, "keys", 0, "until", to=-1), id="a negative time"),
        pytest.param(b" " * (8 * 1024 * 1024 + 1), id="too large"),
    ],
)
def test_what_is_not_a_trust_file_is_refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        Trust.parse(content)


def test_a_key_off_the_curve_is_refused_when_used() -> None:
    off = "04" + KEYS[0].public_key.to_bytes().hex()[2:-2] + "00"
    trust = Trust.parse(changed("members", 0, "keys", 0, "public", to=off))
    with pytest.raises(FormatError):
        _ = trust.member("ORG0").keys[0].public


def note(*signers: tuple[str, int, int]) -> SignedCheckpoint:
    point = Checkpoint("yiqiao/ledger/c", 1, b"\x00" * 32)
    return SignedCheckpoint(point, tuple(sign(point, org, KEYS[n], time) for org, n, time in signers))


def test_signatures_are_checked_counted_and_judged_at_their_time() -> None:
    trust = Trust.from_members("c", 2, (), [member(0), member(1, status="suspended"), member(2)])
    found = trust.verify_signatures(note(("ORG0", 0, 100), ("ORG1", 1, 100), ("ORG2", 2, 100)))
    assert [(each.org, each.counted) for each in found] == [("ORG0", True), ("ORG1", False), ("ORG2", True)]
    assert trust.quorum_missing(found) is None
    assert trust.quorum_missing(found[:2]) == "1 of 2 cosignatures"


def test_two_keys_of_one_organisation_count_once() -> None:
    both = member(0, keys=[key(0), key(1)])
    trust = Trust.from_members("c", 1, (), [both])
    found = trust.verify_signatures(note(("ORG0", 0, 100), ("ORG0", 1, 100)))
    assert [each.counted for each in found] == [True, False]


@pytest.mark.parametrize(
    ("signed", "error"),
    [
        pytest.param(note(("ORG9", 0, 100)), VerificationError, id="unknown organisation"),
        pytest.param(note(("ORG0", 1, 100)), VerificationError, id="another's key"),
        pytest.param(note(("ORG0", 0, 99)), VerificationError, id="before the key"),
        pytest.param(note(("ORG1", 1, 200)), VerificationError, id="after the key"),
    ],
)
def test_a_signature_that_cannot_be_checked_refuses_the_whole(signed: SignedCheckpoint, error: type[Exception]) -> None:
    trust = Trust.from_members("c", 1, (), [member(0), member(1, keys=[key(1, until=200)])])
    with pytest.raises(error):
        trust.verify_signatures(signed)
    assert trust.verify_signatures(note(("ORG1", 1, 500)), at=150)


def test_an_encryption_key_signs_nothing() -> None:
    trust = Trust.from_members("c", 1, (), [member(0, keys=[key(0, use="encrypt")])])
    with pytest.raises(VerificationError):
        trust.verify_signatures(note(("ORG0", 0, 100)))
    with pytest.raises(VerificationError):
        trust.member("ORG0").signing_key(KEYS[0].public_key.key_id, 100)


def test_a_signature_over_something_else_is_invalid() -> None:
    signed = note(("ORG0", 0, 100))
    other = SignedCheckpoint(Checkpoint("yiqiao/ledger/c", 2, b"\x00" * 32), signed.signatures)
    with pytest.raises(SignatureInvalid):
        Trust.from_members("c", 1, (), [member(0)]).verify_signatures(other)


def test_a_missing_mandatory_cosigner_is_named() -> None:
    trust = Trust.parse(canonical.dump(FILE))
    there = [Cosignature("ORG0", "", 1, True), Cosignature("ORG2", "", 1, True)]
    assert trust.quorum_missing(there) == "the mandatory cosignature of ORG1"
