"""HL7 v2 to validated FHIR, beside the PyPI package hl7v2-fhir-bridge in the same run and process."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime

import fhir_adapters
from benchmarks.measure import Comparison, rates_in_turn
from benchmarks.messages import admission, laboratory_report


def resources_of(bundle: dict) -> str:
    kinds = Counter(entry["resource"]["resourceType"] for entry in bundle["entry"])
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def run(seconds: float = 5.0) -> list[Comparison]:
    """Measure ADT^A01 and ORU^R01 with 30 OBX, converted, validated and serialised."""
    from v2fhir.config import Config
    from v2fhir.convert import convert as peer_convert
    from v2fhir.hl7.parser import parse_bytes
    from v2fhir.validate import validate_bundle

    config, now = Config(), datetime(2026, 3, 1, tzinfo=UTC)

    def ours(message: bytes) -> dict:
        result = fhir_adapters.convert(message, format="hl7v2")
        result.to_json()
        return result.bundle

    def theirs(message: bytes) -> dict:
        bundle = peer_convert(parse_bytes(message), config, now).bundle
        validate_bundle(bundle)
        json.dumps(bundle, ensure_ascii=False).encode()
        return bundle

    comparisons = []
    for what, message, target in (
        ("HL7 v2 ADT^A01 to validated FHIR", admission(), 3.0),
        ("HL7 v2 ORU^R01 with 30 OBX to validated FHIR", laboratory_report(), 1.0),
    ):
        rates = rates_in_turn(
            {"ours": (lambda m=message: ours(m), 1), "theirs": (lambda m=message: theirs(m), 1)}, seconds
        )
        note = f"ours: {resources_of(ours(message))}; theirs: {resources_of(theirs(message))}"
        comparisons.append(
            Comparison(
                what, rates["ours"], "hl7v2-fhir-bridge 0.1.0, validated", rates["theirs"], target=target, note=note
            )
        )
    return comparisons
