"""Places in a source's order survive their keeping, and going back never goes forward; a table is a profile or refused."""

# ruff: noqa: DTZ001, E501 - databases give times without a zone; a strategy is one line

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.services.poll_places import TEXT_FORMS, Place, earlier, is_beyond, kept_place, moment_of, place_of
from fhir_adapters.errors import ProfileError
from fhir_adapters.profile import SourceProfile
from fhir_adapters.tabular.mapped import mapped_row

FEW = settings(max_examples=150, deadline=None)
ZONE = ZoneInfo("Asia/Shanghai")
times = st.datetimes(min_value=datetime(1901, 1, 2), max_value=datetime(9999, 12, 30))
values = st.one_of(
    times, times.map(lambda moment: moment.replace(tzinfo=UTC)), st.dates(min_value=date(1901, 1, 1)),
    st.integers(-(2**63), 2**63), st.decimals(allow_nan=False, allow_infinity=False, places=4, max_value=10**12),
    st.binary(min_size=8, max_size=8), st.text(max_size=20),
)  # fmt: skip


@FEW
@given(values, st.lists(values, max_size=3))
def test_a_place_comes_back_as_it_was(watermark: Any, key: list[Any]) -> None:
    place = Place(watermark, tuple(key) or None)
    assert place_of(kept_place(place, 0, True)) == place


@FEW
@given(values, st.floats(0, 10**6))
def test_going_back_never_goes_forward(watermark: Any, amount: float) -> None:
    before = earlier(watermark, amount)
    if before is not None:
        assert type(before) is type(watermark)
        assert not is_beyond(Place(before), Place(watermark))


@FEW
@given(times, st.sampled_from([form for form, _ in TEXT_FORMS]))
def test_a_time_in_text_is_the_moment_it_says_and_sorts_as_time_does(moment: datetime, form: str) -> None:
    text = moment.strftime(form)
    read = moment_of(text, ZONE)
    assert read == datetime.strptime(text, form).replace(tzinfo=ZONE).timestamp()
    back = earlier(text, 3600)
    assert back is not None
    assert len(back) == len(text)
    assert back < text


@FEW
@given(st.one_of(st.text(max_size=30), st.integers(), st.none(), st.binary(max_size=9), st.decimals()))
def test_moments_are_asked_of_anything(value: Any) -> None:
    moment_of(value, ZONE)
    earlier(value, 10)


scalars = st.one_of(st.text(max_size=8), st.integers(), st.booleans(), st.floats(), st.dates(), st.just("p.a"))
tables = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
)
entries = st.fixed_dictionaries(
    {"view": st.sampled_from(["V_IOP_PATIENT", "V_IOP_BED", "x"]), "from": scalars, "key": st.one_of(st.just(["t.id"]), tables),
     "columns": st.dictionaries(st.sampled_from(["patient_no", "name", "bed_no", "ward_code", "y"]), st.one_of(
         st.just("t.a"), st.fixed_dictionaries({"join": st.just(["t.a", "t.b"])}, optional={"with": scalars}), tables))},
    optional={"watermark": tables, "join": tables, "where": tables, "overlap": scalars, "since": scalars, "as": scalars,
              "every": scalars, "schema": scalars, "name": scalars},
)  # fmt: skip


@FEW
@given(
    st.one_of(tables, st.lists(entries, max_size=3)), st.dictionaries(st.sampled_from(["t.a", "t.b", "t.id"]), values)
)
def test_any_table_is_a_mapping_or_refused_and_maps_any_row(views: Any, cells: dict[str, Any]) -> None:
    with suppress(ProfileError):
        for mapping in SourceProfile.from_mapping({"name": "x", "views": views}).views:
            mapped_row(mapping, cells)


def test_decimal_and_bytes_watermarks_go_back() -> None:
    assert earlier(Decimal("1000"), 10) == Decimal("990")
    assert earlier((1000).to_bytes(8, "big"), 10) == (990).to_bytes(8, "big")
    assert earlier((5).to_bytes(8, "big"), 10) == bytes(8)
