"""The second opinion: the pure-Python ``gmssl`` package, written independently of GmSSL and OpenSSL.

Slow (some ten signatures a second) and not constant-time: for cross-checks, and for a machine the fast libraries do
not run on. Its traps, all avoided here: it draws nonces from ``random.choice`` (ours come from ``secrets``), its
``decrypt`` ignores the hash that protects the ciphertext, its ``verify`` errs where sG and tP are equal or opposite,
its constructor strips leading 0s and 4s off a public key, and ``sm3_hash`` changes its argument.
"""

from __future__ import annotations

import hmac
import secrets

from gmssl import sm2 as gmssl_sm2
from gmssl import sm3 as gmssl_sm3
from gmssl import sm4 as gmssl_sm4

from anchor.errors import DecryptionError
from anchor.gm import der
from anchor.gm.curve import DIGEST_BYTES, SCALAR_BYTES, N, decode_signature, is_on_curve

TAG_BYTES = 16
_BLOCK_BYTES = 16
_HMAC_BLOCK_BYTES = 64
_GCM_POLYNOMIAL = 0xE1 << 120  # x^128 + x^7 + x^2 + x + 1, bits reflected (NIST SP 800-38D, 6.3)
_COORDINATE_DIGITS = 64
_ONE = "1"  # the z that makes gmssl's affine hex form a Jacobian one
_GENERATOR = gmssl_sm2.default_ecc_table["g"]


class PureProvider:
    """See the module; implements ``anchor.gm.providers.contract.Provider``."""

    name = "pure"

    def sm3(self, data: bytes) -> bytes:
        """Return the SM3 hash."""
        return bytes.fromhex(gmssl_sm3.sm3_hash(list(data)))

    def hmac_sm3(self, key: bytes, data: bytes) -> bytes:
        """Return the HMAC-SM3 (RFC 2104)."""
        if len(key) > _HMAC_BLOCK_BYTES:
            key = self.sm3(key)
        key = key.ljust(_HMAC_BLOCK_BYTES, b"\x00")
        inner = self.sm3(bytes(byte ^ 0x36 for byte in key) + data)
        return self.sm3(bytes(byte ^ 0x5C for byte in key) + inner)

    def sm4_gcm_encrypt(self, key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Return ciphertext and tag."""
        gcm = _Gcm(key, nonce)
        masked = gcm.mask(plaintext)
        return masked + gcm.tag(aad, masked)

    def sm4_gcm_decrypt(self, key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        """Return the plaintext."""
        if len(sealed) < TAG_BYTES:
            raise DecryptionError("the ciphertext is shorter than its tag")
        gcm = _Gcm(key, nonce)
        masked = sealed[:-TAG_BYTES]
        if not hmac.compare_digest(gcm.tag(aad, masked), sealed[-TAG_BYTES:]):
            raise DecryptionError("the ciphertext does not open with this key and associated data")
        return gcm.mask(masked)

    def generate(self) -> tuple[bytes, bytes]:
        """Return a fresh (private key, public key)."""
        private_key = (secrets.randbelow(N - 2) + 1).to_bytes(SCALAR_BYTES, "big")
        return private_key, self.public_key(private_key)

    def public_key(self, private_key: bytes) -> bytes:
        """Return the public key of a private key."""
        return b"\x04" + bytes.fromhex(_curve()._kg(int.from_bytes(private_key, "big"), _GENERATOR))

    def sign_digest(self, private_key: bytes, digest: bytes) -> bytes:
        """Return ``r || s`` over a digest, with a nonce from the operating system."""
        curve = _curve()
        curve.private_key = private_key.hex()
        while True:
            signature = curve.sign(digest, f"{secrets.randbelow(N - 1) + 1:064x}")
            if signature is not None:
                return bytes.fromhex(signature)

    def verify_digest(self, public_key: bytes, digest: bytes, signature: bytes) -> bool:
        """Tell whether ``r || s`` holds (GB/T 32918.2, 7.1)."""
        numbers = decode_signature(signature)
        if numbers is None or sum(numbers) % N == 0:
            return False
        r, s = numbers
        curve = _curve()
        ours, theirs = curve._kg(s, _GENERATOR), curve._kg((r + s) % N, public_key[1:].hex())
        if ours == theirs:
            total = curve._double_point(ours + _ONE)
        elif ours[:_COORDINATE_DIGITS] == theirs[:_COORDINATE_DIGITS]:  # opposite points: infinity
            return False
        else:
            total = curve._add_point(ours + _ONE, theirs)
        x = int(curve._convert_jacb_to_nor(total)[:_COORDINATE_DIGITS], 16)
        return (int.from_bytes(digest, "big") + x - r) % N == 0

    def encrypt(self, public_key: bytes, plaintext: bytes) -> bytes:
        """Return the GM/T 0009 DER ciphertext (GB/T 32918.4, 6.1)."""
        curve = _curve()
        while True:
            nonce = secrets.randbelow(N - 1) + 1
            shared = bytes.fromhex(curve._kg(nonce, public_key[1:].hex()))
            mask = _kdf(shared, len(plaintext))
            if any(mask):
                break
        point = bytes.fromhex(curve._kg(nonce, _GENERATOR))
        check = self.sm3(shared[:SCALAR_BYTES] + plaintext + shared[SCALAR_BYTES:])
        x, y = int.from_bytes(point[:SCALAR_BYTES], "big"), int.from_bytes(point[SCALAR_BYTES:], "big")
        return der.encode_ciphertext(der.Ciphertext(x, y, check, _xor(plaintext, mask)))

    def decrypt(self, private_key: bytes, ciphertext: bytes) -> bytes:
        """Return the plaintext (GB/T 32918.4, 7.1), its hash checked."""
        parsed = der.decode_ciphertext(ciphertext)
        if not is_on_curve(parsed.x, parsed.y):
            raise DecryptionError("the ciphertext's point is not on the curve")
        shared = bytes.fromhex(_curve()._kg(int.from_bytes(private_key, "big"), f"{parsed.x:064x}{parsed.y:064x}"))
        mask = _kdf(shared, len(parsed.masked))
        plaintext = _xor(parsed.masked, mask)
        check = self.sm3(shared[:SCALAR_BYTES] + plaintext + shared[SCALAR_BYTES:])
        if not any(mask) or not hmac.compare_digest(check, parsed.hash):
            raise DecryptionError("the ciphertext does not open with this key")
        return plaintext


class _Gcm:
    """SM4 in Galois/Counter Mode (NIST SP 800-38D) for 12-byte nonces; gmssl itself offers single blocks."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._sm4 = gmssl_sm4.CryptSM4()
        self._sm4.set_key(key, gmssl_sm4.SM4_ENCRYPT)
        self._nonce = nonce
        self._hash_key = int.from_bytes(self._encrypt(bytes(_BLOCK_BYTES)), "big")

    def _encrypt(self, block: bytes) -> bytes:
        return bytes(self._sm4.one_round(self._sm4.sk, list(block)))

    def _counter_block(self, counter: int) -> bytes:
        return self._encrypt(self._nonce + (counter % (1 << 32)).to_bytes(4, "big"))

    def mask(self, text: bytes) -> bytes:
        """Return text XOR the key stream, which begins at counter 2."""
        blocks = -(-len(text) // _BLOCK_BYTES)
        return _xor(text, b"".join(self._counter_block(2 + i) for i in range(blocks)))

    def tag(self, aad: bytes, masked: bytes) -> bytes:
        """Return the tag over the associated data and the ciphertext."""
        lengths = (8 * len(aad)).to_bytes(8, "big") + (8 * len(masked)).to_bytes(8, "big")
        hashed = 0
        for part in (aad, masked, lengths):
            for start in range(0, len(part), _BLOCK_BYTES):
                block = part[start : start + _BLOCK_BYTES].ljust(_BLOCK_BYTES, b"\x00")
                hashed = self._multiply(hashed ^ int.from_bytes(block, "big"))
        return _xor(hashed.to_bytes(_BLOCK_BYTES, "big"), self._counter_block(1))

    def _multiply(self, value: int) -> int:
        product, factor = 0, self._hash_key
        for bit in range(127, -1, -1):
            if value >> bit & 1:
                product ^= factor
            factor = factor >> 1 ^ (_GCM_POLYNOMIAL if factor & 1 else 0)
        return product


def _curve() -> gmssl_sm2.CryptSM2:
    """Return gmssl's arithmetic without keys; they are set as attributes, past the constructor that mangles them."""
    return gmssl_sm2.CryptSM2(private_key="", public_key="")


def _kdf(shared: bytes, length: int) -> bytes:
    """Return the key derivation of GB/T 32918.4, 5.4.3."""
    blocks = -(-length // DIGEST_BYTES)
    return bytes.fromhex(gmssl_sm3.sm3_kdf(shared.hex().encode(), blocks * DIGEST_BYTES))[:length]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=False))
