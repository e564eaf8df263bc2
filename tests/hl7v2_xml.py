"""A message in ER7 written in the XML encoding, for tests: by the standard's rules, with code of its own."""

import re
from xml.sax.saxutils import escape, quoteattr

_DELIMITERS = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\"}
_SEQUENCE = re.compile(r"\\([FSTREPHN]|X[0-9A-Fa-f]{2,100}|\.(?:br|sp|fi|nf|in|ti|sk|ce) ?[+]?-?[0-9]{0,3}|[ZCM]\w*)\\")
NAMESPACE = "urn:hl7-org:v2xml"


def xml_of(message: str, structure: str = "ADT_A01", *, group: str = "", prefix: str = "") -> str:
    """The XML form of one message in the standard delimiters; ``group`` puts all but MSH into a group of that name."""
    first, *lines = [line for line in message.replace("\n", "\r").split("\r") if line]
    fields = first.split("|")
    header = _segment(["MSH", "|", *fields[1:]], prefix, plain=2)
    body = "".join(_segment(line.split("|"), prefix) for line in lines)
    if group:
        body = _element(f"{structure}.{group}", body, prefix)
    declared = f'xmlns:{prefix[:-1]}="{NAMESPACE}"' if prefix else f'xmlns="{NAMESPACE}"'
    return f"<{prefix}{structure} {declared}>{header}{body}</{prefix}{structure}>"


def _element(name: str, content: str, prefix: str) -> str:
    return f"<{prefix}{name}>{content}</{prefix}{name}>"


def _segment(fields: list[str], prefix: str, plain: int = 0) -> str:
    name = fields[0]
    content = ""
    for number, field in enumerate(fields[1:], 1):
        if number <= plain:
            content += _element(f"{name}.{number}", escape(field), prefix)
        elif field:
            repetitions = field.split("~")
            content += "".join(_element(f"{name}.{number}", _parts(each, "^&", prefix), prefix) for each in repetitions)
    return _element(name, content, prefix)


def _parts(text: str, separators: str, prefix: str) -> str:
    """Components as CX.n and subcomponents as HD.n: the names of data types say nothing to a reader of numbers."""
    if not separators or not any(separator in text for separator in separators):
        return _text(text, prefix)
    kind = "CX" if separators[0] == "^" else "HD"
    parts = enumerate(text.split(separators[0]), 1)
    return "".join(_element(f"{kind}.{n}", _parts(part, separators[1:], prefix), prefix) for n, part in parts if part)


def _text(text: str, prefix: str) -> str:
    pieces = []
    position = 0
    for match in _SEQUENCE.finditer(text):
        pieces.append(escape(text[position : match.start()]))
        meant = _DELIMITERS.get(match[1])
        pieces.append(escape(meant) if meant else f"<{prefix}escape V={quoteattr(match[1])}/>")
        position = match.end()
    return "".join([*pieces, escape(text[position:])])
