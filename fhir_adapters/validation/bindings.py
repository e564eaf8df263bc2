"""Required bindings that the models' metadata leaves out or cuts short (FHIR 4.0.1, value sets named beside each)."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_STATUS_ENCOUNTER = _words("planned arrived triaged in-progress onleave finished cancelled entered-in-error unknown")
_STATUS_OBSERVATION = _words("registered preliminary final amended corrected cancelled entered-in-error unknown")
_COMPARATORS = ("<", "<=", ">=", ">")

REQUIRED_CODES: dict[tuple[str, str], tuple[str, ...]] = {
    # http://hl7.org/fhir/ValueSet/diagnostic-report-status
    ("DiagnosticReport", "status"): _words(
        "registered partial preliminary final amended corrected appended cancelled entered-in-error unknown"
    ),
    # http://hl7.org/fhir/ValueSet/observation-status
    ("Observation", "status"): _STATUS_OBSERVATION,
    ("DetectedIssue", "status"): _STATUS_OBSERVATION,
    ("RiskAssessment", "status"): _STATUS_OBSERVATION,
    # http://hl7.org/fhir/ValueSet/encounter-status
    ("Encounter", "status"): _STATUS_ENCOUNTER,
    ("EncounterStatusHistory", "status"): _STATUS_ENCOUNTER,
    # http://hl7.org/fhir/ValueSet/task-status
    ("Task", "status"): _words(
        "draft requested received accepted rejected ready cancelled in-progress on-hold failed completed "
        "entered-in-error"
    ),
    # http://hl7.org/fhir/ValueSet/udi-entry-type
    ("DeviceUdiCarrier", "entryType"): _words("barcode rfid manual card self-reported unknown"),
    # http://hl7.org/fhir/ValueSet/quantity-comparator
    ("Quantity", "comparator"): _COMPARATORS,
    ("Age", "comparator"): _COMPARATORS,
    ("Count", "comparator"): _COMPARATORS,
    ("Distance", "comparator"): _COMPARATORS,
    ("Duration", "comparator"): _COMPARATORS,
    # http://hl7.org/fhir/ValueSet/audit-event-action and audit-event-outcome
    ("AuditEvent", "action"): tuple("CRUDE"),
    ("AuditEvent", "outcome"): ("0", "4", "8", "12"),
    # http://hl7.org/fhir/ValueSet/issue-type
    ("OperationOutcomeIssue", "code"): _words(
        "invalid structure required value invariant security login unknown expired forbidden suppressed processing "
        "not-supported duplicate multiple-matches not-found deleted too-long code-invalid extension too-costly "
        "business-rule conflict transient lock-error no-store exception timeout incomplete throttled informational"
    ),
}

NOT_REQUIRED: frozenset[tuple[str, str]] = frozenset({("Expression", "language"), ("CapabilityStatement", "format")})
"""Elements whose listed codes are only the commonest of an open binding."""


def required_codes(type_name: str, element: str, listed: tuple[str, ...]) -> tuple[str, ...]:
    """The codes that ``type_name.element`` may hold, () for any. ``listed`` is what the model's metadata says."""
    key = (type_name, element)
    if key in REQUIRED_CODES:
        return REQUIRED_CODES[key]
    # A list that ends in "+" or "etc." is the beginning of a longer one.
    incomplete = any(code in ("+", "etc.") for code in listed)
    return () if incomplete or key in NOT_REQUIRED else listed


_R4_SUBJECT = ("Patient", "Group", "Device", "Location")
_R4_TARGETS = {("Observation", "subject"): _R4_SUBJECT, ("DiagnosticReport", "subject"): _R4_SUBJECT}


def allowed_targets(type_name: str, element: str, listed: tuple[str, ...]) -> tuple[str, ...]:
    """The types that a Reference may name, () for any. R4B widened two elements; R4 receivers refuse what it added."""
    return _R4_TARGETS.get((type_name, element), listed)
