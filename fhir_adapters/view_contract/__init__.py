"""The standard views: which columns a hospital's DBA gives us, and what each means.

docs/view-contract.md is the text for people, ``contract.sql`` the DDL; a test holds the three together. Column names
are matched without regard to case. A column that the contract does not know is reported once as "not-mapped".
The same columns make a CSV file, a sheet of a workbook and the body of an action message (docs/soap.md).
"""

from collections.abc import Mapping
from types import MappingProxyType

from fhir_adapters.view_contract.columns import Column, View
from fhir_adapters.view_contract.views_care import CRITICAL, DIAGNOSIS, DOCUMENT, MEDICATION, ORDER
from fhir_adapters.view_contract.views_register import BED, DEPARTMENT, ENCOUNTER, PATIENT, STAFF
from fhir_adapters.view_contract.views_results import EXAM, LAB, VITAL

__all__ = [
    "BED", "CRITICAL", "DEPARTMENT", "DIAGNOSIS", "DOCUMENT", "ENCOUNTER", "EXAM", "LAB", "LINEAGE", "MEDICATION",
    "ORDER", "PATIENT", "STAFF", "VIEWS", "VITAL", "Column", "View",
]  # fmt: skip

LINEAGE = frozenset({"row_key", "updated_at"})
"""Columns that a database view must have and a file may lack: they say where a row comes from, not what it is."""

VIEWS: Mapping[str, View] = MappingProxyType(
    {
        view.name: view
        for view in (
            PATIENT, ENCOUNTER, BED, ORDER, MEDICATION, LAB, EXAM, VITAL, DIAGNOSIS, DOCUMENT, CRITICAL, STAFF,
            DEPARTMENT,
        )
    }
)  # fmt: skip
"""The views by name."""
