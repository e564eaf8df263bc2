"""Search parameters: whatever is asked gives a query or a named refusal, and terms mean what FHIR says they mean."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import SearchParameterError
from bridge.services.search import page_token, parse_search
from bridge.storage.search_parameters import SEARCH_PARAMETERS
from bridge.storage.search_query import Position, SearchQuery, TermCriterion
from bridge.storage.search_values import birth_range, birth_terms, normalised, parse_span, spans_of, terms_of

NAMES = sorted({each.name for listed in SEARCH_PARAMETERS.values() for each in listed})
CONTROLS = ["_id", "_lastUpdated", "_count", "_sort", "_summary", "_total", "_page", "_format"]
names = (
    st.sampled_from(NAMES + CONTROLS)
    | st.builds("{}:{}".format, st.sampled_from(NAMES), st.text(max_size=8))
    | st.text()
)
values = st.text(max_size=40) | st.from_regex(r"(eq|ge|lt|sa)?[0-9]{4}(-[0-9]{2}(-[0-9]{2}(T[0-9]{2}:[0-9]{2}Z)?)?)?")


@settings(max_examples=200)
@given(st.sampled_from(sorted(SEARCH_PARAMETERS)), st.lists(st.tuples(names, values), max_size=4))
def test_anything_gives_a_query_or_a_named_refusal(type: str, parameters: list[tuple[str, str]]) -> None:
    refusal = None
    try:
        query = parse_search(type, parameters)
    except SearchParameterError as error:
        refusal = error
    if refusal is not None:
        assert refusal.parameter
        assert len(refusal.message) < 200
        return
    assert query.type == type
    assert 1 <= query.count <= 200
    assert all(criterion.terms for criterion in query.criteria if isinstance(criterion, TermCriterion))


@settings(max_examples=200)
@given(
    st.sampled_from(["_lastUpdated", "_id", "date"]),
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.from_regex(r"[A-Za-z0-9\-.]{1,64}", fullmatch=True),
)
def test_a_paging_token_comes_back_as_it_was(sort: str, descending: bool, value: int, id: str) -> None:
    position = Position(None if sort == "_id" else value, id)
    query = SearchQuery("Observation", sort=sort, descending=descending)
    asked = [("_sort", ("-" if descending else "") + sort)]
    assert parse_search("Observation", [*asked, ("_page", page_token(query, position))]).after == position


@settings(max_examples=100)
@given(st.text(max_size=60))
def test_text_that_is_no_date_is_none_and_what_is_one_has_an_extent(text: str) -> None:
    span = parse_span(text)
    assert span is None or span.low < span.high


days = st.dates(date(1850, 1, 1), date(2150, 12, 31))


def truncated(day: date, precision: int) -> str:
    return day.isoformat()[:precision]


def extent(text: str) -> tuple[date, date]:
    """First day of a partial date, and the day after its last."""
    span = parse_span(text)
    assert span is not None
    origin = date(1970, 1, 1)
    shift = 8 * 3600 * 1000  # the civil zone was not always eight hours ahead: nearest midnight
    return tuple(origin + timedelta(days=round((each + shift) / 86_400_000)) for each in span)  # type: ignore[return-value]


@settings(max_examples=200)
@given(
    days,
    st.sampled_from([4, 7, 10]),
    days | st.just(date(1990, 5, 17)),
    st.sampled_from([4, 7, 10]),
    st.sampled_from(["eq", "gt", "lt", "ge", "le", "sa", "eb"]),
    st.integers(-400, 400),
)
def test_a_blind_range_means_what_the_dates_mean(
    birth: date, birth_precision: int, asked: date, asked_precision: int, prefix: str, near: int
) -> None:
    if near % 2:
        birth = min(max(asked + timedelta(days=near), date(1850, 1, 1)), date(2150, 12, 31))
    stored, value = truncated(birth, birth_precision), truncated(asked, asked_precision)
    (low, high), (first, last) = extent(stored), extent(value)
    inside = low >= first and high <= last
    expected = {
        "eq": inside,
        "gt": high > last,
        "lt": low < first,
        "ge": high > last or inside,
        "le": low < first or inside,
        "sa": low >= last,
        "eb": high <= first,
    }[prefix]
    terms = {term for _, term in birth_terms("f", stored)}
    assert bool(terms & set(birth_range(prefix, value))) == expected


@settings(max_examples=100)
@given(st.text(max_size=80))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


elements = st.sampled_from(
    ["coding", "code", "system", "value", "reference", "start", "end", "family", "given", "text"]
)
shapes = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(elements, inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("type", ["Patient", "Encounter", "Observation", "Provenance", "Consent"])
@settings(max_examples=60)
@given(data=st.data())
def test_a_resource_of_any_shape_can_be_indexed(type: str, data: st.DataObject) -> None:
    heads = sorted({path.split(".")[0] for each in SEARCH_PARAMETERS[type] for path in each.paths})
    resource = data.draw(st.dictionaries(st.sampled_from(heads), shapes, max_size=5))
    resource = {"resourceType": type, "id": "x", **resource}
    assert all(isinstance(term, str) for pair in terms_of(resource) for term in pair)
    assert spans_of(resource).keys() <= {each.name for each in SEARCH_PARAMETERS[type]}
