"""SM2 keys: signatures (GB/T 32918.2) and public-key encryption of short secrets (GB/T 32918.4)."""

from __future__ import annotations

from functools import cached_property

from anchor.errors import AnchorError, DecryptionError, KeyFormatError, SignatureInvalid
from anchor.gm.curve import PARAMETERS, decode_point, decode_signature, is_private_scalar
from anchor.gm.hashing import sm3
from anchor.gm.providers import TABLES, default

DEFAULT_ID = b"1234567812345678"
"""The signer's id when none was agreed (GM/T 0009)."""

MAX_SIGNER_ID_BYTES = 0xFFFF // 8  # its length in bits must fit ENTL's two bytes
MAX_PLAINTEXT_BYTES = 255  # GmSSL's bound; SM2 encryption carries keys, not documents
KEY_ID_CHARACTERS = 16


class PublicKey:
    """A member's or client's SM2 public key, known to be on the curve."""

    def __init__(self, encoded: bytes) -> None:
        """See ``from_bytes``."""
        decode_point(encoded)
        self._encoded = encoded

    @classmethod
    def from_bytes(cls, encoded: bytes) -> PublicKey:
        """Read ``04 || X || Y``; raises ``KeyFormatError`` unless it is a point of the curve."""
        return cls(encoded)

    def to_bytes(self) -> bytes:
        """Return ``04 || X || Y``, 65 bytes."""
        return self._encoded

    @cached_property
    def key_id(self) -> str:
        """The first 16 hex digits of SM3 over the 65 bytes: how transactions and signatures name this key."""
        return sm3(self._encoded).hex()[:KEY_ID_CHARACTERS]

    def verify(self, message: bytes, signature: bytes, signer_id: bytes = DEFAULT_ID) -> None:
        """Return when 64 bytes ``r || s`` are this key's signature of the message; else raise ``SignatureInvalid``."""
        if decode_signature(signature) is None:
            raise SignatureInvalid("the signature is not 64 bytes of r and s in range")
        verifier = TABLES if TABLES.is_ready(self._encoded) else default()
        if not verifier.verify_digest(self._encoded, self.digest(message, signer_id), signature):
            raise SignatureInvalid("the signature does not verify")

    def precompute(self) -> None:
        """Build this key's verification table now (about 20 ms; the process's first one a fifth of a second).

        For keys known to be verified often, as members' are. Other keys get theirs after some dozens of verifications.
        """
        TABLES.precompute(self._encoded)

    def encrypt(self, plaintext: bytes) -> bytes:
        """Encrypt 1 to 255 bytes to this key; returns the GM/T 0009 DER structure (C1 C3 C2)."""
        if not 1 <= len(plaintext) <= MAX_PLAINTEXT_BYTES:
            raise AnchorError(f"SM2 encrypts 1 to {MAX_PLAINTEXT_BYTES} bytes")
        return default().encrypt(self._encoded, plaintext)

    def digest(self, message: bytes, signer_id: bytes = DEFAULT_ID) -> bytes:
        """Return e = SM3(Z || M), what is signed (GB/T 32918.2, 6.1 A1-A2)."""
        z = self._default_z if signer_id == DEFAULT_ID else self._z(signer_id)
        return sm3(z + message)

    @cached_property
    def _default_z(self) -> bytes:
        return self._z(DEFAULT_ID)

    def _z(self, signer_id: bytes) -> bytes:
        if len(signer_id) > MAX_SIGNER_ID_BYTES:
            raise AnchorError(f"a signer id is at most {MAX_SIGNER_ID_BYTES} bytes")
        return sm3((len(signer_id) * 8).to_bytes(2, "big") + signer_id + PARAMETERS + self._encoded[1:])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other._encoded == self._encoded

    def __hash__(self) -> int:
        return hash(self._encoded)

    def __repr__(self) -> str:
        return f"PublicKey({self.key_id})"


class PrivateKey:
    """An SM2 private key. Its value appears in no text form of the object."""

    def __init__(self, secret: bytes, public_key: PublicKey) -> None:
        """Join a private key to its public key; use ``generate`` or ``from_bytes``."""
        self._secret = secret
        self._public_key = public_key

    @classmethod
    def generate(cls) -> PrivateKey:
        """Make a fresh key."""
        secret, public = default().generate()
        return cls(secret, PublicKey(public))

    @classmethod
    def from_bytes(cls, secret: bytes) -> PrivateKey:
        """Read a 32-byte big-endian scalar; raises ``KeyFormatError`` unless it is in [1, n-2]."""
        if not isinstance(secret, bytes) or not is_private_scalar(secret):
            raise KeyFormatError("an SM2 private key is 32 bytes, in [1, n-2]")
        return cls(secret, PublicKey(default().public_key(secret)))

    def to_bytes(self) -> bytes:
        """Return the 32-byte secret scalar; the caller keeps it out of logs and world-readable files."""
        return self._secret

    @property
    def public_key(self) -> PublicKey:
        """The matching public key."""
        return self._public_key

    def sign(self, message: bytes, signer_id: bytes = DEFAULT_ID) -> bytes:
        """Return the 64-byte ``r || s`` over SM3(Z || M); two calls give two signatures."""
        return default().sign_digest(self._secret, self._public_key.digest(message, signer_id))

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Open a GM/T 0009 DER ciphertext; raises ``DecryptionError`` for a wrong key or altered bytes."""
        if not isinstance(ciphertext, bytes):
            raise DecryptionError("a ciphertext is bytes")
        return default().decrypt(self._secret, ciphertext)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrivateKey) and other._public_key == self._public_key

    def __hash__(self) -> int:
        return hash(self._public_key)

    def __repr__(self) -> str:
        return f"PrivateKey(of {self._public_key.key_id})"
