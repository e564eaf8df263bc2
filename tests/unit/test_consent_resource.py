"""Grants as FHIR Consent: written valid, read back the same, and refused by name where this node
could not keep them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class

from bridge.errors import InvalidRequest
from bridge.services.audit_event import ACT_REASON, USCC_SYSTEM
from bridge.services.consent_resource import consent_resource, read_consent
from bridge.services.decision import Exclusion
from bridge.services.grant_terms import Confirmation, GrantTerms

NOW, DAY = 1_790_000_000, 86_400
B, C = "12330000000000012G", "12330000000000013E"
SCOPES = "http://terminology.hl7.org/CodeSystem/consentscope"
FULL = GrantTerms(
    grantees=(B, C), purposes=("HRESCH", "TREAT"), valid_until=NOW + 100 * DAY, valid_from=NOW,
    categories=("Encounter", "laboratory"), labels=("R",), period=("2026-01-01", "2026-12-31"),
    exclusions=(Exclusion(("imaging",), (), ("2026-02-01", None), (B,)), Exclusion(None, ("PSY",))),
    roles=("physician",), copies_days=30, guardian="RelatedPerson/r1",
)  # fmt: skip


def written(terms: GrantTerms = FULL, status: str = "active") -> dict[str, Any]:
    return consent_resource(id="c1", grant="ab" * 16, patient="Patient/p1", org=C, terms=terms, status=status, now=NOW)


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param(FULL, id="everything"),
        pytest.param(GrantTerms((B,), ("TREAT",), NOW + DAY, NOW), id="basic"),
        pytest.param(GrantTerms((B,), ("TREAT",), NOW + DAY, NOW, labels=("HIV",)), id="sensitive"),
    ],
)
def test_what_is_written_is_valid_and_read_back(terms: GrantTerms) -> None:
    consent = written(terms)
    get_fhir_model_class("Consent").model_validate(consent)
    assert read_consent(consent, NOW) == ("p1", terms)


def test_a_confirmation_is_written_but_never_taken_from_a_sender() -> None:
    confirmed = FULL.confirmed(Confirmation("paper", "form 17", "RelatedPerson/r1", NOW))
    consent = written(confirmed)
    get_fhir_model_class("Consent").model_validate(consent)
    assert consent["verification"][0]["verified"] is True
    assert "form 17" in str(consent["extension"])
    assert read_consent(consent, NOW)[1].confirmation is None


def basic(**provision: Any) -> dict[str, Any]:
    """A permitting Consent in the shape of IHE PCF basic."""
    return {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [{"system": SCOPES, "code": "patient-privacy"}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": "Patient/p1"},
        "performer": [{"reference": "Patient/p1"}],
        "provision": {
            "type": "permit",
            "period": {"start": "2026-09-01", "end": "2026-12-31"},
            "actor": [{"role": {"coding": [{"code": "IRCP"}]},
                       "reference": {"identifier": {"system": USCC_SYSTEM, "value": B}}}],
            "action": [{"coding": [{"code": "access"}]}],
            "purpose": [{"system": ACT_REASON, "code": "TREAT"}],
            **provision,
        },
    }  # fmt: skip


def test_a_permitting_consent_with_denials_inside() -> None:
    denial = {"type": "deny", "class": [{"system": "http://hl7.org/fhir/resource-types", "code": "ImagingStudy"}]}
    patient, terms = read_consent(basic(provision=[denial]), NOW)
    assert patient == "p1"
    assert terms.grantees == (B,)
    assert terms.exclusions == (Exclusion(("ImagingStudy",)),)
    assert terms.valid_until - terms.valid_from == 122 * DAY  # whole days, China time
    terms.check()


def _change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(consent: dict[str, Any]) -> None:
        *places, last = path.split(".")
        target: Any = consent
        for place in places:
            target = target[int(place)] if place.isdigit() else target[place]
        target[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(_change("scope", {"coding": [{"code": "research"}]}), "scope", id="another scope"),
        pytest.param(_change("patient", {"reference": "Group/1"}), "patient", id="a group"),
        pytest.param(_change("patient", None), "patient", id="nobody"),
        pytest.param(_change("performer", [{"reference": "Practitioner/1"}]), "performer", id="by a doctor"),
        pytest.param(_change("provision", None), "provision", id="no rule"),
        pytest.param(_change("provision.type", "maybe"), "provision", id="no decision"),
        pytest.param(_change("provision.data", [{"meaning": "instance"}]), "data", id="single resources"),
        pytest.param(_change("provision.extension", [{"url": "x"}]), "extension", id="an unknown extension inside"),
        pytest.param(_change("extension", [{"url": "urn:x", "valueCode": "y"}]), "extension", id="an extension"),
        pytest.param(_change("modifierExtension", [{"url": "x"}]), "modifierExtension", id="a modifier"),
        pytest.param(_change("provision.action", [{"coding": [{"code": "correct"}]}]), "action", id="to correct"),
        pytest.param(_change("provision.actor", []), "institution", id="no actor"),
        pytest.param(
            _change("provision.actor.0.reference", {"reference": "Organization/1"}), "credit code", id="a local actor"
        ),
        pytest.param(_change("provision.purpose.0.system", "urn:x"), "purpose", id="another list of purposes"),
        pytest.param(_change("provision.code", [{"coding": [{"system": "urn:x", "code": "1"}]}]), "code", id="codes"),
        pytest.param(_change("provision.securityLabel", [{"system": "urn:x"}]), "securityLabel", id="labels"),
        pytest.param(_change("provision.period.end", "2026"), "period", id="a year alone"),
        pytest.param(
            _change("provision.provision", [{"type": "deny", "provision": [{"type": "deny"}]}]), "none of their own",
            id="nested twice",
        ),
        pytest.param(_change("provision.provision", [{"type": "permit"}]), "exceptions deny", id="permit in permit"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_by_name(change: Callable[[dict[str, Any]], None], named: str) -> None:
    consent = copy.deepcopy(basic())
    change(consent)
    with pytest.raises(InvalidRequest, match=named):
        read_consent(consent, NOW)


def test_a_denial_of_everything_holds_one_permission() -> None:
    consent = written(replace(FULL, guardian=None))
    consent["provision"]["provision"].append(copy.deepcopy(consent["provision"]["provision"][0]))
    with pytest.raises(InvalidRequest, match="exactly one"):
        read_consent(consent, NOW)
    consent["provision"]["provision"] = []
    with pytest.raises(InvalidRequest, match="exactly one"):
        read_consent(consent, NOW)
    limited = written(replace(FULL, guardian=None))
    limited["provision"]["class"] = [{"code": "Observation"}]
    with pytest.raises(InvalidRequest, match="class"):
        read_consent(limited, NOW)
