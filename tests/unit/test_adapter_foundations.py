"""Number lexemes, results, profiles and code tables."""

import base64
import copy
import json
import pickle
from importlib.resources import files

import fhirkit
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.base64_text import as_base64
from fhir_adapters.codes import CONCEPTS, ConceptLookup, table, unmapped
from fhir_adapters.errors import AdapterError, ParseError, ProfileError
from fhir_adapters.json_lexeme import Lexeme, from_source, loads
from fhir_adapters.profile import DEFAULT_PROFILE, SourceProfile
from fhir_adapters.result import ConversionResult, Issue
from fhir_adapters.validation import validate


@pytest.mark.parametrize("text", ["0.40", "-0", "1E5", "1.0e-3", "123456789012345678901234567890"])
def test_a_lexeme_is_written_as_it_was_read(text: str):
    number = Lexeme(text)
    assert ConversionResult({"value": number}).to_json() == f'{{"value":{text}}}'.encode()
    assert float(number) == float(text)
    for twin in (copy.deepcopy(number), pickle.loads(pickle.dumps(number)), copy.copy(number)):
        assert twin.lexeme == text
    assert str(number) == text
    assert json.loads(json.dumps(number)) == float(text)


@pytest.mark.parametrize("text", ["", "01", ".5", "5.", "+1", "1e", "NaN", "Infinity", "1e999", "0x1", "１", "1" * 65])
def test_what_is_not_a_json_number_is_no_lexeme(text: str):
    with pytest.raises(ValueError, match="number"):
        Lexeme(text)


@pytest.mark.parametrize(
    ("text", "lexeme"),
    [
        pytest.param("5.10", "5.10", id="kept"),
        pytest.param("+5", "5", id="plus"),
        pytest.param("-.50", "-0.50", id="bare point"),
        pytest.param("5.", "5", id="trailing point"),
        pytest.param("007", "7", id="leading zeros"),
        pytest.param("000.0", "0.0", id="zeros"),
        pytest.param(" 12 ", "12", id="blanks"),
        pytest.param("1E3", "1e3", id="exponent"),
        pytest.param(".", None, id="only a point"),
        pytest.param("", None, id="empty"),
        pytest.param("1,000", None, id="comma"),
        pytest.param("1e999", None, id="out of range"),
        pytest.param("12a", None, id="letters"),
        pytest.param("9" * 65, None, id="too long"),
    ],
)
def test_numbers_of_sources(text: str, lexeme: str | None):
    found = from_source(text)
    assert (None if found is None else found.lexeme) == lexeme


def test_canonical_json_sorts_by_code_point_and_refuses_half_characters():
    result = ConversionResult({"b": 1, "a": "é", "Z": None, "\U0001f600": 1, "\uff5e": 1})
    assert result.to_json() == '{"Z":null,"a":"é","b":1,"～":1,"😀":1}'.encode()
    with pytest.raises(AdapterError, match="cannot be written") as caught:
        ConversionResult({"name": "secret\ud800"}).to_json()
    assert "secret" not in str(caught.value)
    with pytest.raises(AdapterError):
        ConversionResult({"value": object()}).to_json()


@pytest.mark.parametrize("data", [b"{", b"[NaN]", b"[Infinity]", b"\xff", b"[" * 100_000], ids=range(5))
def test_json_that_is_none_is_refused(data: bytes):
    with pytest.raises(ParseError):
        loads(data)


def test_issues_are_json_objects():
    issue = Issue("warning", "unmapped-code", "PID-8", "no map")
    assert issue.as_dict() == {"severity": "warning", "code": "unmapped-code", "location": "PID-8", "text": "no map"}


def test_a_profile_is_read_with_defaults():
    profile = SourceProfile.from_toml('name = "a"\n[organization]\nname = "示范医院"\n'.encode())
    assert (profile.name, profile.organization.name, profile.charset) == ("a", "示范医院", "GB18030")
    assert profile.zone.key == "Asia/Shanghai"
    assert profile.with_base_url("https://a.example/fhir/").base_url == "https://a.example/fhir"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("", "name", id="no name"),
        pytest.param("= 1", "TOML", id="not TOML"),
        pytest.param(b"\xff\xfe", "TOML", id="not UTF-8"),
        pytest.param('name = "a"\ncolour = "red"', "colour", id="unknown key"),
        pytest.param('name = "a"\nid_key = "secret"', "id_key", id="a secret in a profile"),
        pytest.param('name = "a"\ncharset = "klingon"', "charset", id="no such charset"),
        pytest.param('name = "a"\ncharset = "hex"', "charset", id="codec that is no charset"),
        pytest.param('name = "a"\ntime_zone = "Mars/Base"', "time_zone", id="no such zone"),
        pytest.param('name = "a"\ntime_zone = "../../etc/passwd"', "time_zone", id="path as zone"),
        pytest.param('name = "a"\nbase_url = "no uri"', "base_url", id="base URL"),
        pytest.param('name = "a"\nvalidate = "yes"', "validate", id="flag as text"),
        pytest.param("name = 5", "name", id="name as number"),
        pytest.param('name = "a"\norganization = "x"', "organization", id="table as text"),
        pytest.param('name = "a"\n[assigning_authorities]\nHIS = "not a uri"', "HIS", id="authority"),
        pytest.param('name = "a"\n[code_maps.sex]\n"1" = 1', "code_maps.sex", id="map to a number"),
    ],
)
def test_a_wrong_profile_names_its_key(text: str | bytes, place: str):
    with pytest.raises(ProfileError, match=place):
        SourceProfile.from_toml(text)


def test_a_short_id_key_is_refused_and_never_shown():
    with pytest.raises(ProfileError, match="16 bytes"):
        DEFAULT_PROFILE.with_id_key(b"short")
    assert b"secret key of a node".hex() not in repr(DEFAULT_PROFILE.with_id_key(b"secret key of a node"))
    assert "secret" not in repr(DEFAULT_PROFILE.with_id_key(b"secret key of a node"))


def test_every_table_has_a_source_a_version_and_codes():
    named = {name for names in CONCEPTS.values() for name in names}
    there = {each.name.removesuffix(".json") for each in files("fhir_adapters").joinpath("maps").iterdir()}
    assert named | {"oid-code-system"} == there  # that one maps code systems, not codes
    for name in named:
        loaded = table(name)
        assert loaded.name == name
        assert loaded.source
        assert loaded.version
        assert loaded.codes
        for concept in loaded.codes.values():
            assert concept.code == concept.code.strip() != ""


@pytest.mark.parametrize(
    ("concept", "code", "target"),
    [
        pytest.param("sex", "1", "male", id="GB/T 2261.1"),
        pytest.param("sex", "9", "unknown", id="not told is not other"),
        pytest.param("sex", "F", "female", id="HL7"),
        pytest.param("sex", "f", "female", id="small letter"),
        pytest.param("sex", "女", "female", id="Chinese"),
        pytest.param("sex", "１ ", "male", id="full width with blank"),
        pytest.param("sex", "7", None, id="unmapped"),
        pytest.param("ethnic", "汉", "01", id="short name"),
        pytest.param("ethnic", "土家族", "15", id="full name"),
        pytest.param("ethnic", "56", "56", id="code"),
        pytest.param("marital", "21", "M", id="first marriage"),
        pytest.param("relationship", "父亲", "FTH", id="Chinese kin"),
        pytest.param("relationship", "52", "MTH", id="GB/T 4761"),
        pytest.param("interpretation", "↑", "H", id="arrow"),
        pytest.param("encounter-class", "住院", "IMP", id="inpatient"),
        pytest.param("report-status", "F", "final", id="report status"),
        pytest.param("observation-status", "W", "entered-in-error", id="withdrawn result"),
        pytest.param("code-system", "LN", "http://loinc.org", id="LOINC"),
    ],
)
def test_codes_are_looked_up(concept: str, code: str, target: str | None):
    assert ConceptLookup(DEFAULT_PROFILE).code(concept, code) == target


def test_a_profile_maps_before_the_tables_and_may_name_a_system():
    lookup = ConceptLookup(
        SourceProfile.from_toml('name = "a"\n[code_maps.sex]\n"1" = "female"\n"5" = "urn:x|five"\n"6" = "no such"\n')
    )
    assert lookup.code("sex", "1") == "female"
    assert lookup.code("sex", "2") == "female"
    found = lookup.find("sex", "5")
    assert found is not None
    assert found.coding() == {"system": "urn:x", "code": "five"}
    with pytest.raises(ProfileError, match="system"):
        lookup.find("sex", "6")


def test_an_unmapped_code_is_reported_without_itself():
    issue = unmapped("sex", "PID-8")
    assert (issue.severity, issue.code, issue.location) == ("warning", "unmapped-code", "PID-8")


def test_an_unknown_table_or_concept_is_a_key_error():
    with pytest.raises(KeyError):
        table("../errors")
    with pytest.raises(KeyError):
        ConceptLookup(DEFAULT_PROFILE).find("colour", "red")


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_base64_is_taken_as_it_is_and_without_its_padding(data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    assert as_base64(encoded) == encoded
    assert as_base64(encoded.rstrip("=")) == encoded
    assert as_base64(f" {encoded[:5]}\n{encoded[5:]}\t") == encoded


@given(st.text(alphabet="AZaz09+/= ", max_size=12))
@settings(deadline=None)
def test_whatever_is_taken_for_base64_is_what_an_independent_judge_takes(text: str) -> None:
    made = as_base64(text)
    if made:
        assert fhirkit.validate(orjson.dumps({"resourceType": "Binary", "contentType": "a/b", "data": made})) == []


@pytest.mark.parametrize("data", ["AAAA==", "AAAAA===", "AA=A", "AAA"])
def test_base64_that_is_not_whole_is_not_valid_fhir(data: str) -> None:
    assert validate({"resourceType": "Binary", "contentType": "a/b", "data": data})
