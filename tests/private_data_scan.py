"""Looks for texts that must not be somewhere, in every form in which they might have got there.

For each text: as it is in the character sets of Chinese systems, escaped for JSON and URLs, in hexadecimal, in base64
at each of the three positions it can have inside longer base64, and as its plain MD5, SHA-1, SHA-256 and SM3 in raw
bytes, hexadecimal and base64. A keyed or salted hash is not found, and need not be.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote, unquote_to_bytes

from anchor.gm import sm3

DIGESTS = {
    "md5": lambda data: hashlib.md5(data, usedforsecurity=False).digest(),
    "sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "sm3": sm3,
}


@dataclass(frozen=True)
class Found:
    """A text (``secret``, by its number: a failing test must not print it) in one form at one place."""

    place: str
    secret: int
    form: str


@cache
def forms(secret: str) -> Mapping[str, bytes]:
    """Return the byte strings that would give a text away, by the name of the form."""
    text = secret.encode()
    found = {
        "text": text,
        "gb18030": secret.encode("gb18030"),
        "utf-16": secret.encode("utf-16-le"),
        "json": json.dumps(secret)[1:-1].encode(),
        "json lower": json.dumps(secret)[1:-1].lower().encode(),
        "url": quote(secret, safe="").encode(),
        "url lower": quote(secret, safe="").lower().encode(),
    } | dict(_encoded("text", text))
    for name, digest in DIGESTS.items():
        value = digest(text)
        found |= {name: value} | dict(_encoded(name, value))
    return found


def _encoded(name: str, value: bytes) -> Iterator[tuple[str, bytes]]:
    yield f"{name} hex", value.hex().encode()
    yield f"{name} HEX", value.hex().upper().encode()
    for shift in range(3):
        coded = base64.b64encode(b"\0" * shift + value)
        # the characters that mix bits of what stands before or after are left off
        inner = coded[(0, 2, 3)[shift] : len(coded) - (0 if (shift + len(value)) % 3 == 0 else 4)]
        if len(inner) >= 8:
            yield f"{name} base64+{shift}", inner
            yield f"{name} base64url+{shift}", inner.translate(bytes.maketrans(b"+/", b"-_"))


def scan(places: Mapping[str, bytes], secrets: Iterable[str]) -> list[Found]:
    """Return every occurrence of any form of any secret, at most one per place, secret and form."""
    found = []
    for place, data in places.items():
        readings = [data, unquote_to_bytes(data)] if b"%" in data else [data]
        for number, secret in enumerate(secrets):
            for form, pattern in forms(secret).items():
                if any(pattern in reading for reading in readings):
                    found.append(Found(place, number, form))
    return found
