"""The two DER structures of GM/T 0009 that reach a provider: a signature and an SM2 ciphertext.

Decoding is strict: definite minimal lengths, minimal non-negative integers, nothing after the end. A value therefore
has exactly one encoding.
"""

from __future__ import annotations

from typing import NamedTuple

from anchor.errors import DecryptionError

_SEQUENCE, _INTEGER, _OCTET_STRING = 0x30, 0x02, 0x04
_COORDINATE_BITS = 256
_HASH_BYTES = 32


class Ciphertext(NamedTuple):
    """GM/T 0009 SM2Cipher: the point C1 = (x, y), the hash C3 (32 bytes) and the masked text C2."""

    x: int
    y: int
    hash: bytes
    masked: bytes


def encode_signature(r: int, s: int) -> bytes:
    """Encode SEQUENCE { INTEGER r, INTEGER s }."""
    return _element(_SEQUENCE, _integer(r) + _integer(s))


def decode_signature(der: bytes) -> tuple[int, int]:
    """Return (r, s) of SEQUENCE { INTEGER r, INTEGER s } as a trusted library wrote it; ValueError otherwise."""
    reader = _Reader(der, _SEQUENCE)
    return reader.integer(), reader.last_integer()


def encode_ciphertext(value: Ciphertext) -> bytes:
    """Encode SEQUENCE { INTEGER x, INTEGER y, OCTET STRING hash, OCTET STRING cipher } (C1 C3 C2)."""
    return _element(
        _SEQUENCE,
        _integer(value.x)
        + _integer(value.y)
        + _element(_OCTET_STRING, value.hash)
        + _element(_OCTET_STRING, value.masked),
    )


def decode_ciphertext(der: bytes) -> Ciphertext:
    """Decode an SM2Cipher; raises ``DecryptionError`` for anything but its one strict encoding."""
    try:
        reader = _Reader(der, _SEQUENCE)
        value = Ciphertext(reader.integer(), reader.integer(), reader.octets(), reader.octets())
        reader.end()
    except ValueError:
        raise DecryptionError("this is not a GM/T 0009 SM2 ciphertext") from None
    if len(value.hash) != _HASH_BYTES or not value.masked:
        raise DecryptionError("this is not a GM/T 0009 SM2 ciphertext")
    return value


def _integer(value: int) -> bytes:
    return _element(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _element(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    width = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | width)) + length.to_bytes(width, "big") + content


class _Reader:
    """Reads the elements of one constructed DER value that fills its input exactly."""

    def __init__(self, der: bytes, tag: int) -> None:
        self._der = der
        self._at = 0
        if self._header(tag) != len(der) - self._at:
            raise ValueError("length")

    def _header(self, tag: int) -> int:
        if len(self._der) < self._at + 2 or self._der[self._at] != tag:
            raise ValueError("tag")
        first = self._der[self._at + 1]
        self._at += 2
        if first < 0x80:
            return first
        width = first & 0x7F
        encoded = self._der[self._at : self._at + width]
        self._at += width
        if not 1 <= width <= 3 or len(encoded) != width or encoded[0] == 0:
            raise ValueError("length")
        length = int.from_bytes(encoded, "big")
        if length < 0x80:
            raise ValueError("length is not minimal")
        return length

    def _content(self, tag: int) -> bytes:
        length = self._header(tag)
        content = self._der[self._at : self._at + length]
        self._at += length
        if len(content) != length:
            raise ValueError("truncated")
        return content

    def integer(self) -> int:
        content = self._content(_INTEGER)
        if not content or content[0] & 0x80 or (len(content) > 1 and content[0] == 0 and not content[1] & 0x80):
            raise ValueError("not a minimal non-negative integer")
        value = int.from_bytes(content, "big")
        if value.bit_length() > _COORDINATE_BITS:
            raise ValueError("too large")
        return value

    def last_integer(self) -> int:
        value = self.integer()
        self.end()
        return value

    def octets(self) -> bytes:
        return self._content(_OCTET_STRING)

    def end(self) -> None:
        if self._at != len(self._der):
            raise ValueError("trailing bytes")
