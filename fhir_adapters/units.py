"""Units of measure: is what a laboratory sent UCUM, or does it mean a UCUM unit?

``unit`` in a Quantity always stays as sent. ``code`` and ``system`` are added only when the text is a UCUM term by its
grammar (The Unified Code for Units of Measure 2.1, section 2) over the atoms used in health care, or one of the ways
Chinese laboratories write one (``μmol/L``, ``×10^9/L``, ``次/分``). Nothing is converted.
"""

import json
import re
from functools import lru_cache
from importlib.resources import files

UCUM = "http://unitsofmeasure.org"

MAX_UNIT_CHARS = 60
"""Longest text that is looked at as a unit; longer ones are prose."""

_TABLE = json.loads(files("fhir_adapters").joinpath("units.json").read_bytes())
_METRIC = frozenset(_TABLE["metric"])  # atoms that take a prefix
_PLAIN = frozenset(_TABLE["plain"])  # atoms that do not
_WRITTEN: dict[str, str] = _TABLE["written"]  # not UCUM, and meaning exactly one UCUM term
_PREFIXES = ("da", "Ki", "Mi", "Gi", "Ti", *"YZEPTGMkhdcmunpfazy")
_CHARACTERS = str.maketrans({"μ": "u", "µ": "u", "×": "", "＊": "*", "／": "/", "％": "%", "²": "2", "³": "3", " ": ""})
_ANNOTATED = re.compile(r"(.*?)(\{[^{}]*\})?")
_POWERED = re.compile(r"(.*?)[+-]?\d{1,3}")
_POWER = re.compile(r"^[*xX]?10[*^]?(3|6|9|12)/")


@lru_cache(maxsize=2048)
def ucum_code(text: str) -> str | None:
    """The UCUM code that ``text`` is or plainly means; None when there is none."""
    if not text or len(text) > MAX_UNIT_CHARS:
        return None
    if is_ucum(text):
        return text
    plain = text.translate(_CHARACTERS)
    known = _WRITTEN.get(plain) or _WRITTEN.get(text)
    if known is not None:
        return known
    power = _POWER.match(plain)
    if power is not None:  # *10^9/L, x10^9/L, 109/L
        plain = f"10*{power[1]}/" + plain[power.end() :]
    return plain if plain != text and is_ucum(plain) else None


def is_ucum(text: str) -> bool:
    """Whether ``text`` is a UCUM term over the atoms known here (case sensitive)."""
    if not text.isascii() or any(character.isspace() for character in text):
        return False
    if text.isdigit():
        return text == "1"
    body = text[1:] if text.startswith("/") else text
    pieces = _pieces(body)
    return bool(pieces) and all(_is_component(piece) for piece in pieces)


def _pieces(body: str) -> list[str]:
    """Split at ``.`` and ``/`` outside brackets and braces; parentheses are opened. [] when they do not pair."""
    pieces, start, depth, closing = [], 0, 0, ""
    for position, character in enumerate(body):
        if closing:
            closing = "" if character == closing else closing
        elif character in "[{":
            closing = "]" if character == "[" else "}"
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth < 0:
                return []
        elif character in "./":
            pieces.append(body[start:position])
            start = position + 1
    pieces.append(body[start:])
    return [] if closing or depth else [piece.replace("(", "").replace(")", "") for piece in pieces]


def _is_component(piece: str) -> bool:
    match = _ANNOTATED.fullmatch(piece)
    assert match is not None
    unit, note = match.groups()
    if not unit:
        return note is not None
    if unit.isdigit():  # an integer factor, in terms such as umol/(24.h)
        return True
    if _is_atom(unit):
        return True
    powered = _POWERED.fullmatch(unit)
    return powered is not None and _is_atom(powered[1])


def _is_atom(unit: str) -> bool:
    if unit in _METRIC or unit in _PLAIN:
        return True
    return any(unit.startswith(prefix) and unit[len(prefix) :] in _METRIC for prefix in _PREFIXES)
