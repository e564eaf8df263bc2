"""Which other release of FHIR a resource comes from, where its type or an element tells it.

Only what R4 does not have is looked for: a resource that is valid R4 is never asked.
"""

from typing import Any

_TYPES_OF = {
    "DSTU2": "BodySite Conformance DiagnosticOrder DeviceComponent ImagingObjectSelection MedicationOrder",
    "STU3": "DataElement EligibilityRequest ExpansionProfile ImagingManifest ProcedureRequest ProcessRequest "
    "ReferralRequest Sequence ServiceDefinition",
    "R5": "ActorDefinition ArtifactAssessment BiologicallyDerivedProductDispense ConditionDefinition DeviceAssociation "
    "DeviceDispense DeviceUsage EncounterHistory FormularyItem GenomicStudy ImagingSelection InventoryItem "
    "InventoryReport NutritionIntake Permission RequestOrchestration Requirements TestPlan Transport",
}
_TYPES = {kind: release for release, kinds in _TYPES_OF.items() for kind in kinds.split()}
_ELEMENTS = {
    "R5": {
        "AllergyIntolerance": ("participant",),
        "Appointment": ("recurrenceTemplate", "virtualService"),
        "Condition": ("participant",),
        "Encounter": ("actualPeriod", "admission", "plannedStartDate", "subjectStatus", "virtualService"),
        "Immunization": ("informationSource", "basedOn"),
        "MedicationAdministration": ("medication", "occurenceDateTime", "occurencePeriod"),
        "MedicationDispense": ("medication",),
        "MedicationRequest": ("medication", "effectiveDosePeriod"),
        "MedicationStatement": ("medication", "adherence"),
        "Observation": ("triggeredBy",),
        "Procedure": ("occurrenceDateTime", "occurrencePeriod"),
        "ServiceRequest": ("bodyStructure",),
    },
    "STU3": {
        "Condition": ("context", "assertedDate"),
        "DiagnosticReport": ("context", "codedDiagnosis", "image"),
        "DocumentReference": ("class", "created", "indexed"),
        "Encounter": ("incomingReferral",),
        "Immunization": ("notGiven", "explanation", "vaccinationProtocol", "practitioner"),
        "MedicationRequest": ("context", "definition"),
        "MedicationStatement": ("taken",),
        "Observation": ("context", "comment", "related"),
        "Patient": ("animal",),
        "Procedure": ("context", "notDone", "definition"),
    },
}


def other_release(resource: dict[str, Any]) -> str:
    """The release that a resource not valid in R4 comes from ("R5", "STU3", "DSTU2"); "" when nothing tells."""
    kind = resource.get("resourceType")
    if not isinstance(kind, str):
        return ""
    if kind in _TYPES:
        return _TYPES[kind]
    for release, elements in _ELEMENTS.items():
        if any(name in resource for name in elements.get(kind, ())):
            return release
    # Encounter.class became a list of CodeableConcept.
    return "R5" if kind == "Encounter" and isinstance(resource.get("class"), list) else ""
