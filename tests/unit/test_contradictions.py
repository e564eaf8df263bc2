"""What cannot be true of one and the same patient."""

import pytest

from bridge.storage.contradictions import contradicted
from fhir_adapters.identifiers import ID_CARD_SYSTEM

STORED = {
    "resourceType": "Patient",
    "gender": "male",
    "birthDate": "1980-05-15",
    "identifier": [{"system": ID_CARD_SYSTEM, "value": "330106198005150013"}, {"system": "urn:his", "value": "1"}],
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, (), id="the same"),
        pytest.param({"gender": "female"}, ("gender",), id="another sex"),
        pytest.param({"gender": "unknown"}, (), id="a sex that is not known"),
        pytest.param({"gender": None}, (), id="no sex"),
        pytest.param({"birthDate": "1980-05-16"}, ("birthDate",), id="another birth date"),
        pytest.param({"birthDate": "1980"}, (), id="a birth date less exact"),
        pytest.param({"birthDate": "1981"}, ("birthDate",), id="less exact, and another"),
        pytest.param({"birthDate": None}, (), id="no birth date"),
        pytest.param({"identifier": [{"system": "urn:his", "value": "2"}]}, (), id="another hospital number"),
        pytest.param(
            {"identifier": [{"system": ID_CARD_SYSTEM, "value": "11010020171225006X"}]}, ("identifier",), id="ID number"
        ),
        pytest.param(
            {"identifier": [{"system": ID_CARD_SYSTEM, "value": "11010020171225006X", "use": "old"}]},
            (),
            id="an old one",
        ),
        pytest.param({"identifier": "odd"}, (), id="no list"),
        pytest.param({"gender": "female", "birthDate": "2001"}, ("gender", "birthDate"), id="two"),
    ],
)
def test_contradicted(changes: dict[str, object], expected: tuple[str, ...]) -> None:
    said = {name: value for name, value in {**STORED, **changes}.items() if value is not None}
    assert contradicted(STORED, said) == expected


def test_a_record_that_was_merged_away_is_not_used_again() -> None:
    merged = {**STORED, "active": False, "link": [{"other": {"reference": "Patient/b"}, "type": "replaced-by"}]}
    assert contradicted(merged, STORED) == ("link",)
    assert contradicted(merged, {**STORED, "active": False}) == ()
    survivor = {**STORED, "link": [{"other": {"reference": "Patient/b"}, "type": "replaces"}]}
    assert contradicted(survivor, STORED) == ()
