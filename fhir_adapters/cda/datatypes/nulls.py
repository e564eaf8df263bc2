"""Why something is not there: HL7 V3 NullFlavor as FHIR data-absent-reason.

As C-CDA on FHIR maps them; flavors without a counterpart are "unknown".
"""

from types import MappingProxyType

from fhir_adapters.xml.tree import Element

DATA_ABSENT_REASON = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
NULL_FLAVOR = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"

_REASONS = MappingProxyType(
    {
        "ASKU": "asked-unknown",
        "NASK": "not-asked",
        "NAV": "temp-unknown",
        "NAVU": "temp-unknown",
        "MSK": "masked",
        "NA": "not-applicable",
        "NINF": "negative-infinity",
        "PINF": "positive-infinity",
        "OTH": "unsupported",
        "NP": "not-permitted",
    }
)
_DISPLAYS = MappingProxyType(
    {
        "unknown": "Unknown",
        "asked-unknown": "Asked But Unknown",
        "not-asked": "Not Asked",
        "temp-unknown": "Temporarily Unknown",
        "masked": "Masked",
        "not-applicable": "Not Applicable",
        "negative-infinity": "Negative Infinity (NINF)",
        "positive-infinity": "Positive Infinity (PINF)",
        "unsupported": "Unsupported",
        "not-permitted": "Not Permitted",
        "error": "Error",
        "not-performed": "Not Performed",
    }
)


def reason_of(el: Element) -> str:
    """The data-absent-reason of an element's nullFlavor, "" when it has none."""
    flavor = el.get("nullFlavor")
    return _REASONS.get(flavor, "unknown") if flavor else ""


def absent_concept(reason: str) -> dict[str, object]:
    """The CodeableConcept of a data-absent-reason."""
    coding = {"system": DATA_ABSENT_REASON, "code": reason, "display": _DISPLAYS.get(reason, "Unknown")}
    return {"coding": [coding]}
