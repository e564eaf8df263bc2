"""The SM2 curve (GB/T 32918.5, recommended parameters) and the checks every provider relies on.

Numbers are integers modulo P (coordinates) or N (scalars); a public key is the 65 bytes ``04 || X || Y``.
"""

from __future__ import annotations

from anchor.errors import KeyFormatError

P = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
A = P - 3
B = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
N = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
GX = 0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7
GY = 0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0

SCALAR_BYTES = 32
PUBLIC_KEY_BYTES = 65
SIGNATURE_BYTES = 64
DIGEST_BYTES = 32

PARAMETERS = b"".join(number.to_bytes(SCALAR_BYTES, "big") for number in (A, B, GX, GY))
"""``a || b || xG || yG``: what Z hashes between the signer's id and public key (GB/T 32918.2, 5.5)."""


def is_on_curve(x: int, y: int) -> bool:
    """Tell whether (x, y) are reduced coordinates of a point of the curve other than infinity."""
    return 0 <= x < P and 0 <= y < P and (y * y - (x * x * x + A * x + B)) % P == 0


def decode_point(public_key: bytes) -> tuple[int, int]:
    """Return (X, Y) of ``04 || X || Y``.

    The curve's cofactor is 1, so a point on it is in the group. Raises ``KeyFormatError`` for another length or form
    (compressed, hybrid), unreduced coordinates, or a point off the curve.
    """
    if not isinstance(public_key, bytes) or len(public_key) != PUBLIC_KEY_BYTES or public_key[0] != 4:
        raise KeyFormatError("an SM2 public key is 65 bytes: 04, X, Y")
    x = int.from_bytes(public_key[1:33], "big")
    y = int.from_bytes(public_key[33:], "big")
    if not is_on_curve(x, y):
        raise KeyFormatError("this SM2 public key is not a point of the curve")
    return x, y


def decode_signature(signature: bytes) -> tuple[int, int] | None:
    """Return (r, s) of 64 bytes ``r || s`` with both in [1, n-1] (GB/T 32918.2, 7.1 B1-B2), or None."""
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        return None
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:], "big")
    return (r, s) if 0 < r < N and 0 < s < N else None


def is_private_scalar(private_key: bytes) -> bool:
    """Tell whether 32 bytes hold a private key: d in [1, n-2] (GB/T 32918.1, 6.1)."""
    return len(private_key) == SCALAR_BYTES and 0 < int.from_bytes(private_key, "big") < N - 1
