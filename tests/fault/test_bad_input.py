"""Bad messages over real sockets into a real inbox: each is answered, kept by place and reason, and stops nobody."""

from __future__ import annotations

import random
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from bridge.services.ingest import IngestService
from fhir_adapters import SourceProfile
from tests.mllp_listener import mllp_listener
from tests.stores import Stores, _sqlite_template, sqlite_stores

__all__ = ["_sqlite_template", "sqlite_stores"]

VT, END = b"\x0b", b"\x1c\r"
MEGABYTE = 1024 * 1024
MAX_FRAME_BYTES = 16 * MEGABYTE
FUZZED_FRAMES = 400
PATIENTS = 12
DELIMITERS = (b"|", b"^", b"\r", b"~", b"\\", b"&", b"\x0b", b"\x1c\r", b"\x00", b"\xff")
GROWTH_KIBIBYTES = 96 * 1024
"""How much memory a 100 MB message may cost a listener that takes 16 MB: what is in hand, and its copies."""


def message(control_id: str, patient: str = "100", charset: str = "UNICODE UTF-8", name: str = "测试^甲") -> str:
    return (
        f"MSH|^~\\&|HIS|HOSP|YIQIAO|NODE|20260501083000||ADT^A08|{control_id}|P|2.5||||||{charset}\r"
        "EVN||20260501083000\r"
        f"PID|1||{patient}^^^HOSP^MR||{name}||19900517|M\r"
        f"PV1|1|I|W1^1^1||||||||||||||||V{patient}^^^HOSP^VN\r"
    )


@dataclass
class Node:
    """A listener over a real inbox, and what works it off."""

    port: int
    stores: Stores
    ingest: IngestService

    def send(self, raw: bytes, timeout: float = 20) -> bytes:
        """Send bytes on a connection of their own, close the sending half, and return all that is answered."""
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=timeout)) as connection:
            try:
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the listener may have had enough
            return received(connection)

    def work_off(self) -> None:
        while self.ingest.process(100):
            pass

    def outcome(self, control_id: str) -> tuple[str, str, str]:
        """State, reason code and place of the only message of a control id."""
        [entry] = [each for each in self.stores.inbox.list(limit=10_000) if each.control_id == control_id]
        return entry.state, entry.code, entry.location

    def still_works(self, number: str = "AFTER") -> None:
        """A good message is taken and stored whatever came before."""
        assert b"MSA|AA|" + number.encode() in self.send(VT + message(number, number).encode() + END)
        self.work_off()
        assert self.outcome(number)[0] == "stored"
        assert self.stores.inbox.counts()["received"] == 0


def received(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while chunk := connection.recv(65536):
            answer += chunk
    except ConnectionResetError:
        pass
    return answer


@pytest.fixture
def node(sqlite_stores: Stores) -> Iterator[Node]:
    stores = sqlite_stores
    profiles = {"mllp": SourceProfile(name="mllp")}
    ingest = IngestService(stores.engine, stores.inbox, stores.records, profiles, stores.clock)
    with mllp_listener(ingest, max_frame_bytes=MAX_FRAME_BYTES, frame_seconds=1.0) as (port, _):
        yield Node(port, stores, ingest)


GB = message("X", name="张三丰", charset="GB 18030-2000")
CUT = GB.encode("gb18030").replace("丰".encode("gb18030"), b"\x84\x31\x95")  # four bytes begun, three there

MIXED = message("X", name="王^乙").encode().replace("王".encode(), b"M\xfcller\xff")  # Latin-1 beside UTF-8


@pytest.mark.parametrize(
    ("content", "code", "state", "place"),
    [
        pytest.param(CUT, b"AE", "failed", "MSH-18", id="GB18030 cut within a character"),
        pytest.param(GB.encode("gb18030")[:-60], b"AA", "stored", "", id="GB18030 cut between fields"),
        pytest.param(MIXED, b"AE", "failed", "MSH-18", id="two character sets in one message"),
        pytest.param(message("X", charset="UNICODE UTF-8").encode("gb18030"), b"AA", "stored", "",
                     id="MSH-18 says UTF-8, the bytes are GB18030"),
        pytest.param(message("X", charset="KLINGON").encode(), b"AA", "stored", "", id="MSH-18 names no character set"),
        pytest.param(message("X", charset="ASCII").encode(), b"AA", "stored", "", id="MSH-18 says ASCII, it is not"),
        pytest.param(b"\xef\xbb\xbf" + message("X").encode(), b"AA", "stored", "", id="UTF-8 mark"),
        pytest.param(message("X").encode("utf-16"), b"AA", "stored", "", id="UTF-16 with its mark"),
        pytest.param(b"\xff\xfe" + message("X").encode("utf-16-le") + b"\x00", b"AE", "failed", "", id="UTF-16 cut"),
        pytest.param(message("X").encode().replace(b"W1^1", b"W\x001^\x00\x001"), b"AA", "stored", "", id="NULs"),
        pytest.param(b"\x00\x00" + message("X").encode() + b"\x00", b"AE", "failed", "MSH", id="NULs before it"),
        pytest.param((message("X") + message("Y")).encode(), b"AE", "failed", "MSH", id="two messages in one frame"),
        pytest.param(b"\x00" * 1000, b"AE", "failed", "MSH", id="nothing but NULs"),
        pytest.param(b"MSH|^~\\&|", b"AE", "failed", "MSH-9", id="a header that ends early"),
        pytest.param(b"MSH", b"AE", "failed", "MSH", id="a header without a separator"),
        pytest.param(message("X", name="\U0001f600\u0007").encode(),
                     b"AA", "stored", "", id="an emoji and a bell in a name"),
    ],
)  # fmt: skip
def test_content_that_is_wrong(node: Node, content: bytes, code: bytes, state: str, place: str) -> None:
    answer = node.send(VT + content + END)
    assert b"MSA|" + code in answer.replace(b"\0", b"")  # UTF-16 is answered in UTF-16
    node.work_off()
    [entry] = node.stores.inbox.list()
    assert (entry.state, entry.location.startswith(place)) == (state, True), entry
    assert bool(entry.code) == (state == "failed")
    node.still_works()


@pytest.mark.parametrize(
    ("sent", "codes"),
    [
        pytest.param(VT + message("X").encode() + VT + message("Y").encode() + END, [b"AR|X", b"AA|Y"],
                     id="no end block before the next"),
        pytest.param(VT + message("X").encode(), [b"AR|X"], id="no end block at all"),
        pytest.param(VT + message("X").encode() + b"\x1c" + VT + message("Y").encode() + END, [b"AR|X", b"AA|Y"],
                     id="an end block without CR"),
        pytest.param(VT + END + VT + message("Y").encode() + END, [b"AA|Y"], id="an empty frame"),
        pytest.param(b"\r\n \x00" + VT + message("Y").encode() + END + b"\n", [b"AA|Y"], id="keep-alives between"),
        pytest.param(VT + message("X").encode() + b"\x1c\n", [b"AR|X"], id="an end block with LF"),
    ],
)  # fmt: skip
def test_frames_that_are_wrong(node: Node, sent: bytes, codes: list[bytes]) -> None:
    answer = node.send(sent)
    for code in codes:
        assert b"MSA|" + code in answer, answer
    node.still_works()


def test_a_hundred_megabytes_are_refused_without_being_held(node: Node) -> None:
    node.still_works("BEFORE")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    huge = message("HUGE").encode() + b"OBX|1|ED|1^Report^L||^application^pdf^Base64^"
    with closing(socket.create_connection(("127.0.0.1", node.port), timeout=30)) as connection:
        connection.sendall(VT + huge)
        block = b"QUJD" * (MEGABYTE // 4)
        try:
            for _ in range(100):
                connection.sendall(block)
            connection.sendall(b"\r" + END)
        except OSError:
            pass
        answer = received(connection)
    assert answer == b"" or b"MSA|AR|HUGE" in answer, "refused, or cut off before the answer could be read"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH_KIBIBYTES
    assert all(entry.control_id != "HUGE" for entry in node.stores.inbox.list())
    node.still_works()


def test_a_slow_sender_is_cut_off_and_holds_up_nobody(node: Node) -> None:
    with closing(socket.create_connection(("127.0.0.1", node.port), timeout=20)) as slow:
        frame = VT + message("SLOW").encode() + END
        began = time.monotonic()
        answered_meanwhile = b""
        try:
            for byte in frame:
                slow.sendall(bytes([byte]))
                if not answered_meanwhile:
                    answered_meanwhile = node.send(VT + message("QUICK", "1").encode() + END)
                time.sleep(0.1)
        except OSError:
            pass
        answer = received(slow)
        assert time.monotonic() - began < 0.1 * len(frame)  # before it had said all
    assert b"MSA|AA|QUICK" in answered_meanwhile
    assert b"MSA|AA|" not in answer
    node.still_works()


def test_one_poison_message_of_each_patient_stops_no_other(node: Node) -> None:
    frames = []
    for number in range(5):
        for patient in range(PATIENTS):
            raw = message(f"{patient}-{number}", str(patient), name=f"名^{number}").encode()
            if number == 2:  # readable, so it is taken; it breaks in conversion or at the door
                raw = raw.replace(b"EVN||20260501083000\r", b"EVN||yesterday\r").replace(b"ADT^A08", b"ADT^A40")
            frames.append(VT + raw + END)
    answer = node.send(b"".join(frames))
    assert answer.count(b"MSA|AA|") == PATIENTS * 4
    assert answer.count(b"MSA|AE|") == PATIENTS
    node.work_off()
    entries = {entry.control_id: entry for entry in node.stores.inbox.list(limit=1000)}
    for control_id, entry in entries.items():
        poison = control_id.endswith("-2")
        assert entry.state == ("failed" if poison else "stored"), entry
        assert bool(entry.location) == poison
    for patient in node.stores.inbox.list(limit=1000):
        assert patient.state != "received"
    assert node.stores.records.count("Patient") == PATIENTS
    node.still_works()


def mutated(chance: random.Random, raw: bytes) -> bytes:
    """A message with some bytes changed, dropped, doubled or moved; frame bytes may come into it."""
    content = bytearray(raw)
    for _ in range(chance.randint(1, 12)):
        place = chance.randrange(len(content) or 1)
        change = chance.randrange(5)
        if change == 0:
            content[place : place + 1] = bytes([chance.randrange(256)])
        elif change == 1:
            del content[place : place + chance.randint(1, 20)]
        elif change == 2:
            content[place:place] = content[place : place + chance.randint(1, 60)]
        elif change == 3:
            content[place:place] = chance.choice(DELIMITERS)
        else:
            content = content[:place] or bytearray(b"M")
    return bytes(content)


def test_fuzzed_frames_never_stop_the_node(node: Node) -> None:
    chance = random.Random(20261123)
    seeds = [
        message("F", charset=charset).encode(codec)
        for charset, codec in (("UNICODE UTF-8", "utf-8"), ("GB 18030-2000", "gb18030"), ("", "utf-8"))
    ]
    answered = 0
    for _ in range(FUZZED_FRAMES // 20):
        frames = [VT + mutated(chance, chance.choice(seeds)) + END for _ in range(20)]
        answer = node.send(b"".join(frames))
        answered += answer.count(b"MSA|")
        assert answer.count(VT) == answer.count(END), "an answer was cut short"
    assert answered > FUZZED_FRAMES / 2
    node.work_off()
    counts = node.stores.inbox.counts()
    assert counts["received"] == 0
    assert counts["dead"] == 0
    assert counts["stored"] > 0
    assert counts["failed"] > 0
    for entry in node.stores.inbox.list(limit=10_000):
        if entry.state == "failed":
            assert entry.code != "IngestError", f"an error that nobody foresaw: {entry}"
            assert entry.location or entry.code in {"undecodable", "malformed"}, entry
    node.still_works()
