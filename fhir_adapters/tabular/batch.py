"""The resources of one batch of rows, each once, and the Bundle and Provenance made of them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import orjson
from cryptography.hazmat.primitives.hashes import SM3, Hash

from fhir_adapters.bundle_entry import ACTORS_AND_PLACES, entry
from fhir_adapters.identifiers import (
    encounter_id,
    identifier,
    is_valid_uscc,
    organization_id,
    patient_id,
    provenance_id,
)
from fhir_adapters.identifiers.build import PROJECT_SYSTEMS, assigning_system, kind_system
from fhir_adapters.profile import SourceProfile
from fhir_adapters.result import Issue
from fhir_adapters.tabular.rows import Json, Row, absent

ADAPTER = "tabular/1.0"
"""Name and version of this adapter, as lineage records it."""

_PROVENANCE_AGENT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"


_NAMED_IN_PASSING = ACTORS_AND_PLACES | {"ServiceRequest", "Condition", "Observation"}
# A report names its request and a critical value its result, with less than the view of these says.


class Batch:
    """Collects resources. The first version of a resource completes later ones; the row's own resource replaces."""

    def __init__(self, profile: SourceProfile, view: str) -> None:
        self.profile = profile
        self.view = view
        self.issues: list[Issue] = []
        self.expected: dict[str, tuple[Row, str]] = {}
        """Report -> (a row of it, how many rows it says to have)."""
        self._resources: dict[str, Json] = {}
        self._owned: set[str] = set()
        self._sources: dict[str, _Source] = {}

    def put(self, resource: Json, *, owner: bool = False) -> str:
        """Add a resource, return its reference. ``owner``: the row is about it, so it replaces what is known."""
        reference = f"{resource['resourceType']}/{resource['id']}"
        known = self._resources.get(reference)
        if owner:
            self._owned.add(reference)
        if known is None or owner:
            self._resources[reference] = resource
        else:
            for name, value in resource.items():
                known.setdefault(name, value)
        return reference

    def get(self, reference: str) -> Json | None:
        """The resource of a reference put before."""
        return self._resources.get(reference)

    def sourced(self, patient: str, cells: Mapping[str, Any], updated: str, references: Iterable[str]) -> None:
        """Note which row of which patient said what; one Provenance per patient, so that patients are not mixed.

        ``patient`` is "" for rows that are about no patient: they share one Provenance.
        """
        source = self._sources.setdefault(patient, _Source())
        source.rows.append(cells)
        source.updated = max(source.updated, updated, key=_moment)
        source.targets.update(dict.fromkeys(references))

    def institution(self) -> Json | None:
        """A reference to the institution of the profile, which it puts; None when the profile names none."""
        told = self.profile.organization
        if not told.identifier and not told.name:
            return None
        value = told.identifier or told.name
        kind = "uscc" if is_valid_uscc(value) else ""
        system = kind_system(self.profile, kind) if kind else assigning_system(self.profile, "")
        resource: Json = {
            "resourceType": "Organization",
            "id": organization_id(self.profile, system, value),
            "identifier": [identifier(value, kind, system=system)],
        }
        if told.name:
            resource["name"] = told.name
        return {"reference": self.put(resource)}

    def bundle(self) -> Json:
        """The transaction Bundle: resources in the order they were met, then one Provenance for each patient."""
        for patient in list(self._sources):
            self._provenance(patient, self._sources[patient])
        built: Json = {"resourceType": "Bundle", "type": "transaction"}
        newest = max((source.updated for source in self._sources.values()), key=_moment, default="")
        if newest:
            built["timestamp"] = newest
        if self._resources:
            built["entry"] = [self._entry(reference, each) for reference, each in self._resources.items()]
        return built

    def _entry(self, reference: str, resource: Json) -> Json:
        mention = resource["resourceType"] in _NAMED_IN_PASSING and reference not in self._owned
        return entry(self.profile.base_url, reference, resource, mention=mention)

    def _provenance(self, patient: str, source: "_Source") -> None:
        digest = rows_digest(source.rows)
        resource: Json = {
            "resourceType": "Provenance",
            "id": provenance_id(self.profile, self.view, f"{patient}#{digest}"),
            "target": [{"reference": each} for each in source.targets if each in self._resources],
        }
        if source.updated:
            resource["recorded"] = source.updated
        else:
            resource["_recorded"] = absent("unknown")
        who: Json = {"display": self.profile.organization.name or self.profile.name}
        if self.profile.organization.identifier:
            value = self.profile.organization.identifier
            who["identifier"] = identifier(value, "uscc" if is_valid_uscc(value) else "institution")
        coding = {"system": _PROVENANCE_AGENT, "code": "author", "display": "Author"}
        resource["agent"] = [{"type": {"coding": [coding]}, "who": who}]
        what = {
            "identifier": {"system": PROJECT_SYSTEMS + "source-digest-sm3", "value": digest},
            "display": f"{ADAPTER} {self.view}",
        }
        resource["entity"] = [{"role": "source", "what": what}]
        self.put(resource)


class _Source:
    __slots__ = ("rows", "targets", "updated")

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []
        self.targets: dict[str, None] = {}
        self.updated = ""


def patient_reference(row: Row) -> Json:
    """The patient that a row names: by resource id, and by the number it is made of.

    The identifier lets the reference stand although the Patient comes from another view (and perhaps later).
    """
    system, value = row.system(), row.text("patient_no")
    return {
        "reference": f"Patient/{patient_id(row.profile, system, value)}",
        "type": "Patient",
        "identifier": {"system": system, "value": value},
    }


def visit_reference(row: Row) -> Json | None:
    """The visit that a row names, in the same two ways; None when it names none."""
    visit = row.text("visit_no")
    if not visit:
        return None
    system = row.system()
    return {
        "reference": f"Encounter/{encounter_id(row.profile, system, visit)}",
        "identifier": {"system": system, "value": visit},
    }


def rows_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Hex SM3 over the cells of rows in a fixed form: sorted columns, text as read, times in ISO 8601."""
    digest = Hash(SM3())
    for cells in rows:
        plain = {column: _plain(value) for column, value in cells.items() if value is not None}
        digest.update(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS) + b"\n")
    return digest.finalize().hex()


def _plain(value: Any) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    # A lone surrogate cannot be written as UTF-8; its escape can.
    return str(value).encode("utf-8", "backslashreplace").decode()


def _moment(instant: str) -> float:
    return datetime.fromisoformat(instant.replace("Z", "+00:00")).timestamp() if instant else float("-inf")
