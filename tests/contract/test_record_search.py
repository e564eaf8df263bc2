"""Search: every kind of parameter, the semantics of dates, order, pages."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import SearchParameterError
from bridge.services.search import PAGE_PARAMETER, SearchService, parse_search
from bridge.storage import record_search
from tests.stores import Stores, observation, patient


def found(stores: Stores, type: str, *parameters: tuple[str, str]) -> list[str]:
    result = SearchService(stores.records).search(type, parameters)
    return sorted(each.id for each in result.page.entries)


def case(name: str, value: str, expected: str, id: str | None = None) -> Any:
    return pytest.param((name, value), expected.split(), id=id or f"{name}={value}")


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        case("identifier", "urn:test:mrn|MRN-p1", "p1"),
        case("identifier", "MRN-p1", "p1"),
        case("identifier", "urn:other|MRN-p1", ""),
        case("identifier", "|MRN-p1", ""),
        case("identifier", "MRN-p1,MRN-p2", "p1 p2"),
        case("identifier", "MRN-%", ""),
        case("name", "张三丰", "p1"),
        case("name", "三丰", "p1"),
        case("name", "张 三丰", "p1"),
        case("name", "Zhang", ""),
        case("name:exact", "李 四", "p2"),
        case("name", "ＬＩ　ＳＩ", "p2", "full width and case"),
        case("family", "张", "p1"),
        case("family", "张三", "", "no prefix search"),
        case("given", "三丰", "p1"),
        case("gender", "male", "p1"),
        case("gender", "http://hl7.org/fhir/administrative-gender|female", "p2"),
        case("phone", "13800000000", "p1 p2"),
        case("phone", "zhang@example.org", "", "an e-mail address is no phone"),
        case("telecom", "zhang@example.org", "p1 p2"),
        case("active", "true", "p2"),
        case("_id", "p1", "p1"),
        case("_id", "p1,p2,p3", "p1 p2"),
        case("link", "Patient/p1", "p2"),
        case("birthdate", "1990-05-17", "p1"),
        case("birthdate", "1990-05", "p1"),
        case("birthdate", "1990", "p1"),
        case("birthdate", "ge1990-05-17", "p1 p2"),
        case("birthdate", "gt1990-05-17", "p2"),
        case("birthdate", "gt1990-05-16", "p1 p2"),
        case("birthdate", "lt1990-05-18", "p1"),
        case("birthdate", "lt1990-05", ""),
        case("birthdate", "le1990-05", "p1"),
        case("birthdate", "le2001", "p1 p2"),
        case("birthdate", "gt2001-06", "p2", "a year alone overlaps what is after June"),
        case("birthdate", "sa2001-06", "", "but does not begin after June"),
        case("birthdate", "sa2000-12-31", "p2"),
        case("birthdate", "eb1990-06", "p1"),
        case("birthdate", "gt2150", ""),
    ],
)
def test_patients(stores: Stores, parameter: tuple[str, str], expected: list[str]) -> None:
    li = {"name": [{"text": "李 四"}, {"family": "Li", "given": ["Si"]}], "gender": "female", "birthDate": "2001"}
    link = [{"other": {"reference": "Patient/p1"}, "type": "replaces"}]
    stores.put(patient(), patient("p2", active=True, link=link, **li))
    assert found(stores, "Patient", parameter) == expected


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        case("patient", "p1", "o1 o2"),
        case("patient", "Patient/p1", "o1 o2"),
        case("subject", "Patient/p1", "o1 o2"),
        case("subject:Patient", "p1", "o1 o2"),
        case("subject", "p1", "o1 o2", "any target type"),
        case("subject:Group", "p1", ""),
        case("encounter", "Encounter/e1", "o1 o2 o3"),
        case("code", "http://loinc.org|2345-7", "o1 o3"),
        case("code", "GLU", "o1 o3"),
        case("code", "http://loinc.org|GLU", ""),
        case("code", "a\\,b\\|c", "o2", "an escaped comma and bar"),
        case("code", "|a\\,b\\|c", "o2", "no system"),
        case("category", "laboratory", "o1 o2 o3"),
        case("status", "final", "o1 o3"),
        case("status", "http://hl7.org/fhir/observation-status|preliminary", "o2"),
        case("date", "2026-05-01", "o1"),
        case("date", "2026-05-01T08:30:00+08:00", "o1"),
        case("date", "2026-05-01T00:30:00Z", "o1", "another zone"),
        case("date", "2026-05-01T08:30:00 08:00", "o1", "a plus sign not encoded"),
        case("date", "2026-05-01T08:30", "o1"),
        case("date", "2026-05", "o1 o2"),
        case("date", "ne2026-05-01", "o2 o3"),
        case("date", "ge2026-05-02", "o2 o3"),
        case("date", "gt2026-05-01T08:30:00+08:00", "o2 o3"),
        case("date", "lt2026-05-01T08:30:01+08:00", "o1"),
        case("date", "le2026-05", "o1 o2", "a period that goes on is neither below nor within"),
        case("date", "sa2026-05-02", "o2"),
        case("date", "sa2026-05-01", "o2 o3"),
        case("date", "eb2026-05-02", "o1"),
        case("date", "2026-04,2026-05-01", "o1"),
        case("_lastUpdated", "ge2026-09-21", "o1 o2 o3"),
        case("_lastUpdated", "lt2026-09-21", ""),
    ],
)
def test_observations(stores: Stores, parameter: tuple[str, str], expected: list[str]) -> None:
    odd = {"status": "preliminary", "code": {"coding": [{"code": "a,b|c"}]}, "effectiveDateTime": "2026-05-10"}
    period = {"effectiveDateTime": None, "effectivePeriod": {"start": "2026-05-02"}}
    stores.put(observation(), observation("o2", **odd), observation("o3", "p2", **period))
    assert found(stores, "Observation", parameter) == expected


def test_all_parameters_must_hold(stores: Stores) -> None:
    stores.put(observation(), observation("o2", "p2"))
    assert found(stores, "Observation", ("patient", "p1"), ("code", "GLU"), ("date", "ge2026")) == ["o1"]
    assert found(stores, "Observation", ("patient", "p1"), ("patient", "p2")) == []
    assert found(stores, "Observation", ("date", "ge2026-05-01"), ("date", "lt2026-05-02")) == ["o1", "o2"]


def test_other_types(stores: Stores) -> None:
    stores.put(
        {"resourceType": "Provenance", "id": "v1", "recorded": "2026-05-01T00:00:00Z",
         "target": [{"reference": "Patient/p1"}, {"reference": "Encounter/e1"}]},
        {"resourceType": "Encounter", "id": "e1", "status": "in-progress", "class": {"code": "IMP"},
         "subject": {"reference": "Patient/p1"}, "period": {"start": "2026-05-01T10:00:00+08:00"},
         "location": [{"location": {"reference": "Location/w1"}}]},
        {"resourceType": "Consent", "id": "c1", "status": "active", "patient": {"reference": "Patient/p1"}},
    )  # fmt: skip
    assert found(stores, "Provenance", ("target", "Encounter/e1")) == ["v1"]
    assert found(stores, "Provenance", ("patient", "p1")) == ["v1"]
    assert found(stores, "Encounter", ("class", "IMP"), ("location", "w1"), ("date", "gt2026-06")) == ["e1"]
    assert found(stores, "Consent", ("patient", "p1"), ("status", "active")) == ["c1"]
    assert found(stores, "Basic", ("_id", "nothing")) == []


def test_an_update_leaves_no_trace_in_the_index(stores: Stores) -> None:
    stores.put(patient(), observation())
    stores.put(patient(gender="female", birthDate="1991"), observation(effectiveDateTime="2027-01-01"))
    assert found(stores, "Patient", ("gender", "male")) == []
    assert found(stores, "Patient", ("birthdate", "1990")) == []
    assert found(stores, "Patient", ("gender", "female"), ("birthdate", "1991")) == ["p1"]
    assert found(stores, "Observation", ("date", "2026")) == []
    assert found(stores, "Observation", ("date", "2027-01")) == ["o1"]


@pytest.mark.parametrize("rare", [pytest.param(500, id="rare terms"), pytest.param(1, id="frequent terms")])
@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        pytest.param("-_lastUpdated", [6, 5, 4, 3, 2, 1, 0], id="newest first"),
        pytest.param("_lastUpdated", [0, 1, 2, 3, 4, 5, 6], id="oldest first"),
        pytest.param("_id", [0, 1, 2, 3, 4, 5, 6], id="id"),
        pytest.param("-_id", [6, 5, 4, 3, 2, 1, 0], id="id down"),
        pytest.param("date", [6, 3, 5, 2, 4, 1, 0], id="date, those without one first"),
        pytest.param("-date", [0, 1, 4, 2, 5, 3, 6], id="date down, equal ones by id"),
    ],
)
def test_pages_are_complete_and_in_order(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, rare: int, sort: str, expected: list[int]
) -> None:
    monkeypatch.setattr(record_search, "RARE_ROWS", rare)
    days = ["2026-05-09", "2026-05-08", "2026-05-04", "2026-05-01", "2026-05-07", "2026-05-03", None]
    for number, day in enumerate(days):
        stores.put(observation(f"o{number}", effectiveDateTime=day))
        stores.clock.forward(1)
    stores.put(observation("other", "p2"))
    service = SearchService(stores.records)
    asked = [("patient", "p1"), ("_count", "3"), ("_sort", sort)]
    seen, token = [], ""
    for page in range(3):
        result = service.search("Observation", [*asked, *([(PAGE_PARAMETER, token)] if token else [])])
        seen += [int(each.id[1:]) for each in result.page.entries]
        token = result.next_token
        if page == 0:  # what is written meanwhile does not shift the pages
            stores.put(observation("x9", effectiveDateTime="2026-05-09"), subject="Patient/p9")
            stores.run("UPDATE resource SET deleted = true WHERE id = 'x9'")
    assert token == ""
    assert seen == expected


def test_count_only_and_totals(stores: Stores) -> None:
    stores.put(*(observation(f"o{number}") for number in range(5)))
    service = SearchService(stores.records)
    for parameter in (("_summary", "count"), ("_count", "0")):
        page = service.search("Observation", [("patient", "p1"), parameter]).page
        assert (page.total, page.entries) == (5, ())
    page = service.search("Observation", [("_total", "accurate"), ("_count", "2")]).page
    assert (page.total, len(page.entries)) == (5, 2)
    assert service.search("Observation", []).page.total is None


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        pytest.param("color", "red", "color is not a search parameter of Patient here", id="unknown parameter"),
        pytest.param("identifier:not", "x", "identifier:not has a modifier that is not supported", id="modifier"),
        pytest.param("name:contains", "x", "name:contains has a modifier that is not supported", id="string modifier"),
        pytest.param("patient.name", "x", "patient.name is not a search parameter of Patient here", id="chain"),
        pytest.param("identifier", "urn:x|", "a whole system cannot be asked for", id="system only"),
        pytest.param("identifier", "", "has an empty value", id="empty"),
        pytest.param("identifier", "a,,b", "has an empty value", id="empty alternative"),
        pytest.param("identifier", ",".join("a" * 101), "has more than 100 values", id="too many alternatives"),
        pytest.param("birthdate", "17.05.1990", "is not a date", id="no date"),
        pytest.param("birthdate", "1990-13", "is not a date", id="no such month"),
        pytest.param("birthdate", "ap1990", "is not a date", id="approximate"),
        pytest.param("birthdate", "ne1990", "cannot be asked with ne", id="not equal"),
        pytest.param("_lastUpdated", "yesterday", "is not a date", id="no time"),
        pytest.param("link", "a b", "is not a reference", id="no reference"),
        pytest.param("link:Device", "1", "names a type that this reference cannot have", id="wrong type"),
        pytest.param("link:Patient", "RelatedPerson/1", "names two different types", id="two types"),
        pytest.param("_id", "a/b", "is not a FHIR id", id="no id"),
        pytest.param("_sort", "name", "_sort takes one of", id="sort by a blind value"),
        pytest.param("_sort", "date,-_id", "_sort takes one of", id="two sorts"),
        pytest.param("_count", "-1", "_count is not a number", id="negative count"),
        pytest.param("_count", "²", "_count is not a number", id="digit that is none"),
        pytest.param("_summary", "text", "_summary takes count", id="other summary"),
        pytest.param("_total", "some", "_total takes", id="other total"),
        pytest.param("_page", "rubbish", "_page is no paging token", id="no token"),
        pytest.param("_page", "WyItX2lkIiwxLCJhIl0", "belongs to a search with another order", id="another search's"),
        pytest.param("_include", "Patient:link", "_include is not a search parameter", id="include"),
        pytest.param("张三", "x", "a parameter is not a search parameter", id="a name that is not repeated"),
    ],
)
def test_what_has_no_meaning_is_refused_and_named(name: str, value: str, text: str) -> None:
    with pytest.raises(SearchParameterError, match=text):
        parse_search("Patient", [(name, value)])


def test_too_many_parameters_are_refused() -> None:
    with pytest.raises(SearchParameterError, match="at most"):
        parse_search("Patient", [("gender", "male")] * 51)


def test_a_reference_to_any_type_needs_one() -> None:
    with pytest.raises(SearchParameterError, match="needs a type"):
        parse_search("Provenance", [("target", "p1")])


def test_a_page_has_a_largest_size() -> None:
    assert parse_search("Patient", [("_count", "100000")]).count == 200
