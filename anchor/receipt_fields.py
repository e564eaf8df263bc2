"""The forms of a receipt's fields: each reader returns the value or raises ``FormatError`` naming the field."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from anchor import canonical
from anchor.errors import CanonicalError, FormatError

VERSION = 1
MAX_PROOF = 64
"""Hashes in one proof: enough for a log of 2^63 entries."""
MAX_NOTE_CHARACTERS = 64 * 1024
MAX_INDEX = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""

HEX32 = re.compile(r"[0-9a-f]{64}\Z")


def items(value: Any, limit: int) -> list[Any]:
    """Return a list of at most ``limit``."""
    if not isinstance(value, list) or len(value) > limit:
        raise FormatError(f"a receipt's field is a list of at most {limit}")
    return value


def load(content: bytes, limit: int, what: str) -> Any:
    """Read JSON of at most ``limit`` bytes."""
    if len(content) > limit:
        raise FormatError(f"{what} is at most {limit} bytes")
    try:
        return canonical.load(content)
    except CanonicalError as error:
        raise FormatError(f"{what} is not JSON: {error}") from None


def fields_of(value: Any, names: tuple[str, ...], what: str, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return an object that has exactly ``names`` and any of ``optional``."""
    if not isinstance(value, dict):
        raise FormatError(f"{what} is an object")
    if value.keys() - set(optional) != set(names):
        raise FormatError(f"{what} has exactly the fields {', '.join(names)}")
    return value


def text(value: Any, form: re.Pattern[str], what: str) -> str:
    """Return a text of a form."""
    if not isinstance(value, str) or not form.match(value):
        raise FormatError(f"{what} is not of its form")
    return value


def octets(value: Any, form: re.Pattern[str], what: str) -> bytes:
    """Return the bytes of a text in hexadecimal."""
    return bytes.fromhex(text(value, form, what))


def index(value: Any, what: str) -> int:
    """Return a place in a log."""
    if type(value) is not int or not 0 <= value <= MAX_INDEX:
        raise FormatError(f"{what} is a whole number")
    return value


def proof(value: Any, what: str) -> tuple[bytes, ...]:
    """Return the hashes of a Merkle proof."""
    if not isinstance(value, list) or len(value) > MAX_PROOF:
        raise FormatError(f"{what} is a list of at most {MAX_PROOF} hashes")
    return tuple(octets(node, HEX32, what) for node in value)


def note(value: Any, what: str) -> bytes:
    """Return a checkpoint's text."""
    if not isinstance(value, str) or len(value) > MAX_NOTE_CHARACTERS:
        raise FormatError(f"{what} is a checkpoint's text")
    return value.encode("utf-8")


def version(value: Any, what: str) -> None:
    """Refuse another version than ours."""
    if type(value) is not int or value != VERSION:
        raise FormatError(f"{what} is of another version than {VERSION}")


def base64_octets(value: Any, limit: int, what: str) -> bytes:
    """Return at most ``limit`` bytes of standard base64 with padding, in its one spelling."""
    if isinstance(value, str) and len(value) <= 4 * (limit // 3 + 1):
        try:
            content = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            content = b""
        if content and base64.b64encode(content).decode("ascii") == value:
            return content
    raise FormatError(f"{what} is base64 of 1 to {limit} bytes")
