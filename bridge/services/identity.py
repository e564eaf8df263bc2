"""Who is who within one institution: finding a patient by an identifier, and what is kept about a patient.

A patient is found by the identifiers of the stored Patient resources only; a merge is stored as the source told it
(``Patient.link``) and followed here, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bridge.errors import NotFound
from bridge.storage.keyring import NODE
from bridge.storage.records import RecordStore, StoredVersion
from bridge.storage.search_query import MAX_COUNT, SearchQuery, TermCriterion
from bridge.storage.search_values import token_terms

SHARED_TYPES = frozenset(
    {"Organization", "Practitioner", "PractitionerRole", "Location", "Medication", "Substance", "HealthcareService"}
)
"""Types that belong to no patient: sealed under the node's own data key."""

_PATIENT_ELEMENTS = ("subject", "patient", "beneficiary", "for")
_SAME_PERSON = frozenset({"replaced-by", "replaces", "seealso"})
"""Links that a source makes to say that two records are of one person: merged (A40), or both in use (A24)."""

_MAX_LINKS = 20
"""Most links followed from one patient: a longer chain is a mistake of the source."""


def subject_of(resource: Mapping[str, Any], default: str = NODE) -> str:
    """Return whose data key a resource is sealed under: "Patient/<id>", or ``default`` when it names no patient.

    ``default`` is the patient of the message it came in; shared types are the node's in any case.
    """
    kind = resource.get("resourceType")
    if kind == "Patient":
        return f"Patient/{resource.get('id')}"
    if kind in SHARED_TYPES:
        return NODE
    for element in _PATIENT_ELEMENTS:
        value = resource.get(element)
        reference = value.get("reference") if isinstance(value, Mapping) else None
        if isinstance(reference, str) and reference.startswith("Patient/"):
            return "/".join(reference.split("/")[:2])
    return default


class IdentityService:
    """Looks patients up in the record store."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records

    def find(self, system: str, value: str) -> list[StoredVersion]:
        """Return the patients that carry an identifier, newest first; usually one, none when unknown here."""
        terms = tuple(term for term in token_terms("Patient.identifier", system, value) if term[0].endswith("#full"))
        if not terms:
            return []
        query = SearchQuery("Patient", (TermCriterion(terms),), count=MAX_COUNT)
        return list(self._records.search(query).entries)

    def subjects(self, system: str, value: str) -> list[str]:
        """Return the "Patient/<id>" of everyone with an identifier, and of those they were merged with, in order."""
        found: list[str] = []
        waiting = [patient.resource() for patient in self.find(system, value)]
        while waiting and len(found) < _MAX_LINKS:
            patient = waiting.pop(0)
            reference = f"Patient/{patient['id']}"
            if reference in found:
                continue
            found.append(reference)
            waiting += [other for other in self._linked(patient) if f"Patient/{other['id']}" not in found]
        return found

    def compartment(self, subject: str, types: Iterable[str] = ()) -> Iterator[StoredVersion]:
        """Give the current versions of everything kept about a patient, the Patient included; ``types`` narrows it.

        Each is opened as it is taken: the memory needed is one record's. Raises ``KeyDestroyed`` after an erasure.
        """
        return self._records.of_subject(subject, types)

    def _linked(self, patient: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for link in patient.get("link", ()):
            reference = link.get("other", {}).get("reference", "")
            kind, _, id = reference.partition("/")
            if kind != "Patient" or link.get("type") not in _SAME_PERSON:
                continue
            try:
                yield self._records.read("Patient", id).resource()
            except NotFound:
                continue
