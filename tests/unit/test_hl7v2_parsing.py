"""Segments, delimiters, escapes, headers and files."""

import pytest

from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2 import messages, read_header
from fhir_adapters.hl7v2.escapes import escape, unescape
from fhir_adapters.hl7v2.message import parse
from tests.hl7v2_samples import msh, pid, raw


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"], ids=["CR", "LF", "CR LF"])
def test_segments_end_in_any_way(end: str) -> None:
    message = parse(end.join(["MSH|^~\\&|A|B", "PID|1||X", "PV1|1", ""]))
    assert [segment.name for segment in message.segments] == ["MSH", "PID", "PV1"]
    assert message.segments[1].peek(3) == "X"


def test_fields_are_numbered_as_in_the_standard() -> None:
    header = parse("MSH|^~\\&|APP|FAC").header
    assert [header.peek(number) for number in (1, 2, 3, 4, 5)] == ["|", "^~\\&", "APP", "FAC", ""]


def test_own_delimiters_come_out_as_the_standard_ones() -> None:
    message = parse("MSH$%*!+$A$B\rPID$1$$X%Y+Z*Q!$!$half^caret")
    assert message.segments[1].peek(3) == "X^Y&Z~Q\\"
    assert message.segments[1].peek(5) == "half\\S\\caret"
    assert unescape(message.segments[1].peek(5)) == "half^caret"


def test_a_field_is_taken_once() -> None:
    (_, segment) = parse('MSH|^~\\&|A\rPID|1|two|""|four').segments
    assert segment.take(2) == "two"
    assert segment.take(2) == ""
    assert segment.take(3) == ""  # null: there is no value
    assert list(segment.left()) == [1, 4]
    assert segment.where(4) == "PID[1]-4"


def test_a_line_without_a_segment_name_goes_on_with_the_field_before() -> None:
    message = parse("MSH|^~\\&|A\rOBX|1|TX|C||first\nsecond|more||\rNTE|1")
    assert [segment.name for segment in message.segments] == ["MSH", "OBX", "NTE"]
    assert unescape(message.segments[1].peek(5)) == "first\nsecond"
    assert message.forgiven == [("OBX[1]-5", "a line break inside a field was not escaped")]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "MSH"),
        ("PID|1", "MSH"),
        ("<?xml version='1.0'?>", "MSH"),
        ("MSH", "MSH-1"),
        ("MSHx", "MSH-1"),
        ("MSH|", "MSH-2"),
        ("MSH|^^^^|A", "MSH-2"),
        ("MSH|abc|A", "MSH-2"),
        ("MSH|^~\\&|A\rMSH|^~\\&|B", "MSH[2]"),
    ],
)
def test_broken_messages_are_refused_with_their_place(text: str, place: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert caught.value.location == place


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        ("plain", "plain"),
        (r"a\F\b\S\c\T\d\R\e\E\f\P\g", "a|b^c&d~e\\f#g"),
        (r"one\.br\two", "one\ntwo"),
        (r"\.sp2\x", "\n\nx"),
        (r"\.in+4\\.ti-2\x", "x"),
        (r"a\.sk3\b", "a   b"),
        (r"\H\bold\N\ plain", "bold plain"),
        (r"\X0D0A\end", "\r\nend"),
        (r"\XC3A9\t", "ét"),
        (r"\Zlocal\ kept", r"\Zlocal\ kept"),
        (r"C:\temp\file", r"C:\temp\file"),
        (r"\XFF\bad bytes", r"\XFF\bad bytes"),
        (r"\X0\odd", r"\X0\odd"),
        (r"\E\F\E\ ", r"\F\ "),
        ("ends with \\", "ends with \\"),
        (r"\.br99999\x", r"\.br99999\x"),
    ],
)
def test_escape_sequences(encoded: str, text: str) -> None:
    assert unescape(encoded) == text


def test_hexadecimal_bytes_are_in_the_character_set_of_the_message() -> None:
    assert unescape(r"\XD5C5\x", "gb18030") == "张x"


def test_escape_is_undone_by_unescape() -> None:
    text = "a|b^c&d~e\\f\nnext"
    assert unescape(escape(text)) == text


def test_the_header_alone() -> None:
    header = read_header(raw([msh("ADT^A01^ADT_A01"), pid(f3="1^^^X^SS~P1^^^HIS^MR")]))
    assert (header.type, header.trigger, header.structure) == ("ADT", "A01", "ADT_A01")
    assert (header.control_id, header.version, header.event) == ("MSG1", "2.5.1", "ADT^A01")
    assert (header.sending_application, header.sending_facility) == ("HIS", "HOSP")
    assert header.patient_key == "P1^HIS"
    assert "P1" not in repr(header)


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ([], "MSH"),
        ([msh("")], "MSH-9"),
        ([msh("ADT^A01", f10="")], "MSH-10"),
        ([msh("ADT^A01", f10="x" * 200)], "MSH-10"),
        ([msh("ADT^A01"), pid(), msh("ADT^A01")], "MSH[2]"),
    ],
)
def test_a_header_that_cannot_be_answered(lines: list[str], place: str) -> None:
    with pytest.raises(ParseError) as caught:
        read_header(raw(lines))
    assert caught.value.location == place


ONE, TWO = b"MSH|^~\\&|A\rPID|1\r", b"MSH|^~\\&|B\rPID|2\r"
WIDE = "MSH|^~\\&|A\r\nMSH|^~\\&|医\r\n".encode("utf-16")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        pytest.param(ONE + TWO, [ONE, TWO], id="two messages"),
        pytest.param(b"\xef\xbb\xbf" + ONE, [ONE], id="byte order mark"),
        pytest.param(b"\r\n\r\n" + ONE + b"\n\n" + TWO + b"\x1a", [ONE, TWO], id="blank lines"),
        pytest.param(b"\x0b" + ONE + b"\x1c\r\x0b" + TWO + b"\x1c\r", [ONE, TWO], id="MLLP frames"),
        pytest.param(b"FHS|^~\\&\rBHS|^~\\&\r" + ONE + TWO + b"BTS|2\rFTS|1\r", [ONE, TWO], id="a batch"),
        pytest.param(b"FHS|^~\\&\rBHS|^~\\&\r" + ONE + b"BTS\rFTS", [ONE], id="a batch with bare trailers"),
        pytest.param(b"/* note */\r" + ONE, [b"/* note */\r", ONE], id="text before the first header"),
        pytest.param(b"MSH|^~\\&|A\nPID|1\nMSH|^~\\&|B", [b"MSH|^~\\&|A\nPID|1\r", b"MSH|^~\\&|B\r"], id="LF"),
        pytest.param(b"MSH|^~\\&|A\rNTE|1||xMSH|y", [b"MSH|^~\\&|A\rNTE|1||xMSH|y\r"], id="MSH inside a field"),
        pytest.param(b"", [], id="empty"),
        pytest.param(b" \r\n\x00", [], id="blank"),
    ],
)
def test_files_are_split_into_messages(file: bytes, expected: list[bytes]) -> None:
    assert list(messages(file)) == expected


def test_a_wide_file_is_split_and_each_message_keeps_its_encoding() -> None:
    split = list(messages(WIDE))
    assert len(split) == 2
    assert "医" in split[1].decode("utf-16")
