"""统一社会信用代码, GB 32100-2015: 18 characters, the last a check character (ISO 7064 style, modulus 31)."""

import re

_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"  # no I, O, S, V, Z: GB 32100 5.1
_VALUE = {character: value for value, character in enumerate(_ALPHABET)}
_WEIGHTS = (1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28)
# Registering authority, kind of body, six digits of region, nine of organization, check.
_FORM = re.compile(r"[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}")


def uscc_problem(code: str) -> str:
    """ "" for a valid code, else "length", "characters" or "check-digit". Upper case only, no blanks."""
    if len(code) != 18:
        return "length"
    if not _FORM.fullmatch(code):
        return "characters"
    return "" if code[17] == uscc_check_character(code[:17]) else "check-digit"


def is_valid_uscc(code: str) -> bool:
    """Whether ``code`` has the form of GB 32100 and the right check character."""
    return not uscc_problem(code)


def uscc_check_character(body: str) -> str:
    """The check character of the first 17. Raises ValueError for a character outside the alphabet."""
    try:
        total = sum(weight * _VALUE[character] for weight, character in zip(_WEIGHTS, body, strict=True))
    except KeyError as error:
        raise ValueError("a character outside the alphabet of GB 32100") from error
    return _ALPHABET[(31 - total % 31) % 31]
