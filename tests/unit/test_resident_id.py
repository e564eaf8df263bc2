"""GB 11643 and GB 32100: valid numbers, and each way of being wrong. All numbers are computed for the test."""

import json
import os
from datetime import date
from pathlib import Path

import pytest

from fhir_adapters.identifiers import check_resident_id, is_valid_uscc, upgrade_15_to_18, uscc_problem
from fhir_adapters.identifiers.gb11643 import check_character
from fhir_adapters.identifiers.uscc import uscc_check_character

SHARED = Path(os.environ.get("YIQIAO_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def numbered(body: str) -> str:
    return body + check_character(body)


@pytest.mark.parametrize(
    ("text", "birth_date", "gender"),
    [
        pytest.param("11010020171225006X", "2017-12-25", "female", id="published example with X"),
        pytest.param("11010020171225006x", "2017-12-25", "female", id="small x"),
        pytest.param("１１０１００２０１７１２２５００６Ｘ", "2017-12-25", "female", id="full width"),
        pytest.param(" 110100 20171225 006X　", "2017-12-25", "female", id="blanks"),
        pytest.param(numbered("33010019000101001"), "1900-01-01", "male", id="odd sequence is a man"),
        pytest.param(numbered("81000019940823002"), "1994-08-23", "female", id="Hong Kong resident"),
        pytest.param(numbered("93115620200229003"), "2020-02-29", "male", id="permanent resident, leap day"),
    ],
)
def test_a_valid_number_says_birth_date_and_sex(text: str, birth_date: str, gender: str):
    found = check_resident_id(text)
    assert (found.problem, found.birth_date, found.gender) == ("", birth_date, gender)
    assert len(found.value) == 18
    assert found.value.isascii()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("", "length", id="empty"),
        pytest.param("1101002017122500", "length", id="16 characters"),
        pytest.param("1101002017122500XX", "characters", id="letter inside"),
        pytest.param("11010020171225006Y", "characters", id="letter at the end"),
        pytest.param("110100201712250060", "check-digit", id="wrong check digit"),
        pytest.param(numbered("00010020171225006"), "region", id="no such province"),
        pytest.param(numbered("11010020171325006"), "birth-date", id="month 13"),
        pytest.param(numbered("11010020210229006"), "birth-date", id="29 February of a common year"),
        pytest.param(numbered("11010017991225006"), "birth-date", id="before registers began"),
        pytest.param("²" * 18, "characters", id="digits that int() takes and the standard does not"),
    ],
)
def test_an_invalid_number_is_named_and_kept(text: str, problem: str):
    found = check_resident_id(text)
    assert found.problem == problem
    assert not found.valid
    assert (found.birth_date, found.gender) == ("", "")


def test_the_15_digit_form_is_upgraded():
    found = check_resident_id("330199900307801")
    assert found.valid
    assert found.upgraded
    assert found.value == upgrade_15_to_18("330199900307801") == numbered("33019919900307801")


def test_only_15_digits_are_upgraded():
    with pytest.raises(ValueError, match="15 digits"):
        upgrade_15_to_18("11010090030786X")


def test_a_birth_date_after_the_callers_day_is_refused():
    assert check_resident_id(numbered("11010020991225006"), latest_birth=date(2026, 1, 1)).problem == "birth-date"


def test_published_vectors():
    file = SHARED / "data" / "vectors" / "cn-id-part0.json"
    if not file.is_file():
        pytest.skip("shared vectors are not here")
    for case in json.loads(file.read_text("utf-8")):
        # The strict vectors ask for abolished counties and for births before a county was founded: both need the
        # historical register of GB/T 2260, which this check does not claim to have.
        if case["strict"] is None:
            assert check_resident_id(case["id"]).valid is case["valid"], case["note"]


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        pytest.param("91350100M000100Y43", "", id="example of GB 32100"),
        pytest.param("91350100M000100Y44", "check-digit", id="wrong check character"),
        pytest.param("91350100M000100y43", "characters", id="small letter"),
        pytest.param("91350100I000100Y43", "characters", id="letter outside the alphabet"),
        pytest.param("9135O100M000100Y43", "characters", id="letter in the region"),
        pytest.param("91350100M000100Y4", "length", id="17 characters"),
        pytest.param("", "length", id="empty"),
    ],
)
def test_unified_social_credit_codes(code: str, problem: str):
    assert uscc_problem(code) == problem
    assert is_valid_uscc(code) is (not problem)


def test_every_check_character_of_a_code_is_reached_and_only_one_is_right():
    body = "12330100MB00000"
    seen = set()
    for first in "0123456789ABCDEFGHJKLMNPQRTUWXY":
        for second in "0123456789ABCDEFGHJKLMNPQRTUWXY":
            seen.add(uscc_check_character(body + first + second))
    assert len(seen) == 31
