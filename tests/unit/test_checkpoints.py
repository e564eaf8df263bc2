"""The checkpoint note: its one encoding, what is signed, and what is refused."""

from __future__ import annotations

import base64

import pytest

from anchor import checkpoint
from anchor.checkpoint import Checkpoint, Signature, SignedCheckpoint, key_hash, parse, render, sign, verify_signature
from anchor.errors import FormatError, SignatureInvalid
from anchor.gm import PrivateKey, sm3

KEY = PrivateKey.from_bytes(b"\x01" * 32)
POINT = Checkpoint("yiqiao/log/91330000000000001X/2026", 42, sm3(b"root"), (("time", "1790000000"),))
SIGNED = SignedCheckpoint(POINT, (sign(POINT, "org-a", KEY, 1_790_000_001),))
NOTE = render(SIGNED)


def test_the_note_reads_as_documented() -> None:
    lines = NOTE.decode().split("\n")
    assert lines[:3] == [POINT.origin, "42", base64.b64encode(POINT.root).decode()]
    assert lines[3:5] == ["time 1790000000", ""]
    assert lines[5].startswith("— org-a ")
    blob = base64.b64decode(lines[5].split(" ")[2])
    assert blob[:4] == sm3(b"org-a\n\xe2" + KEY.public_key.to_bytes())[:4]
    assert int.from_bytes(blob[4:12], "big") == 1_790_000_001
    KEY.public_key.verify(b"cosignature/v1-sm2\ntime 1790000001\n" + POINT.text(), blob[12:])
    assert parse(NOTE) == SIGNED


def test_a_signature_is_of_one_key_one_time_and_one_checkpoint() -> None:
    signature = SIGNED.signatures[0]
    verify_signature(POINT, signature, KEY.public_key)
    other = PrivateKey.generate()
    bent = [
        (Checkpoint(POINT.origin, 43, POINT.root, POINT.extensions), signature, KEY),
        (POINT, Signature("org-a", signature.key_hash, signature.time + 1, signature.value), KEY),
        (POINT, signature, other),
        (POINT, Signature("org-b", signature.key_hash, signature.time, signature.value), KEY),
        (POINT, Signature("org-a", key_hash("org-a", other.public_key.to_bytes()), 1, signature.value), other),
    ]
    for point, each, key in bent:
        with pytest.raises(SignatureInvalid):
            verify_signature(point, each, key.public_key)


def _line(number: int, text: str) -> bytes:
    lines = NOTE.decode().split("\n")
    lines[number] = text
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    "note",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(NOTE[:-1], id="no line feed at the end"),
        pytest.param(NOTE + b"\n", id="a blank line at the end"),
        pytest.param(NOTE.replace(b"\n\n", b"\n", 1), id="no blank line"),
        pytest.param(NOTE.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(b"\xef\xbb\xbf" + NOTE, id="byte order mark"),
        pytest.param(NOTE.replace("—".encode(), b"-"), id="hyphen for a dash"),
        pytest.param(NOTE + NOTE.split(b"\n")[5] + b"\n", id="one key twice"),
        pytest.param(_line(0, "two words"), id="origin with a space"),
        pytest.param(_line(0, ""), id="no origin"),
        pytest.param(_line(1, "042"), id="leading zero"),
        pytest.param(_line(1, "-1"), id="negative"),
        pytest.param(_line(1, "9007199254740992"), id="size beyond 2^53 - 1"),
        pytest.param(_line(1, "٤٢"), id="digits of another script"),
        pytest.param(_line(2, base64.b64encode(b"\x00" * 31).decode()), id="short root"),
        pytest.param(_line(2, base64.b64encode(POINT.root).decode().rstrip("=")), id="no padding"),
        pytest.param(_line(3, "Time 1"), id="capital in an extension"),
        pytest.param(_line(3, "time"), id="extension without a value"),
        pytest.param(_line(3, "time 1\ntime 1"), id="extension twice"),
        pytest.param(_line(3, "\n".join(f"x{n} 1" for n in range(17))), id="seventeen extensions"),
        pytest.param(_line(5, "— org-a AAAA"), id="short signature"),
        pytest.param(NOTE + b"x" * checkpoint.MAX_NOTE_BYTES, id="too large"),
        pytest.param(NOTE.replace(b"org-a", b"org\xff"), id="not UTF-8"),
    ],
)
def test_anything_but_the_one_encoding_is_refused(note: bytes) -> None:
    with pytest.raises(FormatError):
        parse(note)


def test_unused_bits_of_base64_are_refused() -> None:
    root = base64.b64encode(POINT.root).decode()
    with pytest.raises(FormatError):
        parse(_line(2, root[:-2] + chr(ord(root[-2]) + 1) + "="))


def test_extension_values_are_read_strictly() -> None:
    point = Checkpoint("o", 1, b"\x00" * 32, (("time", "007"), ("height", "12"), ("state", "x")))
    assert point.integer("height") == 12
    for name in ("time", "missing"):
        with pytest.raises(FormatError):
            point.integer(name)
    for name in ("state", "missing"):
        with pytest.raises(FormatError):
            point.binary(name)


def test_signatures_merge_by_key() -> None:
    other = PrivateKey.generate()
    again, new = sign(POINT, "org-a", KEY, 5), sign(POINT, "org-a", other, 6)
    merged = SIGNED.with_signatures([again, new])
    assert [signature.time for signature in merged.by("org-a")] == [1_790_000_001, 6]
