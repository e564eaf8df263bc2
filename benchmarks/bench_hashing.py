"""Records hashed and appended per second, beside raw OpenSSL SM3 over the same bytes.

One record is a 2 KB Observation as the store hands it on: made canonical, hashed, named in a log entry with a fresh
salt, and its leaf appended to a tiled log in batches of 256. One record in ten holds a decimal with a trailing zero
(5.60), which the quickest path of ``canonicalize`` cannot take. OpenSSL hashes the same records and entries, no more.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes

from anchor.canonical import Lexeme, canonicalize, dump
from anchor.gm import sm3
from anchor.merkle import leaf_hash
from anchor.receipt import LogEntry
from anchor.tiles import MemoryTileStore, TileLog
from benchmarks.measure import Comparison, rates_in_turn

BATCH = 256
RECORD_BYTES = 2048
SALT_BYTES = 16
TRAILING_ZERO_EVERY = 10


def run(seconds: float = 2.0) -> list[Comparison]:
    """Measure our whole path and OpenSSL's bare hash in turn; the target is half of the latter."""
    records = [record(number) for number in range(BATCH)]
    entries = [
        entry(n, sm3(each), salt) for n, (each, salt) in enumerate(zip(records, fresh_salts(BATCH), strict=True))
    ]
    openssl, name = openssl_sm3()
    log = TileLog(MemoryTileStore())

    def ours() -> None:
        salts = fresh_salts(BATCH)
        log.append([leaf_hash(entry(n, sm3(canonicalize(each)), salts[n])) for n, each in enumerate(records)])

    def theirs() -> None:
        for each in records:
            openssl(each)
        for each in entries:
            openssl(each)

    rates = rates_in_turn({"ours": (ours, BATCH), "theirs": (theirs, BATCH)}, seconds)
    return [
        Comparison(
            "2 KB records made canonical, hashed and appended to the log",
            rates["ours"],
            f"SM3 of OpenSSL ({name}) over the same bytes",
            rates["theirs"],
            target=0.5,
            note=f"record {len(records[0])} bytes, entry {len(entries[0])} bytes, log of {log.size:,} at the end",
        )
    ]


def fresh_salts(count: int) -> list[bytes]:
    """Return a salt for each entry of a batch, drawn in one call as the anchoring job draws them."""
    salts = secrets.token_bytes(SALT_BYTES * count)
    return [salts[start : start + SALT_BYTES] for start in range(0, len(salts), SALT_BYTES)]


def entry(number: int, digest: bytes, salt: bytes) -> bytes:
    """Return the bytes of a log entry, made as the anchoring job makes them."""
    ref = f"Observation/{number}/_history/1"
    return LogEntry("91110000100006789X", ref, digest, digest, "hl7v2/1.0", salt).dump()


def record(number: int) -> bytes:
    """Return a canonical Observation of 2 KB with decimals and Chinese text."""
    value = Lexeme("5.60" if number % TRAILING_ZERO_EVERY == 0 else "120.5")
    component = {
        "code": {"coding": [{"code": "8480-6", "display": "收缩压", "system": "http://loinc.org"}]},
        "valueQuantity": {"code": "mm[Hg]", "system": "http://unitsofmeasure.org", "unit": "mmHg", "value": value},
    }
    observation: dict[str, Any] = {
        "resourceType": "Observation",
        "id": f"bench-{number:06d}",
        "status": "final",
        "component": [component] * 7,
    }
    padding = RECORD_BYTES - len(dump(observation)) - len(b',"note":[{"text":""}]')
    observation["note"] = [{"text": "x" * padding}]
    return dump(observation)


def openssl_sm3() -> tuple[Callable[[bytes], bytes], str]:
    """Return OpenSSL's SM3 as this interpreter has it; some builds of hashlib lack it."""
    if "sm3" in hashlib.algorithms_available:
        return lambda data: hashlib.new("sm3", data).digest(), "hashlib"

    def digest(data: bytes) -> bytes:
        state = hashes.Hash(hashes.SM3())
        state.update(data)
        return state.finalize()

    return digest, "cryptography"
