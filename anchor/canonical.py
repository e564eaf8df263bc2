"""FHIR canonical JSON (http://hl7.org/fhir/canonicalization/json): the one byte form that is hashed and signed.

Properties in code-point order, no insignificant whitespace, UTF-8, the shortest string escapes (RFC 8785, 3.2.2.2), and
every number exactly as it was written: ``0.40``, ``1E5`` and ``-0`` stay. Input that has no such form is refused with
``CanonicalError``: duplicate properties, NaN and Infinity, lone surrogates, a byte order mark, bytes that are not
UTF-8, anything after the value, too many bytes or levels. No error text repeats the input.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import orjson

from anchor.errors import CanonicalError

__all__ = ["MAX_BYTES", "MAX_DEPTH", "CanonicalError", "Lexeme", "Verbatim", "canonicalize", "dump", "load"]

MAX_BYTES = 64 * 1024 * 1024
"""Largest input, bytes: a Bundle with embedded documents fits, and parsing it stays within memory."""

MAX_DEPTH = 254
"""Most nested arrays and objects. FHIR resources stay below 40; this is what orjson writes; a test holds it to it."""

MAX_INTEGER_CHARACTERS = 18
"""Longer integers stay lexemes: up to here every one fits a signed 64-bit number."""

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DECIMAL_MEMBER = re.compile(
    rb'":(?<=[A-Za-z0-9]":)-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)(?=[,}])'
)
_parse, _write, _SORTED = orjson.loads, orjson.dumps, orjson.OPT_SORT_KEYS
_SCALARS = frozenset({str, int, bool, type(None)})
_TOO_DEEP = f"the JSON nests more than {MAX_DEPTH} levels"


class Lexeme(float):
    """A JSON number kept as it was written; ``lexeme`` is that text. Its float value is for comparison only."""

    __slots__ = ("lexeme",)
    lexeme: str

    def __new__(cls, lexeme: str) -> Lexeme:
        """Make a number of its JSON text; raises ``CanonicalError`` for text that is no JSON number."""
        if not _NUMBER.fullmatch(lexeme):
            raise CanonicalError("this text is not a JSON number")
        number = super().__new__(cls, lexeme)
        number.lexeme = lexeme
        return number

    def __reduce__(self) -> tuple[type[Lexeme], tuple[str]]:
        return Lexeme, (self.lexeme,)


class Verbatim:
    """A value whose canonical JSON is at hand (``content``): ``dump`` takes it over as it is, without looking."""

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content


def canonicalize(json_bytes: bytes) -> bytes:
    """Return the canonical form of a JSON text; raises ``CanonicalError`` when it has none.

    ``canonicalize(canonicalize(x)) == canonicalize(x)``, and a text that is already canonical comes back unchanged.
    """
    if type(json_bytes) is not bytes or len(json_bytes) > MAX_BYTES:
        _check_input(json_bytes)
    try:
        value = _parse(json_bytes)
        output = _write(value, None, _SORTED)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return _canonicalize_slowly(json_bytes)  # which says why
    if output == json_bytes:
        return output
    return _canonicalize_quickly(json_bytes, value, output) or _canonicalize_slowly(json_bytes)


def dump(value: Any) -> bytes:
    """Return the canonical JSON of a value built by this program.

    Takes str, int (64 bits), bool, None, lists, tuples, dicts with str keys, numbers that carry their ``lexeme``, and
    ``Verbatim``.
    Raises ``CanonicalError`` for anything else, above all for a bare float, which has no lexeme to keep.
    """
    if type(value) is not dict or not _SCALARS.issuperset(map(type, value.values())):  # mostly it is flat
        _check_levels([[value]])
    return _encode(value)


def load(json_bytes: bytes) -> Any:
    """Parse a JSON text under the rules of ``canonicalize``.

    Integers of up to 18 characters become int; every other number becomes a ``Lexeme``, so that ``dump(load(x)) ==
    canonicalize(x)``. Raises ``CanonicalError``.
    """
    _check_input(json_bytes)
    try:
        value = _DECODER.decode(json_bytes.decode("utf-8"))
    except UnicodeDecodeError:
        raise CanonicalError("the JSON is not UTF-8") from None
    except RecursionError:
        raise CanonicalError(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise CanonicalError(f"this is not JSON (character {error.pos})") from None
    if _may_be_deep(json_bytes):
        _check_levels([[value]])
    if b"\\u" in json_bytes:  # only an escape can bring in a lone surrogate; found on encoding
        _encode(value)
    return value


def _canonicalize_quickly(json_bytes: bytes, value: Any, output: bytes) -> bytes | None:
    """Return the canonical form if orjson's own round trip (to ``value``, to ``output``) provably gives it, else None.

    orjson drops all but the last of duplicate properties and rewrites numbers, so its output counts only where neither
    happened:

    1. The output equals the input (seen by the caller). It is valid, sorted, compact and without duplicates, as all
       that orjson writes; the numbers are the input's own.
    2. The input has no backslash, the parsed value holds no float, and the output is as long as the input. Then strings
       are copied as they are, and each thing that could still differ makes the output shorter: dropped
       whitespace, a dropped duplicate, ``-0`` written as ``0``. Equal length means none of them happened.
    3. Input and output are equal but for decimals that follow a letter or digit and ``":``. The output is canonical,
       so in it such a quote ends a name (one that begins a string follows a bracket, comma or colon) and the
       decimal is a whole value. The input is the output with other decimals as values, and those are its own.

    orjson writes no more than MAX_DEPTH levels.
    """
    if len(output) == len(json_bytes) and b"\\" not in json_bytes and not _has_float(value):
        return output
    return json_bytes if _DECIMAL_MEMBER.split(json_bytes) == _DECIMAL_MEMBER.split(output) else None


def _canonicalize_slowly(json_bytes: bytes) -> bytes:
    return _encode(load(json_bytes))


def _check_input(json_bytes: bytes) -> None:
    if not isinstance(json_bytes, bytes):
        raise CanonicalError("JSON to be made canonical is given as bytes")
    if len(json_bytes) > MAX_BYTES:
        raise CanonicalError(f"the JSON is larger than {MAX_BYTES} bytes")


def _encode(value: Any) -> bytes:
    try:
        return _write(value, _as_written, _SORTED)
    except orjson.JSONEncodeError as error:
        if isinstance(error.__cause__, CanonicalError):
            raise error.__cause__ from None
        raise CanonicalError("the value holds a lone surrogate, an integer beyond 64 bits or a key not text") from None


def _as_written(value: object) -> orjson.Fragment:
    if type(value) is Lexeme:  # made of checked text
        return orjson.Fragment(value.lexeme)
    if type(value) is Verbatim:
        return orjson.Fragment(value.content)
    lexeme = getattr(value, "lexeme", None)
    if not isinstance(lexeme, str) or not _NUMBER.fullmatch(lexeme):
        raise CanonicalError("the value holds something that JSON cannot carry exactly")
    return orjson.Fragment(lexeme)


def _may_be_deep(json_bytes: bytes) -> bool:
    """Tell cheaply whether the text could nest too deeply (brackets inside strings count too)."""
    return json_bytes.count(b"{") + json_bytes.count(b"[") > MAX_DEPTH


def _has_float(value: Any) -> bool:
    """Tell whether a value that orjson parsed holds a float."""
    level: list[Any] = [[value]]
    while level:
        deeper: list[Any] = []
        for container in level:
            for item in container.values() if type(container) is dict else container:
                kind = type(item)
                if kind is float:
                    return True
                if kind is dict or kind is list:
                    deeper.append(item)
        level = deeper
    return False


def _check_levels(level: list[Any]) -> None:
    """Check types and nesting; ``level`` is one array that holds the value and does not count as a level."""
    depth = 0
    while level:
        if depth > MAX_DEPTH:
            raise CanonicalError(_TOO_DEEP)
        depth += 1
        deeper: list[Any] = []
        for container in level:
            values = container.values() if type(container) is dict else container
            if _SCALARS.issuperset(map(type, values)):
                continue
            for value in values:
                kind = type(value)
                if kind in _SCALARS:
                    continue
                if kind in (dict, list, tuple):
                    deeper.append(value)
                elif kind is not Verbatim and not isinstance(getattr(value, "lexeme", None), str):
                    raise CanonicalError("the value holds something that JSON cannot carry exactly")
        level = deeper


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise CanonicalError("an object has the same property twice")
    return members


def _read_number(lexeme: str) -> Lexeme:
    """Make a Lexeme of text that the JSON scanner has found to be a number."""
    number = float.__new__(Lexeme, lexeme)
    number.lexeme = lexeme
    return number


def _read_integer(lexeme: str) -> int | Lexeme:
    if len(lexeme) > MAX_INTEGER_CHARACTERS or lexeme == "-0":
        return _read_number(lexeme)
    return int(lexeme)


def _refuse_constant(_name: str) -> NoReturn:
    raise CanonicalError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_read_object, parse_float=_read_number, parse_int=_read_integer, parse_constant=_refuse_constant
)
