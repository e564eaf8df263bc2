"""`yiqiao profile`: what a profile makes of samples, without a word of the patients in what is handed on."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from bridge.cli import main
from bridge.settings import CONFIG_DIRECTORY
from fhir_adapters import SourceProfile, hl7v2
from fhir_adapters.coverage.masking import shown
from fhir_adapters.errors import ProfileError

CDA_SAMPLES = Path(__file__).parent.parent / "golden" / "cda"

PEOPLE = ("张三丰", "110101199003074610", "13800001111", "MRN778899", "中山路")
PLAIN = 'name = "site"\n'


def message(control_id: str = "1", sex: str = "X7", pid: str = "", more: str = "") -> bytes:
    lines = (
        f"MSH|^~\\&|HIS|A|||20260101080000||ADT^A08|{control_id}|P|2.4|||||CHN|UNICODE UTF-8",
        "EVN|A08|20260101080000",
        pid or f"PID|1||MRN778899^^^HIS^MR~110101199003074610^^^PRC^NI||张三丰||19900307|{sex}|||中山路||13800001111",
        "PV1|1|I|W1^01^12||||||||||||||||V1" + "|" * 6 + "20260101",  # PV1-25, a contract's date: no place for it
        more,
    )
    return "\r".join(filter(None, lines)).encode() + b"\r"


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as exit:
        main(["profile", *(str(argument) for argument in arguments)])
    return int(exit.value.code or 0)


def check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], profile: str, samples: dict[str, bytes]
) -> tuple[int, dict[str, Any]]:
    folder = tmp_path / "samples"
    folder.mkdir(exist_ok=True)
    for name, content in samples.items():
        (folder / name).write_bytes(content)
    (tmp_path / "site.toml").write_text(profile, "utf-8")
    code = run("check", tmp_path / "site.toml", "--sample", folder, "--html", tmp_path / "r.html", "--json")
    return code, json.loads(capsys.readouterr().out)


def states(told: dict[str, Any]) -> dict[str, str]:
    return {each["place"]: each["state"] for each in told["fields"]}


def test_hl7v2_fields_and_codes_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = {"a.hl7": message("1") + message("2"), "b.hl7": message("3", more="ZPI|1|X")}
    code, told = check(tmp_path, capsys, PLAIN, samples)
    assert (code, told["messages"], told["converted"]) == (1, 3, 3)
    assert told["codes"] == [{"concept": "sex", "code": "X7", "place": "PID-8", "count": 3}]
    found = states(told)
    assert (found["PID-3"], found["PID-8"], found["ZPI-2"]) == ("mapped", "mapped", "kept")
    assert any(state == "unused" for state in found.values())


def test_a_code_map_makes_the_check_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = {"a.hl7": message(sex="X7")}
    code, told = check(tmp_path, capsys, PLAIN, samples)
    assert (code, told["clean"]) == (1, False)
    assert told["codes"] == [{"concept": "sex", "code": "X7", "place": "PID-8", "count": 1}]
    assert told["code_maps"] == '[code_maps.sex]\n"X7" = ""'
    code, told = check(tmp_path, capsys, PLAIN + '[code_maps.sex]\n"X7" = "other"\n', samples)
    assert (code, told["clean"], told["codes"]) == (0, True, [])


LOCAL = '[local_fields]\n"PID-3" = "ZPI-2"\n"PID-3.4" = "ZPI-3"\n"PID-8" = "PID-30"\n'


def test_local_field_positions_bring_values_to_their_standard_place() -> None:
    pid = "PID|1||||张三丰||19900307|||||||||||||||||||||||F"
    raw = message(pid=pid, more="ZPI|1|0077|HIS|extra")
    result = hl7v2.convert(raw, SourceProfile.from_toml(PLAIN + LOCAL))
    patient = next(each["resource"] for each in result.bundle["entry"] if each["resource"]["resourceType"] == "Patient")
    assert (patient["identifier"][0]["value"], patient["gender"]) == ("0077", "female")
    kept = [issue.location for issue in result.issues if issue.code == "local-segment"]
    assert kept == ["ZPI[1]"]  # only what was not brought over
    same = hl7v2.convert(message(pid="PID|1||0077^^^HIS||张三丰||19900307|F"), SourceProfile.from_toml(PLAIN))
    other = next(each["resource"] for each in same.bundle["entry"] if each["resource"]["resourceType"] == "Patient")
    assert other["id"] == patient["id"]


def test_two_fields_can_change_places_and_what_is_replaced_is_reported() -> None:
    swap = '[local_fields]\n"PID-3" = "PID-2"\n"PID-2" = "PID-3"\n'
    pid = "PID|1|RIGHT|WRONG||张三丰||19900307|F"
    result = hl7v2.convert(message(pid=pid), SourceProfile.from_toml(PLAIN + swap))
    patient = next(each["resource"] for each in result.bundle["entry"] if each["resource"]["resourceType"] == "Patient")
    assert patient["identifier"][0]["value"] == "RIGHT"
    replaced = hl7v2.convert(message(pid=pid), SourceProfile.from_toml(PLAIN + '[local_fields]\n"PID-3" = "PID-2"\n'))
    assert "PID[1]-3" in [issue.location for issue in replaced.issues if issue.code == "not-mapped"]


def test_the_queue_orders_by_the_patient_of_a_local_field() -> None:
    from datetime import UTC, datetime

    from bridge.services.reception import Reception

    raw = message(pid="PID|1||||张三丰", more="ZPI|1|0077|HIS")
    verdict = Reception().judge(raw, SourceProfile.from_toml(PLAIN + LOCAL), datetime.now(UTC))
    assert verdict.header is not None
    assert verdict.header.patient_key == "0077^HIS"


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        pytest.param('charsett = "GBK"', "charsett", "did you mean charset?", id="top level"),
        pytest.param('[organisation]\nname = "a"', "organisation", "did you mean organization?", id="British"),
        pytest.param('[organization]\nidentifer = "a"', "organization.identifer", "identifier", id="in a table"),
        pytest.param('[code_maps.sexx]\n"1" = "male"', "code_maps.sexx", "did you mean sex?", id="a concept"),
        pytest.param('[[views]]\nview = "V_IOP_PATENT"', "views[0].view", "V_IOP_PATIENT", id="a view"),
        pytest.param('[[views]]\nveiw = "V_IOP_PATIENT"', "views[0].veiw", "did you mean view?", id="a key of a view"),
        pytest.param('[local_fields]\n"PID3" = "PID-2"', "local_fields.PID3", "PID-3", id="no place"),
        pytest.param('[local_fields]\n"MSH-10" = "ZXX-1"', "local_fields.MSH-10", "header", id="the header"),
        pytest.param('[local_fields]\n"ZXX-1" = "PID-2"', "local_fields.ZXX-1", "standard", id="not a standard place"),
        pytest.param('[local_fields]\n"PID-3" = "PID-3"', "local_fields.PID-3", "same", id="onto itself"),
    ],
)
def test_an_unknown_key_is_refused_by_name_with_the_nearest_one(text: str, place: str, hint: str) -> None:
    with pytest.raises(ProfileError, match=re.escape(hint)) as refused:
        SourceProfile.from_toml(PLAIN + text)
    assert refused.value.location == place


def test_a_profile_that_cannot_be_used_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.hl7").write_bytes(message())
    for text in ('nme = "x"', PLAIN + '[code_maps.sex]\n"9" = "no-such-code"\n'):
        (tmp_path / "site.toml").write_text(text)
        assert run("check", tmp_path / "site.toml", "--sample", tmp_path / "a.hl7") == 2
    assert "code_maps.sex" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        pytest.param("张三丰", False, id="a name"),
        pytest.param("欧阳修", False, id="a name of two syllables"),
        pytest.param("110101199003074610", False, id="an identity number"),
        pytest.param("A1234567", False, id="a number of a person"),
        pytest.param("x" * 40, False, id="free text"),
        pytest.param("zhang san", False, id="said of somebody in the samples"),
        pytest.param("X7", True, id="a code"),
        pytest.param("常规", True, id="a word of the tables that begins as a name"),
        pytest.param("入院", True, id="a word"),
    ],
)
def test_what_could_be_a_name_or_a_number_is_masked(text: str, plain: bool) -> None:
    assert (shown(text, frozenset({"zhang san"})) == text) is plain


def test_no_patient_data_leaves_in_any_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shifted = message("2", pid="PID|1||MRN778899^^^HIS||张三丰||13800001111|张三丰||MRN778899|中山路||13800001111")
    samples = {
        "张三丰-110101199003074610.hl7": message(),
        "b.hl7": shifted,
        "c.csv": "张三丰,110101199003074610\n".encode(),
    }
    _, told = check(tmp_path, capsys, PLAIN, samples)
    run("check", tmp_path / "site.toml", "--sample", tmp_path / "samples")
    everything = json.dumps(told, ensure_ascii=False) + (tmp_path / "r.html").read_text() + capsys.readouterr().out
    assert not [text for text in PEOPLE if text in everything]


def test_the_page_is_whole_in_itself_and_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(tmp_path, capsys, 'name = "<script>alert(1)</script>"\n', {"a.hl7": message(sex="<b>x")})
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "<script" not in page
    assert "<b>" not in page
    assert not re.search(r"(?:src|href|url|@import)\s*[=(]", page)
    assert "覆盖" in page
    assert "coverage" in page


def test_invalid_resources_and_refusals_are_told_by_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = {"a.hl7": message().replace(b"ADT^A08", b"ZZZ^Z01"), "b.hl7": message("2", sex="F")}
    code, told = check(tmp_path, capsys, PLAIN, samples)
    assert code == 1
    assert (told["converted"], told["messages"]) == (1, 2)
    assert told["refused"][0]["count"] == 1


def test_a_resource_that_is_not_valid_is_told_by_its_element(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = check(tmp_path, capsys, PLAIN + '[code_maps.sex]\n"X7" = "urn:x|five"\n', {"a.hl7": message()})
    assert (code, told["codes"], told["refused"]) == (1, [], [])
    assert [(each["place"], each["count"]) for each in told["invalid"]] == [("Patient.gender", 1)]


def test_rows_cda_and_action_messages_are_counted_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    action = (
        "<Request><Header><MessageId>1</MessageId><Action>InPatientInfoAdd</Action></Header><Body><Encounter>"
        "<visit_no>V1</visit_no><patient_no>P1</patient_no><start_at>20260101080000</start_at><colour>red</colour>"
        "</Encounter></Body></Request>"
    )
    rows = "row_key,patient_no,name,sex,birth_date,updated_at,shoe_size\n1,P1,某人,XX,19900307,2026-01-01,42\n"
    samples = {
        "V_IOP_PATIENT.csv": rows.encode(),
        "a.xml": action.encode(),
        "f.json": b'{"resourceType":"Patient","id":"1","gender":"male"}',
        "c.xml": (CDA_SAMPLES / "c0032_front_page.xml").read_bytes(),
    }
    _, told = check(tmp_path, capsys, PLAIN, samples)
    assert told["kinds"] == {"action": 1, "cda": 1, "csv": 1, "fhir": 1}
    assert told["converted"] == 4
    found = states(told)
    assert found["V_IOP_PATIENT.shoe_size"] == "unused"
    assert found["V_IOP_PATIENT.name"] == "mapped"
    assert found["Body/Encounter/visit_no"] == "mapped"
    assert found["/ClinicalDocument/code"] == "mapped"
    assert found["Patient.gender"] == "mapped"
    assert {"concept": "sex", "code": "XX", "place": "V_IOP_PATIENT.sex", "count": 1} in told["codes"]


VIEW = """
name = "site"
[[views]]
view = "V_IOP_PATIENT"
name = "people"
from = "人员"
as = "p"
key = ["p.编号"]
watermark = "p.时间"
join = [{ table = "性别", as = "s", on = { "s.代码" = "p.性别" } }]
where = [{ column = "p.作废", equals = 0 }]
[views.columns]
patient_no = "p.编号"
name = "p.姓名"
sex = "s.名称"
birth_date = "p.生日"
"""
PERSONS = (
    "编号,姓名,性别,生日,时间,作废,备注\n0007,某人,1,19900307,2026-01-01 08:00:00,0,无\n0008,另一人,2,,2026-01-02,1,\n"
)
SEXES = "代码,名称\n1,男\n2,女\n"


def test_tables_of_a_his_are_read_by_the_statements_that_read_the_his(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = check(tmp_path, capsys, VIEW, {"人员.csv": PERSONS.encode("gb18030"), "性别.csv": SEXES.encode()})
    assert (code, told["resources"]["Patient"]) == (0, 1)  # the other is left out by the profile's condition
    found = states(told)
    assert found["人员.备注"] == "unused"
    assert found["人员.姓名"] == "mapped"
    assert found["人员.作废"] == "mapped"


def test_a_database_file_serves_as_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = sqlite3.connect(tmp_path / "his.db")
    database.execute('CREATE TABLE "人员" ("编号" TEXT, "姓名" TEXT, "性别" INT, "生日" TEXT, "时间" TEXT, "作废" INT)')
    database.execute("INSERT INTO \"人员\" VALUES ('1', '某人', 1, '19900307', '2026-01-01', 0)")
    database.execute('CREATE TABLE "性别" ("代码" INT, "名称" TEXT)')
    database.commit()
    database.close()
    (tmp_path / "site.toml").write_text(VIEW, "utf-8")
    code = run("check", tmp_path / "site.toml", "--sample", tmp_path / "his.db", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (code, told["converted"], told["resources"]["Patient"]) == (0, 1, 1)


def test_a_table_or_column_that_the_samples_lack_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = "编号,姓名,性别,生日,时间\n1,某人,1,19900307,2026-01-01\n"
    code, told = check(tmp_path, capsys, VIEW, {"人员.csv": short.encode(), "性别.csv": SEXES.encode()})
    assert code == 1
    assert told["refused"][0]["place"] == "views.people"
    assert "人员.作废" in told["refused"][0]["text"]


@pytest.mark.parametrize("kind", ["hl7v2", "cda", "view", "folder", "soap", "fhir"])
def test_a_starting_profile_can_be_used_as_it_is(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "第一人民.toml"
    assert run("new", "--kind", kind, file) == 0
    assert SourceProfile.from_toml(file.read_bytes()).name == "第一人民"
    assert "#" in file.read_text("utf-8")
    assert run("new", "--kind", kind, file) == 1
    assert "--force" in capsys.readouterr().err


def test_the_shipped_profiles_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--json") == 0
    listed = {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert listed == {path.stem for path in (CONFIG_DIRECTORY / "profiles").glob("*.toml")}


def test_no_sample_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(PLAIN)
    (tmp_path / "empty").mkdir()
    assert run("check", tmp_path / "site.toml", "--sample", tmp_path / "empty") == 2
