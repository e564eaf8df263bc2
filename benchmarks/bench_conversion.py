"""HL7 v2 to validated FHIR, beside the PyPI packages hl7v2-fhir-bridge and brightohir in the same run and process."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import cycle
from time import process_time

import fhir_adapters
from benchmarks.measure import Comparison, quiet, rates_in_turn
from benchmarks.messages import admission, laboratory_report
from fhir_adapters.profile import DEFAULT_PROFILE

UNCHECKED = replace(DEFAULT_PROFILE, validate=False)

MAIN_KINDS = (
    # message, target ratio to hl7v2-fhir-bridge, absolute targets (per second and core) mapped and validated
    ("ADT^A01", admission, 3.0, 6500.0, 3000.0),
    ("ORU^R01 with 30 OBX", laboratory_report, 1.0, 1000.0, 700.0),
)
PATIENTS = 2_000
"""Patients of the varied messages: their ids are more than are kept, so that each is made anew."""


def resources_of(bundle: dict) -> str:
    kinds = Counter(entry["resource"]["resourceType"] for entry in bundle["entry"])
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def ours(message: bytes) -> dict:
    result = fhir_adapters.convert(message, format="hl7v2")
    result.to_json()
    return result.bundle


def ours_mapped(message: bytes) -> dict:
    return fhir_adapters.convert(message, format="hl7v2", profile=UNCHECKED).bundle


def bridge() -> tuple[Callable[[bytes], dict], Callable[[bytes], dict]]:
    """Return hl7v2-fhir-bridge's conversion alone, and with its own validation."""
    from v2fhir.config import Config
    from v2fhir.convert import convert as peer_convert
    from v2fhir.hl7.parser import parse_bytes
    from v2fhir.validate import validate_bundle

    config, now = Config(), datetime(2026, 3, 1, tzinfo=UTC)

    def mapped(message: bytes) -> dict:
        return peer_convert(parse_bytes(message), config, now).bundle

    def validated(message: bytes) -> dict:
        bundle = mapped(message)
        validate_bundle(bundle)
        json.dumps(bundle, ensure_ascii=False).encode()
        return bundle

    return mapped, validated


def brightohir(message: bytes) -> dict:
    """brightohir makes R5 and validates by the models that it builds; it has no conversion without them."""
    from brightohir import v2_to_r5

    bundle = v2_to_r5(message.decode())
    json.dumps(bundle, ensure_ascii=False).encode()
    return bundle


def run(seconds: float = 5.0) -> list[Comparison]:
    """Measure ADT and ORU mapped and validated beside both peers, and ADT of many patients, doctors and beds."""
    peer_mapped, peer_validated = bridge()
    comparisons: list[Comparison] = []
    with quiet():
        for what, make, ratio, mapped_target, validated_target in MAIN_KINDS:
            message = make()
            rates = rates_in_turn(
                {
                    "mapped": (lambda m=message: ours_mapped(m), 1),
                    "validated": (lambda m=message: ours(m), 1),
                    "bridge mapped": (lambda m=message: peer_mapped(m), 1),
                    "bridge validated": (lambda m=message: peer_validated(m), 1),
                    "brightohir": (lambda m=message: brightohir(m), 1),
                },
                seconds,
                process_time,
            )
            made = {
                "ours": ours(message),
                "hl7v2-fhir-bridge": peer_validated(message),
                "brightohir (R5)": brightohir(message),
            }
            note = "; ".join(f"{name}: {resources_of(bundle)}" for name, bundle in made.items())
            title = f"HL7 v2 {what}"
            comparisons += [
                Comparison(
                    f"{title} mapped, not validated",
                    rates["mapped"],
                    "hl7v2-fhir-bridge 0.1.0, not validated",
                    rates["bridge mapped"],
                    absolute_target=mapped_target,
                ),
                Comparison(
                    f"{title} to validated FHIR",
                    rates["validated"],
                    "hl7v2-fhir-bridge 0.1.0, validated",
                    rates["bridge validated"],
                    target=ratio,
                    absolute_target=validated_target,
                    note=note,
                ),
                Comparison(
                    f"{title} to validated FHIR, beside R5", rates["validated"], "brightohir 2.1.2", rates["brightohir"]
                ),
            ]
        return [*comparisons, _varied(peer_validated, seconds)]


def _varied(peer_validated: Callable[[bytes], dict], seconds: float) -> Comparison:
    """Measure admissions of many patients, by twenty doctors to forty beds: nothing is as the message before."""
    messages = [
        admission(number).replace(b"D001", b"D%03d" % (number % 20)).replace(b"^301^02", b"^301^%02d" % (number % 40))
        for number in range(PATIENTS)
    ]
    mine, theirs = cycle(messages), cycle(messages)
    operations = {"ours": (lambda: ours(next(mine)), 1), "theirs": (lambda: peer_validated(next(theirs)), 1)}
    rates = rates_in_turn(operations, seconds, process_time)
    return Comparison(
        f"HL7 v2 ADT^A01 of {PATIENTS:,} patients, 20 doctors and 40 beds to validated FHIR",
        rates["ours"],
        "hl7v2-fhir-bridge 0.1.0, validated",
        rates["theirs"],
        target=3.0,
    )
