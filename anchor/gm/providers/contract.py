"""What an implementation of the national algorithms offers, whatever library is behind it.

Keys and signatures are raw bytes here: private key 32, public key 65 (``04 || X || Y``), signature 64 (``r || s``),
digest 32. Callers (``anchor.gm.keys``) have checked ranges and lengths before; ``verify_digest`` still must answer
False, never raise, for any signature bytes.
"""

from __future__ import annotations

from typing import Protocol


class Verifier(Protocol):
    """Checks SM2 signatures over a digest ``e = SM3(Z || M)`` (GB/T 32918.2, 7)."""

    @property
    def name(self) -> str:
        """The provider's name in ``anchor.gm.providers``."""

    def verify_digest(self, public_key: bytes, digest: bytes, signature: bytes) -> bool:
        """Tell whether the signature holds for the digest under the public key."""


class Provider(Verifier, Protocol):
    """A full implementation: SM2 sign, verify, encrypt and decrypt; SM3; HMAC-SM3; SM4-GCM."""

    def sm3(self, data: bytes) -> bytes:
        """Return the 32-byte SM3 hash (GB/T 32905)."""

    def hmac_sm3(self, key: bytes, data: bytes) -> bytes:
        """Return the 32-byte HMAC-SM3 under a non-empty key."""

    def sm4_gcm_encrypt(self, key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Return ciphertext and 16-byte tag; key 16 bytes, nonce 12 bytes."""

    def sm4_gcm_decrypt(self, key: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        """Return the plaintext; raises ``DecryptionError`` when the tag does not match."""

    def generate(self) -> tuple[bytes, bytes]:
        """Return a fresh (private key, public key) from the operating system's random source or a better one."""

    def public_key(self, private_key: bytes) -> bytes:
        """Return the public key of a private key."""

    def sign_digest(self, private_key: bytes, digest: bytes) -> bytes:
        """Return the signature over a digest, with a fresh secret nonce."""

    def encrypt(self, public_key: bytes, plaintext: bytes) -> bytes:
        """Return the GM/T 0009 DER ciphertext of 1 to 255 bytes."""

    def decrypt(self, private_key: bytes, ciphertext: bytes) -> bytes:
        """Return the plaintext of a GM/T 0009 DER ciphertext; raises ``DecryptionError``."""
