"""Numbers that remember how they were written.

FHIR R4 2.24.0.1 (decimal): precision is significant, ``0.40`` is not ``0.4``. A :class:`Lexeme` is a float to whoever
computes with it, and its own text to whoever writes it.
"""

import json
import re
from typing import Any

import orjson

from fhir_adapters.errors import ParseError

_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_SOURCE_NUMBER = re.compile(r"\s*([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]{1,3}))?\s*", re.ASCII)

MAX_NUMBER_CHARS = 64
"""Longest number taken from a source, in characters: clinical values have fewer than 20, and quadratic
number parsing of a megabyte of digits is an attack."""


class Lexeme(float):
    """A JSON number kept as written. ``Lexeme("0.40").lexeme == "0.40"``.

    Raises ValueError for text that is not a JSON number (RFC 8259 section 6) or is out of a float's range.
    """

    __slots__ = ("lexeme",)
    lexeme: str

    def __new__(cls, lexeme: str) -> "Lexeme":
        """Check the text against the JSON grammar and keep it."""
        if len(lexeme) > MAX_NUMBER_CHARS or not _JSON_NUMBER.fullmatch(lexeme):
            raise ValueError("not a JSON number")
        self = super().__new__(cls, lexeme)
        if self in (float("inf"), float("-inf")):
            raise ValueError("number out of range")
        self.lexeme = lexeme
        return self

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        return (self.lexeme,)

    def __repr__(self) -> str:
        return f"Lexeme({self.lexeme!r})"

    def __str__(self) -> str:
        return self.lexeme


def from_source(text: str) -> Lexeme | None:
    """The number that a source wrote, as a JSON number of the same precision; None when it is not a number.

    Takes what HL7 v2 NM (2.A.47) and database exports hold: a leading ``+``, a bare point (``.5``, ``5.``), leading
    zeros.
    """
    if len(text) > MAX_NUMBER_CHARS:
        return None
    match = _SOURCE_NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, whole, fraction, exponent = match.groups()
    if not whole and not fraction:
        return None
    lexeme = ("-" if sign == "-" else "") + (whole.lstrip("0") or "0")
    if fraction:
        lexeme += "." + fraction
    if exponent:
        lexeme += "e" + exponent
    try:
        return Lexeme(lexeme)
    except ValueError:
        return None


def fragment(value: Any) -> orjson.Fragment:
    """``default=`` for :func:`orjson.dumps`: writes a Lexeme as its own text, refuses everything else."""
    if isinstance(value, Lexeme):
        return orjson.Fragment(value.lexeme.encode())
    raise TypeError("only JSON types can be written")


def loads(data: bytes) -> Any:
    """Read JSON keeping every fraction as a Lexeme. Raises ParseError."""
    try:
        return json.loads(data, parse_float=Lexeme, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ParseError("not valid JSON") from error


def _refuse_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")
