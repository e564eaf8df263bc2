"""HL7 v2 data types as FHIR data types: what a field holds."""
