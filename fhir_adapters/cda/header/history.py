"""What was over before the document's visit began: told in the document, and not of that visit.

Entries do not say which visit they belong to. They are taken to be of the document's own, unless their time says that
they were done or written down on an earlier day: a summary of 2026 also lists the operation of 2015.
"""

from types import MappingProxyType
from typing import Any

from fhir_adapters.cda.context import Conversion, Json

# The element that names the visit, and those whose time places the resource: the end of a period, else the moment.
_TIMES = MappingProxyType(
    {
        "Observation": ("encounter", ("effectivePeriod", "effectiveDateTime")),
        "DiagnosticReport": ("encounter", ("effectivePeriod", "effectiveDateTime")),
        "Procedure": ("encounter", ("performedPeriod", "performedDateTime")),
        "Immunization": ("encounter", ("occurrenceDateTime",)),
        "Condition": ("encounter", ("recordedDate", "abatementDateTime")),
        "AllergyIntolerance": ("encounter", ("recordedDate",)),
        "ClinicalImpression": ("encounter", ("effectivePeriod", "effectiveDateTime")),
        "MedicationStatement": ("context", ("effectivePeriod", "effectiveDateTime")),
        "MedicationAdministration": ("context", ("effectivePeriod", "effectiveDateTime")),
        "MedicationDispense": ("context", ("whenHandedOver", "whenPrepared")),
        "MedicationRequest": ("encounter", ("authoredOn",)),
        "ServiceRequest": ("encounter", ("authoredOn",)),
    }
)


def part_from_visit(conv: Conversion) -> None:
    """Take the visit off every resource whose time is of an earlier day than the visit's first."""
    visit = conv.encounter
    began = visit.get("period", {}).get("start", "") if visit is not None else ""
    if visit is None or not began:
        return
    own = {"reference": f"Encounter/{visit['id']}"}
    for resource in conv.resources.values():
        known = _TIMES.get(resource["resourceType"])
        if known is not None and resource.get(known[0]) == own and _over_before(resource, known[1], began):
            del resource[known[0]]


def _over_before(resource: Json, names: tuple[str, ...], began: str) -> bool:
    for name in names:
        value: Any = resource.get(name)
        moment: str = (value.get("end", "") if isinstance(value, dict) else value) or ""
        if moment:
            # As far as both are known: the year 2026 is not before 2026-03-01.
            shared = min(len(moment), len(began), len("YYYY-MM-DD"))
            return moment[:shared] < began[:shared]
    return False
