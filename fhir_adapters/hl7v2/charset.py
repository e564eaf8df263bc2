"""From bytes to text, before any splitting.

Order: a byte order mark, then MSH-18 (HL7 table 0211), then the site's default, then GB 18030. Every step decodes
strictly: a character that cannot be read is never replaced, the next candidate is tried instead, and when none fits
the message is refused. One exception: bytes that are strictly valid UTF-8 and hold Chinese characters *are* UTF-8
whatever is said, because GB 18030 and ISO 8859 read them too, as nonsense; a wrong MSH-18 becomes an issue. (GB text
cannot look like that: the common characters begin with bytes 0xB0-0xD7, a Chinese character in UTF-8 with 0xE3-0xE9.)
Splitting comes after decoding, because the second byte of a GBK character may be ``|``, ``^``, ``~`` or ``\\``.
"""

import codecs
import re
from dataclasses import dataclass
from functools import lru_cache

from fhir_adapters.errors import DecodeError

LAST_RESORT = "gb18030"
"""What is tried when neither the message nor the site says: a superset of ASCII, GB 2312 and GBK."""

CERTAIN_CHARACTERS = 4
"""Characters beyond ASCII from which on bytes that are valid UTF-8 are taken for UTF-8 where nothing is declared."""

_MSH_18 = 17
"""Index of MSH-18 in the header line split at the field separator (MSH-1 is the separator itself)."""

# HL7 table 0211 and the spellings vendors use; keys are upper case without spaces, hyphens, underscores and slashes.
_NAMES = {
    "ASCII": "ascii",
    "USASCII": "ascii",
    "ISOIR6": "ascii",
    **{f"8859{part}": f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    **{f"ISO8859{part}": f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "LATIN1": "iso8859_1",
    "WINDOWS1252": "cp1252",
    "CP1252": "cp1252",
    "ISOIR14": "shift_jis",  # JIS X 0201
    "ISOIR87": "iso2022_jp",  # JIS X 0208
    "ISOIR159": "iso2022_jp_1",  # JIS X 0212
    "GB180302000": "gb18030",
    "GB18030": "gb18030",
    "GBK": "gb18030",  # both are subsets of GB 18030
    "GB2312": "gb18030",
    "CP936": "gb18030",
    "936": "gb18030",
    "ZHS16GBK": "gb18030",
    "KSX1001": "euc_kr",
    "BIG5": "big5hkscs",
    "UNICODE": "utf_16",  # deprecated in v2.5: UCS-2 or UTF-16 then
    "UNICODEUTF8": "utf_8",
    "UTF8": "utf_8",
    "UNICODEUTF16": "utf_16",
    "UTF16": "utf_16",
    "UNICODEUTF32": "utf_32",
    "UTF32": "utf_32",
}

_MARKS = (  # the longer mark first: UTF-32 LE begins like UTF-16 LE
    (codecs.BOM_UTF8, "utf_8"),
    (codecs.BOM_UTF32_LE, "utf_32_le"),
    (codecs.BOM_UTF32_BE, "utf_32_be"),
    (codecs.BOM_UTF16_LE, "utf_16_le"),
    (codecs.BOM_UTF16_BE, "utf_16_be"),
)
_UNMARKED = (  # what "MSH" looks like in the wide encodings without a mark
    (b"M\x00\x00\x00S\x00", "utf_32_le"),
    (b"\x00\x00\x00M\x00\x00", "utf_32_be"),
    (b"M\x00S\x00H\x00", "utf_16_le"),
    (b"\x00M\x00S\x00H", "utf_16_be"),
)
_XML = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[\x0b\r\n\t \0]*<")
_LINE_END = re.compile(rb"[\r\n]")
_CHINESE = re.compile("[\u3000-\u9fff]")
_SEPARATORS = str.maketrans("", "", " -_/")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A message as text.

    ``charset`` is the Python codec that read it; ``declared`` what MSH-18 says (first repetition, may be empty);
    ``doubt`` is empty or says, without content, why the character set is uncertain.
    """

    text: str
    charset: str
    declared: str
    doubt: str = ""


@lru_cache(maxsize=256)
def codec_for(name: str) -> str | None:
    """The Python codec for a name of table 0211 or a common vendor spelling; None when it is not known."""
    return _NAMES.get(name.upper().translate(_SEPARATORS))


def wide_or_marked(raw: bytes) -> tuple[str, int] | None:
    """The codec and length of a byte order mark, or of an unmarked UTF-16/32 beginning (length 0); None otherwise."""
    for mark, codec in _MARKS:
        if raw.startswith(mark):
            return codec, len(mark)
    for beginning, codec in _UNMARKED:
        if raw.startswith(beginning):
            return codec, 0
    return None


def begins_xml(raw: bytes) -> bool:
    """Whether bytes begin as XML does: with an angle bracket, after any byte order mark and blanks."""
    return _XML.match(raw) is not None


def decode(raw: bytes, default: str) -> Decoded:
    """Read one message's bytes as text: ER7, into which a message in XML is put.

    Args:
        raw: the message, beginning with its header, an XML element or declaration, or a byte order mark.
        default: the site's character set, by any name of ``codec_for``; "" for none.

    Raises:
        DecodeError: no candidate reads the bytes without loss.
        ParseError: XML that is no message.
    """
    if not raw.startswith(b"MSH") and begins_xml(raw):
        from fhir_adapters.hl7v2 import xml_encoding  # loads libxml2, which ER7 never needs

        return xml_encoding.decode(raw, default)
    marked = None if raw.startswith(b"MSH") else wide_or_marked(raw)
    if marked is not None:
        codec, length = marked
        try:
            text = raw[length:].decode(codec)
        except UnicodeDecodeError:
            raise DecodeError("the bytes do not match their byte order mark", "MSH-18") from None
        declared = _first_repetition(text.splitlines()[0] if text else "")
        stated = codec_for(declared) if declared else None
        doubt = "" if stated is None or codec.startswith(stated) else "MSH-18 and the byte order mark disagree"
        return Decoded(text, codec, declared, doubt)
    declared = declared_charset(raw)
    return _decode_unmarked(raw, declared, default)


def declared_charset(raw: bytes) -> str:
    """MSH-18, first repetition, of a message in an ASCII-compatible encoding; "" when absent."""
    end = _LINE_END.search(raw)
    line = raw[: end.start()] if end else raw
    return _first_repetition(line.decode("latin-1"))


def _first_repetition(line: str) -> str:
    if len(line) < 4:
        return ""
    fields = line.split(line[3], _MSH_18 + 1)
    if len(fields) <= _MSH_18:
        return ""
    repetition = fields[1][1] if len(fields[1]) > 1 else "~"
    return fields[_MSH_18].split(repetition)[0].strip()


def _decode_unmarked(raw: bytes, declared: str, default: str) -> Decoded:
    stated = codec_for(declared) if declared else None
    if stated is not None and stated.startswith(("utf_16", "utf_32")):
        stated = None  # the bytes are not wide, or the mark would have been seen
        doubt = "MSH-18 names a wide encoding that the bytes do not have"
    elif declared and stated is None:
        doubt = "MSH-18 names an unknown character set"
    else:
        doubt = ""
    if raw.isascii() and not (stated or "").startswith("iso2022"):
        return Decoded(raw.decode("ascii"), stated or codec_for(default) or "ascii", declared, doubt)
    if stated != "utf_8" and _is_chinese_utf8(raw):
        return Decoded(
            raw.decode("utf_8"), "utf_8", declared, "the bytes are UTF-8, MSH-18 says otherwise" if stated else doubt
        )
    if stated is not None:
        try:
            return Decoded(raw.decode(stated), stated, declared, doubt)
        except UnicodeDecodeError:
            doubt = "the bytes are not in the character set of MSH-18"
    unmistakable = "utf_8" if _utf8_characters(raw) >= CERTAIN_CHARACTERS else None
    for codec in dict.fromkeys((unmistakable, codec_for(default) if default else None, LAST_RESORT)):
        if codec is None:
            continue
        try:
            text = raw.decode(codec)
        except UnicodeDecodeError:
            continue
        if stated is None and codec == LAST_RESORT and (_utf8_characters(raw) or _is_doubtful(text)):
            doubt = "no character set is declared, and it may be another than GB 18030; set the profile's"
        return Decoded(text, codec, declared, doubt)
    raise DecodeError("the bytes are not text in MSH-18's, the site's or the GB 18030 character set", "MSH-18")


def _is_chinese_utf8(raw: bytes) -> bool:
    try:
        return _CHINESE.search(raw.decode("utf_8")) is not None
    except UnicodeDecodeError:
        return False


def _utf8_characters(raw: bytes) -> int:
    """Characters beyond ASCII in bytes that are UTF-8, 0 for others.

    Of the pairs of bytes that GB text consists of fewer than one in five is UTF-8 too, so some tell it.
    """
    try:
        text = raw.decode("utf_8")
    except UnicodeDecodeError:
        return 0
    return len(text) - len(text.encode("ascii", "ignore"))


def _is_doubtful(text: str) -> bool:
    """Whether most Chinese characters of a text are outside GB 2312, whose 6,763 are nearly all that is written."""
    written = _CHINESE.findall(text)
    return 2 * sum(len(each.encode("gb2312", "ignore")) == 0 for each in written) > len(written)
