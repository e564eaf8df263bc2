"""`yiqiao convert`: one Bundle a line, failures named on stderr with file, message and place, nothing kept."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path

import pytest

from bridge.cli import main
from tests.node_home import adt

BAD_TYPE = adt("X1", "P1").replace(b"ADT^A08", b"ZZZ^Z99")
BROKEN = b"MSH|^~\\&|HIS\rPID|1||geheim\r"


class BinaryOut(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")

    def lines(self) -> list[bytes]:
        self.flush()
        return self.buffer.getvalue().splitlines()  # type: ignore[attr-defined]


def convert(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as exit:
        main(["convert", *(str(argument) for argument in arguments)])
    return int(exit.value.code or 0)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.hl7").write_bytes(adt("A1", "P1") + adt("A2", "P2"))
    (tmp_path / "in" / "b.hl7").write_bytes(adt("B1", "P3") + BAD_TYPE + adt("B3", "P4"))
    (tmp_path / "in" / "c.hl7").write_bytes(BROKEN)
    (tmp_path / "in" / "notes.md").write_text("not a message")
    return tmp_path / "in"


def bundles(file: Path) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def test_all_converted_is_0_and_one_bundle_a_line(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.ndjson"
    assert convert(files / "a.hl7", "--out", out) == 0
    assert [bundle["resourceType"] for bundle in bundles(out)] == ["Bundle", "Bundle"]


def test_some_failed_is_1_and_each_is_named(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.ndjson"
    assert convert(files, "--out", out) == 1
    assert len(bundles(out)) == 4
    err = capsys.readouterr().err
    assert "b.hl7, message 2: MSH" in err
    assert "c.hl7" in err
    assert "geheim" not in err
    assert "4 converted, 2 failed" in err


def test_the_same_input_gives_the_same_bytes(files: Path, tmp_path: Path) -> None:
    convert(files, "--out", tmp_path / "one")
    convert(files, "--out", tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_issues_name_file_message_and_place(files: Path, tmp_path: Path) -> None:
    convert(files, "--out", tmp_path / "out", "--issues", tmp_path / "issues")
    issues = bundles(tmp_path / "issues")
    fatal = [issue for issue in issues if issue["severity"] == "fatal"]
    assert {(Path(issue["file"]).name, issue["message"]) for issue in fatal} >= {("b.hl7", 2)}
    assert all({"file", "message", "severity", "code", "location", "text"} <= issue.keys() for issue in issues)


def test_a_directory_a_pattern_and_a_file_named_twice(files: Path, tmp_path: Path) -> None:
    assert convert(files / "a.hl7", files / "a.*", files / "a.hl7", "--out", tmp_path / "out") == 0
    assert len(bundles(tmp_path / "out")) == 2


def test_stdin_to_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    out = BinaryOut()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(adt("S1", "P1")), encoding="utf-8"))
    monkeypatch.setattr("sys.stdout", out)
    assert convert("-") == 0
    assert json.loads(out.lines()[0])["resourceType"] == "Bundle"


def test_a_profile_is_used(files: Path, tmp_path: Path) -> None:
    profile = tmp_path / "p.toml"
    profile.write_text('name = "p"\n[assigning_authorities]\nHIS = "urn:oid:1.2.3"\n')
    assert convert(files / "a.hl7", "--profile", profile, "--out", tmp_path / "out") == 0
    assert b'"system":"urn:oid:1.2.3"' in (tmp_path / "out").read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("name = ", id="not TOML"),
        pytest.param("nonsense = 1", id="an unknown key"),
        pytest.param('name = "p"\ntime_zone = "Mars/Base"', id="a time zone that is none"),
    ],
)
def test_a_profile_that_cannot_be_used_is_wrong_usage(
    files: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "p.toml"
    profile.write_text(content)
    assert convert(files / "a.hl7", "--profile", profile) == 2
    assert "--profile" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "format"),
    [
        pytest.param(b"", "hl7v2", id="an empty file"),
        pytest.param(b"\x00\xff\xfe garbage", "hl7v2", id="garbage as hl7v2"),
        pytest.param(b"\x00\xff\xfe garbage", "csv", id="garbage as csv"),
        pytest.param(b"a,b\n1,2\n", "auto", id="a table of nobody's"),
    ],
)
def test_what_cannot_be_converted_fails_by_name(
    tmp_path: Path, content: bytes, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.dat"
    file.write_bytes(content)
    assert convert(file, "--format", format, "--out", tmp_path / "out") == 1
    assert str(file) in capsys.readouterr().err
    assert (tmp_path / "out").read_bytes() == b""


def test_an_interrupted_run_leaves_no_half_output(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bridge.commands.convert.convert", interrupted)
    assert convert(files, "--out", tmp_path / "out") == 130
    assert list(tmp_path.glob("out*")) == []


def test_a_summary_for_machines(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(files / "a.hl7", "--out", tmp_path / "out", "--json")
    assert json.loads(capsys.readouterr().err)["converted"] == 2


def test_a_directory_holds_files_of_other_formats(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --format, what evidently is another format is passed over and counted; a file named outright is not."""
    (files / "b.hl7").unlink()
    (files / "c.hl7").unlink()
    (files / "d.json").write_text('{"resourceType": "Patient"}')
    (files / "e.json").write_text('[{"id": 1}]')
    (files / "f.xml").write_text("<ClinicalDocument/>")
    assert (
        convert(files, "--format", "hl7v2", "--out", tmp_path / "out", "--issues", tmp_path / "issues", "--json") == 0
    )
    summary = json.loads(capsys.readouterr().err)
    assert (summary["converted"], summary["failed"], summary["skipped"]) == (2, 0, {"fhir": 2, "cda": 1})
    skipped = [each for each in bundles(tmp_path / "issues") if each["code"] == "skipped"]
    assert [Path(each["file"]).name for each in skipped] == ["d.json", "e.json", "f.xml"]
    assert convert(files, "--format", "hl7v2", "--out", tmp_path / "out") == 0
    assert "3 files in directories are not hl7v2 and were skipped: 1 cda, 2 fhir" in capsys.readouterr().err
    (files / "g.txt").write_text("not a message")  # may be meant as one: it fails by name
    assert convert(files, "--format", "hl7v2", "--out", tmp_path / "out") == 1
    assert convert(files / "d.json", "--format", "hl7v2", "--out", tmp_path / "out") == 1


def test_a_pipe_is_written_to_and_not_replaced(files: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert convert(files / "a.hl7", "--out", pipe) == 0
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert os.read(reader, 65536).startswith(b'{"entry"')
    finally:
        os.close(reader)
