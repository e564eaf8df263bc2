"""SM3 and HMAC-SM3."""

from __future__ import annotations

from anchor.errors import KeyFormatError
from anchor.gm.providers import native

sm3 = native.sm3


def hmac_sm3(key: bytes, data: bytes) -> bytes:
    """Return the 32-byte HMAC-SM3 of ``data`` (RFC 2104 with SM3, GM/T 0042).

    Raises ``KeyFormatError`` for an empty key: that is a missing setting, not a key.
    """
    if not key:
        raise KeyFormatError("an HMAC key is empty")
    return native.hmac_sm3(key, data)
