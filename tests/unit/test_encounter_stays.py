"""The places of a visit, as transfers and a discharge tell of them one after the other."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.storage.amendments import amended
from bridge.storage.encounter_stays import with_stays


def stay(place: str, status: str = "active", start: str = "", end: str = "") -> dict[str, Any]:
    period = {name: value for name, value in (("start", start), ("end", end)) if value}
    return {"location": {"reference": f"Location/{place}"}, "status": status, **({"period": period} if period else {})}


@pytest.mark.parametrize(
    ("stored", "said", "expected"),
    [
        pytest.param([], [stay("a", start="1")], [stay("a", start="1")], id="the first"),
        pytest.param(
            [stay("a", start="1")],
            [stay("a", "completed", "1", "2"), stay("b", start="2")],
            [stay("a", "completed", "1", "2"), stay("b", start="2")],
            id="a transfer names both",
        ),
        pytest.param(
            [stay("a", start="1")],
            [stay("b", start="2")],
            [stay("a", "completed", "1", "2"), stay("b", start="2")],
            id="a transfer that names the new place only",
        ),
        pytest.param(
            [stay("a", "completed", "1", "2"), stay("b", start="2")],
            [stay("b", "completed", end="3")],
            [stay("a", "completed", "1", "2"), stay("b", "completed", "2", "3")],
            id="a discharge ends the last",
        ),
        pytest.param(
            [stay("a", "completed", "1", "2"), stay("b", start="2")],
            [stay("a", start="3")],
            [stay("a", "completed", "1", "2"), stay("b", "completed", "2", "3"), stay("a", start="3")],
            id="back to the first place",
        ),
        pytest.param([stay("a", start="1")], [stay("a", start="1")], [stay("a", start="1")], id="told again"),
        pytest.param([stay("a")], [stay("b")], [stay("a", "completed"), stay("b")], id="nobody says when"),
    ],
)
def test_stays(stored: list[dict[str, Any]], said: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert with_stays(stored, said) == expected


def test_a_discharge_keeps_what_admission_said() -> None:
    stored = {
        "resourceType": "Encounter", "id": "1", "status": "in-progress", "period": {"start": "1"},
        "reasonCode": [{"text": "胸痛"}], "location": [stay("a", start="1")],
    }  # fmt: skip
    said = {"resourceType": "Encounter", "id": "1", "status": "finished", "period": {"end": "9"},
            "location": [stay("a", "completed", end="9")]}  # fmt: skip
    made = amended(stored, said, elements=("status", "period", "location"))
    assert made["status"] == "finished"
    assert made["period"] == {"start": "1", "end": "9"}
    assert made["reasonCode"] == [{"text": "胸痛"}]
    assert made["location"] == [stay("a", "completed", "1", "9")]
    late = amended(made, {**said, "status": "in-progress"}, elements=("status", "period", "location"), later=False)
    assert late["status"] == "finished"
