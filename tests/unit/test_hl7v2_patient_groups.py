"""Whose results are whose where a message has several visits, prior results or an authorization between; unit names."""

import pytest

from fhir_adapters import hl7v2
from fhir_adapters.result import ConversionResult
from fhir_adapters.units import UCUM
from tests.hl7v2_samples import PROFILE, msh, obr, obx, oru, pid, pv1, raw, resources

FIRST = ("ORC|RE|1", obr(), obx("NM", "1"))
SECOND = (pv1(f19="V0^^^HIS^VN"), "ORC|RE|2", obr(f2="R2", f3="F2"), obx("NM", "2"))


def numbers_of(result: ConversionResult) -> dict[str, list[str]]:
    """Values of the observations of each patient, by the patient's number."""
    names = {f"Patient/{each['id']}": each["identifier"][0]["value"] for each in resources(result, "Patient")}
    found: dict[str, list[str]] = {}
    for each in resources(result, "Observation"):
        found.setdefault(names[each["subject"]["reference"]], []).append(str(each["valueQuantity"]["value"]))
    return found


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(
            [pid(), pv1(), *FIRST, *SECOND],
            {"P1": ["1", "2"]},
            id="a second visit with its results",
        ),
        pytest.param(
            [pid(), pv1(), *FIRST, *SECOND,
             pid(f3="P2^^^HIS^MR"), "ORC|RE|3", obr(f2="R3", f3="F3"), obx("NM", "3")],
            {"P1": ["1", "2"], "P2": ["3"]},
            id="another patient after a second visit",
        ),
        pytest.param(
            [pv1(), pid(), *FIRST], {"P1": ["1"]}, id="the visit before its patient",
        ),
    ],
)  # fmt: skip
def test_results_of_a_further_visit_are_the_same_patients(lines: list[str], expected: dict[str, list[str]]) -> None:
    assert numbers_of(oru(*lines)) == expected


def test_prior_results_of_an_order_are_kept() -> None:
    prior = [pv1(f19="V0^^^HIS^VN"), "ORC|RE|2", obr(f2="R2", f3="F2"), obx("NM", "80")]
    result = hl7v2.convert(raw([msh("OMG^O19^OMG_O19"), pid(), pv1(), "ORC|NW|1", obr(), *prior]), PROFILE)
    assert numbers_of(result) == {"P1": ["80"]}


def test_results_after_an_authorization_are_part_of_the_referral() -> None:
    """REF_I12: an authorization may stand with a procedure; what comes after it is still the patient's."""
    lines = [
        "RF1|P|R|MED^^L|RP^^L||REF1",
        "PRD|RP^^HL70286|Doe^J",
        pid(),
        "PR1|1||P1^Biopsy^L||20240501",
        "AUT|P1|C1|Insurer",
        obr(),
    ]
    result = hl7v2.convert(raw([msh("REF^I12^REF_I12"), *lines, obx("NM", "60")]), PROFILE)
    assert numbers_of(result) == {"P1": ["60"]}


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        pytest.param("mmol/L^millimoles^UCUM", ("millimoles", "mmol/L", UCUM), id="a code of UCUM and its name"),
        pytest.param("BG^Bag", ("Bag", "BG", f"{PROFILE.base_url}/CodeSystem/local"), id="the sender's own code"),
        pytest.param("43^mg/h", ("mg/h", "mg/h", UCUM), id="a number for a unit of UCUM"),
        pytest.param("caps", ("caps", None, None), id="a name alone"),
    ],
)  # fmt: skip
def test_a_unit_is_named_as_people_read_it(unit: str, expected: tuple[str, str | None, str | None]) -> None:
    [made] = resources(oru(pid(), obr(), obx("NM", "1", unit)), "Observation")
    quantity = made["valueQuantity"]
    assert (quantity["unit"], quantity.get("code"), quantity.get("system")) == expected
