"""Canonical JSON: what it is, and what has none."""

from __future__ import annotations

import pickle

import orjson
import pytest

from anchor import canonical
from anchor.canonical import MAX_DEPTH, CanonicalError, Lexeme, Verbatim, canonicalize, dump, load


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(b"{}", b"{}", id="empty object"),
        pytest.param(b' {"b" : 1 , "a":\n[ true,false , null ] }\t', b'{"a":[true,false,null],"b":1}', id="whitespace"),
        pytest.param(b'{"value":0.40}', b'{"value":0.40}', id="trailing zero kept"),
        pytest.param(b"[1E5,1e5,1e+5,1.0,-0,-0.0,0]", b"[1E5,1e5,1e+5,1.0,-0,-0.0,0]", id="number forms kept"),
        pytest.param(b'{"b":-0,"a":0}', b'{"a":0,"b":-0}', id="negative zero beside sorting"),
        pytest.param(b"1e400", b"1e400", id="beyond a double"),
        pytest.param(b"[9007199254740993, 18446744073709551616]", b"[9007199254740993,18446744073709551616]", id="big"),
        pytest.param(b"[" + b"7" * 5000 + b"]", b"[" + b"7" * 5000 + b"]", id="5000 digits"),
        pytest.param(rb'"\u4e2d\/\u0041\u000a\u001F"', '"中/A\\n\\u001f"'.encode(), id="escapes shortened"),
        pytest.param(rb'"\ud83d\ude00"', '"😀"'.encode(), id="a surrogate pair is one character"),
        pytest.param('{"\U00010000":1,"\uffff":2}'.encode(), '{"\uffff":2,"\U00010000":1}'.encode(), id="code points"),
        pytest.param(b'{"a":1,"A":2,"":3}', b'{"":3,"A":2,"a":1}', id="case and the empty name"),
        pytest.param(rb'{"b":"\"","a":"x\\y"}', rb'{"a":"x\\y","b":"\""}', id="escapes that stay"),
        pytest.param(b'"\x7f"', b'"\x7f"', id="DEL is no control character of JSON"),
        pytest.param(b"null", b"null", id="a scalar"),
        pytest.param(
            b'{"a":0.40,"b":1E5}', b'{"a":0.40,"b":1E5}', id="canonical with decimals that orjson would change"
        ),
        pytest.param(b'{":5.0,":1,"a:2.0,":0.40}', b'{":5.0,":1,"a:2.0,":0.40}', id="names that look like decimals"),
        pytest.param(b'{"x\\":2.50,":1}', b'{"x\\":2.50,":1}', id="an escaped quote before a colon"),
        pytest.param(b'{"x":9.50,"w":1.0}', b'{"w":1.0,"x":9.50}', id="decimals out of order"),
        pytest.param(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, id="deepest"),
        pytest.param(b'"' + b"[" * 999 + b'"', b'"' + b"[" * 999 + b'"', id="brackets in a string do not nest"),
    ],
)
def test_canonical_form(text: bytes, expected: bytes) -> None:
    assert canonicalize(text) == expected
    assert canonicalize(expected) == expected
    assert dump(load(text)) == expected


NO_FORM = [
    pytest.param(b"", id="empty"),
    pytest.param(b"   ", id="only whitespace"),
    pytest.param(b'{"a":1,"a":1}', id="duplicate property"),
    pytest.param(rb'{"a":1,"\u0061":1}', id="duplicate behind an escape"),
    pytest.param(b'[{"x":{"a":1,"b":2,"a":3}}]', id="duplicate deep inside"),
    pytest.param(b'{"a":1, "b":10,"a":1}', id="duplicate beside whitespace"),
    pytest.param(b"NaN", id="NaN"),
    pytest.param(b"[-Infinity]", id="Infinity"),
    pytest.param(rb'"\ud800"', id="lone high surrogate"),
    pytest.param(rb'"\udc00\ud800"', id="surrogates the wrong way round"),
    pytest.param(rb'{"\ud800":1}', id="lone surrogate in a name"),
    pytest.param(b'"\xed\xa0\x80"', id="surrogate in UTF-8"),
    pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
    pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
    pytest.param(b'"\xff"', id="not UTF-8"),
    pytest.param(b'"\xc0\xaf"', id="overlong UTF-8"),
    pytest.param(b"{} {}", id="two values"),
    pytest.param(b"{}\x00", id="trailing NUL"),
    pytest.param(b"{},", id="trailing comma"),
    pytest.param(b"[1,]", id="comma before the end"),
    pytest.param(b"{'a':1}", id="single quotes"),
    pytest.param(b"[01]", id="leading zero"),
    pytest.param(b"[+1]", id="plus sign"),
    pytest.param(b"[1.]", id="no digit after the point"),
    pytest.param(b"[.5]", id="no digit before the point"),
    pytest.param("[١]".encode(), id="digits of another script"),
    pytest.param(b'"\n"', id="raw control character"),
    pytest.param(rb'"\x41"', id="unknown escape"),
    pytest.param(b"[1 /* one */]", id="comment"),
    pytest.param(b"[\xc2\xa01]", id="whitespace that is not JSON's"),
    pytest.param(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), id="one level too deep"),
    pytest.param(b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), id="objects one level too deep"),
    pytest.param(b"[0.5," * (MAX_DEPTH + 1) + b"1" + b"]" * (MAX_DEPTH + 1), id="too deep off the quick path"),
    pytest.param(b"[" * 100_000, id="a hundred thousand levels"),
    pytest.param(b'{"a":' * 100_000, id="a hundred thousand objects"),
]


@pytest.mark.parametrize("text", NO_FORM)
def test_no_canonical_form(text: bytes) -> None:
    with pytest.raises(CanonicalError):
        canonicalize(text)
    with pytest.raises(CanonicalError):
        load(text)


@pytest.mark.parametrize("value", ["{}", bytearray(b"{}"), None, 1])
def test_only_bytes_are_read(value: object) -> None:
    with pytest.raises(CanonicalError):
        canonicalize(value)  # type: ignore[arg-type]


def test_the_depth_is_what_the_encoder_writes() -> None:
    orjson.dumps(nested(MAX_DEPTH))
    with pytest.raises(orjson.JSONEncodeError):
        orjson.dumps(nested(MAX_DEPTH + 1))


def test_a_decimal_at_the_deepest_level() -> None:
    text = b"[" * MAX_DEPTH + b"0.40" + b"]" * MAX_DEPTH
    assert canonicalize(text) == dump(load(text)) == text


def test_the_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "MAX_BYTES", 10)
    assert canonicalize(b'"12345678"') == b'"12345678"'
    for read in (canonicalize, load):
        with pytest.raises(CanonicalError):
            read(b'"123456789"')


def test_no_error_repeats_the_input() -> None:
    for text in (b'{"name":"Zhang San","name":1}', b'{"Zhang San"}', b'"Zhang San\xff"', rb'"Zhang San \ud800"'):
        with pytest.raises(CanonicalError) as caught:
            canonicalize(text)
        assert "Zhang" not in f"{caught.value!r} {caught.value.__cause__!r}"


class OwnNumber(float):
    """A number type of another package, with the text it was written as."""

    lexeme = "0.40"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"b": 1, "a": [True, None, "é"]}, '{"a":[true,null,"é"],"b":1}'.encode(), id="plain"),
        pytest.param((1, (2,)), b"[1,[2]]", id="tuples"),
        pytest.param({"v": Lexeme("1.50")}, b'{"v":1.50}', id="lexeme"),
        pytest.param([OwnNumber()], b"[0.40]", id="another package's lexeme"),
        pytest.param(-(2**63), b"-9223372036854775808", id="64 bits"),
        pytest.param("", b'""', id="empty text"),
        pytest.param({"b": [Verbatim(b'{"x":0.40}')], "a": 1}, b'{"a":1,"b":[{"x":0.40}]}', id="written already"),
        pytest.param(Verbatim(b"[1]"), b"[1]", id="nothing but what is written already"),
    ],
)
def test_dump(value: object, expected: bytes) -> None:
    assert dump(value) == expected


class BadLexeme:
    lexeme = '1,"injected":2'


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


CYCLE: list[object] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(0.5, id="float"),
        pytest.param({"a": [float("nan")]}, id="NaN inside"),
        pytest.param({1: 2}, id="a name that is no text"),
        pytest.param(b"x", id="bytes"),
        pytest.param({"a": {1, 2}}, id="set"),
        pytest.param(2**64, id="beyond 64 bits"),
        pytest.param("\ud800", id="lone surrogate"),
        pytest.param({"\ud800": 1}, id="lone surrogate in a name"),
        pytest.param(BadLexeme(), id="a lexeme that is no number"),
        pytest.param(object(), id="object"),
        pytest.param(nested(MAX_DEPTH + 1), id="too deep"),
        pytest.param(CYCLE, id="a value inside itself"),
    ],
)
def test_dump_refuses_what_json_cannot_carry_exactly(value: object) -> None:
    with pytest.raises(CanonicalError):
        dump(value)


def test_dump_takes_the_deepest_value() -> None:
    assert dump(nested(MAX_DEPTH)) == b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH


def test_load_gives_integers_and_lexemes() -> None:
    value = load(b'{"int":-12,"decimal":0.40,"zero":-0,"long":1234567890123456789}')
    assert type(value["int"]) is int
    assert value["decimal"] == 0.4
    assert [value[name].lexeme for name in ("decimal", "zero", "long")] == ["0.40", "-0", "1234567890123456789"]


def test_a_lexeme_survives_pickling_and_refuses_other_text() -> None:
    assert pickle.loads(pickle.dumps(Lexeme("0.40"))).lexeme == "0.40"
    for text in ("", "1.", "NaN", "0x1", "1 ", "１"):
        with pytest.raises(CanonicalError):
            Lexeme(text)
