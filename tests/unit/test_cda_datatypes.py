"""CDA's data types as FHIR's, each in tables: what is said, what is half said, what is broken."""

from typing import Any

import pytest

from fhir_adapters.cda.context import Conversion
from fhir_adapters.cda.datatypes import concepts, demographics, ids, quantities, times
from fhir_adapters.xml.tree import Element, parse
from tests.cda_samples import LOINC, NAMESPACES, PROFILE


def element(inside: str) -> Element:
    return parse(f"<x {NAMESPACES}>{inside}</x>")[0]


def read(reader: Any, inside: str) -> tuple[Any, list[str]]:
    """What a reader makes of an element, numbers as they are written, and the codes of its remarks."""
    conv = Conversion(PROFILE, "0" * 64)
    return shown(reader(conv, element(inside))), [issue.code for issue in conv.issues]


def shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: shown(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shown(each) for each in value]
    return value.lexeme if isinstance(value, float) else value


@pytest.mark.parametrize(
    ("value", "expected", "remarks"),
    [
        pytest.param("2026", "2026", [], id="year"),
        pytest.param("202603", "2026-03", [], id="month"),
        pytest.param("20260301", "2026-03-01", [], id="day"),
        pytest.param("2026030108", "2026-03-01T08:00:00+08:00", [], id="hour"),
        pytest.param("202603010830", "2026-03-01T08:30:00+08:00", [], id="minute, the site's zone"),
        pytest.param("20260301083015.250-0500", "2026-03-01T08:30:15.250-05:00", [], id="fraction and offset"),
        pytest.param("20260301083015Z", "2026-03-01T08:30:15+00:00", [], id="UTC"),
        pytest.param("2026-03-01 08:30", "2026-03-01T08:30:00+08:00", [], id="as vendors write it"),
        pytest.param("20260230", "", ["bad-value"], id="no such day"),
        pytest.param("20260301083015+9900", "", ["bad-value"], id="no such offset"),
        pytest.param("yesterday", "", ["bad-value"], id="no time"),
        pytest.param("２０２６", "", ["bad-value"], id="full-width digits"),
        pytest.param(" ", "", [], id="blank"),
    ],
)
def test_ts(value: str, expected: str, remarks: list[str]) -> None:
    assert read(times.read, f'<effectiveTime value="{value}"/>') == (expected, remarks)


@pytest.mark.parametrize(
    ("inside", "expected", "remarks"),
    [
        pytest.param('<low value="2025"/><high value="2026"/>', {"start": "2025", "end": "2026"}, [], id="both"),
        pytest.param('<low value="2025"/>', {"start": "2025"}, [], id="low"),
        pytest.param('<high value="2026"/>', {"end": "2026"}, [], id="high"),
        pytest.param('<center value="20260301"/>', {"start": "2026-03-01", "end": "2026-03-01"}, [], id="centre"),
        pytest.param('<low nullFlavor="UNK"/>', {}, [], id="unknown"),
        pytest.param('<low value="2025"/><width value="3" unit="d"/>', {"start": "2025"}, ["not-mapped"], id="width"),
    ],
)
def test_ivl_ts(inside: str, expected: dict[str, Any], remarks: list[str]) -> None:
    assert read(times.period, f"<effectiveTime>{inside}</effectiveTime>") == (expected, remarks)


def test_a_period_that_ends_before_it_begins_keeps_its_end_as_text() -> None:
    made, remarks = read(times.period, '<t><low value="2026"/><high value="2025"/></t>')
    assert made["start"] == "2026"
    assert "end" not in made
    assert made["_end"]["extension"][1]["valueString"] == "2025"
    assert remarks == ["bad-value"]


UCUM = "http://unitsofmeasure.org"


@pytest.mark.parametrize(
    ("attributes", "expected", "remarks"),
    [
        pytest.param(
            'value="0.40" unit="mg"', {"value": "0.40", "unit": "mg", "system": UCUM, "code": "mg"}, [], id="digits"
        ),
        pytest.param(
            'value="36.5" unit="℃"', {"value": "36.5", "unit": "℃", "system": UCUM, "code": "Cel"}, [], id="Chinese"
        ),
        pytest.param('value=".5"', {"value": "0.5"}, [], id="bare point"),
        pytest.param('value="3" unit="1"', {"value": "3"}, [], id="unity"),
        pytest.param('value="3" unit="bottles"', {"value": "3", "unit": "bottles"}, [], id="no UCUM unit"),
        pytest.param(
            'value="9.90" currency="元"',
            {"value": "9.90", "unit": "元", "system": "urn:iso:std:iso:4217", "code": "CNY"},
            [],
            id="money",
        ),
        pytest.param('nullFlavor="UNK"', {}, [], id="unknown"),
        pytest.param('value="high"', {}, ["bad-value"], id="no number"),
        pytest.param(f'value="{"9" * 100}"', {}, ["bad-value"], id="too long to be one"),
    ],
)
def test_pq(attributes: str, expected: dict[str, Any], remarks: list[str]) -> None:
    assert read(quantities.quantity, f"<value {attributes}/>") == (expected, remarks)


@pytest.mark.parametrize(
    ("inside", "expected", "remarks"),
    [
        pytest.param(
            '<low value="1"/><high value="2"/>', {"low": {"value": "1"}, "high": {"value": "2"}}, [], id="both"
        ),
        pytest.param('<low value="3"/><high value="2"/>', {"low": {"value": "3"}}, ["bad-value"], id="upside down"),
        pytest.param('<center value="2"/>', {"low": {"value": "2"}, "high": {"value": "2"}}, [], id="centre"),
        pytest.param("", {}, [], id="empty"),
    ],
)
def test_ivl_pq(inside: str, expected: dict[str, Any], remarks: list[str]) -> None:
    assert read(quantities.range_of, f"<value>{inside}</value>") == (expected, remarks)


def test_one_bound_is_a_comparison() -> None:
    made, _ = read(quantities.compared, '<value><high value="5" inclusive="false"/></value>')
    assert made == {"value": "5", "comparator": "<"}


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        pytest.param(
            f'<code code="718-7" codeSystem="{LOINC}" displayName="Hb"/>',
            {"coding": [{"system": "http://loinc.org", "code": "718-7", "display": "Hb"}]},
            id="known system",
        ),
        pytest.param(
            '<code code="A" codeSystem="1.2.3"/>', {"coding": [{"system": "urn:oid:1.2.3", "code": "A"}]}, id="any OID"
        ),
        pytest.param('<code code="A"/>', {"coding": [{"code": "A"}]}, id="no system"),
        pytest.param('<code displayName="words"/>', {"text": "words"}, id="words alone"),
        pytest.param('<code nullFlavor="UNK"/>', None, id="unknown"),
        pytest.param(
            '<code nullFlavor="OTH"><originalText>as said</originalText></code>', {"text": "as said"}, id="only text"
        ),
        pytest.param(
            f'<code code="A" codeSystem="1.2.3"><translation code="718-7" codeSystem="{LOINC}"/></code>',
            {"coding": [{"system": "urn:oid:1.2.3", "code": "A"}, {"system": "http://loinc.org", "code": "718-7"}]},
            id="translation",
        ),
    ],
)
def test_cd(inside: str, expected: dict[str, Any] | None) -> None:
    assert read(concepts.concept, inside) == (expected, [])


RFC_3986 = "urn:ietf:rfc:3986"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param('root="1.2.3.4" extension=" 00 7 "', ("urn:oid:1.2.3.4", "00 7"), id="root and extension"),
        pytest.param('root="1.2.3"', (RFC_3986, "urn:oid:1.2.3"), id="an OID alone"),
        pytest.param(
            'root="0F8FAD5B-D9CB-469F-A165-70867728950E"',
            (RFC_3986, "urn:uuid:0f8fad5b-d9cb-469f-a165-70867728950e"),
            id="a UUID alone",
        ),
        pytest.param('root="2.16.156.10011.1.12"', None, id="an empty form field"),
        pytest.param('nullFlavor="UNK"', None, id="unknown"),
        pytest.param('root="not an OID"', None, id="no OID"),
        pytest.param('root="2.16.840.1.113883.4.1" extension="1"', ("http://hl7.org/fhir/sid/us-ssn", "1"), id="SSN"),
        pytest.param('root="2.16.156.10011.1.3" extension="1"', ("urn:oid:2.16.156.10011.1.3", "1"), id="national"),
    ],
)
def test_ii(attributes: str, expected: tuple[str, str] | None) -> None:
    assert read(ids.key, f"<id {attributes}/>")[0] == expected


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        pytest.param(
            '<name use="L"><prefix>Dr</prefix><given>A</given><given>B</given><family>C</family></name>',
            {"use": "official", "prefix": ["Dr"], "given": ["A", "B"], "family": "C"},
            id="parts",
        ),
        pytest.param("<name>张三</name>", {"text": "张三"}, id="whole"),
        pytest.param('<name nullFlavor="UNK"/>', None, id="unknown"),
        pytest.param("<name> </name>", None, id="blank"),
        pytest.param('<name use="L"/>', None, id="a use alone"),
    ],
)
def test_pn(inside: str, expected: dict[str, Any] | None) -> None:
    assert read(demographics.human_name, inside) == (expected, [])


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        pytest.param(
            '<addr use="HP"><streetAddressLine>1 Road</streetAddressLine><city>X</city><country>US</country></addr>',
            {"use": "home", "city": "X", "country": "US", "line": ["1 Road"]},
            id="western",
        ),
        pytest.param(
            "<addr><state>福建省</state><city>福州市</city><houseNumber>1号</houseNumber></addr>",
            {"state": "福建省", "city": "福州市", "line": ["1号"], "text": "福建省福州市1号"},
            id="Chinese",
        ),
        pytest.param("<addr>福州市1号</addr>", {"text": "福州市1号"}, id="whole"),
        pytest.param('<addr nullFlavor="UNK"/>', None, id="unknown"),
        pytest.param('<addr use="HP"/>', None, id="a use alone"),
    ],
)
def test_ad(inside: str, expected: dict[str, Any] | None) -> None:
    assert read(demographics.address, inside) == (expected, [])


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param('value="tel:+86 591 1" use="WP"', ("phone", "+86 591 1", "work"), id="telephone"),
        pytest.param('value="mailto:a@b.example"', ("email", "a@b.example", None), id="e-mail"),
        pytest.param('value="a@b.example"', ("email", "a@b.example", None), id="e-mail without its scheme"),
        pytest.param(
            'value="https://a.example" use="MC"', ("url", "https://a.example", "mobile"), id="address of a page"
        ),
        pytest.param('value="13000000000"', ("phone", "13000000000", None), id="bare number"),
        pytest.param('value="tel:"', None, id="a scheme alone"),
        pytest.param('nullFlavor="UNK"', None, id="unknown"),
    ],
)
def test_tel(attributes: str, expected: tuple[str, str, str | None] | None) -> None:
    made, _ = read(demographics.telecom, f"<telecom {attributes}/>")
    assert (made and (made["system"], made["value"], made.get("use"))) == expected
