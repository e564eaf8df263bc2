"""The spellings that Chinese sources give to one and the same number."""

import re

# U+FF01..U+FF5E are the full-width forms of U+0021..U+007E; U+3000 is the ideographic space.
_TO_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_WIDE_BLANKS = re.compile("[\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_PADDING = " \t\r\n\0\xa0\u3000\ufeff"


def full_width_to_ascii(text: str) -> str:
    """Full-width letters, digits and signs as ASCII ("１２Ｘ" -> "12X"). Other characters stay."""
    return text if text.isascii() else text.translate(_TO_ASCII)


def plain_blanks(text: str) -> str:
    """``text`` with a plain blank for each blank of another width, between Chinese words above all.

    To judges by the rules of ECMAScript (that of the official JSON schema) these are no characters of a FHIR string.
    """
    return text if text.isascii() else _WIDE_BLANKS.sub(" ", text)


def trimmed(text: str) -> str:
    """``text`` without the blanks, NULs and byte-order marks that fixed-width columns pad with."""
    return text.strip(_PADDING)
