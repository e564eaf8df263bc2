"""A C-CDA Continuity of Care Document to validated FHIR, beside the PyPI package ccda-to-fhir in the same run."""

from __future__ import annotations

from pathlib import Path
from time import process_time

import orjson

import fhir_adapters
from benchmarks.bench_conversion import UNCHECKED, resources_of
from benchmarks.measure import Comparison, quiet, rates_in_turn
from fhir_adapters.profile import DEFAULT_PROFILE, SourceProfile

DOCUMENT = Path(__file__).parents[1] / "tests" / "golden" / "cda" / "ccda_ccd.xml"
TARGET = 10.0


def run(seconds: float = 5.0) -> list[Comparison]:
    """Measure one CCD read, converted and serialised; all keep nothing between documents.

    ccda-to-fhir's ``convert_document`` does not validate: it stands beside our conversion without. The same converter
    with its own validation (fhir.resources) stands beside ours with ours. Ours keeps the original as a Binary with its
    SM3 digest and makes a Provenance in both; theirs does neither.
    """
    import ccda_to_fhir
    from ccda_to_fhir.ccda.parser import parse_ccda
    from ccda_to_fhir.convert import DocumentConverter

    raw = DOCUMENT.read_bytes()
    text = raw.decode()

    def ours(profile: SourceProfile = DEFAULT_PROFILE) -> dict:
        result = fhir_adapters.convert(raw, "cda", profile)
        result.to_json()
        return result.bundle

    def theirs() -> dict:
        bundle = ccda_to_fhir.convert_document(text)["bundle"]
        orjson.dumps(bundle)
        return bundle

    def theirs_validated() -> dict:
        bundle = DocumentConverter(enable_validation=True).convert(parse_ccda(text))["bundle"]
        orjson.dumps(bundle)
        return bundle

    with quiet():  # it logs several lines of every author
        note = f"ours: {resources_of(ours())}; theirs: {resources_of(theirs_validated())}"
        operations = {
            "ours": (ours, 1),
            "ours mapped": (lambda: ours(UNCHECKED), 1),
            "theirs": (theirs, 1),
            "theirs validated": (theirs_validated, 1),
        }
        rates = rates_in_turn(operations, seconds, process_time)
    title = f"C-CDA CCD of {len(raw) // 1024} KiB"
    return [
        Comparison(
            f"{title} mapped, not validated, documents",
            rates["ours mapped"],
            "ccda-to-fhir 0.3, which does not validate by itself",
            rates["theirs"],
        ),
        Comparison(
            f"{title} to validated FHIR, documents",
            rates["ours"],
            "ccda-to-fhir 0.3 with its validation",
            rates["theirs validated"],
            target=TARGET,
            note=note,
        ),
    ]
