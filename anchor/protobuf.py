"""Protocol Buffers wire format (proto3), as much of it as CometBFT's messages need.

A message is a dataclass whose fields say their number and kind::

    @dataclass
    class BlockID(Message):
        hash: bytes = binary(1)
        part_set_header: PartSetHeader = always(2, PartSetHeader)

``encode`` writes fields in ascending order and leaves defaults out, as every proto3 implementation does, so that bytes
that are hashed or signed come out as CometBFT's own. ``decode`` takes fields in any order, skips those it does not
know, keeps the last of a repeated single field, and raises ``FormatError`` for anything that is no such message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from anchor.errors import FormatError

MAX_VARINT_BYTES = 10
"""Bytes of a 64-bit number, seven bits in each."""
MAX_DEPTH = 16
"""Nesting of messages; CometBFT's go to six."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WORD = 1 << 64
_SPEC = "protobuf"

_Decoded = TypeVar("_Decoded", bound="Message")


@dataclass(frozen=True, slots=True)
class _Spec:
    """A field's number and kind: "uint", "int", "bool", "sfixed64", "bytes", "string" or "message"."""

    number: int
    kind: str
    repeated: bool = False
    message: type[Message] | None = None

    @property
    def wire(self) -> int:
        if self.kind in ("uint", "int", "bool"):
            return _VARINT
        return _FIXED64 if self.kind == "sfixed64" else _LENGTH


class Message:
    """Base of all messages: a dataclass of fields made by the functions below."""

    def encode(self) -> bytes:
        """Return the message's bytes."""
        parts: list[bytes] = []
        for name, spec, tag in _plans(type(self))[0]:
            value = getattr(self, name)
            if spec.repeated:
                _write_repeated(parts, spec, tag, value)
            elif spec.kind == "message":
                if value is not None:
                    content = value.encode()
                    parts += (tag, varint(len(content)), content)
            elif value:
                _write_scalar(parts, spec, tag, value)
        return b"".join(parts)

    @classmethod
    def decode(cls: type[_Decoded], content: bytes, depth: int = MAX_DEPTH) -> _Decoded:
        """Read a message; raises ``FormatError``."""
        if depth == 0:
            raise FormatError("the message nests too deeply")
        values: dict[str, Any] = {}
        plan = _plans(cls)[1]
        for number, wire, value in read_fields(content):
            known = plan.get(number)
            if known is None:
                continue
            name, spec = known
            if spec.repeated:
                _read_repeated(values.setdefault(name, []), spec, wire, value, depth)
            else:
                values[name] = _read_value(spec, wire, value, depth)
        return cls(**values)


def uint(number: int) -> Any:
    """Declare an unsigned number or an enumeration."""
    return _declared(_Spec(number, "uint"), default=0)


def integer(number: int) -> Any:
    """Declare an int32 or int64: a negative one takes ten bytes."""
    return _declared(_Spec(number, "int"), default=0)


def sfixed64(number: int) -> Any:
    """Declare a signed number of eight bytes."""
    return _declared(_Spec(number, "sfixed64"), default=0)


def boolean(number: int) -> Any:
    """Declare a truth value."""
    return _declared(_Spec(number, "bool"), default=False)


def binary(number: int) -> Any:
    """Declare bytes."""
    return _declared(_Spec(number, "bytes"), default=b"")


def text(number: int) -> Any:
    """Declare a string."""
    return _declared(_Spec(number, "string"), default="")


def optional(number: int, message: type[Message]) -> Any:
    """Declare a message that may be missing (None)."""
    return _declared(_Spec(number, "message", message=message), default=None)


def always(number: int, message: type[Message]) -> Any:
    """Declare a message that is written even when it is empty (gogoproto's ``nullable = false``)."""
    return _declared(_Spec(number, "message", message=message), default_factory=message)


def many(number: int, kind: str | type[Message]) -> Any:
    """Declare a list: of "bytes", "string" or "uint" (written packed), or of messages."""
    if isinstance(kind, str):
        return _declared(_Spec(number, kind, repeated=True), default_factory=list)
    return _declared(_Spec(number, "message", repeated=True, message=kind), default_factory=list)


def varint(value: int) -> bytes:
    """Return an unsigned 64-bit number in groups of seven bits, least significant first."""
    if value < 0x80:
        return bytes((value,))
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def read_varint(content: bytes | bytearray | memoryview, position: int) -> tuple[int, int]:
    """Return the number at ``position`` and the position after it; raises ``FormatError``, also at the end of bytes."""
    value = shift = 0
    end = min(len(content), position + MAX_VARINT_BYTES)
    while position < end:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= _WORD:
                break
            return value, position
        shift += 7
    raise FormatError("a number in the message has no end or more than 64 bits")


def read_fields(content: bytes) -> Iterator[tuple[int, int, Any]]:
    """Yield (number, wire type, value) of each field: an int for numbers, bytes for the rest; ``FormatError``."""
    position, end = 0, len(content)
    while position < end:
        tag, position = read_varint(content, position)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag >= 1 << 32:
            raise FormatError("a field of the message has no valid number")
        if wire == _VARINT:
            value, position = read_varint(content, position)
            yield number, wire, value
            continue
        if wire == _LENGTH:
            length, position = read_varint(content, position)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise FormatError("a field of the message is of a kind that proto3 has not")
        if length > end - position:
            raise FormatError("the message ends within a field")
        yield number, wire, content[position : position + length]
        position += length


def _declared(spec: _Spec, **default: Any) -> Any:
    return field(metadata={_SPEC: spec}, **default)


def _specs(message: type[Any]) -> list[tuple[str, _Spec]]:
    declared: tuple[Field[Any], ...] = fields(message)
    return sorted(((one.name, one.metadata[_SPEC]) for one in declared), key=lambda item: item[1].number)


_EncodingPlan = list[tuple[str, _Spec, bytes]]
_DecodingPlan = dict[int, tuple[str, _Spec]]
_PLANS: dict[type[Any], tuple[_EncodingPlan, _DecodingPlan]] = {}


def _plans(message: type[Any]) -> tuple[_EncodingPlan, _DecodingPlan]:
    """Return how a message is written and read: worked out once for each."""
    known = _PLANS.get(message)
    if known is None:
        specs = _specs(message)
        writing = [(name, spec, varint(spec.number << 3 | _written_wire(spec))) for name, spec in specs]
        known = _PLANS[message] = writing, {spec.number: (name, spec) for name, spec in specs}
    return known


def _written_wire(spec: _Spec) -> int:
    return _LENGTH if spec.repeated else spec.wire


def _write_repeated(parts: list[bytes], spec: _Spec, tag: bytes, values: list[Any]) -> None:
    if not values:
        return
    if spec.wire == _VARINT:
        packed = b"".join(varint(value % _WORD) for value in values)
        parts += (tag, varint(len(packed)), packed)
        return
    for value in values:
        content = value.encode() if spec.kind != "bytes" else value
        parts += (tag, varint(len(content)), content)


def _write_scalar(parts: list[bytes], spec: _Spec, tag: bytes, value: Any) -> None:
    if spec.wire == _VARINT:
        parts += (tag, varint(int(value) % _WORD))
    elif spec.kind == "sfixed64":
        parts += (tag, value.to_bytes(8, "little", signed=True))
    else:
        content = value.encode() if spec.kind == "string" else value
        parts += (tag, varint(len(content)), content)


def _read_repeated(values: list[Any], spec: _Spec, wire: int, value: Any, depth: int) -> None:
    if spec.wire != _VARINT or wire == _VARINT:
        values.append(_read_value(spec, wire, value, depth))
        return
    if wire != _LENGTH:
        raise FormatError("a field of the message is of another kind than it should be")
    position = 0
    while position < len(value):
        number, position = read_varint(value, position)
        values.append(_read_value(spec, _VARINT, number, depth))


def _read_value(spec: _Spec, wire: int, value: Any, depth: int) -> Any:
    if wire != spec.wire:
        raise FormatError("a field of the message is of another kind than it should be")
    if spec.message is not None:
        return spec.message.decode(value, depth - 1)
    return _READERS[spec.kind](value)


def _read_text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("a text in the message is not UTF-8") from None


def _signed(value: int) -> int:
    return value - _WORD if value >= _WORD >> 1 else value


_READERS: dict[str, Callable[[Any], Any]] = {
    "uint": lambda value: value,
    "int": _signed,
    "bool": bool,
    "sfixed64": lambda value: int.from_bytes(value, "little", signed=True),
    "bytes": bytes,
    "string": _read_text,
}
