"""The coded concepts that adapters ask for, by name, and the tables of ``fhir_adapters/maps`` that answer."""

from collections.abc import Mapping
from types import MappingProxyType

CONCEPTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sex": ("gbt2261-1-sex", "hl7-0001-sex", "vendor-sex"),
        "ethnic": ("gb3304-ethnic",),
        "marital": ("gbt2261-2-marital", "hl7-0002-marital", "vendor-marital"),
        "relationship": ("hl7-0063-relationship", "gb4761-relationship"),
        "contact-role": ("hl7-0131-contact-role",),
        "encounter-class": ("hl7-0004-patient-class", "vendor-patient-class"),
        "admission-type": ("hl7-0007-admission-type",),
        "admit-source": ("hl7-0023-admit-source",),
        "discharge-disposition": ("hl7-0112-discharge-disposition",),
        "leaving": ("cv06-00-226-leaving",),
        "data-element": ("wst363-data-element",),
        "document": ("wst500-document",),
        "encounter-status": ("view-encounter-status",),
        "bed-status": ("hl7-0116-bed-status", "vendor-bed-status"),
        "observation-status": ("hl7-0085-observation-status",),
        "report-status": ("hl7-0123-report-status",),
        "order-status": ("hl7-0038-order-status", "view-order-status"),
        "order-control": ("hl7-0119-order-control",),
        "priority": ("hl7-0485-priority", "vendor-priority"),
        "interpretation": ("hl7-0078-interpretation", "vendor-interpretation"),
        "section": ("hl7-0074-section",),
        "name-use": ("hl7-0200-name-type",),
        "address-use": ("hl7-0190-address-type",),
        "telecom-use": ("hl7-0201-telecom-use",),
        "telecom-system": ("hl7-0202-telecom-equipment",),
        "allergy-category": ("hl7-0127-allergen-type",),
        "allergy-severity": ("hl7-0128-allergy-severity",),
        "diagnosis-use": ("hl7-0052-diagnosis-type", "vendor-diagnosis-kind"),
        "code-system": ("hl7-0396-code-system",),
        "identifier-type": ("hl7-0203-identifier-type", "cv02-01-101-id-type"),
        "specimen": ("hl7-0487-specimen-type",),
        "frequency": ("vendor-frequency",),
        "medication-route": ("vendor-route",),
        "medication-order-status": ("view-medication-status",),
        "medication-administration-status": ("view-administration-status",),
        "medication-order-kind": ("vendor-medication-order-kind",),
        "diagnosis-certainty": ("view-diagnosis-certainty",),
        "diagnosis-outcome": ("view-diagnosis-outcome",),
        "document-status": ("view-document-status",),
        "exam-class": ("hl7-0074-section", "vendor-exam-class"),
        "vital-sign": ("vendor-vital-sign",),
        "staff-role": ("vendor-staff-role",),
        # No common codes exist for these; a site may map its own to codes of its choice ("system|code").
        "order-class": (),
        "order-term": (),
        "bed-kind": (),
        "department-kind": (),
        "staff-title": (),
    }
)
"""Concept -> the tables that are asked, first answer wins."""
