"""Organisation ids: the 18-character unified social credit code (统一社会信用代码, GB 32100-2015)."""

from __future__ import annotations

import re

_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
"""GB 32100-2015 table 1: digits and capital letters without I, O, S, V and Z; a character's value is its position."""
_VALUES = {character: position for position, character in enumerate(_ALPHABET)}
_WEIGHTS = tuple(pow(3, position, 31) for position in range(17))
_FORM = re.compile(rf"[{_ALPHABET}]{{2}}[0-9]{{6}}[{_ALPHABET}]{{10}}\Z")


def check_character(body: str) -> str:
    """Return the check character for the first 17 characters of a code (GB 32100-2015 4.3: weights 3^i mod 31)."""
    total = sum(_VALUES[character] * weight for character, weight in zip(body, _WEIGHTS, strict=True))
    return _ALPHABET[(31 - total % 31) % 31]


def is_org_id(value: str) -> bool:
    """Whether a string is a unified social credit code with a right check character."""
    return _FORM.match(value) is not None and check_character(value[:17]) == value[17]
