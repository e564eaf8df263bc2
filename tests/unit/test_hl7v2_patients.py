"""PID, PD1 and MRG as Chinese hospitals fill them, and as others do."""
# ruff: noqa: E501 - one case stands on one line

from typing import Any

import pytest

from fhir_adapters.profile import SourceProfile
from fhir_adapters.result import ConversionResult
from tests.hl7v2_samples import RESIDENT_ID, adt, one, oru, pid, remarks, resources

ID_CARD = "urn:oid:2.16.156.10011.1.3"


def patient(**fields: str) -> tuple[dict[str, Any], set[tuple[str, str]]]:
    result = adt("A28", pid(**fields))
    return one(result, "Patient"), remarks(result)


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        pytest.param({"f3": f"P1^^^HIS^MR~{RESIDENT_ID}^^^^NNCHN"}, ["MR", "NNCHN"], id="typed"),
        pytest.param({"f3": f"P1^^^HIS^MR~{RESIDENT_ID}^^^^01"}, ["MR", "NNCHN"], id="CV02.01.101 code"),
        pytest.param({"f3": f"P1^^^HIS^MR~{RESIDENT_ID}^^^^身份证"}, ["MR", "NNCHN"], id="in words"),
        pytest.param({"f3": f"P1^^^HIS^MR~{RESIDENT_ID}"}, ["MR", "NNCHN"], id="untyped, by its check digit"),
        pytest.param({"f3": f"P1^^^HIS^MR~{RESIDENT_ID}^^^&2.16.156.10011.1.3&ISO"}, ["MR", "NNCHN"], id="by its OID"),
        pytest.param({"f19": RESIDENT_ID}, ["MR", "NNCHN"], id="in PID-19"),
        pytest.param({"f19": "123-45-6789"}, ["MR", "SS"], id="a social security number"),
        pytest.param({"f3": "P1^^^HIS^MR~330106800515001^^^^NNCHN"}, ["MR", "NNCHN"], id="15 digits"),
        pytest.param({"f3": "P1^^^HIS^MR", "f18": "A1^^^HIS", "f20": "D1^^20300101"}, ["MR", "DL"], id="others"),
        pytest.param({"f2": "P1^^^HIS^MR", "f4": "P1^^^HIS^MR"}, ["MR"], id="the same three times"),
    ],
)
def test_identifier_kinds(fields: dict[str, str], kinds: list[str]) -> None:
    found, _ = patient(f8="1", **fields)
    assert [each["type"]["coding"][0]["code"] for each in found["identifier"]] == kinds
    card = [each for each in found["identifier"] if each["system"] == ID_CARD]
    assert all(len(each["value"]) == 18 for each in card)
    assert bool(card) == ("NNCHN" in kinds)


@pytest.mark.parametrize("number", ["330106198005150019", "33010619800515001", "99999919800515001X", "不详"])
def test_a_bad_identity_number_is_kept_and_flagged(number: str) -> None:
    found, issues = patient(f3=f"P1^^^HIS^MR~{number}^^^^NNCHN")
    assert found["identifier"][1]["value"] == number
    assert ("bad-identifier", "PID[1]-3") in issues


def test_what_contradicts_the_identity_number_is_remarked_on() -> None:
    _, issues = patient(f3=f"P1^^^HIS^MR~{RESIDENT_ID}^^^^NNCHN", f7="19810101", f8="2")
    assert {("conflict", "PID[1]-7"), ("conflict", "PID[1]-8")} <= issues


def test_the_id_is_made_of_the_institutions_own_number_wherever_it_stands() -> None:
    ids = {
        patient(f3=numbers)[0]["id"]
        for numbers in ("P1^^^HIS^MR", f"{RESIDENT_ID}^^^^NNCHN~P1^^^HIS^MR", "P1^^^HIS^MR~X^^^HC^HC")
    }
    assert len(ids) == 1
    assert one(oru(pid()), "Patient")["id"] in ids


def test_the_same_number_of_another_authority_is_another_patient() -> None:
    assert patient(f3="P1^^^HIS^MR")[0]["id"] != patient(f3="P1^^^OTHER^MR")[0]["id"]


def test_a_patient_without_a_number_gets_an_id_for_the_message() -> None:
    found, issues = patient(f3="")
    assert ("no-identifier", "PID[1]-3") in issues
    assert found["id"] == patient(f3="")[0]["id"]


@pytest.mark.parametrize(
    ("code", "gender", "kept"),
    [
        ("M", "male", None),
        ("F", "female", None),
        ("O", "other", "O"),
        ("U", "unknown", None),
        ("1", "male", "1"),
        ("2", "female", "2"),
        ("0", "unknown", "0"),
        ("9", "unknown", "9"),
        ("男", "male", "男"),
        ("女", "female", "女"),
        ("1^男性^GB/T 2261.1", "male", "1"),
    ],
)
def test_sex_codes(code: str, gender: str, kept: str | None) -> None:
    found, _ = patient(f8=code)
    assert found["gender"] == gender
    extensions = found.get("_gender", {}).get("extension", ())
    assert [each["valueString"] for each in extensions] == ([kept] if kept else [])


def test_an_unknown_sex_code_is_kept_as_text() -> None:
    found, issues = patient(f8="8")
    assert "gender" not in found
    assert found["_gender"]["extension"][1]["valueString"] == "8"
    assert ("unmapped-code", "PID[1]-8") in issues


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("张^三", {"text": "张三", "family": "张", "given": ["三"]}),
        ("张三", {"text": "张三"}),
        ("Doe^John^Q^Jr^Dr^MD^L", {"use": "official", "family": "Doe", "given": ["John", "Q"], "prefix": ["Dr"], "suffix": ["Jr", "MD"]}),
        ("Doe&van&Doe^John", {"family": "Doe", "given": ["John"]}),
        ("^Cher", {"given": ["Cher"]}),
        (r"O\T\B^X", {"family": "O&B", "given": ["X"]}),
    ],
)  # fmt: skip
def test_names(raw: str, expected: dict[str, Any]) -> None:
    assert patient(f5=raw)[0]["name"] == [expected]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("13800000000", [{"system": "phone", "value": "13800000000", "use": "home"}]),
        ("^PRN^CP^^^^13800000000", [{"system": "phone", "value": "13800000000", "use": "mobile"}]),
        ("^PRN^PH^^86^571^88880000^12", [{"system": "phone", "value": "+86 (571) 88880000 ext. 12", "use": "home"}]),
        ("^NET^Internet^a@b.example", [{"system": "email", "value": "a@b.example", "use": "home"}]),
        ("a@b.example", [{"system": "email", "value": "a@b.example", "use": "home"}]),
        ("555^WPN^FX", [{"system": "fax", "value": "555", "use": "work"}]),
        ("1~2", [{"system": "phone", "value": "1", "use": "home"}, {"system": "phone", "value": "2", "use": "home"}]),
    ],
)
def test_telecoms(raw: str, expected: list[dict[str, Any]]) -> None:
    assert patient(f13=raw)[0]["telecom"] == expected


def test_a_chinese_address_reads_from_the_province_to_the_house() -> None:
    (found,) = patient(f11="文三路1号^2单元^杭州市^浙江省^310012^CN^H^^西湖区")[0]["address"]
    assert found["text"] == "浙江省杭州市西湖区文三路1号2单元"
    assert (found["state"], found["city"], found["district"], found["use"]) == ("浙江省", "杭州市", "西湖区", "home")


@pytest.mark.parametrize("place", ["f10", "f22"])
@pytest.mark.parametrize(("code", "expected"), [("01", "01"), ("汉族", "01"), ("1", "01"), ("02^蒙古族^GB3304", "02")])
def test_ethnic_groups_of_gb_3304(place: str, code: str, expected: str) -> None:
    (found,) = patient(**{place: code})[0]["extension"]
    assert found["url"].endswith("patient-ethnic-group")
    assert found["valueCoding"]["code"] == expected
    assert found["valueCoding"]["system"] == "urn:oid:2.16.156.10011.2.3.3.3"


def test_a_race_of_elsewhere_stays_a_race() -> None:
    (found,) = patient(f10="2106-3^White^HL70005")[0]["extension"]
    assert found["url"].endswith("/race")


@pytest.mark.parametrize(
    ("raw", "date", "time"),
    [
        ("19800515", "1980-05-15", None),
        ("198005", "1980-05", None),
        ("198005150630", "1980-05-15", "1980-05-15T06:30:00+08:00"),
    ],
)
def test_birth_dates(raw: str, date: str, time: str | None) -> None:
    found, _ = patient(f7=raw)
    assert found["birthDate"] == date
    assert found.get("_birthDate", {"extension": [{"valueDateTime": None}]})["extension"][0]["valueDateTime"] == time


def test_a_bad_birth_date_is_kept_as_text() -> None:
    found, issues = patient(f7="19801340")
    assert "birthDate" not in found
    assert found["_birthDate"]["extension"][1]["valueString"] == "19801340"
    assert ("bad-value", "PID[1]-7") in issues


def test_marital_death_and_birth_order() -> None:
    found, issues = patient(f16="20", f24="Y", f25="2", f29="20240501", f30="Y")
    assert found["maritalStatus"]["coding"][0]["code"] == "M"
    assert (found["multipleBirthInteger"], found["deceasedDateTime"]) == (2, "2024-05-01")
    assert issues == set()


def test_null_means_no_value() -> None:
    found, issues = patient(f5='""', f7='""', f11='""^^""', f13='""')
    assert not {"name", "birthDate", "address", "telecom"} & found.keys()
    assert issues == set()


def test_an_own_system_of_the_sites_authority() -> None:
    profile = SourceProfile(assigning_authorities={"HIS": "urn:oid:2.16.156.10011.1.13"})
    result = adt("A28", pid(), profile=profile)
    assert one(result, "Patient")["identifier"][0]["system"] == "urn:oid:2.16.156.10011.1.13"


def merged(result: ConversionResult) -> tuple[dict[str, Any], dict[str, Any]]:
    survivor, prior = resources(result, "Patient")
    return survivor, prior


@pytest.mark.parametrize("trigger", ["A18", "A30", "A34", "A36", "A39", "A40", "A46", "A47"])
def test_a_merge_links_both_records(trigger: str) -> None:
    survivor, prior = merged(adt(trigger, pid(), "MRG|P9^^^HIS^MR||||||Doe^Janet"))
    assert survivor["link"] == [{"other": {"reference": f"Patient/{prior['id']}"}, "type": "replaces"}]
    assert prior["link"] == [{"other": {"reference": f"Patient/{survivor['id']}"}, "type": "replaced-by"}]
    assert prior["active"] is False
    assert prior["id"] == patient(f3="P9^^^HIS^MR")[0]["id"]
    assert prior["name"] == [{"family": "Doe", "given": ["Janet"]}]


def test_several_merges_in_one_message() -> None:
    result = adt("A40", pid(), "MRG|P8^^^HIS^MR", pid(f3="P2^^^HIS^MR"), "MRG|P9^^^HIS^MR")
    assert [len(each["link"]) for each in resources(result, "Patient")] == [1, 1, 1, 1]


def test_a_merge_with_oneself_is_remarked_on() -> None:
    result = adt("A40", pid(), "MRG|P1^^^HIS^MR")
    assert "link" not in one(result, "Patient")
    assert ("conflict", "MRG[1]-1") in remarks(result)


def test_a_link_of_two_records() -> None:
    one_record, other = resources(adt("A24", pid(), pid(f3="P2^^^HIS^MR")), "Patient")
    assert one_record["link"] == [{"other": {"reference": f"Patient/{other['id']}"}, "type": "seealso"}]
    assert other["link"] == [{"other": {"reference": f"Patient/{one_record['id']}"}, "type": "seealso"}]


def test_a_deleted_person_is_inactive() -> None:
    assert one(adt("A29", pid()), "Patient")["active"] is False
