r"""Escape sequences (HL7 v2.5 chapter 2.7): from the encoded text of a component to the text it means.

``\F\ \S\ \T\ \R\ \E\ \P\`` are the delimiters, ``\X..\`` bytes in the message's character set, ``\.br\`` and the other
formatting commands line breaks and spaces, ``\H\`` and ``\N\`` highlighting (dropped: text has none).
Anything else between two escape characters, local ``\Z..\`` and character set switches included, is kept as written:
an unknown sequence may be a Windows path, and text must not be lost.

The parser has already turned the message's own delimiters into the standard ones, so the characters here are fixed.
"""

import re

_DELIMITERS = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\", "P": "#", "H": "", "N": ""}
_SEQUENCE = re.compile(
    r"\\(?:([FSTREPHN])|X([0-9A-Fa-f]{2,4096})|\.(br|sp|fi|nf|in|ti|sk|ce) ?[+]?(-?[0-9]{0,3})|[ZCM][^\\]{0,200})\\"
)
_LINES_AT_MOST = 100
"""Blank lines or spaces one command may ask for; a larger number is a mistake or an attack."""
_ENCODED = str.maketrans({"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"})
_LINE_BREAK = re.compile(r"\r\n|\r|\n")


def unescape(text: str, charset: str = "utf_8") -> str:
    """The text that an encoded component means; ``charset`` is the codec of ``\\X..\\`` bytes."""
    if "\\" not in text:
        return text
    return _SEQUENCE.sub(lambda match: _meaning(match, charset), text)


def escape(text: str) -> str:
    """Encode text for a component with the standard delimiters; line breaks become ``\\.br\\``."""
    return _LINE_BREAK.sub(r"\\.br\\", text.translate(_ENCODED))


def _meaning(match: re.Match[str], charset: str) -> str:
    delimiter, hexadecimal, command, amount = match.groups()
    if delimiter:
        return _DELIMITERS[delimiter]
    if hexadecimal and len(hexadecimal) % 2 == 0:
        try:
            return bytes.fromhex(hexadecimal).decode(charset)
        except UnicodeDecodeError:
            return match[0]
    if command:
        return _formatted(command, amount)
    return match[0]


def _formatted(command: str, amount: str) -> str:
    count = min(max(int(amount), 0) if amount.strip("-") else 1, _LINES_AT_MOST)
    if command in ("br", "ce"):
        return "\n"
    if command == "sp":
        return "\n" * max(1, count)
    if command == "sk":
        return " " * count
    return ""  # fill, no-fill, indents: layout only
