"""PV1, PV2 and what surrounds the visit: NK1, AL1, DG1, IN1."""
# ruff: noqa: E501 - one case stands on one line

import itertools
from typing import Any

import pytest

from fhir_adapters.errors import ParseError, UnsupportedMessage
from fhir_adapters.hl7v2.events import ADT_EVENTS
from tests.hl7v2_samples import adt, one, pid, pv1, remarks, resources, segment


def encounter(trigger: str = "A01", **fields: str) -> tuple[dict[str, Any], set[tuple[str, str]]]:
    result = adt(trigger, pid(), pv1(**fields))
    return one(result, "Encounter"), remarks(result)


@pytest.mark.parametrize(
    ("trigger", "status"),
    [
        ("A01", "in-progress"),
        ("A02", "in-progress"),
        ("A03", "finished"),
        ("A04", "in-progress"),
        ("A05", "planned"),
        ("A06", "in-progress"),
        ("A07", "in-progress"),
        ("A08", "in-progress"),
        ("A11", "cancelled"),
        ("A12", "in-progress"),
        ("A13", "in-progress"),
        ("A14", "planned"),
        ("A17", "in-progress"),
        ("A21", "onleave"),
        ("A22", "in-progress"),
        ("A23", "entered-in-error"),
        ("A27", "cancelled"),
        ("A38", "cancelled"),
    ],
)
def test_status_by_event(trigger: str, status: str) -> None:
    assert encounter(trigger)[0]["status"] == status


ABOUT_VISITS = [
    name for name, event in ADT_EVENTS.items() if event.person not in ("link", "unlink") and not event.place
]


@pytest.mark.parametrize("trigger", ABOUT_VISITS)
def test_every_event_converts(trigger: str) -> None:
    assert resources(adt(trigger, pid(), "MRG|P9^^^HIS^MR", pv1()), "Encounter")


@pytest.mark.parametrize("kind", ["ADT^A19", "ADT^Z99", "QRY^A19", "ACK^A01", "XXX"])
def test_other_messages_are_refused_by_name(kind: str) -> None:
    from fhir_adapters import hl7v2
    from tests.hl7v2_samples import msh, raw

    with pytest.raises(UnsupportedMessage) as caught:
        hl7v2.convert(raw([msh(kind), pid()]))
    assert caught.value.location == "MSH-9"
    assert kind.split("^")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("trigger", "lines", "place"),
    [("A01", [pv1()], "PID"), ("A40", [pid()], "MRG"), ("A40", [pid(), "MRG|||X"], "MRG-1")],
)
def test_a_missing_segment_is_named(trigger: str, lines: list[str], place: str) -> None:
    with pytest.raises(ParseError) as caught:
        adt(trigger, *lines)
    assert caught.value.location == place


@pytest.mark.parametrize(
    ("code", "expected"),
    [("I", "IMP"), ("O", "AMB"), ("E", "EMER"), ("P", "PRENC"), ("住院", "IMP"), ("门诊", "AMB"), ("急诊", "EMER")],
)
def test_patient_classes(code: str, expected: str) -> None:
    found, issues = encounter(f2=code)
    assert found["class"]["code"] == expected
    assert issues == set()


def test_an_unknown_class_is_kept() -> None:
    found, issues = encounter(f2="Q")
    assert found["class"] == {"system": "http://terminology.hl7.org/CodeSystem/v2-0004", "code": "Q"}
    assert ("unmapped-code", "PV1[1]-2") in issues


def test_no_class_is_a_null_flavour() -> None:
    found, issues = encounter(f2="")
    assert found["class"]["code"] == "UNK"
    assert ("missing", "PV1[1]-2") in issues


def test_status_and_period_from_the_times() -> None:
    found, _ = encounter("A08", f44="20240501080000", f45="20240503")
    assert found["status"] == "finished"
    assert found["period"] == {"start": "2024-05-01T08:00:00+08:00", "end": "2024-05-03"}


def test_a_period_that_ends_before_it_begins_keeps_its_end_as_text() -> None:
    found, issues = encounter(f44="20240503", f45="20240501")
    assert found["period"]["start"] == "2024-05-03"
    assert "end" not in found["period"]
    assert ("bad-value", "PV1[1]-45") in issues


def test_the_location_history() -> None:
    result = adt("A02", pid(), pv1(f3="ICU^01^03^HOSP", f6="W3^305^12^HOSP", f11="OR^1", f42="W4", f43="ER"))
    found = one(result, "Encounter")["location"]
    assert [each["status"] for each in found] == ["active", "completed", "active", "planned", "completed"]
    assert ["extension" in each for each in found] == [False, False, True, False, True]


def test_places_are_a_tree_and_each_is_made_once() -> None:
    result = adt("A02", pid(), pv1(f3="W3^305^12^HOSP^^^B1^2", f6="W3^305^13^HOSP^^^B1^2"))
    places = {each["name"]: each for each in resources(result, "Location")}
    assert list(places) == ["HOSP", "B1", "2", "W3", "305", "12", "13"]
    chain = ["12", "305", "W3", "2", "B1", "HOSP"]
    for small, large in itertools.pairwise(chain):
        assert places[small]["partOf"] == {"reference": f"Location/{places[large]['id']}"}
    assert "partOf" not in places["HOSP"]


def test_participants_and_one_practitioner_per_person() -> None:
    result = adt("A01", pid(), pv1(f7="1^Li^Si", f8="2^Wang", f9="3^A~4^B", f17="1^Li^Si", f52="5^C"))
    found = one(result, "Encounter")["participant"]
    assert [each["type"][0]["coding"][0]["code"] for each in found] == ["ATND", "REF", "CON", "CON", "ADM", "PART"]
    assert len(resources(result, "Practitioner")) == 5


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"f19": "V1^^^HIS"}, {"f19": "V1^^^HIS", "f3": "W9"}, True),
        ({"f19": "V0001^^^HIS"}, {"f19": "V0001^^^OTHER"}, False),
        ({"f19": "", "f44": "20240501"}, {"f19": "", "f44": "20240501"}, True),
        ({"f19": "", "f44": "20240501"}, {"f19": "", "f44": "20240502"}, False),
        ({"f19": ""}, {"f19": ""}, True),
    ],
)
def test_which_visit_it_is(first: dict[str, str], second: dict[str, str], same: bool) -> None:
    assert (encounter(**first)[0]["id"] == encounter(**second)[0]["id"]) is same


def test_a_visit_counter_counts_per_patient() -> None:
    visits = [one(adt("A01", pid(f3=f"{number}^^^HIS^MR"), pv1(f19="2")), "Encounter")["id"] for number in ("P1", "P2")]
    assert visits[0] != visits[1]


def test_a_person_event_with_an_empty_visit_has_no_encounter() -> None:
    result = adt("A28", pid(), "PV1|1|N")
    assert resources(result, "Encounter") == []
    assert result.issues == ()


def test_a_class_alone_makes_a_visit_only_of_an_event_about_visits() -> None:
    assert one(adt("A01", pid(), "PV1|1|I"), "Encounter")["class"]["code"] == "IMP"
    update = adt("A31", pid(), "PV1|1|I")
    assert resources(update, "Encounter") == []
    assert ("not-mapped", "PV1[1]-2") in remarks(update)


def test_hospitalization_and_pv2() -> None:
    result = adt(
        "A03",
        pid(),
        pv1(f5="PRE1^^^HIS", f13="R", f14="1", f16="VIP", f36="01", f37="X9&Nursing home", f38="D1"),
        segment("PV2", {3: "^cough", 8: "20240501", 9: "20240510", 11: "9", 25: "1", 38: "A^Ambulance^L"}),
    )
    found = one(result, "Encounter")
    stay = found["hospitalization"]
    assert stay["preAdmissionIdentifier"]["value"] == "PRE1"
    assert {"reAdmission", "admitSource", "specialCourtesy", "dischargeDisposition", "dietPreference"} <= stay.keys()
    assert found["reasonCode"] == [{"text": "cough"}]
    assert str(found["length"]["value"]) == "9"
    assert len(found["extension"]) == 3


def test_next_of_kin() -> None:
    result = adt("A01", pid(), "NK1|1|李^四|52^母亲^GB4761|文三路1号|13900000000|||20200101")
    found = one(result, "RelatedPerson")
    assert found["relationship"][0]["coding"][0]["code"] == "MTH"
    assert found["name"][0]["text"] == "李四"
    assert found["period"] == {"start": "2020-01-01"}


def test_an_empty_next_of_kin_is_nobody() -> None:
    assert resources(adt("A01", pid(), "NK1|1"), "RelatedPerson") == []


def test_allergies() -> None:
    result = adt("A60", pid(), "AL1|1|DA|P1^Penicillin^L|SV|rash~fever|2010", "AL1|2|FA|^nuts|MO", "AL1|3|ZZ|X")
    drug, food, other = resources(result, "AllergyIntolerance")
    assert drug["category"] == ["medication"]
    assert [each["text"] for each in drug["reaction"][0]["manifestation"]] == ["rash", "fever"]
    assert drug["reaction"][0]["severity"] == "severe"
    assert (food["code"], food["criticality"]) == ({"text": "nuts"}, "low")
    assert "category" not in other
    assert ("unmapped-code", "AL1[3]-2") in remarks(result)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("J18.900^肺炎^ICD10", [("urn:oid:2.16.156.10011.2.3.3.11", "J18.900"), ("http://hl7.org/fhir/sid/icd-10", "J18.9")]),
        ("I10.x00^高血压^ICD10", [("urn:oid:2.16.156.10011.2.3.3.11", "I10.x00"), ("http://hl7.org/fhir/sid/icd-10", "I10")]),
        ("J18.9^Pneumonia^I10", [("http://hl7.org/fhir/sid/icd-10", "J18.9")]),
        ("X1^Local^L", [("https://tests.example/fhir/CodeSystem/local", "X1")]),
    ],
)  # fmt: skip
def test_diagnosis_codes(code: str, expected: list[tuple[str, str]]) -> None:
    found = one(adt("A01", pid(), pv1(), segment("DG1", {1: "1", 3: code, 6: "A", 15: "1"})), "Condition")
    assert [(each["system"], each["code"]) for each in found["code"]["coding"]] == expected


def test_diagnoses_are_listed_in_the_encounter() -> None:
    result = adt("A01", pid(), pv1(), "DG1|1||J18.9^P^I10||20240430|A", "DG1|2||I10^H^I10|||W")
    listed = one(result, "Encounter")["diagnosis"]
    assert [(each["use"]["coding"][0]["code"], each["rank"]) for each in listed] == [("AD", 1), ("CM", 2)]
    assert resources(result, "Condition")[1]["verificationStatus"]["coding"][0]["code"] == "provisional"


def test_coverage() -> None:
    in1 = {
        1: "1",
        2: "310^职工医保^L",
        3: "H330100",
        4: "医保局",
        12: "20230101",
        13: "20231231",
        17: "SEL",
        36: "N1",
        8: "G1",
    }
    found = one(adt("A01", pid(), segment("IN1", in1)), "Coverage")
    assert found["status"] == "cancelled"  # ended before the message was sent
    assert found["payor"][0]["reference"].startswith("Organization/")
    assert found["subscriber"] == found["beneficiary"]
    assert [each["value"] for each in found["class"]] == ["310", "G1"]


def test_coverage_without_an_insurer_is_remarked_on() -> None:
    result = adt("A01", pid(), "IN1|1")
    assert one(result, "Coverage")["payor"] == [one(result, "Coverage")["beneficiary"]]
    assert ("missing", "IN1[1]-4") in remarks(result)
