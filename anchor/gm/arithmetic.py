"""Arithmetic on public points of the SM2 curve, on gmpy2 integers.

Not constant-time: it must never see a private key or a nonce. It serves verification (``anchor.gm.providers.tables``)
and the recovery of public keys, both on public data.

A Jacobian point (X, Y, Z) stands for the affine (X/Z^2, Y/Z^3); ``None`` is the point at infinity. The formulas are the
usual ones for a = -3 (dbl-2001-b and madd of the Explicit-Formulas Database); the cases they do not cover (equal
points, opposite points, infinity) have branches of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gmpy2
from gmpy2 import mpz

from anchor.gm.curve import GX, GY, SCALAR_BYTES, A, B, N, P, decode_signature

Integer = Any  # gmpy2 ships no usable type for its integers
Affine = tuple[Integer, Integer]
Jacobian = tuple[Integer, Integer, Integer] | None

FIELD = mpz(P)
ORDER = mpz(N)
GENERATOR: Affine = (mpz(GX), mpz(GY))


def double(point: Jacobian) -> Jacobian:
    """Return 2 * point. The group has odd order, so no point but infinity doubles to infinity."""
    if point is None:
        return None
    x, y, z = point
    delta = z * z % FIELD
    gamma = y * y % FIELD
    beta = x * gamma % FIELD
    alpha = 3 * (x - delta) * (x + delta) % FIELD
    x3 = (alpha * alpha - 8 * beta) % FIELD
    z3 = 2 * y * z % FIELD
    y3 = (alpha * (4 * beta - x3) - 8 * gamma * gamma) % FIELD
    return x3, y3, z3


def add_affine(point: Jacobian, other: Affine) -> Jacobian:
    """Return point + other, other being affine (mixed addition), in every case."""
    x2, y2 = other
    if point is None:
        return x2, y2, mpz(1)
    x1, y1, z1 = point
    z1z1 = z1 * z1 % FIELD
    h = (x2 * z1z1 - x1) % FIELD
    r = (y2 * z1 * z1z1 - y1) % FIELD
    if h == 0:  # the same x: the same point, or its opposite
        return double(point) if r == 0 else None
    hh = h * h % FIELD
    hhh = h * hh % FIELD
    v = x1 * hh % FIELD
    x3 = (r * r - hhh - 2 * v) % FIELD
    y3 = (r * (v - x3) - y1 * hhh) % FIELD
    return x3, y3, z1 * h % FIELD


def to_affine(point: Jacobian) -> Affine | None:
    """Return the affine coordinates, or None for infinity."""
    if point is None:
        return None
    x, y, z = point
    inverse = gmpy2.invert(z, FIELD)
    square = inverse * inverse % FIELD
    return x * square % FIELD, y * square * inverse % FIELD


def multiply(scalar: int, point: Affine) -> Jacobian:
    """Return scalar * point by double-and-add. Public scalars only."""
    result: Jacobian = None
    for bit in bin(scalar % N)[2:]:
        result = double(result)
        if bit == "1":
            result = add_affine(result, point)
    return result


def signature_point(public_key: Affine, s: int, t: int) -> Affine | None:
    """Return sG + tP (GB/T 32918.2, 7.1 B6), or None when it is infinity."""
    total = multiply(s, GENERATOR)
    other = to_affine(multiply(t, public_key))
    return to_affine(total if other is None else add_affine(total, other))


def recover_public_keys(digest: bytes, signature: bytes) -> Iterator[bytes]:
    """Yield the public keys (at most four) under which ``signature`` holds for ``digest``.

    From kG = sG + tP with t = r + s (GB/T 32918.2, 7.1) follows P = (kG - sG) / t, and the signature gives the x of kG
    modulo n.
    """
    numbers = decode_signature(signature)
    if numbers is None:
        return
    r, s = numbers
    t = (r + s) % N
    if t == 0:
        return
    minus_s_g = to_affine(multiply(N - s, GENERATOR))
    assert minus_s_g is not None  # 0 < s < n
    t_inverse = int(gmpy2.invert(t, ORDER))
    x1 = (r - int.from_bytes(digest, "big")) % N
    for x in (x1, x1 + N):
        y = _square_root((x * x * x + A * x + B) % P) if x < P else None
        if y is None:
            continue
        for candidate_y in (y, P - y):
            difference = to_affine(add_affine((mpz(x), mpz(candidate_y), mpz(1)), minus_s_g))
            key = None if difference is None else to_affine(multiply(t_inverse, difference))
            if key is not None:
                yield b"\x04" + int(key[0]).to_bytes(SCALAR_BYTES, "big") + int(key[1]).to_bytes(SCALAR_BYTES, "big")


def _square_root(value: int) -> int | None:
    root = int(gmpy2.powmod(value, (P + 1) // 4, P))  # p = 3 (mod 4)
    return root if root * root % P == value else None
