"""A mention may correct and add, never take away."""

import pytest

from bridge.storage.mentions import says_as_much

PATIENT = {
    "resourceType": "Patient",
    "id": "p",
    "meta": {"versionId": "3"},
    "identifier": [{"system": "a", "value": "1"}, {"system": "b", "value": "2"}],
    "name": [{"text": "甲", "family": "甲"}],
    "birthDate": "1985-07-12",
}


@pytest.mark.parametrize(
    ("mentioned", "expected"),
    [
        pytest.param(PATIENT, True, id="the same"),
        pytest.param({**PATIENT, "birthDate": "1985-07-13"}, True, id="a corrected value"),
        pytest.param({**PATIENT, "gender": "female"}, True, id="one element more"),
        pytest.param({k: v for k, v in PATIENT.items() if k != "meta"}, True, id="no version of its own"),
        pytest.param({k: v for k, v in PATIENT.items() if k != "birthDate"}, False, id="an element missing"),
        pytest.param({**PATIENT, "identifier": PATIENT["identifier"][:1]}, False, id="an identifier missing"),
        pytest.param({**PATIENT, "name": [{"text": "甲"}]}, False, id="a part of the name missing"),
        pytest.param({**PATIENT, "name": "甲"}, False, id="another kind of value"),
    ],
)
def test_a_mention_replaces_only_when_it_says_as_much(mentioned, expected):
    assert says_as_much(mentioned, PATIENT) is expected
