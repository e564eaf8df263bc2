"""A C-CDA Continuity of Care Document to validated FHIR, beside the PyPI package ccda-to-fhir in the same run."""

from __future__ import annotations

from pathlib import Path
from time import process_time

import orjson

import fhir_adapters
from benchmarks.bench_conversion import resources_of
from benchmarks.measure import Comparison, quiet, rates_in_turn

DOCUMENT = Path(__file__).parents[1] / "tests" / "golden" / "cda" / "ccda_ccd.xml"
TARGET = 10.0


def run(seconds: float = 5.0) -> list[Comparison]:
    """Measure one CCD read, converted, validated and serialised; both keep nothing between documents."""
    import ccda_to_fhir

    raw = DOCUMENT.read_bytes()
    text = raw.decode()

    def ours() -> dict:
        result = fhir_adapters.convert(raw, "cda")
        result.to_json()
        return result.bundle

    def theirs() -> dict:
        bundle = ccda_to_fhir.convert_document(text)["bundle"]
        orjson.dumps(bundle)
        return bundle

    with quiet():  # it logs several lines of every author
        note = f"ours: {resources_of(ours())}; theirs: {resources_of(theirs())}"
        rates = rates_in_turn({"ours": (ours, 1), "theirs": (theirs, 1)}, seconds, process_time)
    return [
        Comparison(
            f"C-CDA CCD of {len(raw) // 1024} KiB to validated FHIR, documents",
            rates["ours"],
            "ccda-to-fhir 0.3",
            rates["theirs"],
            target=TARGET,
            note=note,
        )
    ]
