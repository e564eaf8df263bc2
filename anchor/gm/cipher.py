"""SM4-GCM (RFC 8998 parameters: 12-byte nonce, 16-byte tag)."""

from __future__ import annotations

from anchor.errors import DecryptionError, KeyFormatError
from anchor.gm.providers import default

SM4_KEY_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16


def sm4_gcm_encrypt(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes = b"") -> bytes:
    """Return ``ciphertext || tag`` (tag 16 bytes).

    ``key`` is 16 bytes, ``nonce`` 12 bytes and never used twice under one key; ``KeyFormatError`` for other lengths.
    """
    _check(key, nonce)
    return default().sm4_gcm_encrypt(key, nonce, plaintext, aad)


def sm4_gcm_decrypt(key: bytes, nonce: bytes, sealed: bytes, aad: bytes = b"") -> bytes:
    """Return the plaintext of ``ciphertext || tag``.

    Raises ``DecryptionError`` when the key, nonce or associated data is another or a bit was changed,
    ``KeyFormatError`` for a key or nonce of the wrong length.
    """
    _check(key, nonce)
    if len(sealed) < TAG_BYTES:
        raise DecryptionError("the ciphertext is shorter than its tag")
    return default().sm4_gcm_decrypt(key, nonce, sealed, aad)


def _check(key: bytes, nonce: bytes) -> None:
    if len(key) != SM4_KEY_BYTES:
        raise KeyFormatError("an SM4 key is 16 bytes")
    if len(nonce) != NONCE_BYTES:
        raise KeyFormatError("an SM4-GCM nonce is 12 bytes")
