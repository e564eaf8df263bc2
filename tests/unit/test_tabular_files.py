"""CSV files and workbooks of the standard views: character sets, what a sheet shows, and what is refused unopened."""

from __future__ import annotations

import io
import zipfile
from datetime import date, datetime, time
from typing import Any

import pytest
from openpyxl import Workbook

import fhir_adapters
from fhir_adapters.errors import AdapterError, DecodeError, ParseError, UnsupportedMessage
from fhir_adapters.profile import SourceProfile
from fhir_adapters.tabular import workbook
from fhir_adapters.tabular.csv_file import read_csv
from fhir_adapters.validation import validate_bundle

PROFILE = SourceProfile.from_toml('name = "his"\ndefault_authority = "HIS"\n')
TEXT = "patient_no,name,sex\n00012,张三,男\n"


def book(**sheets: list[list[Any]]) -> bytes:
    made = Workbook()
    made.remove(made.active)
    for title, rows in sheets.items():
        sheet = made.create_sheet(title)
        for row in rows:
            sheet.append(row)
    return saved(made)


def saved(made: Workbook) -> bytes:
    target = io.BytesIO()
    made.save(target)
    return target.getvalue()


def repacked(raw: bytes, **changes: bytes) -> bytes:
    """A workbook with parts replaced or added; names with / written as __."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        new = {name.replace("__", "/"): content for name, content in changes.items()}
        for part in source.infolist():
            made.writestr(part.filename, new.pop(part.filename, None) or source.read(part.filename))
        for name, content in new.items():
            made.writestr(name, content)
    return target.getvalue()


def patient(raw: bytes, format: str = "xlsx") -> dict[str, Any]:
    result = fhir_adapters.convert(raw, format, PROFILE)
    assert validate_bundle(result.bundle) == []
    return next(e["resource"] for e in result.bundle["entry"] if e["resource"]["resourceType"] == "Patient")


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_csv_file_in_any_character_set_that_offices_write(charset: str) -> None:
    assert patient(TEXT.encode(charset), "csv")["name"][0]["text"] == "张三"


def test_a_csv_file_in_the_profiles_character_set() -> None:
    profile = SourceProfile.from_toml('name = "tw"\ncharset = "big5"\n')
    text = "patient_no,name\n1,張三豐\n"
    assert read_csv(text.encode("big5"), profile).rows[0]["name"] == "張三豐"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_file_with_any_delimiter(delimiter: str) -> None:
    assert patient(TEXT.replace(",", delimiter).encode(), "csv")["gender"] == "male"


def test_rows_of_a_csv_file_know_their_lines() -> None:
    table = read_csv(b'\n\npatient_no,name\n1,"a\nb"\n\n2,c\n', PROFILE)
    assert [row["patient_no"] for row in table.rows] == ["1", "2"]
    assert table.places == (4, 7)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        pytest.param(b"", ParseError, id="empty"),
        pytest.param(b"\n\n", ParseError, id="blank lines"),
        pytest.param(b"a,b\n1,2\n", ParseError, id="columns of no view"),
        pytest.param(b"patient_no,name\n1,2,3\n", ParseError, id="more fields than columns"),
        pytest.param(b"patient_no,name,Name\n1,2,3\n", ParseError, id="a column twice"),
        pytest.param(b'patient_no,name\n1,"2\n', ParseError, id="an open quote"),
        pytest.param(b"patient_no,name\n1,\xff\xff\xff\n", DecodeError, id="no character set"),
        pytest.param(b"patient_no" + b",c" * 1200 + b"\n", ParseError, id="more columns than any table"),
    ],
)
def test_a_csv_file_that_cannot_be_read_is_refused(raw: bytes, kind: type[AdapterError]) -> None:
    with pytest.raises(kind):
        read_csv(raw, PROFILE)


def test_a_workbook_with_several_views_becomes_one_bundle() -> None:
    raw = book(
        患者=[["patient_no", "name", "sex"], ["00012", "张三", 1]],
        就诊=[["visit_no", "patient_no", "visit_class", "attending_code"], ["V1", "00012", "I", "1001"]],
        职工=[["staff_no", "name", "title"], ["1001", "赵医生", "主任医师"]],
        说明=[["本表由信息科导出"]],
    )
    result = fhir_adapters.convert(raw, "auto", PROFILE)
    types = [entry["resource"]["resourceType"] for entry in result.bundle["entry"]]
    assert {"Patient", "Encounter", "Practitioner"} <= set(types)
    assert validate_bundle(result.bundle) == []
    practitioner = next(e for e in result.bundle["entry"] if e["resource"]["resourceType"] == "Practitioner")
    assert practitioner["resource"]["qualification"]  # the sheet about staff, not the one that mentions them
    assert ("not-mapped", "sheet 说明") in [(each.code, each.location) for each in result.issues]
    assert result.to_json() == fhir_adapters.convert(raw, "xlsx", PROFILE).to_json()


def test_a_header_below_a_title_is_found() -> None:
    assert (
        patient(book(导出=[["患者清单"], [], ["patient_no", "name"], ["00012", "张三"]]))["name"][0]["text"] == "张三"
    )


def test_cells_are_read_as_a_person_reads_them() -> None:
    made = Workbook()
    sheet = made.active
    sheet.append(["report_no", "patient_no", "item_code", "result", "collected_at", "reported_at", "comment_text"])
    sheet.append(["R1", 12, "GLU", 6.1, datetime(2026, 1, 2), datetime(2026, 1, 2, 8, 30), time(8, 30)])  # noqa: DTZ001
    sheet["B2"].number_format = "00000"
    sheet["D2"].number_format = "0.00"
    sheet["E2"].number_format = "yyyy/m/d"
    sheet["F2"].number_format = "yyyy/m/d h:mm"
    tables, _ = workbook.read_workbook(saved(made))
    row = tables[0].rows[0]
    assert row["patient_no"] == "00012"
    assert row["result"] == "6.10"
    assert row["collected_at"] == date(2026, 1, 2)
    assert row["reported_at"] == datetime(2026, 1, 2, 8, 30)  # noqa: DTZ001
    assert row["comment_text"] == "08:30:00"
    assert tables[0].places == (2,)


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        pytest.param(6.1, "General", 6.1, id="general"),
        pytest.param(1234.5, "#,##0.00", "1234.50", id="thousands are a decoration"),
        pytest.param(6.15, "0.0", "6.2", id="as shown"),
        pytest.param(7, "0", 7, id="whole"),
        pytest.param(0.5, "0%", 0.5, id="percent is left alone"),
        pytest.param(True, "General", True, id="truth"),
    ],
)
def test_numbers_keep_the_digits_that_they_show(value: Any, form: str, expected: Any) -> None:
    class Cell:
        pass

    cell = Cell()
    cell.value, cell.number_format = value, form  # type: ignore[attr-defined]
    assert workbook._value(cell) == expected


PLAIN = book(患者=[["patient_no", "name"], ["1", "a"]])
DOCTYPE = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><sst/>'


@pytest.mark.parametrize(
    ("raw", "kind", "text"),
    [
        pytest.param(b"PK\x03\x04" + b"x" * 50, ParseError, "damaged", id="no archive"),
        pytest.param(PLAIN[:-60], ParseError, "damaged", id="cut off"),
        pytest.param(b"\xd0\xcf\x11\xe0" + b"\0" * 50, UnsupportedMessage, "xlsx", id="Excel 97, or a password"),
        pytest.param(repacked(PLAIN, xl__evil__xml=b"").replace(b"xl/workbook.xml", b"xl/workbokk.xml"), ParseError,
                     "can be read", id="an archive that is no workbook"),
        pytest.param(repacked(PLAIN, **{"xl/sharedStrings.xml": DOCTYPE}), ParseError, "document type", id="entities"),
        pytest.param(repacked(PLAIN, **{"xl/x.xml": DOCTYPE.decode().encode("utf-16")}), ParseError, "UTF-8",
                     id="entities behind UTF-16"),
        pytest.param(repacked(PLAIN, **{"xl/x.xml": b" " * 1048570 + DOCTYPE}), ParseError, "document type",
                     id="entities far down"),
        pytest.param(repacked(PLAIN, **{"xl/worksheets/sheet1.xml": b"<worksheet><sheetData><row><c"}), ParseError,
                     "read", id="a sheet that is no XML"),
        pytest.param(book(a=[["x", "y"], [1, 2]]), ParseError, "no sheet", id="no view"),
    ],
)  # fmt: skip
def test_a_workbook_that_cannot_be_taken_is_refused(raw: bytes, kind: type[AdapterError], text: str) -> None:
    with pytest.raises(kind, match=text):
        workbook.read_workbook(raw)


def test_a_workbook_that_unpacks_to_too_much_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = repacked(PLAIN, **{"xl/media/image1.png": b"\0" * 30_000_000})
    assert len(bomb) < 100_000
    monkeypatch.setattr(workbook, "MAX_UNPACKED_BYTES", 20_000_000)
    with pytest.raises(ParseError, match="unpacks"):
        workbook.read_workbook(bomb)
    monkeypatch.setattr(workbook, "MAX_PARTS", 3)
    with pytest.raises(ParseError, match="parts"):
        workbook.read_workbook(PLAIN)


def test_what_a_sheet_says_of_its_size_is_not_believed() -> None:
    with zipfile.ZipFile(io.BytesIO(PLAIN)) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml")
    wide = sheet.replace(b'ref="A1:B2"', b'ref="A1:XFD1048576"')
    assert wide != sheet
    tables, _ = workbook.read_workbook(repacked(PLAIN, **{"xl/worksheets/sheet1.xml": wide}))
    assert len(tables[0].rows) == 1


def test_formats_are_told_apart() -> None:
    assert fhir_adapters.detect_format(PLAIN) == "xlsx"
    assert fhir_adapters.detect_format(TEXT.encode()) == "csv"
    assert list(fhir_adapters.messages(PLAIN, "xlsx")) == [PLAIN]
