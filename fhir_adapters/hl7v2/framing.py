"""MLLP framing on bytes (HL7 v2 Transport Specification: Minimal Lower Layer Protocol, release 1).

A block is ``<VT> content <FS> <CR>`` (0x0B ... 0x1C 0x0D). Framing happens before decoding: none of the block bytes can
occur inside a character of ASCII, ISO 8859, UTF-8, GBK or GB 18030 (whose second and fourth bytes are 0x30-0x39 or
>= 0x40), so a frame is found without knowing its character set.

Pure: the decoder is fed bytes and returns what it found; sockets, timers and answers are the listener's.
It does not look into a frame: two messages in one frame are refused by ``header.read_header``.
"""

from dataclasses import dataclass, field

START_BLOCK = b"\x0b"
END_BLOCK = b"\x1c\r"
END_BYTE = 0x1C

DEFAULT_MAX_BYTES = 16 * 1024 * 1024
"""Largest frame accepted when the site says nothing, in bytes: a report with an embedded PDF fits into it."""

KEPT_OF_A_FAULT = 64 * 1024
"""Bytes kept of a frame that cannot be taken, so that its MSH can still be read and answered with a refusal."""

# Bytes between frames that mean nothing: some senders end a frame with CR LF, keep-alives send spaces.
_IDLE = b"\r\n \t\x00"


@dataclass(frozen=True, slots=True)
class Frame:
    """The content of one block, without its start and end bytes."""

    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class FramingFault:
    """Bytes that are not a block.

    ``code`` is one of ``garbage`` (bytes between blocks), ``missing-end-block`` (a block began before the last one
    ended, or the stream ended inside one), ``bad-end-block`` (FS without CR) and ``oversize``. ``content`` holds the
    beginning of the block, at most ``KEPT_OF_A_FAULT`` bytes, empty for garbage. ``text`` never holds content.
    """

    code: str
    text: str
    content: bytes = field(default=b"", repr=False)


class FrameDecoder:
    """Finds frames in a byte stream that arrives in pieces of any size; holds at most ``max_bytes`` of it."""

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._scanned = 0  # bytes of the buffer known to hold no end byte
        self._inside = False
        self._skipping = False  # inside an oversize block: its rest is passed over up to the end block

    @property
    def pending(self) -> int:
        """Bytes held of a block that has begun and not ended; 0 between blocks. For the listener's idle timer."""
        return max(1, len(self._buffer)) if self._inside else 0

    def feed(self, data: bytes) -> list[Frame | FramingFault]:
        """Take the next bytes of the stream and return the frames and faults they complete, in order."""
        self._buffer += data
        found: list[Frame | FramingFault] = []
        while self._step(found):
            pass
        return found

    def close(self) -> list[Frame | FramingFault]:
        """Say that the stream has ended; returns the fault of a block left open, if there is one."""
        if not self._inside or self._skipping:
            self._reset()
            return []
        fault = FramingFault(
            "missing-end-block", "the stream ended inside a block", bytes(self._buffer[:KEPT_OF_A_FAULT])
        )
        self._reset()
        return [fault]

    def _reset(self) -> None:
        self._buffer.clear()
        self._scanned = 0
        self._inside = self._skipping = False

    def _step(self, found: list[Frame | FramingFault]) -> bool:
        """Do one transition; False when more bytes are needed."""
        if not self._inside:
            return self._seek_start(found)
        if self._skipping:
            return self._skip()
        return self._seek_end(found)

    def _seek_start(self, found: list[Frame | FramingFault]) -> bool:
        start = self._buffer.find(START_BLOCK)
        between = self._buffer if start < 0 else self._buffer[:start]
        stray = len(between.strip(_IDLE))
        if stray:
            found.append(FramingFault("garbage", f"{stray} bytes outside any block"))
        if start < 0:
            self._buffer.clear()
            return False
        del self._buffer[: start + 1]
        self._inside, self._scanned = True, 0
        return True

    def _seek_end(self, found: list[Frame | FramingFault]) -> bool:
        buffer = self._buffer
        end = buffer.find(END_BYTE, self._scanned)
        # A start byte followed by a message header is a new block whose predecessor was cut off. A lone 0x0B stays
        # content (a vertical tab in free text).
        restart = buffer.find(b"\x0bMSH", max(0, self._scanned - 3), end if end >= 0 else len(buffer))
        if restart >= 0:
            text = "a new block began before the last one ended"
            found.append(FramingFault("missing-end-block", text, bytes(buffer[: min(restart, KEPT_OF_A_FAULT)])))
            del buffer[: restart + 1]
            self._scanned = 0
            return True
        if (end if end >= 0 else len(buffer)) > self._max_bytes:
            text = f"a block is larger than {self._max_bytes} bytes"
            found.append(FramingFault("oversize", text, bytes(buffer[: min(self._max_bytes, KEPT_OF_A_FAULT)])))
            self._skipping = True
            return True
        if end < 0 or end + 1 == len(buffer):
            self._scanned = len(buffer) if end < 0 else end
            return False
        content = bytes(buffer[:end])
        if buffer[end + 1] == END_BLOCK[1]:
            found.append(Frame(content))
            del buffer[: end + 2]
        else:
            found.append(FramingFault("bad-end-block", "FS is not followed by CR", content[:KEPT_OF_A_FAULT]))
            del buffer[: end + 1]
        self._inside, self._scanned = False, 0
        return True

    def _skip(self) -> bool:
        """Pass over the rest of an oversize block, keeping one byte in case the end block is cut between two feeds."""
        end = self._buffer.find(END_BLOCK)
        if end < 0:
            del self._buffer[: max(0, len(self._buffer) - 1)]
            return False
        del self._buffer[: end + 2]
        self._inside = self._skipping = False
        self._scanned = 0
        return True


def frame(content: bytes) -> bytes:
    """Wrap one message as a block.

    Raises:
        ValueError: the content holds FS CR, which would end the block early.
    """
    if END_BLOCK in content:
        raise ValueError("content holds an end block")
    return START_BLOCK + content + END_BLOCK
