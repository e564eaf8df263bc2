"""The sealed envelope: round trip, every single-bit alteration, and an independent reading of its bytes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asn1crypto import cms
from gmssl import sm2, sm4
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor.gm import PrivateKey, PublicKey
from bridge.errors import PeerRejected
from bridge.pki.gm_structures import (
    OID_DATA,
    OID_SIGNED_AND_ENVELOPED,
    OID_SM2_ENCRYPT,
    OID_SM2_SIGN,
    OID_SM3,
    OID_SM4_GCM,
    ContentInfo,
    GcmParameters,
    KeyName,
    Sm2Signature,
    gm_ca_name,
)
from bridge.services.envelope import Opened, open_envelope, seal

CHAIN = "test-chain"
SIGNER, RECIPIENT, STRANGER = (PrivateKey.generate() for _ in range(3))
CONTENT = '{"bundle":{"resourceType":"Bundle","type":"collection"},"备注":"合成数据"}'.encode()


def sealed(content: bytes = CONTENT) -> bytes:
    return seal(
        content,
        chain=CHAIN,
        signing_key=SIGNER,
        recipient_key=RECIPIENT.public_key,
    )


def lookup(key_id: str) -> PublicKey | None:
    return SIGNER.public_key if key_id == SIGNER.public_key.key_id else None


def opened(envelope: bytes, key: PrivateKey = RECIPIENT, chain: str = CHAIN) -> Opened:
    own = {key.public_key.key_id: key}
    return open_envelope(envelope, chain=chain, decryption_key=own.get, signing_key=lookup)


@pytest.mark.parametrize("content", [b"", b"x", CONTENT, bytes(100_000)], ids=["empty", "one byte", "json", "100 kB"])
def test_round_trip(content: bytes) -> None:
    result = opened(sealed(content))
    assert result.content == content
    assert result.signer == KeyName(CHAIN, SIGNER.public_key.key_id)


def test_nothing_of_the_content_shows_and_no_two_envelopes_are_alike() -> None:
    first, second = sealed(), sealed()
    assert first != second
    assert b"Bundle" not in first


def test_every_altered_byte_is_noticed() -> None:
    envelope = sealed()
    for position in range(len(envelope)):
        altered = bytearray(envelope)
        altered[position] ^= 1 << position % 8
        with pytest.raises(PeerRejected):
            opened(bytes(altered))


@pytest.mark.parametrize(
    ("envelope", "key", "chain", "code"),
    [
        pytest.param(sealed(), STRANGER, CHAIN, "envelope-other-recipient", id="another key of mine"),
        pytest.param(sealed(), RECIPIENT, "other", "envelope-other-recipient", id="another consortium"),
        pytest.param(sealed() + b"\0", RECIPIENT, CHAIN, "envelope-malformed", id="bytes behind it"),
        pytest.param(sealed()[:-1], RECIPIENT, CHAIN, "envelope-malformed", id="cut off"),
        pytest.param(b"", RECIPIENT, CHAIN, "envelope-malformed", id="empty"),
    ],
)
def test_refusals(envelope: bytes, key: PrivateKey, chain: str, code: str) -> None:
    with pytest.raises(PeerRejected) as caught:
        opened(envelope, key, chain)
    assert caught.value.code == code


def test_a_signer_that_is_not_on_the_ledger_is_refused() -> None:
    envelope = seal(
        CONTENT,
        chain=CHAIN,
        signing_key=STRANGER,
        recipient_key=RECIPIENT.public_key,
    )
    with pytest.raises(PeerRejected) as caught:
        opened(envelope)
    assert caught.value.code == "envelope-unknown-signer"


def test_a_signature_over_something_else_is_refused() -> None:
    class Swapped(PrivateKey):
        def sign(self, message: bytes, *_: object) -> bytes:
            return SIGNER.sign(message + b"!")

    envelope = seal(
        CONTENT,
        chain=CHAIN,
        signing_key=Swapped.from_bytes(SIGNER.to_bytes()),
        recipient_key=RECIPIENT.public_key,
    )
    with pytest.raises(PeerRejected) as caught:
        opened(envelope)
    assert caught.value.code == "envelope-bad-signature"


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(envelope: bytes) -> None:
    with pytest.raises(PeerRejected):
        opened(envelope)


def der(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk one level of DER: (tag, content)."""
    while data:
        tag, length, start = data[0], data[1], 2
        if length & 0x80:
            count = length & 0x7F
            length, start = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
        yield tag, data[start : start + length]
        data = data[start + length :]


def inside(data: bytes, *path: int) -> bytes:
    for index in path:
        data = list(der(data))[index][1]
    return data


def sm4_gcm_open(key: bytes, nonce: bytes, sealed_content: bytes) -> bytes:
    """SM4-GCM on the pure SM4 block cipher of gmssl (NIST SP 800-38D; GHASH by schoolbook multiplication)."""
    cipher = sm4.CryptSM4()
    cipher.set_key(key, sm4.SM4_ENCRYPT)

    def block(data: bytes) -> bytes:
        return bytes(cipher.one_round(cipher.sk, list(data)))

    def multiply(x: int, y: int) -> int:
        product = 0
        for bit in range(128):
            if y >> (127 - bit) & 1:
                product ^= x
            x = x >> 1 ^ (0xE1 << 120 if x & 1 else 0)
        return product

    content, tag = sealed_content[:-16], sealed_content[-16:]
    subkey, hashed, plain = int.from_bytes(block(bytes(16)), "big"), 0, b""
    for counter, start in enumerate(range(0, len(content), 16), start=2):
        piece = content[start : start + 16]
        stream = block(nonce + counter.to_bytes(4, "big"))
        plain += bytes(a ^ b for a, b in zip(piece, stream, strict=False))
        hashed = multiply(hashed ^ int.from_bytes(piece.ljust(16, b"\0"), "big"), subkey)
    hashed = multiply(hashed ^ len(content) * 8, subkey)
    expected = hashed ^ int.from_bytes(block(nonce + b"\0\0\0\1"), "big")
    assert expected.to_bytes(16, "big") == tag
    return plain


def test_an_independent_implementation_reads_it() -> None:
    """Pure gmssl (SM2, SM4) and a DER reader of our own, sharing no code with the sealing side."""
    envelope = sealed()
    oid, body = der(inside(envelope, 0))
    assert oid[1].hex() == "2a811ccf5506010402" + "04"  # 1.2.156.10197.6.1.4.2.4
    data = inside(body[1], 0)
    version, recipients, _, content_info, signers = (content for _, content in der(data))
    assert version == b"\x01"

    x, y, digest, cipher = (part for _, part in der(inside(inside(recipients, 0, 3), 0)))
    public = RECIPIENT.public_key.to_bytes().hex()[2:]
    wrapped = x.lstrip(b"\0").rjust(32, b"\0") + y.lstrip(b"\0").rjust(32, b"\0") + digest + cipher
    key = sm2.CryptSM2(RECIPIENT.to_bytes().hex(), public, mode=1).decrypt(wrapped)

    nonce = inside(inside(content_info, 1, 1), 0)
    assert sm4_gcm_open(key, nonce, list(der(content_info))[2][1]) == CONTENT

    r, s = (part.lstrip(b"\0").rjust(32, b"\0").hex() for _, part in der(inside(inside(signers, 0, 4), 0)))
    signer_public = SIGNER.public_key.to_bytes().hex()[2:]
    assert sm2.CryptSM2("", signer_public).verify_with_sm3(r + s, CONTENT)
    assert not sm2.CryptSM2("", signer_public).verify_with_sm3(r + s, CONTENT + b" ")


@pytest.mark.parametrize("size", [0, 1, 111, 127, 128, 255, 256, 65_535, 65_536])
def test_it_is_the_encoding_that_the_standards_structures_have(size: int) -> None:
    """What is put together of encoded elements is what asn1crypto writes of the structures of GM/T 0010."""
    envelope = sealed(bytes(size))
    data = ContentInfo.load(envelope, strict=True)["content"]
    recipient, info, signer = data["recipient_infos"][0], data["encrypted_content_info"], data["signer_infos"][0]
    parameters = info["content_encryption_algorithm"]["parameters"].parse(GcmParameters)
    signature = Sm2Signature.load(signer["encrypted_digest"].native).native
    built = {
        "version": 1,
        "recipient_infos": [
            {
                "version": 1,
                "issuer_and_serial": named(RECIPIENT),
                "key_encryption_algorithm": {"algorithm": OID_SM2_ENCRYPT},
                "encrypted_key": recipient["encrypted_key"].native,
            }
        ],
        "digest_algorithms": [{"algorithm": OID_SM3}],
        "encrypted_content_info": {
            "content_type": OID_DATA,
            "content_encryption_algorithm": {
                "algorithm": OID_SM4_GCM,
                "parameters": GcmParameters({"nonce": parameters["nonce"].native, "icv_len": 16}),
            },
            "encrypted_content": info["encrypted_content"].native,
        },
        "signer_infos": [
            {
                "version": 1,
                "issuer_and_serial": named(SIGNER),
                "digest_algorithm": {"algorithm": OID_SM3},
                "digest_encryption_algorithm": {"algorithm": OID_SM2_SIGN},
                "encrypted_digest": Sm2Signature(signature).dump(),
            }
        ],
    }
    assert ContentInfo({"content_type": OID_SIGNED_AND_ENVELOPED, "content": built}).dump() == envelope


def named(key: PrivateKey) -> cms.IssuerAndSerialNumber:
    serial = int(key.public_key.key_id, 16)
    return cms.IssuerAndSerialNumber({"issuer": gm_ca_name(CHAIN), "serial_number": serial})
