"""What is a UCUM unit, what means one, and what does neither."""

import pytest

from fhir_adapters.units import MAX_UNIT_CHARS, ucum_code


@pytest.mark.parametrize(
    "unit",
    ["mg/dL", "g/L", "%", "mmol/L", "10*9/L", "10^9/L", "U/L", "[IU]/mL", "mm[Hg]", "/min", "1", "{ratio}", "kg/m2",
     "mL/min/{1.73_m2}", "umol/(24.h)", "{copies}/mL", "[pH]", "Cel", "ng/mL{FEU}", "m[IU]/L", "s", "a", "fL"],
)  # fmt: skip
def test_ucum_as_sent(unit: str) -> None:
    assert ucum_code(unit) == unit


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("μmol/L", "umol/L"),
        ("×10^9/L", "10*9/L"),
        ("x10^12/L", "10*12/L"),
        ("10E9/L", "10*9/L"),
        ("IU/L", "[IU]/L"),
        ("mIU/mL", "m[IU]/mL"),
        ("mmHg", "mm[Hg]"),
        ("℃", "Cel"),
        ("次/分", "/min"),
        ("ｍ", None),
        ("％", "%"),
        ("mg / L", "mg/L"),
        ("/HP", "/[HPF]"),
    ],
)
def test_units_as_laboratories_write_them(written: str, code: str | None) -> None:
    assert ucum_code(written) == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "foo",
        "giga.l-1",
        "阳性",
        "10",
        "mg//",
        "(mg",
        "mg)",
        "[IU",
        "mg dL",
        "S/CO",
        "x" * (MAX_UNIT_CHARS + 1),
        "{",
    ],
)
def test_not_a_unit(text: str) -> None:
    assert ucum_code(text) is None
