"""What a release takes along beside the records it covers: the resources that they refer to."""

from __future__ import annotations

from typing import Any

import pytest

from anchor import canonical
from bridge.services.release_content import supporting

NESTED = {"a": [{"b": {"reference": "Location/ward-1", "display": "Ward"}}]}


@pytest.mark.parametrize(
    ("resource", "found"),
    [
        ({"subject": {"reference": "Patient/1"}}, set()),
        ({"performer": [{"reference": "Organization/lab"}]}, {("Organization", "lab")}),
        (NESTED, {("Location", "ward-1")}),
        ({"actor": {"reference": "PractitionerRole/x.1"}, "by": {"reference": "Practitioner/x"}},
         {("PractitionerRole", "x.1"), ("Practitioner", "x")}),
        ({"performer": {"reference": "Organization/lab/_history/2"}}, set()),
        ({"performer": {"reference": "https://elsewhere.example/Organization/lab"}}, set()),
        ({"performer": {"reference": "#Organization/lab"}}, set()),
        ({"text": {"div": 'a text "reference":"Organization/lab" in quotes'}}, set()),
        ({'odd"reference': "Organization/lab"}, set()),
        ({"performer": {"reference": ["Organization/lab"]}}, set()),
    ],
)  # fmt: skip
def test_what_a_record_refers_to(resource: dict[str, Any], found: set[tuple[str, str]]) -> None:
    assert supporting(canonical.dump(resource)) == found
