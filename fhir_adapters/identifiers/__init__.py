"""Business identifiers: Chinese numbers checked, FHIR Identifiers built, resource ids agreed between adapters."""

from fhir_adapters.identifiers.build import (
    ID_CARD_SYSTEM,
    IDENTIFIER_KINDS,
    V2_IDENTIFIER_TYPE,
    IdentifierKind,
    assigning_system,
    choose_patient_identifier,
    identifier,
    identifier_type,
    kind_system,
)
from fhir_adapters.identifiers.gb11643 import ResidentId, check_resident_id, upgrade_15_to_18
from fhir_adapters.identifiers.keys import (
    condition_id,
    device_id,
    encounter_id,
    location_id,
    observation_id,
    organization_id,
    patient_id,
    practitioner_id,
    provenance_id,
    related_id,
    report_id,
    service_request_id,
    specimen_id,
)
from fhir_adapters.identifiers.normalize import full_width_to_ascii, trimmed
from fhir_adapters.identifiers.uscc import is_valid_uscc, uscc_problem

__all__ = [
    "IDENTIFIER_KINDS",
    "ID_CARD_SYSTEM",
    "V2_IDENTIFIER_TYPE",
    "IdentifierKind",
    "ResidentId",
    "assigning_system",
    "check_resident_id",
    "choose_patient_identifier",
    "condition_id",
    "device_id",
    "encounter_id",
    "full_width_to_ascii",
    "identifier",
    "identifier_type",
    "is_valid_uscc",
    "kind_system",
    "location_id",
    "observation_id",
    "organization_id",
    "patient_id",
    "practitioner_id",
    "provenance_id",
    "related_id",
    "report_id",
    "service_request_id",
    "specimen_id",
    "trimmed",
    "upgrade_15_to_18",
    "uscc_problem",
]
