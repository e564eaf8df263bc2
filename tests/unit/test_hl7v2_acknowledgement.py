"""Answers: in the sender's character set and delimiters, with the place of an error and never its content."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from fhir_adapters.hl7v2 import read_header
from fhir_adapters.hl7v2.acknowledgement import acknowledge
from tests.hl7v2_samples import msh, pid, raw

TIME = datetime(2024, 5, 1, 8, 30, tzinfo=timezone(timedelta(hours=8)))


def answer(kind: str = "ADT^A01", encoding: str = "utf-8", code: str = "AA", *args: str, **changes: str) -> list[str]:
    header = read_header(raw([msh(kind, **changes), pid()], encoding))
    return acknowledge(header, code, *args, time=TIME, control_id="ACK1").decode(encoding).split("\r")


def test_an_accept_exchanges_sender_and_receiver() -> None:
    assert answer() == [
        "MSH|^~\\&|NODE|HOSP|HIS|HOSP|20240501083000+0800||ACK^A01^ACK|ACK1|P|2.5.1||||||UNICODE UTF-8",
        "MSA|AA|MSG1",
        "",
    ]


def test_a_refusal_names_the_place() -> None:
    lines = answer("ADT^A01", "utf-8", "AE", "not a date", "PID-7")
    assert lines[1] == "MSA|AE|MSG1|not a date"
    assert lines[2] == "ERR||PID^1^7|207^Application error^HL70357|E||||not a date"


@pytest.mark.parametrize(
    ("location", "written"),
    [("OBX[3]-5", "OBX^3^5"), ("PID[1]-3.9", "PID^1^3^1^9"), ("MSH", "MSH^1"), ("", ""), ("row 3", "")],
)
def test_places(location: str, written: str) -> None:
    assert answer("ADT^A01", "utf-8", "AE", "text", location)[2].split("|")[2] == written


def test_an_old_sender_gets_the_old_error_segment() -> None:
    assert answer("ADT^A01", "utf-8", "AR", "no mapping for this type", "MSH-9", f12="2.3.1")[2] == (
        "ERR|MSH^1^9^200&Unsupported message type&HL70357"
    )


def test_the_answer_is_in_the_senders_character_set() -> None:
    lines = answer("ADT^A01", "gb18030", "AE", "缺少必填段", "PID", f18="GB 18030-2000", f3="医院信息系统")
    assert "医院信息系统" in lines[0]
    assert "缺少必填段" in lines[1]


def test_the_answer_has_the_senders_delimiters() -> None:
    message = b"MSH$%*!+$HIS$HOSP$NODE$HOSP$20240501$$ADT%A01$MSG1$P$2.5.1\rPID$1$$P1\r"
    lines = acknowledge(read_header(message), "AA", time=TIME, control_id="ACK1").decode().split("\r")
    assert lines[0].startswith("MSH$%*!+$NODE$HOSP$HIS$HOSP$20240501083000+0800$$ACK%A01%ACK$ACK1$P$2.5.1")
    assert lines[1] == "MSA$AA$MSG1"


def test_a_text_cannot_forge_segments() -> None:
    lines = answer("ADT^A01", "utf-8", "AE", "bad\rMSA|AA|MSG1", "PID")
    assert len(lines) == 4
    assert lines[1] == "MSA|AE|MSG1|bad MSA\\F\\AA\\F\\MSG1"


def test_an_unreadable_message_is_answered_too() -> None:
    lines = acknowledge(None, "AR", "no header", "MSH", time=TIME.astimezone(UTC), control_id="A").decode().split("\r")
    assert lines[0] == "MSH|^~\\&|||||20240501003000+0000||ACK|A|P|2.5"
    assert lines[1] == "MSA|AR||no header"


def test_an_unknown_code_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="code"):
        acknowledge(None, "XX", time=TIME, control_id="A")


@pytest.mark.parametrize("block", ["\x0b", "\x1c", "\x00", "\x7f"], ids=["VT", "FS", "NUL", "DEL"])
def test_what_is_repeated_of_a_message_cannot_frame_the_answer(block: str) -> None:
    message = "\r".join([msh("ADT^A01", f10=f"MSG{block}1", f12=f"2.5{block}"), pid()])
    answered = acknowledge(read_header(message.encode()), "AA", time=TIME, control_id="ACK1")
    assert block.encode() not in answered
    assert b"MSA|AA|MSG1\r" in answered
