"""The default provider: gmssl-pyx (GmSSL) for SM2, SM3 and HMAC, the ``cryptography`` package for SM4-GCM.

gmssl-pyx writes lines to stderr for inputs it refuses; what can be checked beforehand is (ranges, DER, the curve).
Its ``sm2_sign`` recomputes the public key on each call and is ten times slower than signing a digest, so only the
digest calls are used; Z is computed by ``anchor.gm.keys``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import gmssl_pyx
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from gmpy2 import mpz

from anchor.errors import DecryptionError, KeyFormatError
from anchor.gm import der
from anchor.gm.arithmetic import recover_public_keys, signature_point
from anchor.gm.curve import SCALAR_BYTES, N, decode_point, decode_signature, is_on_curve, is_private_scalar

TAG_BYTES = 16
_PROBES = (b"\x01" * 32, b"\x02" * 32)  # digests signed to find a public key; any two differing ones do

sm3: Final[Callable[[bytes], bytes]] = gmssl_pyx.sm3_hash
"""The 32-byte SM3 hash of ``bytes``. Bound straight to the extension: a wrapper would cost a tenth of a short hash."""

hmac_sm3: Final[Callable[[bytes, bytes], bytes]] = gmssl_pyx.sm3_hmac


class NativeProvider:
    """See the module; implements ``anchor.gm.providers.contract.Provider``."""

    name = "native"
    sm3 = staticmethod(sm3)
    hmac_sm3 = staticmethod(hmac_sm3)

    def sm4_gcm_encrypt(self, key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Return ciphertext and tag."""
        encryptor = Cipher(algorithms.SM4(key), modes.GCM(nonce)).encryptor()
        if aad:
            encryptor.authenticate_additional_data(aad)
        return encryptor.update(plaintext) + encryptor.finalize() + encryptor.tag

    def sm4_gcm_decrypt(self, key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        """Return the plaintext; no byte of it leaves before the tag is checked."""
        if len(sealed) < TAG_BYTES:
            raise DecryptionError("the ciphertext is shorter than its tag")
        decryptor = Cipher(algorithms.SM4(key), modes.GCM(nonce, sealed[-TAG_BYTES:])).decryptor()
        if aad:
            decryptor.authenticate_additional_data(aad)
        try:
            return decryptor.update(sealed[:-TAG_BYTES]) + decryptor.finalize()
        except InvalidTag:
            raise DecryptionError("the ciphertext does not open with this key and associated data") from None

    def generate(self) -> tuple[bytes, bytes]:
        """Return a fresh (private key, public key) from GmSSL's generator (the operating system's random source)."""
        while True:
            point, private_key = gmssl_pyx.sm2_key_generate()
            if is_private_scalar(private_key):
                return private_key, b"\x04" + point

    def public_key(self, private_key: bytes) -> bytes:
        """Return the public key of a private key.

        gmssl-pyx has no call for it, and multiplying by the secret in Python would show it in the timing. So the
        library signs two digests, and the key is recovered as the only one under which both signatures, which are
        public, hold.
        """
        first, second = (set(recover_public_keys(probe, self.sign_digest(private_key, probe))) for probe in _PROBES)
        if len(keys := first & second) != 1:
            raise KeyFormatError("no public key belongs to this private key")
        return keys.pop()

    def sign_digest(self, private_key: bytes, digest: bytes) -> bytes:
        """Return ``r || s`` over a digest."""
        r, s = der.decode_signature(gmssl_pyx.sm2_sign_sm3_digest(private_key, digest))
        return r.to_bytes(SCALAR_BYTES, "big") + s.to_bytes(SCALAR_BYTES, "big")

    def verify_digest(self, public_key: bytes, digest: bytes, signature: bytes) -> bool:
        """Tell whether ``r || s`` holds; GmSSL sees only signatures in range.

        GmSSL takes sG + tP at infinity for a point with x = 0, and so accepts r = e with an s that only the owner can
        make. All providers must agree on every signature, so that case is decided by the complete formulas.
        """
        numbers = decode_signature(signature)
        if numbers is None:
            return False
        r, s = numbers
        if (r - int.from_bytes(digest, "big")) % N == 0:
            x, y = decode_point(public_key)
            point = signature_point((mpz(x), mpz(y)), s, (r + s) % N)
            return point is not None and int(point[0]) % N == 0
        return bool(gmssl_pyx.sm2_verify_sm3_digest(public_key[1:], digest, der.encode_signature(*numbers)))

    def encrypt(self, public_key: bytes, plaintext: bytes) -> bytes:
        """Return the GM/T 0009 DER ciphertext of 1 to 255 bytes."""
        ciphertext: bytes = gmssl_pyx.sm2_encrypt(public_key[1:], plaintext)
        return ciphertext

    def decrypt(self, private_key: bytes, ciphertext: bytes) -> bytes:
        """Return the plaintext, or raise ``DecryptionError``."""
        parsed = der.decode_ciphertext(ciphertext)
        if not is_on_curve(parsed.x, parsed.y):
            raise DecryptionError("the ciphertext's point is not on the curve")
        try:
            plaintext: bytes = gmssl_pyx.sm2_decrypt(private_key, ciphertext)
        except gmssl_pyx.GmsslInnerError:
            raise DecryptionError("the ciphertext does not open with this key") from None
        return plaintext
