"""Known-answer tests run when a node starts: a library that computes wrongly must not sign a single record."""

from __future__ import annotations

from anchor.errors import AnchorError, DecryptionError, SignatureInvalid
from anchor.gm.cipher import sm4_gcm_decrypt, sm4_gcm_encrypt
from anchor.gm.hashing import hmac_sm3, sm3
from anchor.gm.keys import PrivateKey, PublicKey

SM3_ABC = "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"  # GB/T 32905-2016, A.1
SM3_ABCD16 = "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732"  # GB/T 32905-2016, A.2
HMAC_JEFE = "2e87f1d16862e6d964b50a5200bf2b10b764faa9680a296a2405f24bec39f882"  # GM/T 0042-2015, D.3

# GB/T 32918.5-2017, A.2: the curve's own signature example, id 1234567812345678.
SM2_PRIVATE = "3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8"
SM2_PUBLIC = (
    "0409f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"
    "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
)
SM2_MESSAGE = b"message digest"
SM2_SIGNATURE = (
    "f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3"
    "b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa"
)

# RFC 8998, A.1.
GCM_KEY = "0123456789abcdeffedcba9876543210"
GCM_NONCE = "00001234567800000000abcd"
GCM_AAD = "feedfacedeadbeeffeedfacedeadbeefabaddad2"
GCM_PLAINTEXT = "a" * 16 + "b" * 16 + "c" * 16 + "d" * 16 + "e" * 16 + "f" * 16 + "e" * 16 + "a" * 16
GCM_SEALED = (
    "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735"
    "d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d"
    "83de3541e4c2b58177e065a9bf7b62ec"
)


def self_test() -> None:
    """Run every algorithm against published answers; raises ``AnchorError`` naming the one that failed."""
    for name, holds in (
        ("SM3", _sm3_holds()),
        ("HMAC-SM3", hmac_sm3(b"Jefe", b"what do ya want for nothing?").hex() == HMAC_JEFE),
        ("SM4-GCM", _sm4_holds()),
        ("SM2 signature", _signature_holds()),
        ("SM2 encryption", _encryption_holds()),
    ):
        if not holds:
            raise AnchorError(f"the self-test of {name} failed: the cryptographic library is not to be trusted")


def _sm3_holds() -> bool:
    return sm3(b"abc").hex() == SM3_ABC and sm3(b"abcd" * 16).hex() == SM3_ABCD16


def _sm4_holds() -> bool:
    key, nonce, aad = bytes.fromhex(GCM_KEY), bytes.fromhex(GCM_NONCE), bytes.fromhex(GCM_AAD)
    sealed = bytes.fromhex(GCM_SEALED)
    if sm4_gcm_encrypt(key, nonce, bytes.fromhex(GCM_PLAINTEXT), aad) != sealed:
        return False
    if sm4_gcm_decrypt(key, nonce, sealed, aad).hex() != GCM_PLAINTEXT:
        return False
    try:
        sm4_gcm_decrypt(key, nonce, sealed[:-1] + bytes([sealed[-1] ^ 1]), aad)
    except DecryptionError:
        return True
    return False


def _signature_holds() -> bool:
    """Positive answers only: GmSSL writes to stderr when a signature fails, and this runs at every start."""
    public = PublicKey.from_bytes(bytes.fromhex(SM2_PUBLIC))
    private = PrivateKey.from_bytes(bytes.fromhex(SM2_PRIVATE))
    try:
        public.verify(SM2_MESSAGE, bytes.fromhex(SM2_SIGNATURE))
        public.verify(b"", private.sign(b""))
    except SignatureInvalid:
        return False
    return private.public_key == public


def _encryption_holds() -> bool:
    private = PrivateKey.from_bytes(bytes.fromhex(SM2_PRIVATE))
    try:
        return private.decrypt(private.public_key.encrypt(SM2_MESSAGE)) == SM2_MESSAGE
    except DecryptionError:
        return False
