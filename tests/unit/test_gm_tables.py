"""Verification from tables: the digits, the exceptional additions, and how many tables are kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from gmpy2 import mpz

from anchor.errors import KeyFormatError
from anchor.gm import PrivateKey
from anchor.gm.arithmetic import GENERATOR, add_affine, double, multiply, to_affine
from anchor.gm.curve import N, P
from anchor.gm.providers import PROVIDERS, tables
from anchor.gm.providers.tables import TableVerifier

MINUS_G = (GENERATOR[0], P - GENERATOR[1])
VERIFIER = TableVerifier()


def encode(point: tuple[int, int]) -> bytes:
    return b"\x04" + int(point[0]).to_bytes(32, "big") + int(point[1]).to_bytes(32, "big")


def crafted(discrete_log: int, s: int, t: int) -> tuple[bytes, bytes, bytes]:
    """Return public key, digest and signature that hold, for the chosen s and t = r + s."""
    public = to_affine(multiply(discrete_log, GENERATOR))
    r = (t - s) % N
    point = to_affine(multiply((s + t * discrete_log) % N, GENERATOR))
    assert public is not None
    assert point is not None
    digest = (r - int(point[0])) % N
    return encode(public), digest.to_bytes(32, "big"), r.to_bytes(32, "big") + s.to_bytes(32, "big")


@pytest.mark.parametrize(
    ("discrete_log", "s", "t"),
    [
        pytest.param(1, 5, 5 + 256 * 3, id="P is G: the first pair is one point twice"),
        pytest.param(N - 1, 5, 5 + 256 * 3, id="P is -G: the first pair cancels out"),
        pytest.param(1, 5, 1, id="two points only"),
        pytest.param(2, 6, 3, id="two equal points, nothing else"),
        pytest.param(1, 1 + (1 << 12), 1 + (1 << 8), id="the pairs differ, their sums meet later"),
        pytest.param(7, N - 1, N - 2, id="both scalars near n"),
    ],
)
def test_exceptional_additions_give_the_right_sum(
    discrete_log: int, s: int, t: int, capfd: pytest.CaptureFixture[str]
) -> None:
    public, digest, signature = crafted(discrete_log, s, t)
    assert VERIFIER.verify_digest(public, digest, signature)
    wrong = (int.from_bytes(digest, "big") ^ 1).to_bytes(32, "big")
    assert not VERIFIER.verify_digest(public, wrong, signature)
    for provider in PROVIDERS.values():
        assert provider.verify_digest(public, digest, signature)
        assert not provider.verify_digest(public, wrong, signature)


def test_a_pair_of_equal_points_does_take_the_exceptional_branch() -> None:
    with pytest.raises(ZeroDivisionError):
        tables._sum_pairwise([GENERATOR, GENERATOR])
    twice = to_affine(multiply(2, GENERATOR))
    assert twice is not None
    assert tables._sum_x([GENERATOR, GENERATOR]) == twice[0]


def test_a_sum_at_infinity_has_no_x() -> None:
    assert tables._sum_x([GENERATOR, MINUS_G]) is None


@pytest.mark.parametrize(
    "scalar",
    [1, 127, 128, 129, 255, 256, 2**128, tables._KEY_TOP, tables._KEY_TOP + 1, N // 2, N - 128, N - 1],
)
def test_digits_of_a_scalar_sum_to_its_multiple(scalar: int) -> None:
    expected = to_affine(multiply(scalar, GENERATOR))
    assert expected is not None
    key_table = VERIFIER.precompute(encode(GENERATOR))
    generator_table = VERIFIER._generator
    assert generator_table is not None
    for points in (tables._key_points(key_table, scalar), tables._generator_points(generator_table, scalar)):
        total = None
        for point in points:
            total = add_affine(total, point)
        assert to_affine(total) == expected


def test_the_complete_addition_covers_infinity_doubling_and_opposites() -> None:
    one = add_affine(None, GENERATOR)
    assert to_affine(one) == GENERATOR
    assert to_affine(add_affine(one, GENERATOR)) == to_affine(double(one))
    assert add_affine(one, (mpz(MINUS_G[0]), mpz(MINUS_G[1]))) is None
    assert double(None) is None
    assert to_affine(None) is None
    assert multiply(N, GENERATOR) is None


def test_a_key_gets_its_table_when_used_often_enough() -> None:
    verifier = TableVerifier(precompute_after=3)
    key = PrivateKey.generate().public_key.to_bytes()
    assert [verifier.is_ready(key) for _ in range(4)] == [False, False, True, True]


def test_the_least_recently_used_table_goes_first() -> None:
    verifier = TableVerifier(max_tables=2)
    first, second, third = (PrivateKey.generate().public_key.to_bytes() for _ in range(3))
    verifier.precompute(first)
    verifier.precompute(second)
    verifier.precompute(first)
    verifier.precompute(third)
    assert set(verifier._tables) == {first, third}


def test_counting_strange_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_COUNTED_KEYS", 10)
    verifier = TableVerifier()
    for number in range(50):
        verifier.is_ready(number.to_bytes(65, "big"))
    assert len(verifier._uses) == 10


def test_no_table_is_built_of_a_point_off_the_curve() -> None:
    with pytest.raises(KeyFormatError):
        VERIFIER.precompute(b"\x04" + bytes(64))


def test_precompute_puts_a_key_on_the_tables_and_changes_no_verdict() -> None:
    key = PrivateKey.generate()
    key.public_key.precompute()
    signature = key.sign(b"message")
    key.public_key.verify(b"message", signature)


def test_threads_share_one_table_per_key() -> None:
    verifier = TableVerifier()
    key = PrivateKey.generate()
    digest = key.public_key.digest(b"message")
    signature = key.sign(b"message")
    public = key.public_key.to_bytes()
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda _: verifier.verify_digest(public, digest, signature), range(32)))
    assert verdicts == [True] * 32
    assert list(verifier._tables) == [public]
