"""A dialect that is not shipped, mapped by profiles that were written from docs/vendor-guide.md alone.

An invented HIS: HL7 v2.4 in GBK that does not say so, numbers and times in a Z-segment, codes of its own; and its own
tables. The report of the check and the Bundles are recorded beside the samples.
After a wanted change: ``YIQIAO_REGENERATE_GOLDEN=1 pytest tests/golden/test_site_profiles.py`` and read the diff.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bridge.commands.profile_report import as_html, report_data
from bridge.services.profile_check import ProfileCheck, sample_files
from fhir_adapters import SourceProfile, hl7v2
from fhir_adapters.validation import validate_bundle

SITE = Path(__file__).parent / "sites" / "lanhai"
REGENERATE = os.environ.get("YIQIAO_REGENERATE_GOLDEN") == "1"
CASES = (("lanhai", "messages"), ("lanhai-db", "tables"))


def profile(name: str) -> SourceProfile:
    return SourceProfile.from_toml((SITE / f"{name}.toml").read_bytes())


def recorded(name: str, made: str) -> str:
    file = SITE / name
    if REGENERATE:
        file.write_text(made, "utf-8")
    return file.read_text("utf-8")


def checked(name: str, samples: str) -> dict[str, Any]:
    run = ProfileCheck(profile(name))
    return report_data(run.profile, run.kinds, run.samples, run.run(sample_files([SITE / samples])))


@pytest.mark.parametrize(("name", "samples"), CASES)
def test_the_check_finds_everything_mapped_and_valid(name: str, samples: str) -> None:
    told = checked(name, samples)
    assert told["clean"]
    made = json.dumps(told, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    assert made == recorded(f"{name}.report.json", made)


def test_the_page_for_the_hospital_is_the_recorded_one() -> None:
    page = as_html(checked("lanhai", "messages"))
    assert page == recorded("lanhai.report.html", page)


def test_the_messages_give_the_recorded_bundles() -> None:
    lines = []
    for file in sorted((SITE / "messages").iterdir()):
        result = hl7v2.convert(file.read_bytes(), profile("lanhai"))
        assert validate_bundle(result.bundle) == []
        lines.append(json.dumps(json.loads(result.to_json()), ensure_ascii=False, indent=1, sort_keys=True))
    made = "\n".join(lines) + "\n"
    assert made == recorded("lanhai.bundles.json", made)


def resources(kind: str) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for file in sorted((SITE / "messages").iterdir()):
        bundle = json.loads(hl7v2.convert(file.read_bytes(), profile("lanhai")).to_json())
        for entry in bundle["entry"]:
            if entry["resource"]["resourceType"] == kind and "ifNoneMatch" not in entry["request"]:
                found[entry["resource"]["id"]] = entry["resource"]
    return list(found.values())


def test_what_stood_at_local_places_is_where_fhir_has_it() -> None:
    patients, visits = resources("Patient"), resources("Encounter")
    assert [(each["identifier"][0]["value"], each["gender"]) for each in patients] == [("L0009001", "male")]
    assert [each["identifier"][0]["value"] for each in visits] == ["Z2603010001"]
    assert (visits[0]["class"]["code"], visits[0]["status"]) == ("IMP", "finished")
    assert visits[0]["period"] == {"start": "2026-03-01T08:05:00+08:00", "end": "2026-03-09T09:30:00+08:00"}


def test_each_result_has_the_time_and_the_observer_of_its_own_z_segment() -> None:
    results = {each["code"]["coding"][0]["code"]: each for each in resources("Observation")}
    times = {code: each["effectiveDateTime"][11:16] for code, each in results.items()}
    assert times == {"WBC": "11:00", "HGB": "11:05", "PLT": "11:10"}
    assert [results["PLT"]["interpretation"][0]["coding"][0]["code"]] == ["H"]
    assert all(each["performer"] for each in results.values())
