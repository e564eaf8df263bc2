"""What is stored after a source said one thing about a resource."""

from typing import Any

import pytest

from bridge.storage.amendments import amended, with_kept

OTHER = {"other": {"reference": "Patient/b"}, "type": "replaced-by"}
THIRD = {"other": {"reference": "Patient/c"}, "type": "replaces"}
STORED = {"resourceType": "Patient", "id": "a", "meta": {"versionId": "2"}, "active": True, "gender": "male"}


def said(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": "a", "meta": {"source": "urn:x"}, **elements}


@pytest.mark.parametrize(
    ("stored", "resource", "how", "expected"),
    [
        pytest.param(
            STORED, said(active=False, gender="female"), {"elements": ("active",)}, {**STORED, "active": False},
            id="only what is spoken of is replaced",
        ),
        pytest.param(
            STORED, said(birthDate="1990"), {"elements": ()}, {**STORED, "birthDate": "1990"}, id="a gap is filled"
        ),
        pytest.param(
            {**STORED, "link": [THIRD]}, said(link=[OTHER, THIRD]), {"elements": ("link",)},
            {**STORED, "link": [THIRD, OTHER]}, id="a list is added to, each once",
        ),
        pytest.param(
            {**STORED, "link": [THIRD]}, said(link=[OTHER]), {"elements": ()}, {**STORED, "link": [THIRD]},
            id="a list that is not spoken of stays",
        ),
        pytest.param(
            {**STORED, "link": [THIRD, OTHER]}, said(), {"elements": (), "unlinked": ("Patient/b",)},
            {**STORED, "link": [THIRD]}, id="a link is taken away",
        ),
        pytest.param(
            {**STORED, "link": [OTHER]}, said(), {"elements": (), "unlinked": ("Patient/b",)}, STORED,
            id="no empty list is left",
        ),
        pytest.param(
            {**STORED, "active": False, "link": [OTHER]}, said(), {"elements": (), "unlinked": ("Patient/b",)}, STORED,
            id="who was merged away is in use again",
        ),
        pytest.param(
            {**STORED, "link": ["odd", {"other": 3}]}, said(), {"elements": (), "unlinked": ("Patient/b",)},
            {**STORED, "link": ["odd", {"other": 3}]}, id="what is no link is left alone",
        ),
        pytest.param(
            {**STORED, "link": [THIRD]}, said(active=False, link=[OTHER], birthDate="1990"),
            {"elements": ("active", "link"), "unlinked": ("Patient/c",), "later": False},
            {**STORED, "link": [THIRD, OTHER], "birthDate": "1990"}, id="said earlier: adds, and replaces nothing",
        ),
    ],
)  # fmt: skip
def test_amended(stored: dict[str, Any], resource: dict[str, Any], how: dict[str, Any], expected: Any) -> None:
    before = {**stored}
    assert amended(stored, resource, **how) == expected
    assert stored == before, "what is stored is not changed in place"


@pytest.mark.parametrize(
    ("resource", "stored", "expected"),
    [
        pytest.param(said(), {**STORED, "link": [OTHER]}, [OTHER], id="kept"),
        pytest.param(said(link=[THIRD, OTHER]), {**STORED, "link": [OTHER]}, [OTHER, THIRD], id="added to"),
        pytest.param(said(link=[THIRD]), STORED, [THIRD], id="nothing stored"),
    ],
)
def test_with_kept(resource: dict[str, Any], stored: dict[str, Any], expected: Any) -> None:
    assert with_kept(resource, stored, ("link",))["link"] == expected
    assert with_kept(said(), STORED, ("link",)) == said()


def test_who_was_merged_away_stays_so() -> None:
    merged = {**STORED, "active": False, "link": [OTHER]}
    assert with_kept(said(), merged, ("link",))["active"] is False
    assert with_kept(said(active=True), merged, ("link",))["active"] is True
    assert "active" not in with_kept(said(), {**merged, "link": [THIRD]}, ("link",))
