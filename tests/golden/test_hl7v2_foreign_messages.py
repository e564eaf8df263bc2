"""Messages nobody here wrote (../shared/data/hl7v2): each converts or is refused by name, and what converts is valid.

Two judges that share no code with the adapter: fhir.resources (R4B) and fhirkit. Counts are asserted from below, so
that a change that refuses more of them, or loses a number, fails.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_adapters import hl7v2
from fhir_adapters.errors import AdapterError, UnsupportedMessage, ValidationError
from fhir_adapters.hl7v2.charset import begins_xml, decode

SHARED = Path(os.environ.get("YIQIAO_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "hl7v2"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no foreign messages at {SHARED}")

CONVERTED_AT_LEAST = 315
NUMBERS_AT_LEAST = 643


def inputs() -> Iterator[tuple[str, bytes]]:
    for path in sorted(SHARED.rglob("*")):
        if path.is_file() and path.suffix != ".json" and "FHIR_bundle" not in path.name:
            yield path.name, path.read_bytes()


def numeric_values(message: bytes) -> int:
    found = 0
    if begins_xml(message):
        message = decode(message, "").text.encode()
    for line in message.replace(b"\n", b"\r").split(b"\r"):
        fields = line.split(b"|")
        if fields[0] == b"OBX" and len(fields) > 5 and fields[2] == b"NM":
            try:
                float(fields[5])
                found += 1
            except ValueError:
                pass
    return found


def test_every_message_converts_or_is_refused_by_name() -> None:
    import fhirkit
    from fhir.resources.R4B import get_fhir_model_class

    counts: Counter[str] = Counter()
    invalid: list[str] = []
    refused: list[tuple[str, AdapterError]] = []
    numbers = lost = 0
    for name, file in inputs():
        for message in hl7v2.messages(file):
            try:
                result = hl7v2.convert(message)
            except AdapterError as error:
                counts[type(error).__name__] += 1
                refused.append((name, error))
                continue
            counts["converted"] += 1
            resources: list[dict[str, Any]] = [each["resource"] for each in json.loads(result.to_json())["entry"]]
            for resource in resources:
                kind = resource["resourceType"]
                get_fhir_model_class(kind).model_validate(resource)
                invalid += [f"{name} {kind}: {each}" for each in fhirkit.validate(json.dumps(resource).encode())]
            expected = numeric_values(message)
            numbers += expected
            lost += max(0, expected - sum("valueQuantity" in each for each in resources))
    print(dict(counts), f"numeric OBX {numbers}, lost {lost}")
    assert invalid == []
    assert [name for name, error in refused if isinstance(error, ValidationError) or not error.location] == []
    assert {error.location for _, error in refused if isinstance(error, UnsupportedMessage)} == {"MSH-9"}
    assert lost == 0
    assert numbers >= NUMBERS_AT_LEAST
    assert counts["converted"] >= CONVERTED_AT_LEAST


@pytest.mark.parametrize(
    "name",
    [
        "zhenc-utf8-declared-HL7_Schema-05_Case_Studies-L560.hl7",
        "zhenc-gb18030-undeclared-HL7_Schema-05_Case_Studies-L560.hl7",
        "zhenc-utf16-declared-HL7_Schema-05_Case_Studies-L581.hl7",
        "zh-HL7_Schema-05_Case_Studies-L581.hl7",
    ],
)
def test_chinese_names_survive_every_encoding(name: str) -> None:
    if not (SHARED / name).is_file():
        pytest.skip(f"{name} is not there")
    result = hl7v2.convert((SHARED / name).read_bytes())
    (patient,) = (each["resource"] for each in result.bundle["entry"] if each["resource"]["resourceType"] == "Patient")
    assert patient["name"][0]["text"] == "张三"
