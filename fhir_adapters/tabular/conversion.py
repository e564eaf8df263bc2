"""Rows of one view to one transaction Bundle."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fhir_adapters.errors import ParseError, UnsupportedMessage
from fhir_adapters.profile import DEFAULT_PROFILE, SourceProfile
from fhir_adapters.result import ConversionResult, Issue
from fhir_adapters.tabular.batch import ADAPTER, Batch, patient_reference
from fhir_adapters.tabular.bed import convert_bed
from fhir_adapters.tabular.critical import convert_critical
from fhir_adapters.tabular.diagnosis import convert_diagnosis
from fhir_adapters.tabular.document import convert_document
from fhir_adapters.tabular.encounter import convert_encounter
from fhir_adapters.tabular.exam import convert_exam
from fhir_adapters.tabular.lab import check_complete, convert_lab
from fhir_adapters.tabular.medication import convert_medication
from fhir_adapters.tabular.order import convert_order
from fhir_adapters.tabular.patient import convert_patient
from fhir_adapters.tabular.rows import Row
from fhir_adapters.tabular.staff import convert_department, convert_staff
from fhir_adapters.tabular.vital import convert_vital
from fhir_adapters.validation import require_valid
from fhir_adapters.view_contract import (
    BED,
    CRITICAL,
    DEPARTMENT,
    DIAGNOSIS,
    DOCUMENT,
    ENCOUNTER,
    EXAM,
    LAB,
    LINEAGE,
    MEDICATION,
    ORDER,
    PATIENT,
    STAFF,
    VIEWS,
    VITAL,
    View,
)

__all__ = ["ADAPTER", "MAX_ROWS", "convert_rows", "find_view"]

MAX_ROWS = 100_000
"""Most rows of one call: a batch is one Bundle in memory (about 4 KB a row) and one transaction in the store."""

_CONVERTERS: Mapping[str, Callable[[Row, Batch], list[str]]] = {
    PATIENT.name: convert_patient,
    ENCOUNTER.name: convert_encounter,
    BED.name: convert_bed,
    ORDER.name: convert_order,
    MEDICATION.name: convert_medication,
    LAB.name: convert_lab,
    EXAM.name: convert_exam,
    VITAL.name: convert_vital,
    DIAGNOSIS.name: convert_diagnosis,
    DOCUMENT.name: convert_document,
    CRITICAL.name: convert_critical,
    STAFF.name: convert_staff,
    DEPARTMENT.name: convert_department,
}


def convert_rows(
    view: str, rows: Sequence[Mapping[str, Any]], profile: SourceProfile | None = None
) -> ConversionResult:
    """Convert rows of a standard view. Pure: the same rows and profile give the same Bundle.

    ``rows`` map column names (any case) to what a driver returned: text, numbers, dates, bytes, None. Bad rows come
    back as issues of severity "error", the others are converted. Raises UnsupportedMessage for an unknown view and
    ParseError for more than :data:`MAX_ROWS` rows. ValidationError would mean a fault of this adapter.
    """
    chosen = find_view(view)
    if len(rows) > MAX_ROWS:
        raise ParseError(f"more than {MAX_ROWS} rows in one batch")
    chosen_profile = profile or DEFAULT_PROFILE
    batch = Batch(chosen_profile, chosen.name)
    unknown: dict[str, None] = {}
    for number, cells in enumerate(rows, 1):
        lowered = {str(name).strip().lower(): value for name, value in cells.items() if name is not None}
        unknown.update(dict.fromkeys(name for name in lowered if name not in chosen.columns))
        _convert_row(Row(chosen, number, lowered, chosen_profile, batch.issues), lowered, batch)
    check_complete(batch)
    batch.issues.extend(_not_mapped(unknown))
    bundle = batch.bundle()
    if chosen_profile.validate:
        require_valid(bundle)
    return ConversionResult(bundle, tuple(batch.issues))


def find_view(name: str) -> View:
    """The view of a name in any case, with or without a schema before it. Raises UnsupportedMessage."""
    view = VIEWS.get(name.rpartition(".")[2].strip('"[]`').upper())
    if view is None:
        raise UnsupportedMessage("no such view; one of " + ", ".join(VIEWS))
    return view


def _convert_row(row: Row, cells: Mapping[str, Any], batch: Batch) -> None:
    missing = row.missing()
    # Lineage columns a file may lack: the row is still a record.
    fatal = [column for column in missing if column not in LINEAGE]
    if fatal:
        for column in fatal:
            row.remark("error", "bad-row", column, "required and empty; the row is left out")
        return
    for column in missing:
        row.remark("information", "missing", column, "required by the view contract")
    updated = row.instant("updated_at")
    if row.text("updated_at") and not updated:
        row.remark("warning", "bad-value", "updated_at", "not a point in time")
    references = _CONVERTERS[row.view.name](row, batch)
    if references:
        owner = patient_reference(row)["reference"] if row.view.of_patients else ""
        batch.sourced(owner, cells, updated, references)


def _not_mapped(columns: Iterable[str]) -> list[Issue]:
    return [
        Issue("information", "not-mapped", f"column {name[:64]}", "the view contract has no such column")
        for name in columns
    ]
