"""Extensions of this project: what FHIR R4 and HL7's own extensions have no place for. One list for every adapter.

A reserved domain: the URLs name, they do not resolve. docs/adr/0005-hl7v2-mapping.md and 0006 say where each is used.
"""

PROJECT = "https://yiqiao.example/fhir/StructureDefinition/"

ETHNIC_GROUP = PROJECT + "patient-ethnic-group"
"""Patient: a Coding of GB 3304."""

RACE = PROJECT + "race"
"""Patient: a CodeableConcept, what PID-10 says where it is no ethnic group of GB 3304."""

SOURCE_SEX = PROJECT + "source-sex"
"""Patient.gender: the code as sent, where GB/T 2261.1 or a local table says more than FHIR does."""

IDENTIFIER_CHECK = PROJECT + "identifier-check"
"""Identifier: the rule of its standard that the number breaks ("check-digit", "length", ...); kept, never dropped."""

AMENDS = PROJECT + "amends"
"""Bundle.entry.request (modifier): an element that is put on top of what is stored, which otherwise stays."""

UNLINKS = PROJECT + "unlinks"
"""Bundle.entry.request (modifier): a Patient to whom the stored Patient.link is taken away."""

COMMENT_SOURCE = PROJECT + "comment-source"
"""Annotation: a Coding of HL7 table 0105, whether the placer or the filler of an order wrote it."""

COVERAGE_CERTIFICATION = PROJECT + "coverage-certification"
"""Coverage: what the payor certified: number, certifiedBy, required, date, period."""

FINANCIAL_CLASS = PROJECT + "encounter-financial-class"
"""Encounter: a CodeableConcept, how the stay is paid for."""

SPECIMEN_ROLE = PROJECT + "specimen-role"
"""Specimen: a CodeableConcept of HL7 table 0369, what it is for (control, calibrator, replicate)."""

Z_SEGMENT = PROJECT + "hl7v2-z-segment"
"""Provenance: a segment that the standard does not define, as sent: name and fields."""

DOCUMENT_AVAILABILITY = PROJECT + "document-availability"
"""DocumentReference: a Coding of HL7 table 0273, where the status that FHIR has says less."""

REFERRAL_AUTHORIZATION = PROJECT + "referral-authorization"
"""ServiceRequest: that a payor authorized it: plan, company, companyName, number, period, reimbursement, counts."""

LOCALISATION_CUSTODIAN = PROJECT + "localisation-custodian"
"""List: a Reference to the Organization that holds the records which the List does not name."""
