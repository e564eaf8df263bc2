"""`yiqiao ingest` takes what `yiqiao convert` takes, and names what it cannot take."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from openpyxl import Workbook

from bridge.cli import main
from bridge.commands import ingest as command
from bridge.services import back_load
from bridge.services.back_load import Bookmarks, Reached, parts
from bridge.settings import Settings
from fhir_adapters import hl7v2
from fhir_adapters.errors import ParseError
from fhir_adapters.hl7v2 import messages
from tests.hl7v2_xml import xml_of
from tests.node_home import adt, make_home
from tests.unit.test_action_messages import PATIENT, request, soap

PATIENTS = "patient_no,name,birth_date\n{number},测试患者,1990-03-07\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_home(tmp_path / "home")


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, int], str]:
    with pytest.raises(SystemExit) as exit:
        main(["ingest", *map(str, arguments), "--json"])
    output = capsys.readouterr()
    return int(exit.value.code or 0), json.loads(output.out) if output.out else {}, output.err


def workbook(number: str) -> bytes:
    made = Workbook()
    made.active.title = "patient"
    for row in (("patient_no", "name"), (number, "测试患者")):
        made.active.append(row)
    stream = io.BytesIO()
    made.save(stream)
    return stream.getvalue()


def test_a_directory_of_every_kind_is_taken_in_once(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    archive = tmp_path / "archive" / "deeper"
    archive.mkdir(parents=True)
    (archive / "adt.hl7").write_bytes(adt("I1", "I1") + adt("I2", "I2"))
    (message,) = hl7v2.messages(adt("I3", "I3"))
    (archive / "adt.xml").write_text(xml_of(message.decode()), "utf-8")
    (archive / "discharge.xml").write_bytes(Path("tests/golden/cda/c0001_summary.xml").read_bytes())
    (archive / "action.xml").write_text(soap(request("PatientInfoRegister", PATIENT)), "utf-8")
    (archive / "patient.csv").write_text(PATIENTS.format(number="00012"), "utf-8")
    (archive / "patient.xlsx").write_bytes(workbook("00013"))
    (archive / "notes.doc").write_text("not looked at")
    code, counts, err = call(capsys, archive.parent, "--home", settings.home)
    assert (code, err) == (0, "")
    assert {name: counts[name] for name in ("accepted", "repeated", "refused", "stored", "failed")} == {
        "accepted": 7, "repeated": 0, "refused": 0, "stored": 7, "failed": 0,
    }  # fmt: skip
    code, counts, _ = call(capsys, archive.parent, "--home", settings.home)
    assert (code, counts["accepted"], counts["repeated"], counts["versions"]) == (0, 0, 7, 0)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        pytest.param("empty.hl7", b"MSH|^~\\&|\r", "empty.hl7, message 1: AE", id="a message without anything"),
        pytest.param("blank.hl7", b"FHS|^~\\&|A\rFTS|0\r", "no message in this file", id="a batch without messages"),
        pytest.param("bad.xml", b"<ClinicalDocument>", "bad.xml: AE", id="XML that ends early"),
        pytest.param("dtd.xml", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "dtd.xml: AE", id="a document type"),
        pytest.param("fault.xml", b"<Request><Header/></Request>", "fault.xml: AE", id="an action without a name"),
        pytest.param(
            "rows.csv", "patient_no,name,birth_date\n1,甲,昨天\n".encode(), "line 2 birth_date", id="a bad cell"
        ),
        pytest.param("none.csv", b"a,b\n1,2\n", "none.csv:", id="columns of no view"),
        pytest.param("book.xlsx", b"PK\x03\x04 is no archive", "book.xlsx:", id="a broken workbook"),
    ],
)
def test_what_cannot_be_taken_is_named(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    code, _, err = call(capsys, tmp_path / name, "--home", settings.home)
    assert told in err
    assert "Traceback" not in err
    assert (code == 1) == (name != "rows.csv")


def test_a_file_that_is_not_there_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "b.hl7").write_bytes(adt("N1", "N1"))
    code, counts, err = call(capsys, tmp_path / "a.hl7", tmp_path / "b.hl7", "--home", settings.home)
    assert (code, counts["accepted"], counts["refused"]) == (1, 1, 1)
    assert "a.hl7: No such file" in err


def test_a_changed_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    file, marks = tmp_path / "adt.hl7", Bookmarks(tmp_path / "marks")
    file.write_bytes(b"MSH|1")
    stat = file.stat()
    assert marks.find("his", file) == Reached(5, stat.st_mtime_ns)
    reached = Reached(5, stat.st_mtime_ns, 3, 1)
    marks.note("his", file, reached)
    assert marks.find("his", file) == reached
    assert marks.find("lis", file).offset == 0, "another source has not taken it"
    file.write_bytes(b"MSH|12")
    assert marks.find("his", file).offset == 0
    (tmp_path / "marks" / next(iter((tmp_path / "marks").iterdir())).name).write_bytes(b"{")
    assert marks.find("his", file).offset == 0, "a broken mark is none"


def test_a_run_that_stopped_goes_on_after_the_last_part(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(back_load, "PART_BYTES", 400)
    file = tmp_path / "adt.hl7"
    file.write_bytes(b"".join(adt(f"R{number}", f"R{number}") for number in range(10)))
    work_off, turns = command._Run.work_off, []

    def stop(run: command._Run) -> bool:
        turns.append(1)
        if len(turns) == 3:
            raise KeyboardInterrupt
        return work_off(run)

    with monkeypatch.context() as stopped:
        stopped.setattr(command._Run, "work_off", stop)
        assert call(capsys, file, "--home", settings.home)[0] != 0
    code, counts, err = call(capsys, file, "--home", settings.home)
    assert code == 0
    assert 0 < counts["earlier"] < 10
    assert counts["earlier"] + counts["accepted"] == 10
    assert f"goes on after message {counts['earlier']}" in err
    _, counts, _ = call(capsys, file, "--home", settings.home, "--from-start")
    assert counts["repeated"] == 10


def test_a_full_inbox_is_waited_for_and_then_told(
    capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "ROOM_SECONDS", 0.0)
    monkeypatch.setenv("YIQIAO_INBOX__MAX_MESSAGES", "4")
    file = tmp_path / "adt.hl7"
    file.write_bytes(b"".join(adt(f"O{number}", f"O{number}") for number in range(3)))
    assert call(capsys, file, "--home", settings.home, "--no-process")[0] == 0
    file.write_bytes(b"".join(adt(f"P{number}", f"P{number}") for number in range(3)))
    code, _, err = call(capsys, file, "--home", settings.home, "--no-process")
    assert code == 1
    assert "run the command again" in err
    monkeypatch.setattr(command, "ROOM_SECONDS", 0.1)
    code, counts, _ = call(capsys, file, "--home", settings.home)
    assert (code, counts["accepted"], counts["stored"]) == (0, 3, 6)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["no mark", "UTF-8 mark"])
@pytest.mark.parametrize("between", [b"\r\n", b"\x1c\r\x0b"], ids=["lines", "MLLP"])
def test_a_file_read_in_parts_holds_the_messages_of_the_whole(
    mark: bytes, between: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = mark + b"FHS|^~\\&|A\r" + between.join(adt(f"M{n}", "x" * (n * 37 % 300)) for n in range(60)) + b"FTS|1\r"
    whole = list(messages(raw))
    for size in (50, 300, 1000, len(raw)):
        monkeypatch.setattr(back_load, "PART_BYTES", size)
        read = list(parts(io.BytesIO(raw)))
        assert [each for part, _ in read for each in messages(part)] == whole
        assert read[-1][1] == len(raw)
        middle = read[len(read) // 2][1]
        rest = [each for part, _ in parts(io.BytesIO(raw), middle) for each in messages(part)]
        assert whole[len(whole) - len(rest) :] == rest


def test_a_file_in_utf_16_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(back_load, "PART_BYTES", 64)
    raw = (adt("U1", "1") + adt("U2", "2")).decode().encode("utf-16")
    assert [part for part, _ in parts(io.BytesIO(raw))] == [raw]
    assert len(list(messages(raw))) == 2


def test_a_file_without_a_second_header_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(back_load, "PART_BYTES", 64)
    monkeypatch.setattr(back_load, "MAX_MESSAGE_BYTES", 1000)
    with pytest.raises(ParseError, match="no message begins"):
        list(parts(io.BytesIO(b"MSH|" + b"x" * 5000)))
