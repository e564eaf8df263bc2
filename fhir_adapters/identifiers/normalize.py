"""The spellings that Chinese sources give to one and the same number."""

# U+FF01..U+FF5E are the full-width forms of U+0021..U+007E; U+3000 is the ideographic space.
_TO_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_PADDING = " \t\r\n\0\xa0\u3000\ufeff"


def full_width_to_ascii(text: str) -> str:
    """Full-width letters, digits and signs as ASCII ("１２Ｘ" -> "12X"). Other characters stay."""
    return text if text.isascii() else text.translate(_TO_ASCII)


def trimmed(text: str) -> str:
    """``text`` without the blanks, NULs and byte-order marks that fixed-width columns pad with."""
    return text.strip(_PADDING)
