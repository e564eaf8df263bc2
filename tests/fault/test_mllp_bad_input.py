"""The MLLP listener over real sockets: what is not a well-formed frame in time is bounded, answered and logged."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from bridge.errors import DatabaseUnavailable
from bridge.mllp import MllpServer
from tests.mllp_listener import mllp_listener

VT, END = b"\x0b", b"\x1c\r"
MESSAGE = b"MSH|^~\\&|HIS|A|YQ|A|20260101080000||ADT^A08|%b|P|2.5\rPID|1||P1^^^HIS^MR\r"
MAX_FRAME_BYTES = 4096


@dataclass(frozen=True)
class FakeReply:
    ack: bytes
    wanted: bool = True
    id: int | None = 1
    follow_up: bool = False


class FakeInbox:
    """Takes every message in and answers AA with its control id; fails, or keeps the sender waiting, on demand."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.commits: list[int] = []
        self.fail = False
        self.hold = threading.Event()
        self.hold.set()

    def judge(self, source: str, raw: bytes) -> bytes:
        assert source == "mllp"
        return raw

    def keep(self, judged: Sequence[bytes]) -> list[FakeReply]:
        self.hold.wait(10)
        if self.fail:
            raise DatabaseUnavailable
        self.taken += judged
        self.commits.append(len(judged))
        return [FakeReply(b"MSH|^~\\&\rMSA|AA|" + raw.split(b"|")[9] + b"\r") for raw in judged]


@contextmanager
def listening(inbox: FakeInbox, **changes: object) -> Iterator[tuple[int, MllpServer]]:
    with mllp_listener(inbox, **{"max_frame_bytes": MAX_FRAME_BYTES, "max_connections": 4, **changes}) as served:
        yield served


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        yield connection


def read_until_closed(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def read_answer(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(END):
        chunk = connection.recv(65536)
        assert chunk, "closed without an answer"
        received += chunk
    return received


def framed(control_id: bytes) -> bytes:
    return VT + MESSAGE % control_id + END


def test_messages_are_answered_in_order_on_one_connection() -> None:
    inbox = FakeInbox()
    with listening(inbox) as (port, _), connected(port) as connection:
        connection.sendall(framed(b"1") + framed(b"2"))
        received = read_answer(connection)
        while received.count(END) < 2:
            received += read_answer(connection)
    assert received.index(b"MSA|AA|1\r") < received.index(b"MSA|AA|2\r")
    assert inbox.taken == [MESSAGE % b"1", MESSAGE % b"2"]


def test_messages_sent_without_waiting_share_a_commit_and_are_answered_in_order() -> None:
    inbox = FakeInbox()
    with listening(inbox) as (port, _), connected(port) as connection:
        inbox.hold.clear()
        numbers = [b"%d" % number for number in range(200)]
        connection.sendall(b"".join(framed(number) for number in numbers))
        time.sleep(0.2)
        inbox.hold.set()
        received = b""
        while received.count(END) < 200:
            received += read_answer(connection)
    assert [answer.split(b"MSA|AA|")[1] for answer in received.split(END)[:-1]] == [each + b"\r" for each in numbers]
    assert inbox.taken == [MESSAGE % number for number in numbers]
    assert len(inbox.commits) < 50


def test_a_large_message_keeps_its_place_among_the_others() -> None:
    inbox = FakeInbox()
    large = MESSAGE % b"large" + b"NTE|" + b"x" * 200_000 + b"\r"
    with mllp_listener(inbox, max_frame_bytes=1_000_000) as (port, _), connected(port) as connection:
        connection.sendall(framed(b"1") + VT + large + END + framed(b"2"))
        received = b""
        while received.count(END) < 3:
            received += read_answer(connection)
    assert [raw.split(b"|")[9] for raw in inbox.taken] == [b"1", b"large", b"2"]


def test_a_sender_that_closes_its_half_still_gets_its_answers() -> None:
    inbox = FakeInbox()
    with listening(inbox) as (port, _), connected(port) as connection:
        connection.sendall(framed(b"1") + framed(b"2"))
        connection.shutdown(socket.SHUT_WR)
        received = read_until_closed(connection)
    assert received.count(b"MSA|AA|") == 2


def test_a_frame_in_many_pieces_is_one_message() -> None:
    inbox = FakeInbox()
    with listening(inbox) as (port, _), connected(port) as connection:
        for byte in framed(b"slow"):
            connection.sendall(bytes([byte]))
        assert b"MSA|AA|slow" in read_answer(connection)


@pytest.mark.parametrize(
    ("sent", "answered", "closed"),
    [
        pytest.param(VT + MESSAGE % b"big" + b"NTE|" + b"x" * MAX_FRAME_BYTES + b"\r" + END, b"MSA|AR|big", True,
                     id="oversized frame"),
        pytest.param(VT + MESSAGE % b"cut" + framed(b"next"), b"MSA|AR|cut", False, id="missing end block"),
        pytest.param(VT + MESSAGE % b"fs" + b"\x1c" + framed(b"next"), b"MSA|AR|fs", False, id="end block without CR"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", b"", True, id="garbage: another protocol"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", b"", True, id="garbage: a TLS hello"),
        pytest.param(VT + b"\xff\xfe\x00 nonsense " + b"y" * MAX_FRAME_BYTES + END, b"MSA|AR|\r", True,
                     id="oversized without a header"),
    ],
)  # fmt: skip
def test_bad_frames(sent: bytes, answered: bytes, closed: bool) -> None:
    inbox = FakeInbox()
    with listening(inbox) as (port, _), connected(port) as connection:
        connection.sendall(sent)
        if closed:
            received = read_until_closed(connection)
        else:
            received = read_answer(connection)
            connection.sendall(framed(b"after"))
            while b"MSA|AA|after" not in received:
                received += read_answer(connection)
    assert answered.rstrip(b"\r") in received
    assert b"nonsense" not in received
    assert b"P1" not in received


def test_a_stream_that_ends_inside_a_frame_is_refused_by_name() -> None:
    with listening(FakeInbox()) as (port, _), connected(port) as connection:
        connection.sendall(VT + MESSAGE % b"half")
        connection.shutdown(socket.SHUT_WR)
        assert b"MSA|AR|half" in read_until_closed(connection)


def test_a_slow_sender_is_refused_and_closed_after_its_time() -> None:
    with listening(FakeInbox(), frame_seconds=0.3) as (port, _), connected(port) as connection:
        began = time.monotonic()
        connection.sendall(VT + MESSAGE % b"drip")
        received = read_until_closed(connection)
    assert b"MSA|AR|drip" in received
    assert 0.2 < time.monotonic() - began < 30


def test_dripping_bytes_does_not_prolong_the_time_for_a_frame() -> None:
    with listening(FakeInbox(), frame_seconds=0.4) as (port, _), connected(port) as connection:
        began = time.monotonic()
        connection.sendall(VT + MESSAGE % b"drip")
        connection.settimeout(0.1)
        received = b""
        while time.monotonic() - began < 60:
            try:
                connection.sendall(b"x")
                chunk = connection.recv(4096)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            if not chunk:
                break
            received += chunk
    assert time.monotonic() - began < 30


def test_an_idle_connection_is_closed() -> None:
    with listening(FakeInbox(), idle_seconds=0.2) as (port, _), connected(port) as connection:
        assert read_until_closed(connection) == b""


def test_one_connection_too_many_is_closed_and_the_others_go_on() -> None:
    with listening(FakeInbox(), max_connections=1) as (port, _), connected(port) as first:
        first.sendall(framed(b"1"))
        read_answer(first)
        with connected(port) as second:
            assert read_until_closed(second) == b""
        first.sendall(framed(b"2"))
        assert b"MSA|AA|2" in read_answer(first)


def test_what_could_not_be_stored_is_not_acknowledged() -> None:
    inbox = FakeInbox()
    inbox.fail = True
    with listening(inbox) as (port, _), connected(port) as connection:
        connection.sendall(framed(b"lost"))
        assert read_until_closed(connection) == b""
    assert inbox.taken == []


def test_stopping_takes_the_frame_that_has_begun_and_closes_idle_connections() -> None:
    with listening(FakeInbox()) as (port, server), connected(port) as busy, connected(port) as idle:
        busy.sendall(framed(b"busy")[:20])
        time.sleep(0.2)
        assert server.loop is not None
        stopped = asyncio.run_coroutine_threadsafe(server.stop(60), server.loop)
        assert read_until_closed(idle) == b""
        assert not stopped.done()
        busy.sendall(framed(b"busy")[20:])
        assert b"MSA|AA|busy" in read_until_closed(busy)
        stopped.result(60)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1)


def test_stopping_does_not_wait_for_ever() -> None:
    with listening(FakeInbox()) as (port, server), connected(port) as busy:
        busy.sendall(framed(b"busy")[:20])
        time.sleep(0.1)
        assert server.loop is not None
        began = time.monotonic()
        asyncio.run_coroutine_threadsafe(server.stop(0.3), server.loop).result(60)
        assert time.monotonic() - began < 30


def test_a_fault_of_the_inbox_itself_ends_the_connection_and_not_the_listener() -> None:
    class Faulty(FakeInbox):
        def judge(self, source: str, raw: bytes) -> bytes:
            if b"|bug|" in raw:
                raise ZeroDivisionError
            return raw

    with listening(Faulty()) as (port, _):
        with connected(port) as connection:
            connection.sendall(framed(b"1") + framed(b"bug") + framed(b"2"))
            assert read_until_closed(connection).count(b"MSA|AA|") == 1
        with connected(port) as connection:
            connection.sendall(framed(b"3"))
            assert b"MSA|AA|3" in read_answer(connection)
