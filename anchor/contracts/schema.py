"""The shape of a transaction's body: exact fields, each of a bounded form.

A contract lists its fields once; a missing field, an unknown one or one of the wrong form is "bad-body". The refusal
names the field and never its content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from anchor.contracts.org_id import is_org_id
from anchor.errors import TransactionRejected
from anchor.transaction import MAX_INTEGER, Code

Check = Callable[[Any], bool]
"""Whether a value has the form that a field asks for."""

MAX_LIST = 64
"""Grantees of one grant: enough for a regional group; a larger one is a group of its own."""
MAX_URL = 256
MAX_TEXT = 200

_HEX = re.compile(r"[0-9a-f]*\Z")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,31}\Z")
_PURPOSE = re.compile(r"[A-Z][A-Z0-9-]{1,31}\Z")
_INNER = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]"
_OUTER = r"[^\x00-\x20\x7f-\xa0\u2028\u2029\u3000\ufeff]"
_TEXT = re.compile(rf"{_OUTER}(?:{_INNER}*{_OUTER})?\Z")
_URL = re.compile(r"https?://[A-Za-z0-9._~:/\[\]%-]{1,240}\Z")


def check_body(
    body: Mapping[str, Any], fields: Mapping[str, Check], *, optional: Mapping[str, Check] | None = None
) -> None:
    """Raise ``TransactionRejected`` ("bad-body") unless ``body`` has exactly ``fields``, and any of ``optional``."""
    for name, check in fields.items():
        if name not in body:
            raise bad_body(f"the field {name} is missing")
        if not check(body[name]):
            raise bad_body(f"the field {name} is not of the right form")
    if len(body) == len(fields):
        return
    extra = optional or {}
    for name in body:
        if name in fields:
            continue
        if name not in extra:
            raise bad_body("the body has a field that this transaction does not know")
        if not extra[name](body[name]):
            raise bad_body(f"the field {name} is not of the right form")


def bad_body(message: str) -> TransactionRejected:
    """Return the refusal of a body's form."""
    return TransactionRejected(Code.BAD_BODY, message)


def hex_of(length: int) -> Check:
    """Return a check for exactly ``length`` lower-case hexadecimal digits."""
    return lambda value: type(value) is str and len(value) == length and _HEX.match(value) is not None


identifier = hex_of(32)
"""A random 128-bit identifier in hexadecimal."""
digest = hex_of(64)
"""A 256-bit digest or commitment in hexadecimal."""
key_id = hex_of(16)
signature = hex_of(128)


def organisation(value: Any) -> bool:
    """Whether a value is an organisation id (a unified social credit code with a right check character)."""
    return type(value) is str and is_org_id(value)


def purpose(value: Any) -> bool:
    """Whether a value is a purpose-of-use code (HL7 v3 PurposeOfUse such as TREAT)."""
    return type(value) is str and _PURPOSE.match(value) is not None


def reason(value: Any) -> bool:
    """Whether a value is a coded reason."""
    return type(value) is str and _CODE.match(value) is not None


def natural(value: Any) -> bool:
    """Whether a value is a whole number from 0 (a count, a size, or a time in Unix seconds)."""
    return type(value) is int and 0 <= value <= MAX_INTEGER


def positive(value: Any) -> bool:
    """Whether a value is a whole number from 1."""
    return type(value) is int and 1 <= value <= MAX_INTEGER


def url(value: Any) -> bool:
    """Whether a value is an absolute http or https address without query, fragment or user part."""
    return type(value) is str and len(value) <= MAX_URL and _URL.match(value) is not None


def text(value: Any) -> bool:
    """Whether a value is a name for people: 1 to 200 characters, none a control, no space at either end.

    The characters are named here one by one: ``str.isprintable`` would change with Python's Unicode tables.
    """
    return type(value) is str and len(value) <= MAX_TEXT and _TEXT.match(value) is not None


def nullable(check: Check) -> Check:
    """Return a check that also takes null."""
    return lambda value: value is None or check(value)


def one_of(*values: str) -> Check:
    """Return a check for one of the given words."""
    allowed = frozenset(values)
    return lambda value: type(value) is str and value in allowed


def distinct_list(check: Check, *, least: int = 1, most: int = MAX_LIST) -> Check:
    """Return a check for an array of ``least`` to ``most`` different values of one form."""

    def is_distinct_list(value: Any) -> bool:
        return (
            type(value) is list
            and least <= len(value) <= most
            and all(check(item) for item in value)
            and len(set(value)) == len(value)
        )

    return is_distinct_list


def mapping(value: Any) -> bool:
    """Whether a value is an object; its fields are checked by whoever reads it."""
    return type(value) is dict
