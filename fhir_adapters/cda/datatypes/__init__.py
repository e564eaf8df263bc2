"""HL7 V3 data types (R1) as FHIR R4 data types."""
