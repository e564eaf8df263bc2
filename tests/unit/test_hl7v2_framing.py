"""MLLP frames out of a stream: whatever the pieces it comes in."""

import pytest

from fhir_adapters.hl7v2.framing import KEPT_OF_A_FAULT, Frame, FrameDecoder, FramingFault, frame

ONE = b"MSH|^~\\&|A\rPID|1\r"
TWO = b"MSH|^~\\&|B\r"


def found(stream: bytes, size: int, max_bytes: int = 1000) -> list[bytes | str]:
    decoder = FrameDecoder(max_bytes)
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    results = [each for piece in pieces for each in decoder.feed(piece)] + decoder.close()
    return [each.content if isinstance(each, Frame) else each.code for each in results]


CASES = [
    pytest.param(frame(ONE), [ONE], id="one frame"),
    pytest.param(frame(ONE) + frame(TWO), [ONE, TWO], id="two frames"),
    pytest.param(frame(ONE) + b"\r\n  \x00" + frame(TWO), [ONE, TWO], id="idle bytes between frames"),
    pytest.param(frame("MSH|^~\\&|医院\r".encode("gb18030")), ["MSH|^~\\&|医院\r".encode("gb18030")], id="GB 18030"),
    pytest.param(b"\x0b\x1c\r", [b""], id="an empty frame"),
    pytest.param(b"\x0ba\x0bb\x1c\r", [b"a\x0bb"], id="a vertical tab in text"),
    pytest.param(frame(ONE) + b"noise" + frame(TWO), [ONE, "garbage", TWO], id="garbage between frames"),
    pytest.param(b"\x0b" + ONE + frame(TWO), ["missing-end-block", TWO], id="missing end block"),
    pytest.param(b"\x0b" + ONE, ["missing-end-block"], id="stream ends inside a frame"),
    pytest.param(b"\x0b" + ONE + b"\x1c" + frame(TWO), ["bad-end-block", TWO], id="FS without CR"),
    pytest.param(b"\x0b" + b"x" * 2000 + b"\x1c\r" + frame(TWO), ["oversize", TWO], id="oversize"),
    pytest.param(b"\x0b" + b"x" * 2000, ["oversize"], id="oversize without an end"),
    pytest.param(b"", [], id="nothing"),
]


@pytest.mark.parametrize(("stream", "expected"), CASES)
@pytest.mark.parametrize("size", [10_000, 7, 2])
def test_frames_and_faults(stream: bytes, expected: list[bytes | str], size: int) -> None:
    results = found(stream, size)
    # Garbage is reported as it comes, so in small pieces it is several remarks.
    merged = [
        each for at, each in enumerate(results) if not (each == "garbage" and at and results[at - 1] == "garbage")
    ]
    assert merged == expected


def test_memory_is_bounded() -> None:
    decoder = FrameDecoder(max_bytes=100_000)
    decoder.feed(b"\x0b")
    faults = []
    for _ in range(50):
        faults += decoder.feed(b"x" * 100_000)
        assert decoder.pending <= 200_001
    assert [each.code for each in faults if isinstance(each, FramingFault)] == ["oversize"]
    assert len(faults[0].content) == KEPT_OF_A_FAULT


def test_pending_says_that_a_block_is_open() -> None:
    decoder = FrameDecoder()
    assert decoder.pending == 0
    decoder.feed(b"\x0b")
    assert decoder.pending == 1
    decoder.feed(ONE)
    assert decoder.pending == len(ONE)
    decoder.feed(b"\x1c\r")
    assert decoder.pending == 0


def test_a_fault_does_not_show_content() -> None:
    (fault,) = FrameDecoder(max_bytes=5).feed(b"\x0bMSH|secret")
    assert isinstance(fault, FramingFault)
    assert "secret" not in repr(fault)


def test_content_with_an_end_block_is_not_framed() -> None:
    with pytest.raises(ValueError, match="end block"):
        frame(b"a\x1c\rb")


def test_a_decoder_needs_room() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FrameDecoder(0)
