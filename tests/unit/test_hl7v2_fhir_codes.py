"""Codes that FHIR binds to its own systems lead, with the code as sent behind them; nothing of a schedule is lost."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_adapters import hl7v2
from tests.hl7v2_samples import PROFILE, adt, msh, obr, one, pid, pv1, raw, remarks, resources, segment

BCP47 = "urn:ietf:bcp:47"


def codes(concept: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each.get("system", ""), each["code"]) for each in concept["coding"]]


@pytest.mark.parametrize(
    ("sent", "tag"),
    [
        pytest.param("ara^Arabic^HL70296", "ar", id="three letters"),
        pytest.param("EN", "en", id="two letters"),
        pytest.param("汉语", "zh", id="a Chinese name"),
        pytest.param("zh-CN", "zh-CN", id="a tag"),
    ],
)
def test_the_primary_language_is_a_language_tag(sent: str, tag: str) -> None:
    [spoken] = one(adt("A08", pid(**{"15": sent}), pv1()), "Patient")["communication"]
    assert codes(spoken["language"])[0] == (BCP47, tag)
    assert spoken["preferred"] is True


def test_a_language_of_no_table_stays_and_is_reported() -> None:
    result = adt("A08", pid(**{"15": "Q1^Local"}), pv1())
    [spoken] = one(result, "Patient")["communication"]
    assert codes(spoken["language"]) == [("", "Q1")]
    assert ("unmapped-code", "PID[1]-15") in remarks(result)


@pytest.mark.parametrize(("sent", "code"), [("1", "EM"), ("2", "UR"), ("3", "EL")])
def test_the_priority_of_a_visit(sent: str, code: str) -> None:
    visit = one(adt("A08", pid(), pv1(), segment("PV2", {25: sent})), "Encounter")
    assert codes(visit["priority"])[0] == ("http://terminology.hl7.org/CodeSystem/v3-ActPriority", code)
    assert codes(visit["priority"])[1] == ("", sent)


@pytest.mark.parametrize(
    ("sent", "code"), [("SPO^Spouse", "spouse"), ("SEL", "self"), ("CHD", "child"), ("BRO", "other")]
)
def test_the_relationship_to_the_subscriber(sent: str, code: str) -> None:
    insurance = segment("IN1", {1: "1", 2: "P1", 3: "C1", 4: "Insurer", 17: sent, 36: "N1"})
    coverage = one(adt("A08", pid(), pv1(), insurance), "Coverage")
    assert codes(coverage["relationship"])[0] == (
        "http://terminology.hl7.org/CodeSystem/subscriber-relationship",
        code,
    )


def ordered(tq1: str, **fields: str) -> dict[str, Any]:
    lines = [msh("OML^O21"), pid(), segment("ORC", {1: "NW", 2: "O1^H"}), tq1, obr(**fields)]
    [request] = resources(hl7v2.convert(raw(lines), PROFILE), "ServiceRequest")
    return request


def test_a_requested_time_does_not_cost_the_pattern() -> None:
    request = ordered("TQ1|1||BID", **{"6": "20260102080000"})
    assert request["occurrenceTiming"]["event"] == ["2026-01-02T08:00:00+08:00"]
    assert request["occurrenceTiming"]["repeat"]["frequency"] == 2
    assert "occurrenceDateTime" not in request


def test_a_local_pattern_keeps_its_code_beside_its_name() -> None:
    request = ordered("TQ1|1||P&After meals&L")
    assert request["occurrenceTiming"]["code"] == {
        "coding": [{"code": "P", "display": "After meals"}],
        "text": "After meals",
    }
