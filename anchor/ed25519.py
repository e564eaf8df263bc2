"""Ed25519 (RFC 8032), the one foreign signature scheme: CometBFT's validators vote with it.

Verification is the strict kind, the same on every implementation: the key must be the one encoding of a point outside
the eight of small order, ``S`` must be reduced (5.1.7), and the equation is checked without the cofactor, so that
``R`` has one right value.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from anchor.errors import KeyFormatError, SignatureInvalid

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_ORDER = 2**252 + 27742317777372353535851937790883648493
_SIGN = 1 << 255

_Y_OF_ORDER_EIGHT = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _Y_OF_ORDER_EIGHT, _P - _Y_OF_ORDER_EIGHT})
"""The y coordinates of the eight points whose order divides eight."""


def check_key(key: bytes) -> None:
    """Raise ``KeyFormatError`` unless 32 bytes are the one encoding of a point of large order."""
    if len(key) != KEY_BYTES:
        raise KeyFormatError("an Ed25519 key has 32 bytes")
    encoded = int.from_bytes(key, "little")
    y = encoded % _SIGN
    if y >= _P or y in _SMALL_ORDER_Y:
        raise KeyFormatError("the Ed25519 key is not the one encoding of a point of large order")
    # RFC 8032 5.1.3: x^2 = (y^2 - 1) / (d y^2 + 1) must have a root; x is 0 for points of small order only.
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if pow(square, (_P - 1) // 2, _P) != 1:
        raise KeyFormatError("the Ed25519 key is not a point of the curve")


def verify(key: bytes, message: bytes, signature: bytes) -> None:
    """Raise ``SignatureInvalid`` (or ``KeyFormatError``) unless ``signature`` is ``key``'s over ``message``."""
    check_key(key)
    if len(signature) != SIGNATURE_BYTES or int.from_bytes(signature[32:], "little") >= _ORDER:
        raise SignatureInvalid("the Ed25519 signature is not in its one encoding")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise SignatureInvalid("the Ed25519 signature does not verify") from None
