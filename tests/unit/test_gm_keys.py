"""Keys as the rest of the program uses them: formats, ranges, ids, and what never shows."""

from __future__ import annotations

import pytest

from anchor import gm
from anchor.errors import AnchorError, DecryptionError, KeyFormatError, SignatureInvalid, VerificationError
from anchor.gm import DEFAULT_ID, PrivateKey, PublicKey, known_answers, providers
from anchor.gm.curve import GX, GY, B, N, P, decode_point

KEY = PrivateKey.from_bytes(bytes.fromhex(known_answers.SM2_PRIVATE))
BASE_POINT = b"\x04" + GX.to_bytes(32, "big") + GY.to_bytes(32, "big")


def test_the_private_key_of_the_standard_gives_its_public_key() -> None:
    assert KEY.public_key.to_bytes().hex() == known_answers.SM2_PUBLIC
    assert KEY.to_bytes().hex() == known_answers.SM2_PRIVATE
    assert PrivateKey.from_bytes(KEY.to_bytes()) == KEY


@pytest.mark.parametrize(
    ("scalar", "accepted"),
    [
        pytest.param(0, False, id="0"),
        pytest.param(1, True, id="1"),
        pytest.param(N - 2, True, id="n-2"),
        pytest.param(N - 1, False, id="n-1"),
        pytest.param(N, False, id="n"),
        pytest.param(2**256 - 1, False, id="all ones"),
    ],
)
def test_a_private_key_is_in_range(scalar: int, accepted: bool) -> None:
    encoded = scalar.to_bytes(32, "big")
    if accepted:
        assert PrivateKey.from_bytes(encoded).to_bytes() == encoded
    else:
        with pytest.raises(KeyFormatError):
            PrivateKey.from_bytes(encoded)


def test_private_key_one_has_the_base_point() -> None:
    assert PrivateKey.from_bytes(b"\x00" * 31 + b"\x01").public_key.to_bytes() == BASE_POINT


@pytest.mark.parametrize("encoded", [b"", bytes(31), b"\x01" * 33, "01" * 32, None])
def test_a_private_key_of_another_form_is_refused(encoded: object) -> None:
    with pytest.raises(KeyFormatError):
        PrivateKey.from_bytes(encoded)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"", id="empty"),
        pytest.param(BASE_POINT[1:], id="64 bytes"),
        pytest.param(b"\x02" + BASE_POINT[1:33], id="compressed"),
        pytest.param(b"\x06" + BASE_POINT[1:], id="hybrid"),
        pytest.param(b"\x04" + bytes(64), id="origin"),
        pytest.param(BASE_POINT[:-1] + bytes([BASE_POINT[-1] ^ 1]), id="off the curve"),
        pytest.param(b"\x04" + (P + 1).to_bytes(32, "big") + BASE_POINT[33:], id="x not reduced"),
        pytest.param(b"\x04" + b"\xff" * 64, id="both beyond p"),
        pytest.param(BASE_POINT + b"\x00", id="a byte long"),
        pytest.param(BASE_POINT.hex(), id="text"),
        pytest.param(bytearray(BASE_POINT), id="bytearray"),
    ],
)
def test_a_public_key_is_a_point_of_the_curve_in_one_form(encoded: object) -> None:
    with pytest.raises(KeyFormatError):
        PublicKey.from_bytes(encoded)  # type: ignore[arg-type]


def test_an_unreduced_coordinate_that_fits_the_equation_is_refused() -> None:
    x = next(x for x in range(1, 1000) if pow(x**3 + (P - 3) * x + B, (P - 1) // 2, P) == 1)
    y = pow(x**3 + (P - 3) * x + B, (P + 1) // 4, P)
    decode_point(b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big"))
    with pytest.raises(KeyFormatError):
        decode_point(b"\x04" + (x + P).to_bytes(32, "big") + y.to_bytes(32, "big"))


def test_the_key_id_is_the_start_of_the_hash() -> None:
    assert KEY.public_key.key_id == gm.sm3(KEY.public_key.to_bytes()).hex()[:16]


def test_verifies_the_example_of_the_standard() -> None:
    KEY.public_key.verify(known_answers.SM2_MESSAGE, bytes.fromhex(known_answers.SM2_SIGNATURE), DEFAULT_ID)


def test_signature_round_trip_and_its_failures() -> None:
    signature = KEY.sign(b"message")
    assert len(signature) == 64
    KEY.public_key.verify(b"message", signature)
    for message, wrong in ((b"massage", signature), (b"message", signature[:-1]), (b"message", bytes(64))):
        with pytest.raises(SignatureInvalid):
            KEY.public_key.verify(message, wrong)
    with pytest.raises(VerificationError):
        PrivateKey.generate().public_key.verify(b"message", signature)


def test_the_signer_id_is_part_of_what_is_signed() -> None:
    signature = KEY.sign(b"message", signer_id=b"ALICE")
    KEY.public_key.verify(b"message", signature, signer_id=b"ALICE")
    with pytest.raises(SignatureInvalid):
        KEY.public_key.verify(b"message", signature)
    empty = KEY.sign(b"message", signer_id=b"")
    KEY.public_key.verify(b"message", empty, signer_id=b"")
    with pytest.raises(AnchorError):
        KEY.sign(b"message", signer_id=b"x" * 8192)


def test_the_tables_and_the_library_give_one_verdict() -> None:
    key = PrivateKey.generate()
    signatures = [(number.to_bytes(2, "big"), key.sign(number.to_bytes(2, "big"))) for number in range(20)]
    for message, signature in signatures:
        key.public_key.verify(message, signature)
    key.public_key.precompute()
    for message, signature in signatures:
        key.public_key.verify(message, signature)
        with pytest.raises(SignatureInvalid):
            key.public_key.verify(message + b"!", signature)


def test_encryption_round_trip_and_its_failures() -> None:
    ciphertext = KEY.public_key.encrypt(b"0123456789abcdef")
    assert ciphertext != KEY.public_key.encrypt(b"0123456789abcdef")
    assert KEY.decrypt(ciphertext) == b"0123456789abcdef"
    for wrong in (ciphertext + b"\x00", b"", "text", None):
        with pytest.raises(DecryptionError):
            KEY.decrypt(wrong)  # type: ignore[arg-type]
    for plaintext in (b"", bytes(256)):
        with pytest.raises(AnchorError):
            KEY.public_key.encrypt(plaintext)


@pytest.mark.parametrize(("key", "nonce"), [(bytes(15), bytes(12)), (bytes(32), bytes(12)), (bytes(16), bytes(16))])
def test_sm4_takes_one_size_of_key_and_nonce(key: bytes, nonce: bytes) -> None:
    with pytest.raises(KeyFormatError):
        gm.sm4_gcm_encrypt(key, nonce, b"")
    with pytest.raises(KeyFormatError):
        gm.sm4_gcm_decrypt(key, nonce, bytes(16))


def test_sm4_binds_the_associated_data() -> None:
    sealed = gm.sm4_gcm_encrypt(b"k" * 16, b"n" * 12, b"text", b"Patient/1/1")
    assert gm.sm4_gcm_decrypt(b"k" * 16, b"n" * 12, sealed, b"Patient/1/1") == b"text"
    for aad in (b"", b"Patient/1/2"):
        with pytest.raises(DecryptionError):
            gm.sm4_gcm_decrypt(b"k" * 16, b"n" * 12, sealed, aad)
    with pytest.raises(DecryptionError):
        gm.sm4_gcm_decrypt(b"k" * 16, b"n" * 12, bytes(15))


def test_an_empty_hmac_key_is_refused() -> None:
    with pytest.raises(KeyFormatError):
        gm.hmac_sm3(b"", b"text")


def test_no_text_form_shows_the_secret() -> None:
    shown = f"{KEY!r} {KEY!s} {KEY.public_key!r}"
    assert known_answers.SM2_PRIVATE not in shown
    assert KEY.public_key.key_id in shown


def test_keys_compare_by_value() -> None:
    again = PublicKey.from_bytes(KEY.public_key.to_bytes())
    assert again == KEY.public_key
    assert len({again, KEY.public_key, PrivateKey.generate().public_key}) == 2
    assert hash(KEY) == hash(PrivateKey.from_bytes(KEY.to_bytes()))
    assert KEY.public_key != KEY.public_key.to_bytes()


def test_the_self_test_passes_and_names_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    gm.self_test()
    for name, broken in (("SM3_ABC", "SM3"), ("HMAC_JEFE", "HMAC-SM3")):
        with monkeypatch.context() as patch:
            patch.setattr(known_answers, name, "00" * 32)
            with pytest.raises(AnchorError, match=f"self-test of {broken} failed"):
                gm.self_test()


def test_the_provider_is_selected_by_name() -> None:
    try:
        providers.use("pure")
        signature = KEY.sign(b"slow but independent")
    finally:
        providers.use("native")
    KEY.public_key.verify(b"slow but independent", signature)
    with pytest.raises(AnchorError, match="native, pure"):
        providers.use("none")
    assert providers.default().name == "native"
