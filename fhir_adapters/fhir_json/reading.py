"""JSON text to values: numbers keep their digits, and what has no canonical form is refused."""

import json
import re
from typing import Any, NoReturn

from fhir_adapters.errors import DecodeError, ParseError, UnsupportedMessage
from fhir_adapters.foreign_formats import foreign_format
from fhir_adapters.json_lexeme import Lexeme

MAX_DEPTH = 100
"""Deepest nesting of objects and lists; FHIR resources stay below 40."""

MAX_FHIR_BYTES = 64 * 1024 * 1024
"""Longest text, in bytes: a Bundle with documents inside."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(raw: bytes) -> dict[str, Any]:
    """The object that a JSON text holds.

    Raises DecodeError for what is not UTF-8, ParseError for what is no JSON object: a property twice, NaN, half a
    surrogate pair, too many levels, or a number out of range among them.
    """
    if len(raw) > MAX_FHIR_BYTES:
        raise ParseError(f"more than {MAX_FHIR_BYTES} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if what := foreign_format(raw):
            raise UnsupportedMessage(what, "file") from None
        raise DecodeError("not UTF-8", f"byte {error.start}") from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_float=Lexeme, parse_constant=_constant)
    except json.JSONDecodeError as error:
        if what := foreign_format(raw):
            raise UnsupportedMessage(what, "file") from None
        raise ParseError("not JSON", f"line {error.lineno}") from None
    except RecursionError:
        raise ParseError("nested too deeply") from None
    except ValueError:  # a number that no JSON number or float is
        raise ParseError("a number out of range") from None
    if not isinstance(value, dict):
        raise ParseError("not a JSON object")
    _check(value, 0)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ParseError("a property stands twice in one object")
    return made


def _constant(_: str) -> NoReturn:
    raise ParseError("NaN or Infinity, which JSON does not have")


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ParseError(f"nested more than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for name, member in value.items():
            if _LONE_SURROGATE.search(name):
                raise ParseError("half a surrogate pair")
            _check(member, depth + 1)
    elif isinstance(value, list):
        for member in value:
            _check(member, depth + 1)
    elif isinstance(value, str) and _LONE_SURROGATE.search(value):
        raise ParseError("half a surrogate pair")
