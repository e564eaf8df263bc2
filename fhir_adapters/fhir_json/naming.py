"""Which id a resource of a source gets here.

A source's own ids mean nothing outside it ("Patient/1" is somebody else at every source), so none is taken over:

1. an id of the form that this node gives (UUID version 8) stays: the source speaks of a resource it got from here;
2. a resource with a business identifier gets the id that this identifier has in every adapter;
3. a resource that only has the source's own id gets one made of it and of the profile's ``default_authority``;
4. one without either gets one made of its content: the same content, the same id.

Of 2 the source's own id stays as a further identifier (:func:`local_system`), so that a later reference to it, in
another Bundle, still finds the resource.
"""

import re
from typing import Any
from urllib.parse import quote

from cryptography.hazmat.primitives.hashes import SM3, Hash

from fhir_adapters.identifiers import choose_patient_identifier
from fhir_adapters.profile import SourceProfile
from fhir_adapters.resource_id import resource_id
from fhir_adapters.result import to_canonical_json

CONTENT_SYSTEM = "urn:yiqiao:content-sm3"
"""System under which a resource without any identifier is named by its content."""

ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
"""FHIR R4, data type id."""

OWN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
"""The form of the ids that this node gives (RFC 9562 section 5.8)."""

ALIASED = frozenset({
    "AllergyIntolerance", "Appointment", "CarePlan", "Condition", "Device", "DiagnosticReport", "DocumentReference",
    "Encounter", "FamilyMemberHistory", "Immunization", "Location", "MedicationAdministration", "MedicationDispense",
    "MedicationRequest", "MedicationStatement", "Observation", "Organization", "Patient", "Practitioner", "Procedure",
    "RelatedPerson", "ServiceRequest", "Specimen",
})  # fmt: skip
"""Types that keep the source's own id as an identifier: those whose ``identifier`` is a list and that others name."""

_PREFERRED_TYPES = {
    "Encounter": ("VN",),
    "ServiceRequest": ("PLAC", "FILL"),
    "MedicationRequest": ("PLAC", "FILL"),
    "DiagnosticReport": ("FILL", "PLAC"),
}
"""Of several identifiers, the kinds that name a resource, as the HL7 v2 adapter takes them."""

__all__ = ["CONTENT_SYSTEM", "ID", "OWN_ID", "assigned_id", "business_identifier", "local_id", "local_system"]


def local_system(profile: SourceProfile, kind: str) -> str:
    """The system of a source's own ids of one resource type."""
    return f"{profile.base_url}/NamingSystem/{quote(profile.default_authority, safe='')}/fhir-id/{kind}"


def local_id(profile: SourceProfile, kind: str, own: str) -> str:
    """The id that a resource has here of which only the source's own id is known."""
    return resource_id(profile.id_key, kind, local_system(profile, kind), own)


def assigned_id(profile: SourceProfile, resource: dict[str, Any], own: str = "") -> str:
    """The id of a resource; ``own`` is the source's, "" when it has none. Raises AdapterError."""
    kind = str(resource["resourceType"])
    if OWN_ID.fullmatch(own):
        return own
    found = business_identifier(resource)
    if found is not None:
        return resource_id(profile.id_key, kind, *found)
    if own:
        return local_id(profile, kind, own)
    plain = {name: value for name, value in resource.items() if name not in ("id", "meta")}
    digest = Hash(SM3())
    digest.update(to_canonical_json(plain))
    return resource_id(profile.id_key, kind, CONTENT_SYSTEM, digest.finalize().hex())


def keep_own_id(profile: SourceProfile, resource: dict[str, Any], own: str) -> None:
    """Add the source's own id to a resource's identifiers, where its type has a list of them."""
    kind = str(resource["resourceType"])
    listed = resource.get("identifier", [])
    if kind not in ALIASED or not own or OWN_ID.fullmatch(own) or not isinstance(listed, list):
        return
    alias = {"system": local_system(profile, kind), "value": own}
    if all(not isinstance(each, dict) or each.get("system") != alias["system"] for each in listed):
        resource["identifier"] = [*listed, alias]


def business_identifier(resource: dict[str, Any]) -> tuple[str, str] | None:
    """System and value of the identifier that names a resource; None when it has none with both."""
    usable = [each for each in _identifiers(resource) if _is_usable(each)]
    kind = resource["resourceType"]
    if kind == "Patient":
        chosen = choose_patient_identifier(usable)
    else:
        chosen = next(
            (each for wanted in _PREFERRED_TYPES.get(kind, ()) for each in usable if _type_of(each) == wanted),
            usable[0] if usable else None,
        )
    return None if chosen is None else (chosen["system"], chosen["value"])


def _identifiers(resource: dict[str, Any]) -> list[Any]:
    found = resource.get("identifier", [])
    listed = found if isinstance(found, list) else [found]
    master = resource.get("masterIdentifier")
    return [master, *listed] if master is not None else list(listed)


def _is_usable(identifier: Any) -> bool:
    return (
        isinstance(identifier, dict)
        and all(isinstance(identifier.get(name), str) and identifier[name] for name in ("system", "value"))
        and _has_plain_type(identifier)
    )


def _has_plain_type(identifier: dict[str, Any]) -> bool:
    """Whether the type can be looked at; what is no CodeableConcept is for validation to refuse."""
    kind = identifier.get("type", {})
    codings = kind.get("coding", [{}]) if isinstance(kind, dict) else None
    return isinstance(codings, list) and bool(codings) and all(isinstance(each, dict) for each in codings)


def _type_of(identifier: dict[str, Any]) -> str:
    return str(identifier.get("type", {}).get("coding", [{}])[0].get("code", ""))
