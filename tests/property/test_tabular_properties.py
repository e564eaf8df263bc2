"""Whatever stands in rows, files, profiles and resources: only AdapterError comes out, and Bundles are valid."""

# ruff: noqa: DTZ001 - databases give times without a zone, and that is what is tested

import io
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

import orjson
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openpyxl import Workbook
from openpyxl.utils.exceptions import IllegalCharacterError

import fhir_adapters
from fhir_adapters.codes import CONCEPTS, ConceptLookup
from fhir_adapters.errors import AdapterError, ProfileError
from fhir_adapters.identifiers import assigning_system, check_resident_id, uscc_problem
from fhir_adapters.identifiers.gb11643 import check_character
from fhir_adapters.json_lexeme import from_source
from fhir_adapters.profile import DEFAULT_PROFILE, SourceProfile
from fhir_adapters.tabular import VIEWS, convert_rows
from fhir_adapters.tabular.times import to_datetime
from fhir_adapters.validation import validate, validate_bundle

FEW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])

text = st.one_of(
    st.text(max_size=20),
    st.text(alphabet="0123456789０１-:/ .年月日T+Z<>eE", max_size=20),
    st.sampled_from(
        ["1", "男", "I", "在院", "20260101", "NULL", "\ud800", "a\x00", "\u3000", "2026-01-01 08:00:00", "↑", "6.10"]
    ),
)
cells = st.one_of(
    text, st.none(), st.integers(), st.floats(), st.decimals(), st.booleans(), st.binary(max_size=8),
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)), st.dates(),
)  # fmt: skip
WORKBOOK = (Path(__file__).parent.parent / "golden" / "tabular" / "workbook.xlsx").read_bytes()
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=8,
)


@st.composite
def rows(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    view = draw(st.sampled_from(list(VIEWS.values())))
    names = st.sampled_from([*view.columns, "OTHER", ""])
    count = draw(st.integers(0, 4))
    key = st.one_of(st.sampled_from(["1", "2", 3]), text)
    made = []
    for _ in range(count):
        row = draw(st.dictionaries(names, cells, max_size=12))
        required = {name: draw(key) for name, column in view.columns.items() if column.required}
        made.append(required | row if draw(st.booleans()) else row)
    return view.name, made


@FEW
@given(rows())
def test_any_rows_become_a_valid_bundle(case: tuple[str, list[dict[str, Any]]]):
    view, made = case
    result = convert_rows(view, made)
    assert validate_bundle(result.bundle) == []
    assert result.to_json() == convert_rows(view, made).to_json()
    orjson.loads(result.to_json())


@FEW
@given(st.binary(max_size=200), st.sampled_from(["csv", "auto"]))
def test_any_bytes_are_a_file_or_an_adapter_error(raw: bytes, format: str):
    with suppress(AdapterError):
        fhir_adapters.convert(b"patient_no,name,birth_date\n" + raw if format == "csv" else raw, format)


@FEW
@example(junk=b"\x00\x00", place=242, cut=2)  # a stored block whose lengths disagree: zlib.error
@given(st.binary(max_size=80), st.integers(0, 10_000), st.integers(0, 200))
def test_any_damage_to_a_workbook_is_a_workbook_or_an_adapter_error(junk: bytes, place: int, cut: int):
    raw = WORKBOOK[: place % len(WORKBOOK)] + junk + WORKBOOK[place % len(WORKBOOK) + cut :]
    with suppress(AdapterError):
        assert validate_bundle(fhir_adapters.convert(raw, "xlsx").bundle) == []


@FEW
@given(st.lists(st.lists(cells, max_size=4), max_size=4))
def test_any_cells_of_a_sheet_become_a_valid_bundle(made: list[list[Any]]):
    book = Workbook()
    book.active.append(["patient_no", "name", "birth_date", "updated_at"])
    for row in made:
        with suppress(ValueError, TypeError, IllegalCharacterError):
            book.active.append(row)
    target = io.BytesIO()
    with suppress(ValueError, TypeError):
        book.save(target)
        with suppress(AdapterError):
            assert validate_bundle(fhir_adapters.convert(target.getvalue(), "xlsx").bundle) == []


@FEW
@given(st.one_of(st.text(max_size=200), st.binary(max_size=100)))
def test_any_text_is_a_profile_or_a_profile_error(content: str | bytes):
    with suppress(ProfileError):
        SourceProfile.from_toml(content)


@FEW
@given(st.text(max_size=24), st.text(max_size=24))
def test_identifiers_never_raise(first: str, second: str):
    check_resident_id(first)
    uscc_problem(first)
    assert assigning_system(DEFAULT_PROFILE, first, second)
    from_source(first)
    for concept in CONCEPTS:
        ConceptLookup(DEFAULT_PROFILE).find(concept, first)


@FEW
@given(
    st.dates(min_value=date(1850, 1, 1), max_value=date(2100, 1, 1)),
    st.integers(0, 999),
    st.sampled_from(["11", "33", "54", "81"]),
)
def test_a_number_that_is_made_is_valid_and_any_change_of_one_digit_is_seen(born: date, sequence: int, province: str):
    body = f"{province}0101{born:%Y%m%d}{sequence:03d}"
    number = body + check_character(body)
    found = check_resident_id(number)
    assert (found.valid, found.birth_date, found.gender) == (
        True,
        born.isoformat(),
        "male" if sequence % 2 else "female",
    )
    for place in range(17):
        other = number[:place] + str((int(number[place]) + 1) % 10) + number[place + 1 :]
        assert not check_resident_id(other).valid


@FEW
@given(
    st.datetimes(min_value=datetime(1902, 1, 1), max_value=datetime(9000, 1, 1)),
    st.sampled_from(["%Y%m%d%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y%m%d%H%M%S"]),
)
def test_a_time_is_read_as_it_was_written(moment: datetime, form: str):
    read = to_datetime(moment.strftime(form), DEFAULT_PROFILE.zone)
    assert read is not None
    assert datetime.fromisoformat(read).replace(tzinfo=None) == moment.replace(microsecond=0)


@FEW
@given(
    st.dictionaries(
        st.sampled_from(["id", "name", "gender", "extension", "contained", "active", "_gender", "x"]),
        json_values,
        max_size=5,
    )
)
def test_validation_never_raises(content: dict[str, Any]):
    validate({"resourceType": "Patient", **content})
    validate_bundle({"resourceType": "Bundle", "type": "transaction", "entry": [content, {"resource": content}]})


@FEW
@given(json_values)
def test_validation_of_any_value_never_raises(value: Any):
    validate(value)
    if isinstance(value, dict):
        validate_bundle(value)
