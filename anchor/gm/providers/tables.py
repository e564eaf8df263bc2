"""SM2 verification with precomputed tables per public key: several times the speed of a general library.

A consortium has few keys and verifies each of them all day. With T = sG + tP (GB/T 32918.2, 7.1 B6), multiples of G
and of P are read from tables, one signed digit of the scalar at a time, and only additions are left: 22 points for s
and 32 for t. They are summed pairwise in affine form, the inversions of one round shared (Montgomery's trick), so no
doubling and no projective coordinates appear.

Verification sees public data only, so timing does not matter. Where two points of a pair have the same x (equal or
opposite: about never by chance, easily on purpose) the shared inversion fails, and the sum is done again with the
complete formulas of ``anchor.gm.arithmetic``.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import gmpy2
from gmpy2 import mpz

from anchor.gm.arithmetic import FIELD, GENERATOR, Affine, Integer, Jacobian, add_affine, double, to_affine
from anchor.gm.curve import N, decode_point, decode_signature

KEY_DIGIT_BITS = 8
KEY_DIGITS = 32
GENERATOR_DIGIT_BITS = 12
GENERATOR_DIGITS = 22

MAX_TABLES = 64
"""Keys with a table at one time, least recently used first out: 2.3 MB each, 150 MB in all."""

PRECOMPUTE_AFTER = 64
"""Verifications of one key after which its table (about 20 ms of work) pays for itself."""

MAX_COUNTED_KEYS = 4096
"""Keys without a table whose uses are counted; a stream of strange keys must not fill the memory."""

Row = list[Affine | None]
Table = list[Row]

_KEY_BIAS = sum(1 << (KEY_DIGIT_BITS * i + KEY_DIGIT_BITS - 1) for i in range(KEY_DIGITS))
_KEY_TOP = (1 << KEY_DIGIT_BITS * KEY_DIGITS) - 1 - _KEY_BIAS  # largest scalar the digits can hold; above it take t - n
_GENERATOR_BIAS = sum(1 << (GENERATOR_DIGIT_BITS * i + GENERATOR_DIGIT_BITS - 1) for i in range(GENERATOR_DIGITS))
_GENERATOR_MASK = (1 << GENERATOR_DIGIT_BITS) - 1


class TableVerifier:
    """Verification from tables, kept for the keys in use; implements ``anchor.gm.providers.contract.Verifier``."""

    name = "tables"

    def __init__(self, max_tables: int = MAX_TABLES, precompute_after: int = PRECOMPUTE_AFTER) -> None:
        """Start without tables; that of G is built with the first key's."""
        self._max_tables = max_tables
        self._precompute_after = precompute_after
        self._tables: OrderedDict[bytes, Table] = OrderedDict()
        self._uses: OrderedDict[bytes, int] = OrderedDict()
        self._generator: Table | None = None
        self._lock = threading.Lock()
        self._building = threading.Lock()

    def precompute(self, public_key: bytes) -> Table:
        """Return the table of a key, building it if there is none; ``KeyFormatError`` for a point off the curve."""
        table = self._find(public_key)
        if table is not None:
            return table
        with self._building:  # one at a time; keys that have their table are verified meanwhile
            table = self._find(public_key)
            if table is not None:
                return table
            x, y = decode_point(public_key)
            if self._generator is None:
                self._generator = build_table(GENERATOR, GENERATOR_DIGIT_BITS, GENERATOR_DIGITS)
            table = build_table((mpz(x), mpz(y)), KEY_DIGIT_BITS, KEY_DIGITS)
            with self._lock:
                self._tables[public_key] = table
                self._uses.pop(public_key, None)
                while len(self._tables) > self._max_tables:
                    self._tables.popitem(last=False)
            return table

    def _find(self, public_key: bytes) -> Table | None:
        """Return a key's table and mark it as used last."""
        with self._lock:
            table = self._tables.get(public_key)
            if table is not None:
                self._tables.move_to_end(public_key)
            return table

    def is_ready(self, public_key: bytes) -> bool:
        """Tell whether to verify here: the key has a table, or this use makes it worth one (it is then built)."""
        if public_key in self._tables:
            return True
        with self._lock:
            uses = self._uses.pop(public_key, 0) + 1
            self._uses[public_key] = uses
            while len(self._uses) > MAX_COUNTED_KEYS:
                self._uses.popitem(last=False)
        if uses < self._precompute_after:
            return False
        self.precompute(public_key)
        return True

    def verify_digest(self, public_key: bytes, digest: bytes, signature: bytes) -> bool:
        """Tell whether the signature holds for the digest under the public key."""
        numbers = decode_signature(signature)
        if numbers is None:
            return False
        r, s = numbers
        t = (r + s) % N
        if t == 0:
            return False
        key = self.precompute(public_key)
        assert self._generator is not None  # built with the first key
        points = _generator_points(self._generator, s)
        points += _key_points(key, t)
        x = _sum_x(points)
        return x is not None and (int.from_bytes(digest, "big") + x - r) % N == 0


def build_table(point: Affine, digit_bits: int, digits: int) -> Table:
    """Return, per digit position i, the points d * 2^(i * digit_bits) * point, d running from -2^(digit_bits-1) up.

    A row is indexed by the digit plus 2^(digit_bits-1); the entry of digit 0 is None.
    """
    table: Table = []
    base = point
    for _ in range(digits):
        multiples: list[Jacobian] = []
        running: Jacobian = None
        for _ in range(1 << (digit_bits - 1)):
            running = add_affine(running, base)
            multiples.append(running)
        multiples.append(double(running))
        *positive, base = _normalize(multiples)
        negative = [(x, FIELD - y) for x, y in reversed(positive)]
        table.append([*negative, None, *positive[:-1]])
    return table


def _normalize(points: list[Jacobian]) -> list[Affine]:
    """Return the affine forms of finite points, with one inversion for all."""
    products: list[Integer] = [mpz(1)]
    for point in points:
        assert point is not None  # multiples below the group's order
        products.append(products[-1] * point[2] % FIELD)
    inverse = gmpy2.invert(products.pop(), FIELD)
    affine: list[Affine] = []
    while points:
        x, y, z = points.pop()  # type: ignore[misc]  # checked above
        z_inverse = inverse * products.pop() % FIELD
        inverse = inverse * z % FIELD
        square = z_inverse * z_inverse % FIELD
        affine.append((x * square % FIELD, y * square * z_inverse % FIELD))
    affine.reverse()
    return affine


def _generator_points(table: Table, scalar: int) -> list[Affine]:
    """Return points whose sum is scalar * G, 0 < scalar < n."""
    points = []
    biased = scalar + _GENERATOR_BIAS
    for row in table:
        point = row[biased & _GENERATOR_MASK]
        biased >>= GENERATOR_DIGIT_BITS
        if point is not None:
            points.append(point)
    return points


def _key_points(table: Table, scalar: int) -> list[Affine]:
    """Return points whose sum is scalar * P, 0 < scalar < n. Digits are whole bytes, so they come by conversion."""
    if scalar > _KEY_TOP:
        scalar -= N
    digits = (scalar + _KEY_BIAS).to_bytes(KEY_DIGITS, "little")
    return [point for row, digit in zip(table, digits, strict=True) if (point := row[digit]) is not None]


def _sum_x(points: list[Affine]) -> int | None:
    """Return the x of the sum of at least two points, or None when the sum is infinity."""
    try:
        return int(_sum_pairwise(points)[0])
    except ZeroDivisionError:
        total: Jacobian = None
        for point in points:
            total = add_affine(total, point)
        affine = to_affine(total)
        return None if affine is None else int(affine[0])


def _sum_pairwise(points: list[Affine]) -> Affine:
    """Return the sum of points, no two of a pair having the same x; ZeroDivisionError when two do."""
    field, invert = FIELD, gmpy2.invert
    while len(points) > 1:
        sums = [points[-1]] if len(points) & 1 else []
        rest = iter(points)
        product, pairs = mpz(1), []
        for (xa, ya), (xb, yb) in zip(rest, rest, strict=False):  # the odd last one is in sums
            difference = xb - xa
            pairs.append((xa, ya, xb, yb, difference, product))
            product = product * difference % field
        inverse = invert(product, field)
        pairs.reverse()
        for xa, ya, xb, yb, difference, before in pairs:
            slope = (yb - ya) * (inverse * before % field) % field
            inverse = inverse * difference % field
            x = (slope * slope - xa - xb) % field
            sums.append((x, (slope * (xa - x) - ya) % field))
        points = sums
    return points[0]
