"""Which character set reads a message, and when it is refused."""

import pytest

from fhir_adapters.errors import DecodeError
from fhir_adapters.hl7v2.charset import codec_for, decode

NAME = "张三"


def message(charset: str, text: str = NAME) -> str:
    return f"MSH|^~\\&|H|H|N|N|20240501||ADT^A01|1|P|2.5||||||{charset}\rPID|1||1||{text}\r"


@pytest.mark.parametrize(
    ("declared", "codec"),
    [
        ("UNICODE UTF-8", "utf_8"),
        ("UTF8", "utf_8"),
        ("utf-8", "utf_8"),
        ("GB 18030-2000", "gb18030"),
        ("GB18030", "gb18030"),
        ("GBK", "gb18030"),
        ("GB2312", "gb18030"),
        ("CP936", "gb18030"),
        ("8859/1", "iso8859_1"),
        ("8859/15", "iso8859_15"),
        ("ISO-8859-1", "iso8859_1"),
        ("ASCII", "ascii"),
        ("ISO IR6", "ascii"),
        ("ISO IR87", "iso2022_jp"),
        ("KS X 1001", "euc_kr"),
        ("BIG-5", "big5hkscs"),
        ("UNICODE UTF-16", "utf_16"),
        ("no such set", None),
    ],
)
def test_names_of_table_0211_and_of_vendors(declared: str, codec: str | None) -> None:
    assert codec_for(declared) == codec


CASES = [
    pytest.param(message("UNICODE UTF-8").encode(), "", "utf_8", False, id="declared UTF-8"),
    pytest.param(message("GB 18030-2000").encode("gb18030"), "", "gb18030", False, id="declared GB 18030"),
    pytest.param(message("GBK").encode("gbk"), "UTF-8", "gb18030", False, id="declared GBK beats the site"),
    pytest.param(message("").encode("gb18030"), "GB18030", "gb18030", False, id="the site's GB 18030"),
    pytest.param(message("").encode("gb18030"), "", "gb18030", False, id="the last resort"),
    pytest.param(message("").encode("gb18030"), "UTF-8", "gb18030", False, id="not the site's UTF-8"),
    pytest.param(message("").encode(), "GB18030", "utf_8", False, id="undeclared UTF-8 at a GB site"),
    pytest.param(message("GBK").encode(), "GB18030", "utf_8", True, id="UTF-8 declared as GBK"),
    pytest.param(message("8859/1").encode(), "GB18030", "utf_8", True, id="UTF-8 declared as Latin 1"),
    pytest.param(message("ASCII").encode("gb18030"), "", "gb18030", True, id="GB 18030 declared as ASCII"),
    pytest.param(message("UNICODE UTF-8").encode("gb18030"), "", "gb18030", True, id="GB 18030 declared as UTF-8"),
    pytest.param(message("klingon").encode("gb18030"), "", "gb18030", True, id="an unknown name"),
    pytest.param(message("UNICODE UTF-16").encode(), "", "utf_8", True, id="UTF-8 declared as UTF-16"),
    pytest.param(b"\xef\xbb\xbf" + message("").encode(), "GB18030", "utf_8", False, id="a UTF-8 mark"),
    pytest.param(b"\xef\xbb\xbf" + message("GBK").encode(), "GB18030", "utf_8", True, id="mark against MSH-18"),
    pytest.param(message("UNICODE UTF-16").encode("utf-16"), "", "utf_16_le", False, id="UTF-16 with a mark"),
    pytest.param(message("").encode("utf-16-be"), "", "utf_16_be", False, id="UTF-16 without a mark"),
    pytest.param(message("").encode("utf-32"), "", "utf_32_le", False, id="UTF-32 with a mark"),
]


@pytest.mark.parametrize(("raw", "default", "codec", "doubted"), CASES)
def test_the_name_is_read(raw: bytes, default: str, codec: str, doubted: bool) -> None:
    decoded = decode(raw, default)
    assert NAME in decoded.text
    assert decoded.charset == codec
    assert bool(decoded.doubt) is doubted
    assert NAME not in decoded.doubt


def test_latin_1_is_taken_at_its_word() -> None:
    decoded = decode(message("8859/1", "Müller").encode("latin-1"), "GB18030")
    assert "Müller" in decoded.text
    assert decoded.doubt == ""


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(message("UNICODE UTF-8").encode() + b"\xff\xff", id="bytes of no set"),
        pytest.param(message("").encode("gb18030")[:-2], id="truncated GB 18030"),
        pytest.param(b"\xff\xfe" + b"M", id="half a UTF-16 unit"),
    ],
)
def test_what_cannot_be_read_is_refused_and_not_replaced(raw: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(raw, "UTF-8")
    assert caught.value.location == "MSH-18"
