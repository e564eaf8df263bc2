"""What a grant may say: limits, exceptions, sensitive information, children; and when one grant
allows more than another.
"""

from __future__ import annotations

import calendar
from dataclasses import replace
from typing import Any

import pytest

from bridge.errors import InvalidRequest
from bridge.services.decision import Exclusion, Scope, covers
from bridge.services.grant_terms import Confirmation, GrantTerms, birth_date
from fhir_adapters.identifiers import ID_CARD_SYSTEM
from fhir_adapters.identifiers.gb11643 import check_character

NOW = 1_790_000_000  # 2026-09-21
DAY = 86_400
TERMS = GrantTerms(("B", "C"), ("TREAT",), NOW + 100 * DAY, NOW)


def test_terms_survive_writing_and_reading() -> None:
    full = replace(
        TERMS, categories=("laboratory",), labels=("R",), period=("2026-01-01", None), roles=("nurse",), copies_days=3,
        exclusions=(Exclusion(("imaging",), ("PSY",), (None, "2025-12-31"), ("B",)),), guardian="RelatedPerson/r1",
        confirmation=Confirmation("code", "one-time code", "Patient/p1", NOW),
    )  # fmt: skip
    assert GrantTerms.read(full.value()) == full
    assert GrantTerms.read(TERMS.value()) == TERMS


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param({"grantees": ()}, "institution", id="nobody"),
        pytest.param({"purposes": ()}, "purposes", id="for nothing"),
        pytest.param({"purposes": ("HMARKT",)}, "purposes", id="marketing"),
        pytest.param({"categories": ()}, "categories", id="of nothing"),
        pytest.param({"categories": ("gossip",)}, "categories", id="of gossip"),
        pytest.param({"labels": ("X",)}, "labels", id="unknown label"),
        pytest.param({"labels": ("HIV", "R")}, "consent of its own", id="sensitive beside others"),
        pytest.param({"roles": ("king",)}, "roles", id="unknown role"),
        pytest.param({"valid_until": NOW}, "end before", id="never in force"),
        pytest.param({"period": ("2026-1-1", None)}, "days", id="no day"),
        pytest.param({"copies_days": 0}, "copies", id="copies for no time"),
        pytest.param({"exclusions": (Exclusion(),)}, "leaves out", id="an exception of nothing"),
        pytest.param({"exclusions": (Exclusion(grantees=("B",)),)}, "leaves out", id="an exception of everything"),
        pytest.param({"exclusions": (Exclusion(("imaging",), grantees=("Z",)),)}, "names", id="for a stranger"),
        pytest.param({"exclusions": (Exclusion(("imaging",)),) * 33}, "at most", id="too many"),
    ],
)
def test_terms_that_no_grant_has(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        replace(TERMS, **change).check()


@pytest.mark.parametrize("labels", [("HIV",), ("PSY", "SUD")])
def test_sensitive_information_has_a_consent_of_its_own(labels: tuple[str, ...]) -> None:
    terms = replace(TERMS, labels=labels)
    terms.check()
    assert terms.sensitive
    assert not replace(TERMS, labels=("R",)).sensitive


FOURTEEN = calendar.timegm((2026, 10, 1, 0, 0, 0)) - 8 * 3600


@pytest.mark.parametrize(
    ("birth", "guardian", "until", "text"),
    [
        pytest.param("2012-10-01", None, FOURTEEN, "a guardian consents", id="a child alone"),
        pytest.param("2012-10-01", "RelatedPerson/r", FOURTEEN, None, id="a guardian until the birthday"),
        pytest.param("2012-10-01", "RelatedPerson/r", FOURTEEN + 1, "ends when", id="a guardian beyond it"),
        pytest.param("2012-09-20", None, FOURTEEN, None, id="fourteen yesterday"),
        pytest.param("1980", None, FOURTEEN, None, id="a year alone"),
        pytest.param("2013", None, FOURTEEN, "a guardian consents", id="the year of a child"),
        pytest.param("2012-02-29", None, FOURTEEN, None, id="born on a leap day"),
        pytest.param(None, None, FOURTEEN, None, id="unknown"),
    ],
)
def test_children(birth: str | None, guardian: str | None, until: int, text: str | None) -> None:
    terms = replace(TERMS, guardian=guardian, valid_until=until)
    if text is None:
        terms.check_guardian(birth, age_of_consent=14, now=NOW)
        return
    with pytest.raises(InvalidRequest, match=text):
        terms.check_guardian(birth, age_of_consent=14, now=NOW)


@pytest.mark.parametrize(
    ("change", "wider"),
    [
        pytest.param({}, False, id="the same"),
        pytest.param({"grantees": ("B",)}, False, id="fewer institutions"),
        pytest.param({"grantees": ("B", "C", "D")}, True, id="another institution"),
        pytest.param({"purposes": ("TREAT", "HRESCH")}, True, id="another purpose"),
        pytest.param({"valid_until": NOW + 99 * DAY}, False, id="sooner over"),
        pytest.param({"valid_until": NOW + 101 * DAY}, True, id="longer"),
        pytest.param({"categories": ("laboratory",)}, False, id="less"),
        pytest.param({"labels": ("R",)}, True, id="restricted records"),
        pytest.param({"exclusions": (Exclusion(("imaging",)),)}, False, id="an exception more"),
        pytest.param({"roles": ("physician",)}, False, id="physicians only"),
        pytest.param({"copies_days": 3}, False, id="copies for a while"),
        pytest.param({"period": ("2026-01-01", None)}, False, id="a period"),
    ],
)
def test_what_allows_more(change: dict[str, Any], wider: bool) -> None:
    changed = replace(TERMS, **change)
    assert changed.widens(TERMS) is wider
    if change and not wider:
        assert TERMS.widens(changed)


def resource(
    day: str | None = "2026-03-01", labels: tuple[str, ...] = (), category: str = "laboratory"
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "resourceType": "Observation",
        "category": [{"coding": [{"code": category}]}],
        "meta": {"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": each}
                              for each in labels]},
    }  # fmt: skip
    return found | ({"effectiveDateTime": day} if day else {})


@pytest.mark.parametrize(
    ("exclusion", "found", "left"),
    [
        pytest.param(Exclusion(("laboratory",)), resource(), False, id="its category"),
        pytest.param(Exclusion(("Observation",)), resource(), False, id="its type"),
        pytest.param(Exclusion(("imaging",)), resource(), True, id="another category"),
        pytest.param(Exclusion(period=("2026-01-01", "2026-12-31")), resource(), False, id="its year"),
        pytest.param(Exclusion(period=("2025-01-01", "2025-12-31")), resource(), True, id="another year"),
        pytest.param(Exclusion(period=("2025-01-01", "2025-12-31")), resource(None), False, id="no date: left out"),
        pytest.param(
            Exclusion(("laboratory",), period=(None, "2025-12-31")), resource(), True, id="category, not year"
        ),
        pytest.param(
            Exclusion(("laboratory",), period=(None, "2026-12-31")), resource(), False, id="category and year"
        ),
    ],
)
def test_exceptions_leave_out(exclusion: Exclusion, found: dict[str, Any], left: bool) -> None:
    assert covers(Scope(None, frozenset(), exclusions=(exclusion,)), found) is left


def test_a_sensitive_grant_covers_its_labels_and_nothing_else() -> None:
    scope = Scope(None, frozenset({"HIV"}), sensitive=True)
    assert covers(scope, resource(labels=("HIV",)))
    assert not covers(scope, resource())
    assert not covers(scope, resource(labels=("PSY",)))
    assert not covers(Scope(None, frozenset()), resource(labels=("HIV",)))
    assert covers(scope, {"resourceType": "Patient"})


CHILD_NUMBER = "11010520160504001" + check_character("11010520160504001")


@pytest.mark.parametrize(
    ("patient", "found"),
    [
        pytest.param({"birthDate": "2016-05", "identifier": []}, "2016-05", id="as recorded"),
        pytest.param({"identifier": [{"system": ID_CARD_SYSTEM, "value": CHILD_NUMBER}]}, "2016-05-04", id="number"),
        pytest.param(
            {"birthDate": "2016", "identifier": [{"system": ID_CARD_SYSTEM, "value": CHILD_NUMBER}]}, "2016", id="both"
        ),
        pytest.param({"identifier": [{"system": ID_CARD_SYSTEM, "value": "110105201605040000"}]}, None, id="misread"),
        pytest.param({"identifier": [{"system": "urn:mrn", "value": CHILD_NUMBER}]}, None, id="another number"),
        pytest.param({}, None, id="nothing known"),
    ],
)
def test_when_a_patient_was_born(patient: dict[str, Any], found: str | None) -> None:
    assert birth_date(patient) == found
