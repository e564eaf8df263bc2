"""The drop folder: whole files only, by one rename, nothing twice, and what was wrong told by line and column."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from bridge.errors import IngestError, StorageError
from bridge.services.conversion import conversion
from bridge.services.drop_folder import DropFolder
from bridge.services.fhir_intake import FhirIntake
from bridge.services.fhir_resolution import FhirResolver, resolving
from bridge.services.file_intake import FileIntake
from bridge.services.ingest import IngestService
from bridge.settings import SourceSettings
from fhir_adapters import SourceProfile
from tests.stores import Clock, Stores, _sqlite_template, sqlite_stores  # noqa: F401 - fixtures

PATIENTS = "patient_no,name,birth_date\n00012,张三,19900307\n00013,李四,昨天\n,无号,\n"
GOOD = "patient_no,name\n00012,张三\n"


class Folder:
    """A folder with a node behind it and a clock."""

    def __init__(self, path: Path, stores: Stores, **changes: Any) -> None:
        self.path, self.stores, self.clock = path, stores, Clock(path.stat().st_mtime)
        profile = SourceProfile.from_toml('name = "lis"\ndefault_authority = "HIS"\n')
        converter = resolving(conversion, FhirResolver(stores.records))
        profiles = {"lis": profile}
        self.ingest = IngestService(
            stores.engine, stores.inbox, stores.records, profiles, self.clock, converter=converter
        )
        fhir = FhirIntake(stores.inbox, lambda _: profile, 0.0)
        settings = SourceSettings(name="lis", kind="folder", path=str(path), settle_seconds=10, **changes)
        self.service = DropFolder(settings, path, FileIntake(self.ingest, lambda _: profile, fhir), self.clock)

    def put(self, name: str, content: bytes | str) -> Path:
        file = self.path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def run(self) -> Any:
        """Look, let the files settle, and look again."""
        self.service.run()
        self.clock.forward(11)
        return self.service.run()

    def names(self, folder: str = "") -> set[str]:
        return {each.name for each in (self.path / folder).iterdir() if each.is_file()}

    def errors(self, name: str, folder: str = "done") -> list[dict[str, str]]:
        content = (self.path / folder / f"{name}.errors.csv").read_text("utf-8-sig")
        return list(csv.DictReader(io.StringIO(content)))

    def messages(self) -> int:
        return sum(self.stores.inbox.counts().values())


@pytest.fixture
def folder(tmp_path: Path, sqlite_stores: Stores) -> Folder:  # noqa: F811
    path = tmp_path / "drop"
    path.mkdir()
    return Folder(path, sqlite_stores)


def test_a_file_is_taken_in_and_becomes_records(folder: Folder) -> None:
    folder.put("patients.csv", PATIENTS)
    done = folder.run()
    assert (done.files, done.failed, done.records) == (1, 0, 3)
    assert folder.names() == set()
    assert folder.names("done") == {"patients.csv", "patients.csv.errors.csv"}
    folder.ingest.process(10)
    assert folder.stores.records.count("Patient") == 2


def test_what_is_wrong_stands_beside_the_file_by_line_and_column(folder: Folder) -> None:
    folder.put("patients.csv", PATIENTS)
    folder.run()
    found = [(each["line"], each["column"], each["severity"], each["code"]) for each in folder.errors("patients.csv")]
    assert found == [("3", "birth_date", "warning", "bad-value"), ("4", "patient_no", "error", "bad-row")]
    assert "昨天" not in (folder.path / "done" / "patients.csv.errors.csv").read_text("utf-8-sig")


def test_a_file_without_faults_has_no_errors_file(folder: Folder) -> None:
    folder.put("p.csv", GOOD)
    folder.run()
    assert folder.names("done") == {"p.csv"}


def test_the_same_file_again_creates_nothing(folder: Folder) -> None:
    folder.put("p.csv", GOOD)
    folder.run()
    before = folder.messages()
    folder.put("again.csv", GOOD)
    assert folder.run().records == 0
    assert folder.messages() == before
    assert folder.names("done") == {"p.csv", "again.csv"}


def test_a_record_that_returns_to_an_earlier_content_is_taken_in_again(folder: Folder) -> None:
    for number, name in enumerate(("张三", "张三丰", "张三")):
        folder.put(f"{number}.csv", f"patient_no,name\n00012,{name}\n" + "\n" * number)
        folder.run()
        folder.ingest.process(10)
    with folder.stores.engine.connect() as connection:
        versions = connection.exec_driver_sql("SELECT count(*) FROM resource_version WHERE type = 'Patient'").scalar()
    assert versions == 3


def test_a_file_that_still_grows_is_left_alone(folder: Folder) -> None:
    file = folder.put("p.csv", "patient_no,name\n")
    for _ in range(5):
        folder.service.run()
        with file.open("a") as stream:
            stream.write("00012,张三\n")
        folder.clock.forward(9)
    assert folder.names() == {"p.csv"}
    folder.clock.forward(9)
    folder.service.run()
    folder.clock.forward(10)
    assert folder.service.run().files == 1


@pytest.mark.parametrize(
    "name", ["p.csv.part", "p.tmp", "~$p.xlsx", ".p.csv", "p.pdf", "p.csv.errors.csv", "p.CSV.PART"]
)
def test_names_of_half_files_and_of_others_are_left_alone(folder: Folder, name: str) -> None:
    folder.put(name, GOOD)
    assert not folder.run()
    assert name in folder.names()


def test_a_link_is_not_followed(folder: Folder, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text(GOOD)
    (folder.path / "p.csv").symlink_to(secret)
    assert not folder.run()
    assert secret.exists()


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        pytest.param("p.csv", b"a,b\n1,2\n", "ParseError", id="columns of no view"),
        pytest.param("p.csv", b"\xff\xfe\xff", "DecodeError", id="no character set"),
        pytest.param("p.csv", b"", "ParseError", id="empty"),
        pytest.param("p.xlsx", b"PK\x03\x04nonsense", "ParseError", id="no workbook"),
        pytest.param("p.xls", b"\xd0\xcf\x11\xe0old", "UnsupportedMessage", id="Excel 97"),
        pytest.param("p.csv", b"patient_no,name\n,x\n,y\n", "bad-row", id="not one good row"),
    ],
)
def test_a_file_of_which_nothing_can_be_taken_fails_and_says_why(
    folder: Folder, name: str, content: bytes, code: str
) -> None:
    folder.put(name, content)
    folder.run()
    assert folder.names("failed") == {name, f"{name}.errors.csv"}
    assert folder.errors(name, "failed")[0]["code"] == code


def test_a_file_that_is_too_large_fails_unread(tmp_path: Path, sqlite_stores: Stores) -> None:  # noqa: F811
    path = tmp_path / "drop"
    path.mkdir()
    folder = Folder(path, sqlite_stores, max_file_bytes=1024)
    folder.put("p.csv", GOOD + "x" * 2000)
    folder.run()
    assert folder.errors("p.csv", "failed")[0]["code"] == "too-large"


def test_a_workbook_is_taken_in_sheet_by_sheet(folder: Folder) -> None:
    book = Workbook()
    book.active.title = "患者"
    book.active.append(["patient_no", "name", "birth_date"])
    book.active.append(["00012", "张三", "昨天"])
    lab = book.create_sheet("检验")
    lab.append(["report_no", "patient_no", "item_code", "result"])
    for item in range(3):
        lab.append(["R1", "00012", f"I{item}", item])
    book.create_sheet("说明").append(["导出说明"])
    target = io.BytesIO()
    book.save(target)
    folder.put("hospital.xlsx", target.getvalue())
    assert folder.run().records == 2
    remarks = [(each["sheet"], each["line"], each["column"]) for each in folder.errors("hospital.xlsx")]
    assert ("患者", "2", "birth_date") in remarks
    assert ("说明", "", "") in remarks
    while folder.ingest.process(10):
        pass
    assert (folder.stores.records.count("Observation"), folder.stores.records.count("DiagnosticReport")) == (3, 1)


def test_the_name_of_a_file_may_say_which_view_it_is(folder: Folder) -> None:
    folder.put("V_IOP_PATIENT_20260101.csv", "patient_no,visit_no,diagnosis_name\n00012,V1,x\n")
    folder.run()
    folder.ingest.process(10)
    assert folder.stores.records.count("Patient") == 1
    assert folder.stores.records.count("Condition") == 0


class _Dying:
    """Stands before the inbox and fails after some deliveries, as when the node dies or its disk is full."""

    def __init__(self, ingest: IngestService, deliveries: int) -> None:
        self._ingest, self._left = ingest, deliveries

    def receive_rows(self, *arguments: Any, **named: Any) -> Any:
        if self._left == 0:
            raise StorageError
        self._left -= 1
        return self._ingest.receive_rows(*arguments, **named)


def test_a_reading_that_broke_off_is_taken_up_again(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.services.row_delivery.SENDERS", 1)
    folder.put("p.csv", "patient_no,name\n" + "".join(f"{n:05},n{n}\n" for n in range(20)))
    whole = folder.service._intake._receiver
    folder.service._intake._receiver = _Dying(folder.ingest, 7)
    with pytest.raises(StorageError):
        folder.run()
    assert folder.names(".processing") == {"p.csv"}
    assert folder.messages() == 7
    folder.service._intake._receiver = whole
    assert folder.service.run().records == 13
    assert folder.messages() == 20
    assert folder.names("done") == {"p.csv"}


def test_a_name_that_is_taken_gets_a_mark(folder: Folder) -> None:
    folder.put("p.csv", GOOD)
    folder.run()
    folder.put("p.csv", GOOD.replace("张三", "张三丰"))
    folder.run()
    first, second = sorted(folder.names("done"), key=len)
    assert first == "p.csv"
    assert second.startswith("p-")


def test_what_was_taken_in_does_not_lie_about_for_ever(folder: Folder) -> None:
    folder.put("p.csv", GOOD)
    folder.put("bad.csv", "a\n1\n")
    folder.run()
    done = folder.path / "done" / "p.csv"
    old = folder.clock.now - 8 * 86400
    os.utime(done, (old, old))
    folder.service.run()
    assert folder.names("done") == set()
    assert "bad.csv" in folder.names("failed")


def test_a_folder_that_is_gone_is_named(folder: Folder) -> None:
    folder.path.rmdir()
    with pytest.raises(IngestError, match=r"sources\.lis\.path"):
        folder.service.run()


NDJSON = (
    '{"resourceType":"Patient","id":"p1","gender":"female"}\n'
    '{"resourceType":"Patient","id":"p2","birthDate":"昨天"}\n'
    '{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/p1"}}\n'
)


def test_fhir_is_taken_in_line_by_line_and_what_is_wrong_told_by_its_path(folder: Folder) -> None:
    folder.put("export.ndjson", NDJSON)
    done = folder.run()
    assert (done.files, done.failed, done.records) == (1, 0, 2)
    folder.ingest.process(10)
    print([(e.id, e.state, e.location, e.reason) for e in folder.stores.inbox.list()])
    assert [folder.stores.records.count(kind) for kind in ("Patient", "Observation")] == [1, 1]
    assert [(each["line"], each["column"]) for each in folder.errors("export.ndjson")] == [("2", "Patient.birthDate")]
    folder.put("again.ndjson", NDJSON)
    assert folder.run().records == 0


def test_a_fhir_file_of_which_nothing_can_be_taken_fails(folder: Folder) -> None:
    folder.put("bad.json", '{"resourceType":"Patient","birthDate":"昨天"}')
    assert folder.run().failed == 1
    assert folder.errors("bad.json", "failed")[0]["column"] == "Patient.birthDate"
