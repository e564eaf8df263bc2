"""Every kind of source to validated FHIR on its own: the families of HL7 v2, Chinese documents and rows of views.

hl7v2-fhir-bridge and brightohir are given each HL7 v2 message in the same run; what they cannot do is said beside it.
The sources are the golden ones of the tests.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from time import process_time

import fhir_adapters
from benchmarks.bench_conversion import bridge, brightohir, ours, resources_of
from benchmarks.measure import Comparison, quiet, rates_in_turn
from fhir_adapters.tabular import convert_rows

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
MESSAGES = (
    ("ADT^A03", "adt_a03_discharge"),
    ("ADT^A40", "adt_a40_merge"),
    ("ORU^R01 microbiology", "oru_r01_microbiology_parent"),
    ("ORM^O01", "orm_o01_lab_order"),
    ("OML^O33", "oml_o33_by_specimen"),
    ("OMI^O23", "omi_o23_imaging"),
    ("RDE^O11", "rde_o11_prescription"),
    ("RDS^O13", "rds_o13_dispense"),
    ("RAS^O17", "ras_o17_given_and_refused"),
    ("VXU^V04", "vxu_v04_vaccinations"),
    ("SIU^S12", "siu_s12_booking"),
    ("MDM^T02", "mdm_t02_document"),
    ("DFT^P03", "dft_p03_charges"),
    ("BAR^P01", "bar_p01_account"),
    ("MFN^M02", "mfn_m02_staff"),
)
DOCUMENTS = (
    ("C0002 outpatient record", "c0002_outpatient"),
    ("C0007 laboratory report", "c0007_lab_report_gb"),
    ("C0032 front page", "c0032_front_page"),
)
VIEWS = (
    ("V_IOP_PATIENT", "patients"),
    ("V_IOP_ENCOUNTER", "encounters"),
    ("V_IOP_LAB", "lab"),
    ("V_IOP_MEDICATION", "medications"),
)
SHARE = 5
"""Each is measured for a fifth of the time that a main kind gets: there are many of them."""

FOLLOWS = frozenset({"MessageHeader", "Provenance", "Bundle"})
"""Resources about the message itself: a Bundle of nothing else says nothing of what was sent."""


def attempt(convert: Callable[[bytes], dict], message: bytes) -> tuple[dict | None, str]:
    """Return a peer's Bundle, or None and why it is none: an error, or nothing but resources about the message."""
    try:
        bundle = convert(message)
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is its answer
        return None, f"raises {type(error).__name__}"
    kinds = {entry["resource"]["resourceType"] for entry in bundle.get("entry", ())}
    return (bundle, "") if kinds - FOLLOWS else (None, "makes nothing of it")


def run(seconds: float = 5.0) -> list[Comparison]:
    """Measure each kind for a share of ``seconds``."""
    _, validated = bridge()
    peers = {"hl7v2-fhir-bridge 0.1.0": validated, "brightohir 2.1.2 (R5)": brightohir}
    share = seconds / SHARE
    with quiet():
        comparisons = [_message(what, name, peers, share) for what, name in MESSAGES]
    for what, name in DOCUMENTS:
        raw = (GOLDEN / "cda" / f"{name}.xml").read_bytes()
        rates = rates_in_turn(
            {"ours": (lambda raw=raw: fhir_adapters.convert(raw, "cda").to_json(), 1)}, share, process_time
        )
        note = f"no peer reads WS/T 500; ours: {resources_of(fhir_adapters.convert(raw, 'cda').bundle)}"
        comparisons.append(Comparison(f"WS/T 500 {what} to validated FHIR", rates["ours"], "", None, note=note))
    return comparisons + [_view(view, name, share) for view, name in VIEWS]


def _document(raw: bytes) -> bytes:
    return fhir_adapters.convert(raw, "cda").to_json()


def _message(what: str, name: str, peers: dict[str, Callable[[bytes], dict]], seconds: float) -> Comparison:
    """Measure a message beside the first peer that makes something of it."""
    message = (GOLDEN / "hl7v2" / f"{name}.hl7").read_bytes()
    said = [f"ours: {resources_of(ours(message))}"]
    able: dict[str, Callable[[bytes], dict]] = {}
    for peer, convert in peers.items():
        bundle, why = attempt(convert, message)
        said.append(f"{peer}: {why if bundle is None else resources_of(bundle)}")
        if bundle is not None:
            able[peer] = convert
    operations = {"ours": (lambda: ours(message), 1)}
    operations |= {peer: (lambda convert=convert: convert(message), 1) for peer, convert in able.items()}
    rates = rates_in_turn(operations, seconds, process_time)
    said += [f"{peer}: {rates[peer]}" for peer in list(able)[1:]]
    beside = next(iter(able), "")
    title = f"HL7 v2 {what} to validated FHIR, messages"
    return Comparison(title, rates["ours"], beside, rates.get(beside), note="; ".join(said))


def _view(view: str, name: str, seconds: float) -> Comparison:
    with (GOLDEN / "tabular" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rates = rates_in_turn({"ours": (lambda: convert_rows(view, rows).to_json(), len(rows))}, seconds, process_time)
    note = f"{len(rows)} rows: {resources_of(convert_rows(view, rows).bundle)}"
    return Comparison(f"{view} to validated FHIR, rows", rates["ours"], "", None, note=note)
