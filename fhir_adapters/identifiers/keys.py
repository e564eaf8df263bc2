"""Which business key names which resource: one rule for every adapter, so that their records meet.

Each function returns the id (36 characters) that :func:`fhir_adapters.resource_id.resource_id` makes of the key.
``system`` is an identifier system from :func:`fhir_adapters.identifiers.build.assigning_system`.
"""

from fhir_adapters.profile import SourceProfile
from fhir_adapters.resource_id import resource_id

_PART = "\x1f"  # unit separator: never part of a code


def patient_id(profile: SourceProfile, system: str, value: str) -> str:
    """A patient by its identifier (see ``choose_patient_identifier``)."""
    return resource_id(profile.id_key, "Patient", system, value)


def encounter_id(profile: SourceProfile, system: str, value: str) -> str:
    """A visit by its visit number."""
    return resource_id(profile.id_key, "Encounter", system, value)


def practitioner_id(profile: SourceProfile, system: str, value: str) -> str:
    """A member of staff by staff number."""
    return resource_id(profile.id_key, "Practitioner", system, value)


def organization_id(profile: SourceProfile, system: str, value: str) -> str:
    """An institution or department by its code."""
    return resource_id(profile.id_key, "Organization", system, value)


def location_id(
    profile: SourceProfile, facility: str = "", building: str = "", ward: str = "", room: str = "", bed: str = ""
) -> str:
    """A place by its path (HL7 v2 PL: facility, building, point of care, room, bed). Empty parts count as unsaid."""
    path = _PART.join((facility, building, ward, room, bed))
    return resource_id(profile.id_key, "Location", profile.base_url, path)


def report_id(profile: SourceProfile, system: str, value: str) -> str:
    """A diagnostic report by the filler's order number."""
    return resource_id(profile.id_key, "DiagnosticReport", system, value)


def observation_id(
    profile: SourceProfile, system: str, report: str, code: str, sub_id: str = "", occurrence: int = 0
) -> str:
    """A result by its report's number, its code, its sub-id and which repetition of these it is (0 the first)."""
    key = _PART.join((report, code, sub_id, str(occurrence)))
    return resource_id(profile.id_key, "Observation", system, key)


def service_request_id(profile: SourceProfile, system: str, value: str) -> str:
    """An order by the placer's number, or the filler's where there is no placer's."""
    return resource_id(profile.id_key, "ServiceRequest", system, value)


def specimen_id(profile: SourceProfile, system: str, value: str) -> str:
    """A specimen by its number."""
    return resource_id(profile.id_key, "Specimen", system, value)


def condition_id(profile: SourceProfile, owner: str, code: str, kind: str = "") -> str:
    """A diagnosis by the id of the encounter or patient it belongs to, its code and its kind (admission, discharge)."""
    return resource_id(profile.id_key, "Condition", owner, _PART.join((code, kind)))


def medication_request_id(profile: SourceProfile, system: str, value: str) -> str:
    """An order of a medicine by the placer's number (ORC-2), or the filler's where there is no placer's."""
    return resource_id(profile.id_key, "MedicationRequest", system, value)


def medication_administration_id(profile: SourceProfile, system: str, order: str, number: str) -> str:
    """One administration of a medicine by its order's number and its own (or its time where it has none)."""
    return resource_id(profile.id_key, "MedicationAdministration", system, _PART.join((order, number)))


def document_id(profile: SourceProfile, system: str, value: str) -> str:
    """A DocumentReference by the document's number; its Binary has the id of :func:`binary_id`."""
    return resource_id(profile.id_key, "DocumentReference", system, value)


def binary_id(profile: SourceProfile, system: str, value: str) -> str:
    """The content of a document by the document's number."""
    return resource_id(profile.id_key, "Binary", system, value)


def device_id(profile: SourceProfile, system: str, value: str) -> str:
    """A device by its number."""
    return resource_id(profile.id_key, "Device", system, value)


def related_id(profile: SourceProfile, type: str, owner: str, *parts: str) -> str:
    """Anything that only its owner and position or content name (RelatedPerson, Coverage, AllergyIntolerance)."""
    return resource_id(profile.id_key, type, owner, _PART.join(parts))


def provenance_id(profile: SourceProfile, source: str, key: str) -> str:
    """The Provenance of one message: the sending system and its message control id, or a digest."""
    return resource_id(profile.id_key, "Provenance", source, key)


def practitioner_role_id(
    profile: SourceProfile, person: str, organization: str, place: str = "", role: str = ""
) -> str:
    """What a person does at an organization, by the references of both (and of the place) and the role's code."""
    return resource_id(
        profile.id_key, "PractitionerRole", profile.base_url, _PART.join((person, organization, place, role))
    )


def account_id(profile: SourceProfile, system: str, value: str) -> str:
    """An account by its number."""
    return resource_id(profile.id_key, "Account", system, value)


def appointment_id(profile: SourceProfile, system: str, value: str) -> str:
    """An appointment by the placer's number (SCH-1), or the filler's where there is no placer's."""
    return resource_id(profile.id_key, "Appointment", system, value)


def numbered_id(profile: SourceProfile, type: str, system: str, *parts: str) -> str:
    """Any other resource by its business number, or by several that name it together."""
    return resource_id(profile.id_key, type, system, _PART.join(parts))
