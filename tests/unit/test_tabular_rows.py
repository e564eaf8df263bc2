"""Rows of the standard views: times, cells, what is refused, what is kept, and what becomes of it."""

# ruff: noqa: DTZ001 - databases give times without a zone, and that is what is tested

import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import fhir_adapters
from fhir_adapters.errors import AdapterError, DecodeError, ParseError, UnsupportedMessage
from fhir_adapters.identifiers import assigning_system, encounter_id, patient_id
from fhir_adapters.profile import SourceProfile
from fhir_adapters.result import ConversionResult
from fhir_adapters.tabular import VIEWS, convert, convert_rows
from fhir_adapters.tabular.times import to_date, to_datetime, to_instant
from fhir_adapters.validation import validate_bundle

SHANGHAI = ZoneInfo("Asia/Shanghai")
PROFILE = SourceProfile.from_toml('name = "his"\ndefault_authority = "HIS"\n')
PATIENT_ROW = {"row_key": "1", "updated_at": "2026-01-01 08:00:00", "patient_no": "00012"}
VISIT_ROW = PATIENT_ROW | {"visit_no": "ZY1", "visit_class": "I"}
LAB_ROW = PATIENT_ROW | {"report_no": "R1", "item_code": "GLU"}


def only(result: ConversionResult, type_name: str) -> dict[str, Any]:
    found = resources(result, type_name)
    assert len(found) == 1
    return found[0]


def resources(result: ConversionResult, type_name: str) -> list[dict[str, Any]]:
    every = (entry["resource"] for entry in result.bundle.get("entry", []))
    return [each for each in every if each["resourceType"] == type_name]


def remarks(result: ConversionResult) -> list[tuple[str, str]]:
    return [(each.code, each.location) for each in result.issues]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("20260102", "2026-01-02", id="yyyymmdd"),
        pytest.param("2026010208:09:10", "2026-01-02T08:09:10+08:00", id="char(16)"),
        pytest.param("20260102080910", "2026-01-02T08:09:10+08:00", id="fourteen digits"),
        pytest.param("202601020809", "2026-01-02T08:09:00+08:00", id="twelve digits"),
        pytest.param("2026-01-02 08:09:10.120", "2026-01-02T08:09:10.120+08:00", id="milliseconds kept"),
        pytest.param("2026-1-2 8:09", "2026-01-02T08:09:00+08:00", id="short"),
        pytest.param("2026/01/02", "2026-01-02", id="slashes"),
        pytest.param("2026年1月2日", "2026-01-02", id="Chinese"),
        pytest.param("2026年1月2日 8时09分10秒", "2026-01-02T08:09:10+08:00", id="Chinese with time"),
        pytest.param("2026-01-02T00:09:10Z", "2026-01-02T00:09:10+00:00", id="UTC"),
        pytest.param("2026-01-02T08:09:10-0330", "2026-01-02T08:09:10-03:30", id="offset"),
        pytest.param("2026-01", "2026-01", id="month"),
        pytest.param("2026", "2026", id="year"),
        pytest.param(" 20260102 ", "2026-01-02", id="blanks"),
        pytest.param(datetime(2026, 1, 2, 8, 9, 10), "2026-01-02T08:09:10+08:00", id="naive datetime"),
        pytest.param(datetime(2026, 1, 2, 8, tzinfo=UTC), "2026-01-02T08:00:00+00:00", id="aware datetime"),
        pytest.param(datetime(2026, 1, 2, 8, 0, 0, 1200), "2026-01-02T08:00:00.0012+08:00", id="microseconds"),
        pytest.param(date(2026, 1, 2), "2026-01-02", id="date"),
        pytest.param(datetime(1890, 1, 1, 12), "1890-01-01T12:00:00+08:05", id="local mean time"),
        pytest.param("2026-02-30", None, id="no such day"),
        pytest.param("20261301", None, id="no such month"),
        pytest.param("2026-01-02 24:00:00", None, id="hour 24"),
        pytest.param("2026010", None, id="seven digits"),
        pytest.param("2026-0102", None, id="mixed"),
        pytest.param("2026-01-02Z", None, id="zone without a time"),
        pytest.param("2026-01-02T08:00:00+15:00", None, id="offset out of range"),
        pytest.param("0000-00-00", None, id="zero date"),
        pytest.param("yesterday", None, id="words"),
        pytest.param("1" * 500, None, id="too long"),
    ],
)
def test_times_as_his_write_them(value: Any, expected: str | None):
    assert to_datetime(value, SHANGHAI) == expected
    assert to_date(value) == (expected[:10] if expected else None)


def test_an_instant_needs_a_day():
    assert to_instant("20260102", SHANGHAI) == "2026-01-02T00:00:00+08:00"
    assert to_instant("2026-01", SHANGHAI) is None
    assert to_instant("x", SHANGHAI) is None


def test_a_patient_row():
    row = PATIENT_ROW | {
        "NAME": "张三　",
        "Sex": "１",
        "birth_date": "19900307",
        "id_no": "33019919900307801X",
        "nation": "汉",
        "deceased_flag": "0",
        "contact_name": "李四",
        "contact_relation": "配偶",
    }
    result = convert_rows("his.v_iop_patient", [row], PROFILE)
    patient = only(result, "Patient")
    assert (patient["gender"], patient["birthDate"], patient["deceasedBoolean"]) == ("male", "1990-03-07", False)
    assert patient["name"] == [{"use": "official", "text": "张三"}]
    assert patient["extension"][0]["valueCoding"]["code"] == "01"
    assert [each["value"] for each in patient["identifier"]] == ["00012", "33019919900307801X"]
    assert patient["contact"][0]["relationship"][0]["coding"][0]["code"] == "SPS"
    assert remarks(result) == []
    provenance = only(result, "Provenance")
    assert provenance["target"] == [{"reference": f"Patient/{patient['id']}"}]
    assert provenance["recorded"] == result.bundle["timestamp"] == "2026-01-01T08:00:00+08:00"


def test_ids_are_those_of_the_business_numbers():
    system = assigning_system(PROFILE, "HIS")
    encounter = only(convert_rows("V_IOP_ENCOUNTER", [VISIT_ROW], PROFILE), "Encounter")
    assert encounter["id"] == encounter_id(PROFILE, system, "ZY1")
    assert encounter["subject"]["reference"] == "Patient/" + patient_id(PROFILE, system, "00012")
    other = only(convert_rows("V_IOP_PATIENT", [PATIENT_ROW | {"assigning_authority": "B"}], PROFILE), "Patient")
    assert other["id"] == patient_id(PROFILE, assigning_system(PROFILE, "B"), "00012")


@pytest.mark.parametrize(
    ("cells", "code", "column"),
    [
        pytest.param({"birth_date": "1990-02-30"}, "bad-value", "birth_date", id="date"),
        pytest.param({"sex": "X1"}, "unmapped-code", "sex", id="sex"),
        pytest.param({"id_no": "330199199003078010"}, "bad-identifier", "id_no", id="identity number"),
        pytest.param({"id_no": "33019919900307801X", "sex": "2"}, "conflict", "sex", id="sex against number"),
        pytest.param(
            {"id_no": "33019919900307801X", "birth_date": "19900308"}, "conflict", "birth_date", id="birth date"
        ),
        pytest.param({"active_flag": "maybe"}, "bad-value", "active_flag", id="flag"),
        pytest.param({"name": "a\x01b"}, "bad-value", "name", id="control character"),
        pytest.param({"name": b"\xff\xff"}, "bad-value", "name", id="bytes of no character set"),
        pytest.param({"updated_at": ""}, "missing", "updated_at", id="no watermark"),
        pytest.param({"updated_at": "x"}, "bad-value", "updated_at", id="bad watermark"),
    ],
)
def test_a_doubtful_cell_is_reported_and_the_patient_kept(cells: dict[str, Any], code: str, column: str):
    result = convert_rows("V_IOP_PATIENT", [PATIENT_ROW | cells], PROFILE)
    assert (code, f"row 1, column {column}") in remarks(result)
    assert only(result, "Patient")
    assert validate_bundle(result.bundle) == []


def test_what_cannot_be_read_is_kept_as_text():
    patient = only(
        convert_rows("V_IOP_PATIENT", [PATIENT_ROW | {"birth_date": "民国79年", "sex": "Q"}], PROFILE), "Patient"
    )
    assert patient["_birthDate"]["extension"][1]["valueString"] == "民国79年"
    assert patient["_gender"]["extension"][1]["valueString"] == "Q"


def test_a_row_without_its_key_is_left_out_and_named():
    rows = [
        PATIENT_ROW,
        PATIENT_ROW | {"patient_no": " 　"},
        PATIENT_ROW | {"patient_no": "NULL"},
        PATIENT_ROW | {"patient_no": 7},
    ]
    result = convert_rows("V_IOP_PATIENT", rows, PROFILE)
    assert remarks(result) == [("bad-row", "row 2, column patient_no"), ("bad-row", "row 3, column patient_no")]
    assert [each.severity for each in result.issues] == ["error", "error"]
    assert len(resources(result, "Patient")) == 2


def test_unknown_columns_are_named_once():
    result = convert_rows("V_IOP_PATIENT", [PATIENT_ROW | {"shoe_size": 1}, PATIENT_ROW | {"shoe_size": 2}], PROFILE)
    assert remarks(result) == [("not-mapped", "column shoe_size")]


def test_a_merged_record_points_to_its_survivor():
    patient = only(convert_rows("V_IOP_PATIENT", [PATIENT_ROW | {"merged_into_no": "00013"}], PROFILE), "Patient")
    assert patient["active"] is False
    assert patient["link"][0]["type"] == "replaced-by"
    assert patient["link"][0]["other"]["reference"].endswith(
        patient_id(PROFILE, assigning_system(PROFILE, ""), "00013")
    )


def test_an_encounter_with_bed_department_and_diagnosis():
    row = VISIT_ROW | {
        "start_at": datetime(2026, 1, 1, 9),
        "dept_code": "01",
        "dept_name": "心内科",
        "ward_code": "W1",
        "bed_no": "１２",
        "attending_code": "D1",
        "diagnosis_code": "E11.900",
        "diagnosis_name": "2型糖尿病",
    }
    result = convert_rows("V_IOP_ENCOUNTER", [row], PROFILE)
    encounter = only(result, "Encounter")
    assert (encounter["status"], encounter["class"]["code"]) == ("in-progress", "IMP")
    ward, bed = resources(result, "Location")
    assert bed["name"] == "12"
    assert bed["partOf"] == {"reference": f"Location/{ward['id']}"}
    assert encounter["location"][0]["location"] == {"reference": f"Location/{bed['id']}"}
    assert [each["code"] for each in only(result, "Condition")["code"]["coding"]] == ["E11.900", "E11.9"]
    assert remarks(result) == []


@pytest.mark.parametrize(
    ("cells", "status"),
    [
        pytest.param({}, "unknown", id="nothing told"),
        pytest.param({"start_at": "20260101"}, "in-progress", id="begun"),
        pytest.param({"start_at": "20260101", "end_at": "20260102"}, "finished", id="ended"),
        pytest.param({"status": "在院"}, "in-progress", id="Chinese"),
        pytest.param({"status": "9"}, "cancelled", id="code"),
        pytest.param({"status": "??"}, "unknown", id="unmapped"),
    ],
)
def test_the_status_of_an_encounter(cells: dict[str, Any], status: str):
    assert only(convert_rows("V_IOP_ENCOUNTER", [VISIT_ROW | cells], PROFILE), "Encounter")["status"] == status


def test_an_end_before_the_start_is_reported():
    row = VISIT_ROW | {"start_at": "2026-01-02 10:00", "end_at": "2026-01-02 09:00"}
    result = convert_rows("V_IOP_ENCOUNTER", [row], PROFILE)
    assert ("conflict", "row 1, column end_at") in remarks(result)


@pytest.mark.parametrize(
    ("cells", "value"),
    [
        pytest.param(
            {"result": "6.10", "unit": "mmol/L"}, ("valueQuantity", "6.10", None, "mmol/L"), id="number with UCUM"
        ),
        pytest.param(
            {"result": Decimal("0.40"), "unit": "×10^9/L"}, ("valueQuantity", "0.40", None, "10*9/L"), id="Decimal"
        ),
        pytest.param({"result": 7}, ("valueQuantity", "7", None, None), id="int"),
        pytest.param({"result": "＜0.01", "unit": "某单位"}, ("valueQuantity", "0.01", "<", None), id="comparator"),
        pytest.param({"result": "≥100"}, ("valueQuantity", "100", ">=", None), id="sign of its own"),
        pytest.param({"result": "阴性"}, ("valueString", "阴性"), id="text"),
        pytest.param({"result": "1:80", "unit": "滴度"}, ("valueString", "1:80 滴度"), id="titre keeps its unit"),
        pytest.param({"result": ""}, ("dataAbsentReason",), id="none"),
    ],
)
def test_results(cells: dict[str, Any], value: tuple[Any, ...]):
    observation = only(convert_rows("V_IOP_LAB", [LAB_ROW | cells], PROFILE), "Observation")
    found = observation[value[0]]
    if value[0] == "valueQuantity":
        assert (found["value"].lexeme, found.get("comparator"), found.get("code")) == value[1:]
    elif value[0] == "valueString":
        assert found == value[1]


def test_a_report_of_several_rows():
    rows = [
        LAB_ROW
        | {
            "row_key": i,
            "item_code": f"I{i}",
            "result": str(i),
            "item_count": 3,
            "request_no": "Q1",
            "specimen_no": "S1",
        }
        for i in range(3)
    ]
    result = convert_rows("V_IOP_LAB", rows, PROFILE)
    report = only(result, "DiagnosticReport")
    assert [each["reference"] for each in report["result"]] == [
        f"Observation/{each['id']}" for each in resources(result, "Observation")
    ]
    assert len(report["result"]) == 3
    assert report["basedOn"] == [{"reference": f"ServiceRequest/{only(result, 'ServiceRequest')['id']}"}]
    assert report["specimen"] == [{"reference": f"Specimen/{only(result, 'Specimen')['id']}"}]
    assert remarks(result) == []


@pytest.mark.parametrize(
    ("rows", "code", "place"),
    [
        pytest.param([{"item_count": "2"}], "incomplete", "row 1, column item_count", id="half a report"),
        pytest.param(
            [{}, {"item_code": "K", "patient_no": "9"}], "conflict", "row 2, column patient_no", id="two patients"
        ),
        pytest.param([{}, {}], "conflict", "row 2, column item_code", id="one item twice"),
        pytest.param([{"item_loinc": "glucose"}], "bad-value", "row 1, column item_loinc", id="no LOINC"),
        pytest.param([{"range_low": "low"}], "bad-value", "row 1, column range_low", id="range"),
        pytest.param([{"reported_at": "2026"}], "bad-value", "row 1, column reported_at", id="no instant"),
    ],
)
def test_doubtful_reports(rows: list[dict[str, Any]], code: str, place: str):
    result = convert_rows("V_IOP_LAB", [LAB_ROW | each for each in rows], PROFILE)
    assert (code, place) in remarks(result)


def test_patients_do_not_share_a_provenance():
    rows = [LAB_ROW, LAB_ROW | {"report_no": "R2", "patient_no": "9"}]
    targets = [each["target"] for each in resources(convert_rows("V_IOP_LAB", rows, PROFILE), "Provenance")]
    assert len(targets) == 2
    assert not {each["reference"] for each in targets[0]} & {each["reference"] for each in targets[1]}


def test_the_same_rows_give_the_same_bytes_and_no_rows_give_none():
    first, second = (convert_rows("V_IOP_LAB", [dict(LAB_ROW)], PROFILE).to_json() for _ in range(2))
    assert first == second
    assert convert_rows("V_IOP_LAB", [], PROFILE).bundle == {"resourceType": "Bundle", "type": "transaction"}


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_in_each_charset_and_delimiter(charset: str, delimiter: str):
    lines = [
        "row_key,updated_at,patient_no,name".replace(",", delimiter),
        "1,20260101,00012,张三".replace(",", delimiter),
        "",
    ]
    result = fhir_adapters.convert("\r\n".join(lines).encode(charset), "csv", PROFILE)
    assert only(result, "Patient")["name"][0]["text"] == "张三"


def test_csv_rows_are_named_and_the_format_is_detected():
    raw = b'patient_no,name,updated_at,row_key\n1,"a ""b""\nc",20260101,1\n\n,x,20260101,2\n'
    assert fhir_adapters.detect_format(raw) == "csv"
    result = fhir_adapters.convert(raw, "auto", PROFILE)
    assert remarks(result) == [("bad-row", "row 2, column patient_no")]
    assert list(fhir_adapters.messages(raw, "csv")) == [raw]


@pytest.mark.parametrize(
    ("raw", "error", "place"),
    [
        pytest.param(b"", ParseError, "header", id="empty"),
        pytest.param(b"a,b\n1,2\n", ParseError, "header", id="no view's columns"),
        pytest.param(b"patient_no,name\n1,2,3\n", ParseError, "line 2", id="too many fields"),
        pytest.param(b'patient_no,name\n1,"a\n', ParseError, "line", id="open quote"),
        pytest.param(b"patient_no\n" + b"\xff\xfe\xfd\x80\xff\n", DecodeError, "", id="no character set"),
        pytest.param(b"\xff\xfe\x00", DecodeError, "", id="half UTF-16"),
    ],
)
def test_files_that_are_refused(raw: bytes, error: type[AdapterError], place: str):
    with pytest.raises(error) as caught:
        convert(raw, PROFILE)
    assert place in caught.value.location


def test_an_unknown_view_or_format_is_refused():
    with pytest.raises(UnsupportedMessage, match="V_IOP_PATIENT"):
        convert_rows("V_IOP_SECRET", [], PROFILE)
    with pytest.raises(UnsupportedMessage, match="hl7v2"):
        fhir_adapters.convert(b"", "xls")
    with pytest.raises(UnsupportedMessage, match="hl7v2"):
        fhir_adapters.messages(b"", "xls")


def test_contract_ddl_and_document_say_the_same():
    ddl = files("fhir_adapters.tabular").joinpath("contract.sql").read_text("utf-8")
    document = (Path(__file__).resolve().parents[2] / "docs" / "view-contract.md").read_text("utf-8")
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(ddl)
        for view in VIEWS.values():
            columns = database.execute(f"PRAGMA table_info({view.name})").fetchall()
            assert {name: bool(required) for _, name, _, required, _, _ in columns} == {
                column.name: column.required for column in view.columns.values()
            }
            section = document.partition(f"## {view.name}\n")[2].partition("\n## ")[0]
            for column in view.columns.values():
                assert (
                    f"| `{column.name}`{' *' if column.required else ''} | {column.kind} | {column.meaning} |"
                    in section
                )


def test_the_example_views_run_and_convert():
    example = files("fhir_adapters.tabular").joinpath("views_example.sql").read_text("utf-8")
    tables = """
    CREATE TABLE PAT_MASTER_INDEX (PATIENT_ID, UPDATED_TIME, NAME, SEX, DATE_OF_BIRTH, ID_NO, NATION,
      PHONE_NUMBER_HOME,
      MAILING_ADDRESS, ZIP_CODE, NEXT_OF_KIN, RELATIONSHIP, NEXT_OF_KIN_PHONE);
    CREATE TABLE PAT_VISIT (PATIENT_ID, VISIT_ID, UPDATED_TIME, ADMISSION_DATE_TIME, DISCHARGE_DATE_TIME,
      DEPT_DISCHARGE_FROM, ATTENDING_DOCTOR);
    CREATE TABLE PATS_IN_HOSPITAL (PATIENT_ID, VISIT_ID, DEPT_CODE, WARD_CODE, BED_NO);
    CREATE TABLE DEPT_DICT (DEPT_CODE, DEPT_NAME);
    CREATE TABLE LAB_TEST_MASTER (TEST_NO, PATIENT_ID, VISIT_ID, UPDATED_TIME, SPECIMEN,
      SPCM_RECEIVED_DATE_TIME, RESULTS_RPT_DATE_TIME, TRANSCRIPTIONIST);
    CREATE TABLE LAB_RESULT (TEST_NO, ITEM_NO, PRINT_ORDER, REPORT_ITEM_CODE, REPORT_ITEM_NAME, RESULT,
      UNITS, PRINT_CONTEXT, ABNORMAL_INDICATOR, RESULT_DATE_TIME);
    INSERT INTO PAT_MASTER_INDEX VALUES ('P1', '2026-01-01 08:00:00', '张三', '男', '19900307', NULL, '汉族', '1',
      '某路1号', NULL, '李四', '配偶', '2');
    INSERT INTO PAT_VISIT VALUES ('P1', 1, '2026-01-01 08:00:00', '2026-01-01 07:00:00', NULL, NULL, '王五');
    INSERT INTO PATS_IN_HOSPITAL VALUES ('P1', 1, 'D1', 'W1', 3);
    INSERT INTO DEPT_DICT VALUES ('D1', '内科');
    INSERT INTO LAB_TEST_MASTER VALUES ('T1', 'P1', 1, '2026-01-01 09:00:00', '血清', '2026-01-01 08:30:00',
      '2026-01-01 09:00:00', '赵六');
    INSERT INTO LAB_RESULT VALUES ('T1', 1, 1, 'GLU', '葡萄糖', '6.10', 'mmol/L', '3.9-6.1', '↑',
      '2026-01-01 08:50:00');
    """
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(tables + example)
        database.row_factory = sqlite3.Row
        results = [
            convert_rows(view, [dict(row) for row in database.execute(f"SELECT * FROM {view}")], PROFILE)
            for view in ("V_IOP_PATIENT", "V_IOP_ENCOUNTER", "V_IOP_LAB")
        ]
    assert [remarks(result) for result in results] == [[], [], []]
    patient, encounter, observation = (
        only(r, t) for r, t in zip(results, ("Patient", "Encounter", "Observation"), strict=True)
    )
    assert observation["subject"]["reference"] == encounter["subject"]["reference"] == f"Patient/{patient['id']}"
    assert observation["encounter"]["reference"] == f"Encounter/{encounter['id']}"
    assert observation["interpretation"][0]["coding"][0]["code"] == "H"


def test_blanks_of_other_widths_become_plain_ones() -> None:
    result = convert_rows(
        "V_IOP_PATIENT", [{"patient_no": "1", "name": "欧阳\u3000某", "address": "路\xa01号"}], PROFILE
    )
    (patient,) = [each["resource"] for each in result.bundle["entry"] if each["resource"]["resourceType"] == "Patient"]
    assert patient["name"][0]["text"] == "欧阳 某"
    assert patient["address"][0]["line"] == ["路 1号"]
