"""The localisation index as FHIR Lists: what goes out comes back, valid, and nothing else is read."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import InvalidRequest
from bridge.services.decision import CATEGORIES
from bridge.services.localisation_list import lists_bundle, localisations

PID = "1." + "0" * 64
HELD = [("A", PID, ["encounter", "observation"]), ("C", PID, [])]


def test_each_category_is_a_list_of_its_own_and_all_are_valid() -> None:
    bundle = lists_bundle("searchset", HELD)
    Bundle.model_validate(bundle)
    assert bundle["total"] == 3
    assert [each["resource"].get("code", {}).get("coding", [{}])[0].get("code") for each in bundle["entry"]] == [
        "encounter",
        "observation",
        None,
    ]
    assert not any("entry" in each["resource"] for each in bundle["entry"])


def test_nobody_known_is_an_empty_searchset() -> None:
    bundle = lists_bundle("searchset", [])
    Bundle.model_validate(bundle)
    assert bundle == {"resourceType": "Bundle", "type": "searchset", "total": 0}
    assert localisations(bundle) == {}


@given(
    st.dictionaries(
        st.tuples(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8)),
        st.frozensets(st.sampled_from(sorted(CATEGORIES))),
        max_size=6,
    )
)
def test_what_goes_out_comes_back(held: dict[tuple[str, str], frozenset[str]]) -> None:
    bundle = lists_bundle("collection", [(org, pid, categories) for (org, pid), categories in held.items()])
    assert localisations(bundle) == {key: sorted(categories) for key, categories in held.items()}


def altered(path: list[str | int], value: Any) -> dict[str, Any]:
    bundle = deepcopy(lists_bundle("collection", HELD))
    place: Any = bundle
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return bundle


LIST: list[str | int] = ["entry", 1, "resource"]


@pytest.mark.parametrize(
    ("bundle", "place"),
    [
        pytest.param([], "a Bundle of List", id="no object"),
        pytest.param({"resourceType": "Parameters"}, "a Bundle of List", id="another resource"),
        pytest.param(altered(["entry"], {}), "Bundle.entry", id="entry no list"),
        pytest.param(altered(["entry", 1], None), r"entry\[1\].resource is not a List", id="no entry"),
        pytest.param(altered([*LIST, "resourceType"], "Patient"), r"entry\[1\].resource is not a List", id="a Patient"),
        pytest.param(altered([*LIST, "status"], "retired"), r"entry\[1\].*current", id="not current"),
        pytest.param(altered([*LIST, "entry"], [{}]), r"entry\[1\].*without entries", id="with entries"),
        pytest.param(altered([*LIST, "extension"], None), r"entry\[1\].*custodian", id="no custodian"),
        pytest.param(
            altered([*LIST, "subject"], {"reference": "Patient/1"}), r"subject\.identifier", id="no pseudonym"
        ),
        pytest.param(altered([*LIST, "subject", "identifier", "value"], 7), r"subject.*value", id="no value"),
        pytest.param(altered([*LIST, "code"], {"text": "x"}), r"code has no category", id="uncoded"),
        pytest.param(altered([*LIST, "code", "coding"], 3), r"code has no category", id="coding no list"),
    ],
)
def test_anything_else_is_refused_by_place(bundle: Any, place: str) -> None:
    with pytest.raises(InvalidRequest, match=place):
        localisations(bundle)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.just("List") | st.just("Bundle"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["resourceType", "entry", "resource", "status", "extension", "code"]), inner
            )
        ),
        max_leaves=15,
    )
)
def test_any_value_is_read_or_refused(value: Any) -> None:
    try:
        localisations(value)
    except InvalidRequest:
        return
    assert value["resourceType"] == "Bundle"
