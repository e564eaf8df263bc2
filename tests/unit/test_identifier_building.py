"""Identifier systems and the resource ids made of them."""

import re
from dataclasses import replace

import pytest

from fhir_adapters.identifiers import (
    assigning_system,
    choose_patient_identifier,
    encounter_id,
    identifier,
    location_id,
    observation_id,
    patient_id,
)
from fhir_adapters.profile import DEFAULT_PROFILE, SourceProfile
from fhir_adapters.resource_id import resource_id

PROFILE = SourceProfile.from_toml(
    'name = "site"\ndefault_authority = "HIS"\nbase_url = "https://a.example/fhir/"\n'
    '[assigning_authorities]\nLIS = "urn:oid:1.2.3.4"\n"1.2.3.9" = "https://known.example/id"\n'
)


@pytest.mark.parametrize(
    ("authority", "system"),
    [
        pytest.param(("LIS",), "urn:oid:1.2.3.4", id="mapped by the profile"),
        pytest.param(("X", "1.2.3.9", "ISO"), "https://known.example/id", id="universal id mapped by the profile"),
        pytest.param(("X", "2.16.840.1.113883.19", "ISO"), "urn:oid:2.16.840.1.113883.19", id="OID"),
        pytest.param(("2.16.156.10011.1.3",), "urn:oid:2.16.156.10011.1.3", id="OID as namespace"),
        pytest.param(
            ("", "27B6E988-EE0B-841B-9E01-47C741578B36", "UUID"),
            "urn:uuid:27b6e988-ee0b-841b-9e01-47c741578b36",
            id="UUID",
        ),
        pytest.param(("https://b.example/ns",), "https://b.example/ns", id="URI"),
        pytest.param(("PACS",), "https://a.example/fhir/NamingSystem/PACS", id="name of its own"),
        pytest.param(
            ("放射 科/1",), "https://a.example/fhir/NamingSystem/%E6%94%BE%E5%B0%84%20%E7%A7%91%2F1", id="quoted"
        ),
        pytest.param(("",), "https://a.example/fhir/NamingSystem/HIS", id="default authority"),
        pytest.param((" HIS ",), "https://a.example/fhir/NamingSystem/HIS", id="blanks"),
    ],
)
def test_an_assigning_authority_becomes_a_system(authority: tuple[str, ...], system: str):
    assert assigning_system(PROFILE, *authority) == system


def test_resource_ids_are_version_8_uuids_and_stable():
    made = patient_id(DEFAULT_PROFILE, "urn:oid:1.2.3", "00012")
    assert re.fullmatch("[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made)
    assert made == patient_id(DEFAULT_PROFILE, "urn:oid:1.2.3", "00012")


def test_type_system_value_and_key_each_change_the_id():
    key = DEFAULT_PROFILE.id_key
    ids = {
        resource_id(key, "Patient", "urn:a", "1"),
        resource_id(key, "Encounter", "urn:a", "1"),
        resource_id(key, "Patient", "urn:a1", ""),
        resource_id(key, "Patient", "urn:a", "2"),
        resource_id(b"another key of a node", "Patient", "urn:a", "1"),
        patient_id(replace(DEFAULT_PROFILE, id_key=b"k" * 32), "urn:a", "1"),
        encounter_id(DEFAULT_PROFILE, "urn:b", "1"),
    }
    assert len(ids) == 7


def test_places_and_results_are_told_apart_by_each_part_of_their_key():
    places = {location_id(PROFILE, *(["", "", "", "", ""][:i] + ["1"] + [""] * (4 - i))) for i in range(5)}
    assert len(places) == 5
    results = {
        observation_id(PROFILE, "urn:a", "R1", "GLU"),
        observation_id(PROFILE, "urn:a", "R1", "GLU", "1"),
        observation_id(PROFILE, "urn:a", "R1", "GLU", "", 1),
        observation_id(PROFILE, "urn:a", "R1G", "LU"),
    }
    assert len(results) == 4


def test_kinds_carry_their_oid_and_type():
    made = identifier("11010020171225006X", "id-card")
    assert made["system"] == "urn:oid:2.16.156.10011.1.3"
    assert made["type"]["coding"][0]["code"] == "NNCHN"
    assert identifier("1", system="urn:a", use="old", period={"end": "2020"}) == {
        "use": "old",
        "system": "urn:a",
        "value": "1",
        "period": {"end": "2020"},
    }


@pytest.mark.parametrize(
    ("kinds", "chosen"),
    [
        pytest.param(["NNCHN", "MR", "PI"], 1, id="the institution's own number first"),
        pytest.param(["NNCHN", "PI"], 1, id="then the internal one"),
        pytest.param(["NNCHN", "HC"], 0, id="else the first"),
        pytest.param([], None, id="none"),
    ],
)
def test_the_identifier_that_names_a_patient(kinds: list[str], chosen: int | None):
    made = [identifier(str(number), system="urn:a", type_code=kind) for number, kind in enumerate(kinds)]
    found = choose_patient_identifier(made)
    assert found == (None if chosen is None else made[chosen])


def test_an_identifier_that_was_replaced_does_not_name_the_patient():
    old = identifier("1", system="urn:a", type_code="MR", use="old")
    new = identifier("2", system="urn:a", type_code="PI")
    assert choose_patient_identifier([old, new, {"value": "no system"}]) == new
