"""Hostile bytes into everything of ``anchor.gm`` that parses: one encoding each, and only its own errors."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anchor.errors import AnchorError, DecryptionError, KeyFormatError, SignatureInvalid
from anchor.gm import PrivateKey, PublicKey, known_answers, sm4_gcm_decrypt
from anchor.gm.curve import N
from anchor.gm.der import Ciphertext, decode_ciphertext, decode_signature, encode_ciphertext, encode_signature
from anchor.gm.providers import PROVIDERS, TABLES

KEY = PrivateKey.from_bytes(bytes.fromhex(known_answers.SM2_PRIVATE))
CIPHERTEXT = KEY.public_key.encrypt(b"sixteen byte key")
SIGNATURE = KEY.sign(b"message")
COORDINATES = st.integers(0, 2**256 - 1)
QUIET = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUIET
@given(st.binary(max_size=80) | st.binary(min_size=65, max_size=65).map(lambda value: b"\x04" + value[1:]))
def test_any_bytes_as_a_public_key(encoded: bytes) -> None:
    try:
        key = PublicKey.from_bytes(encoded)
    except KeyFormatError:
        return
    assert key.to_bytes() == encoded


@QUIET
@given(st.binary(max_size=70) | st.binary(min_size=64, max_size=64))
def test_any_bytes_as_a_signature(capfd: pytest.CaptureFixture[str], signature: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        KEY.public_key.verify(b"another message", signature)


@QUIET
@given(st.integers(0, 511))
def test_no_flipped_bit_of_a_signature_verifies(capfd: pytest.CaptureFixture[str], bit: int) -> None:
    flipped = (int.from_bytes(SIGNATURE, "big") ^ 1 << bit).to_bytes(64, "big")
    digest = KEY.public_key.digest(b"message")
    for verifier in (PROVIDERS["native"], TABLES):
        assert not verifier.verify_digest(KEY.public_key.to_bytes(), digest, flipped)


@QUIET
@given(st.integers(1, N - 1), st.integers(1, N - 1), st.binary(min_size=32, max_size=32))
def test_the_fast_providers_give_one_verdict(capfd: pytest.CaptureFixture[str], r: int, s: int, digest: bytes) -> None:
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    public = KEY.public_key.to_bytes()
    verdicts = {verifier.verify_digest(public, digest, signature) for verifier in (PROVIDERS["native"], TABLES)}
    assert verdicts == {False}
    made = PROVIDERS["native"].sign_digest(KEY.to_bytes(), digest)
    assert TABLES.verify_digest(public, digest, made)


@QUIET
@given(st.binary(max_size=200), st.integers(0, len(CIPHERTEXT) - 1), st.binary(max_size=3))
def test_any_bytes_as_a_ciphertext(capfd: pytest.CaptureFixture[str], noise: bytes, at: int, patch: bytes) -> None:
    for ciphertext in (noise, CIPHERTEXT[:at] + patch + CIPHERTEXT[at + len(patch) :], CIPHERTEXT[:at] + patch):
        if ciphertext == CIPHERTEXT:
            continue
        with pytest.raises(DecryptionError):
            KEY.decrypt(ciphertext)


@QUIET
@given(COORDINATES, COORDINATES, st.binary(min_size=32, max_size=32), st.binary(min_size=1, max_size=300))
def test_a_ciphertext_has_one_encoding(x: int, y: int, check: bytes, masked: bytes) -> None:
    value = Ciphertext(x, y, check, masked)
    encoded = encode_ciphertext(value)
    assert decode_ciphertext(encoded) == value
    for at in range(len(encoded)):
        changed = encoded[:at] + bytes([encoded[at] ^ 0x80]) + encoded[at + 1 :]
        try:
            assert encode_ciphertext(decode_ciphertext(changed)) == changed
        except DecryptionError:
            continue


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param("30060201010201", id="truncated"),
        pytest.param("3006020101020101 00", id="trailing byte"),
        pytest.param("3007020200010201 01", id="integer with a needless zero"),
        pytest.param("3006020181020101", id="negative integer"),
        pytest.param("30050200020101", id="empty integer"),
        pytest.param("308106020101020101", id="length not minimal"),
        pytest.param("3080020101020101 0000", id="indefinite length"),
        pytest.param("3106020101020101", id="a set"),
        pytest.param("3003020101", id="one integer"),
        pytest.param("3009020101020101020101", id="three integers"),
        pytest.param("", id="empty"),
        pytest.param("30", id="a tag only"),
    ],
)
def test_a_signature_has_one_der_encoding(encoded: str) -> None:
    with pytest.raises(ValueError):
        decode_signature(bytes.fromhex(encoded))


@QUIET
@given(COORDINATES, COORDINATES)
def test_der_signatures_round_trip(r: int, s: int) -> None:
    assert decode_signature(encode_signature(r, s)) == (r, s)


@QUIET
@given(st.binary(max_size=20), st.binary(max_size=20), st.binary(max_size=64), st.binary(max_size=8))
def test_any_bytes_into_sm4_gcm(key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> None:
    with pytest.raises(AnchorError):
        sm4_gcm_decrypt(key, nonce, sealed, aad)
