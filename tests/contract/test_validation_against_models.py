"""The compiled validator against fhir.resources: what it accepts, the models accept, over examples and mutations."""

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fhir_adapters.validation import validate
from fhir_adapters.validation.structure import is_resource, model_class

SHARED = Path(os.environ.get("YIQIAO_SHARED", Path(__file__).resolve().parents[3] / "shared"))
EXAMPLES = SHARED / "data" / "fhir-r4"

MUTATED_BYTES = 12_000  # larger examples are checked as they stand; mutating a Bundle of a megabyte costs seconds
MUTATIONS = 6  # of each example

# Real faults in published examples that the models do not see: a doubled type in a reference, an id over 64 characters.
STRICTER = {
    "ips-US_MEDITECH_ips_1.json": {"custodian.reference"},
    "ips-US_MEDITECH_ips_3.json": {"custodian.reference"},
    "ips-hl7_connectathon_may_2025_epic_example2.json": {"medicationReference.reference", "id"},
}

ODD_VALUES: tuple[Any, ...] = (
    None, "", " ", "x", "a b", "\t", "male", "final", "2026-02-30", "2026-02", "24:00:00", "true", "１",
    "\u3000", "-1", "1.0",
    0, -1, 1.5, 2**40, True, False, [], {}, [None], [""], {"x": 1}, {"reference": "Patient/1"}, {"extension": []}, [[]],
    "http://a b", "urn:oid:1.2", "urn:oid:9.9", "urn:uuid:x", "====", "QUJD", "<div>x</div>",
    "mailto:a@b.example", "2026-01-01T00:00:00Z",
)  # fmt: skip


def examples() -> Iterator[Any]:
    for file in sorted(EXAMPLES.glob("**/*.json")) if EXAMPLES.is_dir() else ():
        yield pytest.param(file, id=file.name)


def models_accept(resource: dict[str, Any]) -> bool:
    try:
        model_class(resource["resourceType"]).model_validate(resource)
    except (ValidationError, KeyError, ValueError, TypeError, AttributeError):
        return False
    return True


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield value, key
        yield from places(child)


def mutated(resource: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    changed = copy.deepcopy(resource)
    container, key = chance.choice(list(places(changed)))
    kind = chance.randrange(6)
    if kind == 0 and isinstance(container, dict):
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[chance.choice(["_" + str(key), "x", str(key) + "s", "id", "extension", "valueString"])] = container[
            key
        ]
    elif kind == 2:
        container[key] = [container[key]] if not isinstance(container[key], list) else container[key] * 2
    elif kind == 3 and isinstance(container[key], str):
        container[key] = container[key] + chance.choice([" ", "x", "\n", "\x00", "é", "/", "-02"])
    else:
        container[key] = copy.deepcopy(chance.choice(ODD_VALUES))
    return changed


@pytest.mark.parametrize("file", list(examples()))
def test_accepted_examples_and_mutations_are_accepted_by_the_models(file: Path):
    resource = json.loads(file.read_text("utf-8-sig"))
    if not isinstance(resource, dict) or not is_resource(str(resource.get("resourceType"))):
        # Types that R4 has and R4B dropped: the models refuse them too.
        assert validate(resource)
        return
    issues = validate(resource)
    if not issues:
        assert models_accept(resource)
    elif models_accept(resource):
        assert {each.location.rpartition("resource.")[2] for each in issues} == STRICTER.get(file.name)
    if file.stat().st_size > MUTATED_BYTES:
        return
    chance = random.Random(file.name)
    for _ in range(MUTATIONS):
        changed = mutated(resource, chance)
        if not validate(changed):
            assert models_accept(changed), json.dumps(changed)[:2000]


def test_there_are_examples():
    if not EXAMPLES.is_dir():
        pytest.skip("shared FHIR examples are not here")
    assert len(list(examples())) > 250


@pytest.mark.parametrize("seed", range(40))
def test_mutated_records_of_our_own_kind_agree(seed: int):
    chance = random.Random(seed)
    patient: dict[str, Any] = {
        "resourceType": "Patient",
        "id": "a",
        "identifier": [
            {"type": {"coding": [{"system": "urn:x", "code": "MR"}]}, "system": "urn:oid:1.2.3", "value": "1"}
        ],
        "name": [{"text": "张三", "given": ["a"], "period": {"start": "2020"}}],
        "telecom": [{"system": "phone", "value": "1", "rank": 1}],
        "gender": "male",
        "birthDate": "1990-03-07",
        "multipleBirthInteger": 2,
        "photo": [{"contentType": "image/png", "data": "QUJD", "url": "http://a.example/x", "size": 3}],
        "contact": [{"relationship": [{"text": "x"}], "organization": {"reference": "Organization/1"}}],
        "link": [{"other": {"reference": "Patient/2"}, "type": "seealso"}],
        "extension": [{"url": "urn:x", "valueDecimal": 1.5}, {"url": "urn:y", "valueInstant": "2026-01-01T00:00:00Z"}],
    }
    assert validate(patient) == []
    for _ in range(25):
        changed = mutated(patient, chance)
        if chance.random() < 0.3 and isinstance(changed, dict) and changed:
            changed = mutated(changed, chance)
        if not validate(changed):
            assert models_accept(changed), json.dumps(changed)
