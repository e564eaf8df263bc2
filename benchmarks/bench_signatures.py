"""SM2 signing and verification, beside gmssl-pyx and, where that program is there, ``openssl speed sm2``."""

from __future__ import annotations

import re
import shutil
import subprocess
import time

import gmssl_pyx

from anchor.gm import PrivateKey
from anchor.gm.providers import PROVIDERS
from benchmarks.measure import Comparison, Rate, rates_in_turn

MESSAGES = 128
MESSAGE_BYTES = 600  # a ledger transaction
VERIFICATIONS_WANTED = 7_000  # per second and core: what the ledger plans with


def run(seconds: float = 2.0) -> list[Comparison]:
    """Measure one core: verification from tables and by the library, signing, and OpenSSL's own figures."""
    key = PrivateKey.generate()
    public, encoded = key.public_key, key.public_key.to_bytes()
    messages = [number.to_bytes(4, "big").ljust(MESSAGE_BYTES, b".") for number in range(MESSAGES)]
    signed = [(message, key.sign(message)) for message in messages]
    native = PROVIDERS["native"]
    started = time.perf_counter()
    public.precompute()
    built = time.perf_counter() - started

    def from_tables() -> None:
        for message, signature in signed:
            public.verify(message, signature)

    def by_library() -> None:
        for message, signature in signed:
            if not native.verify_digest(encoded, public.digest(message), signature):
                raise AssertionError("gmssl-pyx refuses what the tables accept")

    def sign() -> None:
        for message in messages:
            key.sign(message)

    def sign_by_library() -> None:
        for message in messages[:16]:
            gmssl_pyx.sm2_sign(key.to_bytes(), encoded[1:], message)

    rates = rates_in_turn(
        {
            "tables": (from_tables, MESSAGES),
            "library": (by_library, MESSAGES),
            "sign": (sign, MESSAGES),
            "sm2_sign": (sign_by_library, 16),
        },
        seconds,
    )
    what = "SM2 signatures of ledger transactions verified from tables"
    note = f"the first table of the process took {built:.2f} s"
    comparisons = [
        Comparison(what, rates["tables"], "gmssl-pyx", rates["library"], target=3.0, note=note),
        Comparison(what + ", one core", rates["tables"], "", None, absolute_target=VERIFICATIONS_WANTED),
        Comparison("SM2 signatures made", rates["sign"], "gmssl_pyx.sm2_sign", rates["sm2_sign"], target=3.0),
    ]
    openssl = openssl_speed(max(1, round(seconds)))
    if openssl is not None:
        signing, verifying = openssl
        comparisons += [
            Comparison(what, rates["tables"], "openssl speed sm2", verifying, target=1.5),
            Comparison("SM2 signatures made", rates["sign"], "openssl speed sm2", signing),
        ]
    return comparisons


def openssl_speed(seconds: int) -> tuple[Rate, Rate] | None:
    """Return OpenSSL's own (sign, verify) rates, or None when it cannot be asked."""
    program = shutil.which("openssl")
    if program is None:
        return None
    done = subprocess.run(
        [program, "speed", "-elapsed", "-seconds", str(seconds), "sm2"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = re.search(r"SM2.*?s\s+[\d.]+s\s+([\d.]+)\s+([\d.]+)\s*$", done.stdout, re.MULTILINE)
    if found is None:
        return None
    signing, verifying = float(found[1]), float(found[2])
    return Rate(signing, signing, signing), Rate(verifying, verifying, verifying)
