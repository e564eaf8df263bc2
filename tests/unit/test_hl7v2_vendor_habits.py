"""What senders do beside the standard, each habit with the reading that loses and invents nothing."""

from typing import Any

import pytest

from fhir_adapters import hl7v2
from tests.hl7v2_samples import PROFILE, adt, msh, obr, obx, one, oru, pid, pv1, raw, remarks, resources, segment


@pytest.mark.parametrize(
    ("item", "sub_id", "text"),
    [
        pytest.param("2", "TBil", "TBil", id="a number, and its name beside it"),
        pytest.param("2", "总胆红素", "总胆红素", id="the name in Chinese"),
        pytest.param("2", "1", None, id="a number as sub-id"),
        pytest.param("2", "1a", None, id="a sub-id with a letter"),
        pytest.param("2^Bilirubin", "TBil", None, id="an item that has a name"),
        pytest.param("WBC", "Diff", None, id="an item that is a name"),
        pytest.param("2345-7^^LN", "Fasting", None, id="a code of a code system"),
    ],
)
def test_analyzers_name_an_item_beside_its_number(item: str, sub_id: str, text: str | None) -> None:
    observation = one(oru(pid(), obr(), obx("NM", "5.0", "g/L", f3=item, f4=sub_id)), "Observation")
    assert observation["code"].get("text") == text
    assert observation["extension"][0]["extension"][0]["valueString"] == sub_id


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        pytest.param("SGVsbG8gd29ybGQ=", "SGVsbG8gd29ybGQ=", id="as it should be"),
        pytest.param("SGVsbG8gd29ybGQ", "SGVsbG8gd29ybGQ=", id="without padding"),
        pytest.param("SGVsbG8gd29ybA", "SGVsbG8gd29ybA==", id="without two"),
        pytest.param("SGVsbG8gd29ybGQ==", "SGVsbG8gd29ybGQ=", id="with too much"),
        pytest.param("SGVsbG8gd29ybG===", None, id="with more than there can be"),
        pytest.param("SGVs=bG8", None, id="padding within"),
        pytest.param("Hello1", None, id="a word that only looks like it"),
        pytest.param("SGVsbG8gd", None, id="cut off"),
    ],
)
def test_base64_without_its_padding_is_data(data: str, kept: str | None) -> None:
    result = oru(pid(), obr(), obx("ED", f"^TEXT^plain^Base64^{data}"))
    observation = one(result, "Observation")
    if kept is None:
        assert observation["valueString"] == data
        assert ("bad-value", "OBX[1]-5") in remarks(result)
    else:
        (found,) = [each for each in observation["extension"] if "valueAttachment" in each]
        assert found["valueAttachment"]["data"] == kept


@pytest.mark.parametrize(
    ("street", "line"),
    [
        pytest.param("Lindenweg 12&Lindenweg&12", "Lindenweg 12", id="the parts beside the whole"),
        pytest.param("&Lindenweg&12", "Lindenweg 12", id="the parts alone"),
        pytest.param("Hinterhaus&Lindenweg&12", "Hinterhaus Lindenweg 12", id="the parts say more"),
        pytest.param("文一路1号", "文一路1号", id="the whole alone"),
    ],
)
def test_a_street_is_said_once(street: str, line: str) -> None:
    patient = one(adt("A28", pid(f11=f"{street}^^Town")), "Patient")
    assert patient["address"][0]["line"] == [line]


@pytest.mark.parametrize(
    ("telecom", "points"),
    [
        pytest.param("a@b.example^NET^X.400^a@b.example", [("email", "a@b.example")], id="an address twice"),
        pytest.param("a@b.example^NET^Internet", [("email", "a@b.example")], id="an address once"),
        pytest.param("a@b.example^NET^Internet^c@d.example", [("phone", "a@b.example"), ("email", "c@d.example")],
                     id="two addresses"),
        pytest.param("0571-88^PRN^PH^a@b.example", [("phone", "0571-88"), ("email", "a@b.example")], id="both"),
    ],
)  # fmt: skip
def test_an_address_is_said_once(telecom: str, points: list[tuple[str, str]]) -> None:
    patient = one(adt("A28", pid(f13=telecom)), "Patient")
    assert [(each["system"], each["value"]) for each in patient["telecom"]] == points


@pytest.mark.parametrize(
    ("sent", "name", "number"),
    [
        pytest.param("王小明", "王小明", None, id="a Chinese name"),
        pytest.param("Dr. Ada Fox", "Dr. Ada Fox", None, id="words"),
        pytest.param("fox", None, "fox", id="a user's name"),
        pytest.param("D 104", None, "D 104", id="a number with a blank"),
        pytest.param("工号104", None, "工号104", id="a number with Chinese letters"),
        pytest.param("104^王^小明", "王小明", "104", id="number and name"),
    ],
)
def test_a_name_where_a_number_belongs_is_a_name(sent: str, name: str | None, number: str | None) -> None:
    practitioner = one(adt("A01", pid(), pv1(f7=sent)), "Practitioner")
    assert practitioner.get("name", [{}])[0].get("text") == name
    assert practitioner.get("identifier", [{}])[0].get("value") == number


@pytest.mark.parametrize(
    ("fields", "minutes"),
    [
        pytest.param({9: "30"}, 30, id="the same as from start to end"),
        pytest.param({9: "1800"}, None, id="seconds that do not say so"),
        pytest.param({9: "1800", 10: "s"}, 30, id="seconds"),
        pytest.param({9: "45", 10: "min"}, 45, id="minutes that differ are told"),
    ],
)
def test_a_duration_that_contradicts_start_and_end_is_reported(fields: dict[int, str], minutes: int | None) -> None:
    sch = segment("SCH", {2: "A1", 11: "^^^20260516130000^20260516133000", 25: "Booked", **fields})
    result = hl7v2.convert(raw([msh("SIU^S12^SIU_S12"), sch, pid()]), PROFILE)
    appointment: dict[str, Any] = one(result, "Appointment")
    assert appointment.get("minutesDuration") == minutes
    assert (("conflict", "SCH[1]-9") in remarks(result)) == (minutes is None)


@pytest.mark.parametrize("field", ["^", "&", "^^^", "~", "^&^"])
def test_a_field_of_delimiters_alone_holds_nothing(field: str) -> None:
    bare = adt("A28", pid())
    result = adt("A28", pid(f11=field, f13=field), f"PD1|||{field}|{field}", f"ZZZ|{field}")
    assert resources(result, "Patient") == resources(bare, "Patient")
    assert {place for _, place in remarks(result)} <= {"ZZZ[1]"}


@pytest.mark.parametrize("blank", ["\u3000", "\xa0", "\u2003", "\u2028"])
def test_blanks_of_other_widths_become_plain_ones(blank: str) -> None:
    result = oru(pid(f5=f"张{blank}三"), obr(), obx("TX", f"甲{blank}乙"))
    assert one(result, "Observation")["valueString"] == "甲 乙"
    assert one(result, "Patient")["name"][0]["text"] == "张 三"
    assert ("blanks", "MSH") in remarks(result)
    assert ("blanks", "MSH") not in remarks(oru(pid(f5="张 三"), obr(), obx("TX", "甲 乙")))
