"""One suite for every implementation of the national algorithms, and cross-checks between them."""

from __future__ import annotations

import itertools

import pytest

from anchor.errors import DecryptionError
from anchor.gm import der, known_answers
from anchor.gm.curve import N
from anchor.gm.keys import PublicKey
from anchor.gm.providers import PROVIDERS, Provider, Verifier
from anchor.gm.providers.tables import TableVerifier

PRIVATE = bytes.fromhex(known_answers.SM2_PRIVATE)
PUBLIC = bytes.fromhex(known_answers.SM2_PUBLIC)
SIGNATURE = bytes.fromhex(known_answers.SM2_SIGNATURE)
DIGEST = PublicKey.from_bytes(PUBLIC).digest(known_answers.SM2_MESSAGE)
OTHER_PUBLIC = PROVIDERS["native"].public_key(b"\x00" * 31 + b"\x05")
TABLES = TableVerifier()

ALL = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
PAIRS = pytest.mark.parametrize(
    ("one", "other"),
    [pytest.param(PROVIDERS[a], PROVIDERS[b], id=f"{a}-to-{b}") for a, b in itertools.product(PROVIDERS, repeat=2)],
)
VERIFIERS = pytest.mark.parametrize("verifier", [*PROVIDERS.values(), TABLES], ids=[*PROVIDERS, "tables"])


def altered(value: bytes, at: int) -> bytes:
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


@VERIFIERS
def test_verifies_the_example_of_the_standard(verifier: Verifier) -> None:
    assert verifier.verify_digest(PUBLIC, DIGEST, SIGNATURE)


@VERIFIERS
@pytest.mark.parametrize(
    ("public", "digest", "signature"),
    [
        pytest.param(PUBLIC, altered(DIGEST, 0), SIGNATURE, id="another digest"),
        pytest.param(PUBLIC, altered(DIGEST, 31), SIGNATURE, id="another digest, last bit"),
        pytest.param(OTHER_PUBLIC, DIGEST, SIGNATURE, id="another key"),
        pytest.param(PUBLIC, DIGEST, altered(SIGNATURE, 31), id="r altered"),
        pytest.param(PUBLIC, DIGEST, altered(SIGNATURE, 63), id="s altered"),
        pytest.param(PUBLIC, DIGEST, SIGNATURE[32:] + SIGNATURE[:32], id="r and s exchanged"),
        pytest.param(PUBLIC, DIGEST, bytes(32) + SIGNATURE[32:], id="r is 0"),
        pytest.param(PUBLIC, DIGEST, SIGNATURE[:32] + bytes(32), id="s is 0"),
        pytest.param(PUBLIC, DIGEST, N.to_bytes(32, "big") + SIGNATURE[32:], id="r is n"),
        pytest.param(PUBLIC, DIGEST, SIGNATURE[:32] + N.to_bytes(32, "big"), id="s is n"),
        pytest.param(PUBLIC, DIGEST, b"\xff" * 64, id="both beyond n"),
        pytest.param(
            PUBLIC,
            DIGEST,
            SIGNATURE[:32] + (N - int.from_bytes(SIGNATURE[:32], "big")).to_bytes(32, "big"),
            id="t is 0",
        ),
        pytest.param(PUBLIC, DIGEST, b"", id="empty"),
        pytest.param(PUBLIC, DIGEST, SIGNATURE[:-1], id="a byte short"),
        pytest.param(PUBLIC, DIGEST, SIGNATURE + b"\x00", id="a byte long"),
        pytest.param(
            PUBLIC,
            DIGEST,
            der.encode_signature(int.from_bytes(SIGNATURE[:32], "big"), int.from_bytes(SIGNATURE[32:], "big")),
            id="DER instead of r||s",
        ),
    ],
)
def test_refuses_what_is_not_a_signature(
    verifier: Verifier, public: bytes, digest: bytes, signature: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not verifier.verify_digest(public, digest, signature)


@VERIFIERS
def test_refuses_a_signature_whose_point_is_infinity(verifier: Verifier, capfd: pytest.CaptureFixture[str]) -> None:
    """sG + tP is infinity for s = -t*d: the digest below is the one an x of 0 would fit."""
    d, t = 5, 1234567
    s = -t * d % N
    r = (t - s) % N
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert not verifier.verify_digest(OTHER_PUBLIC, r.to_bytes(32, "big"), signature)


@PAIRS
def test_one_signs_and_the_other_verifies(one: Provider, other: Provider) -> None:
    private, public = one.generate()
    assert other.public_key(private) == public
    signature = one.sign_digest(private, DIGEST)
    assert other.verify_digest(public, DIGEST, signature)
    assert TABLES.verify_digest(public, DIGEST, signature)
    assert one.sign_digest(private, DIGEST) != signature  # a fresh nonce each time


@PAIRS
@pytest.mark.parametrize("length", [1, 16, 32, 33, 255])
def test_one_encrypts_and_the_other_decrypts(one: Provider, other: Provider, length: int) -> None:
    plaintext = bytes(range(1, length + 1))[:length].ljust(length, b"\x00")
    ciphertext = one.encrypt(PUBLIC, plaintext)
    assert plaintext not in ciphertext or length == 1
    assert other.decrypt(PRIVATE, ciphertext) == plaintext


@ALL
@pytest.mark.parametrize("part", ["x", "hash", "masked", "trailing", "truncated", "wrong key", "not DER", "empty"])
def test_an_altered_ciphertext_does_not_open(provider: Provider, part: str, capfd: pytest.CaptureFixture[str]) -> None:
    private, ciphertext = PRIVATE, provider.encrypt(PUBLIC, b"a data key")
    parsed = der.decode_ciphertext(ciphertext)
    if part == "x":
        ciphertext = der.encode_ciphertext(parsed._replace(x=parsed.x ^ 1))
    elif part == "hash":
        ciphertext = der.encode_ciphertext(parsed._replace(hash=altered(parsed.hash, 3)))
    elif part == "masked":
        ciphertext = der.encode_ciphertext(parsed._replace(masked=altered(parsed.masked, 0)))
    elif part == "trailing":
        ciphertext += b"\x00"
    elif part == "truncated":
        ciphertext = ciphertext[:-1]
    elif part == "wrong key":
        private = b"\x00" * 31 + b"\x07"
    else:
        ciphertext = b"" if part == "empty" else b"\x04" + bytes(200)
    with pytest.raises(DecryptionError):
        provider.decrypt(private, ciphertext)


@ALL
def test_sm3_and_hmac_give_the_published_answers(provider: Provider) -> None:
    assert provider.sm3(b"abc").hex() == known_answers.SM3_ABC
    assert provider.sm3(b"abcd" * 16).hex() == known_answers.SM3_ABCD16
    assert provider.hmac_sm3(b"Jefe", b"what do ya want for nothing?").hex() == known_answers.HMAC_JEFE


@PAIRS
@pytest.mark.parametrize("length", [0, 1, 55, 56, 64, 119, 200])
def test_hashes_agree_at_every_padding(one: Provider, other: Provider, length: int) -> None:
    text = bytes(index % 251 for index in range(length))
    assert one.sm3(text) == other.sm3(text)
    assert one.hmac_sm3(b"k" * (length + 1), text) == other.hmac_sm3(b"k" * (length + 1), text)


@ALL
def test_sm4_gcm_gives_the_answer_of_rfc_8998(provider: Provider) -> None:
    key, nonce = bytes.fromhex(known_answers.GCM_KEY), bytes.fromhex(known_answers.GCM_NONCE)
    aad, plaintext = bytes.fromhex(known_answers.GCM_AAD), bytes.fromhex(known_answers.GCM_PLAINTEXT)
    sealed = provider.sm4_gcm_encrypt(key, nonce, plaintext, aad)
    assert sealed.hex() == known_answers.GCM_SEALED
    assert provider.sm4_gcm_decrypt(key, nonce, sealed, aad) == plaintext


@PAIRS
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 48])
def test_one_seals_and_the_other_opens(one: Provider, other: Provider, length: int) -> None:
    key, nonce, text, aad = b"K" * 16, b"N" * 12, b"t" * length, b"a" * (length // 2)
    sealed = one.sm4_gcm_encrypt(key, nonce, text, aad)
    assert len(sealed) == length + 16
    assert other.sm4_gcm_decrypt(key, nonce, sealed, aad) == text
    for wrong in (altered(sealed, len(sealed) - 1), altered(sealed, 0), sealed[:-1], b"", sealed + b"\x00"):
        with pytest.raises(DecryptionError):
            other.sm4_gcm_decrypt(key, nonce, wrong, aad)
    with pytest.raises(DecryptionError):
        other.sm4_gcm_decrypt(key, nonce, sealed, aad + b"!")
