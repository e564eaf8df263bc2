"""The search parameters of every stored type, as data: the index, the query parser and the CapabilityStatement read it.

Kinds and what they can do (FHIR R4 search, https://hl7.org/fhir/R4/search.html; limits follow from the blind index):

- ``token``      ``code``, ``system|code``, ``|code``
- ``reference``  ``id`` (where one target type is possible), ``Type/id``, an absolute URL
- ``string``     the whole normalised value: case, width and spacing do not matter; no prefixes, since a blind index of
                 prefixes would give surnames away by their frequency
- ``date``       prefixes eq ne gt lt ge le sa eb, on ranges kept as plain integers
- ``birthdate``  prefixes eq gt lt ge le sa eb, blind: a range is asked as the set of its years, months and days
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["token", "reference", "string", "date", "birthdate"]


@dataclass(frozen=True, slots=True)
class SearchParameter:
    """One search parameter of one type.

    ``paths`` are element paths from the resource, ``targets`` the types a reference may name (only those count),
    ``system`` the implied system of a plain code, ``contact`` the ContactPoint.system that counts ("" any).
    """

    name: str
    kind: Kind
    paths: tuple[str, ...]
    targets: tuple[str, ...] = ()
    system: str = ""
    contact: str = ""

    @property
    def fhir_type(self) -> str:
        """The SearchParamType code for a CapabilityStatement."""
        return "date" if self.kind == "birthdate" else self.kind


_FHIR = "http://hl7.org/fhir/"


def _token(name: str, *paths: str, system: str = "", contact: str = "") -> SearchParameter:
    return SearchParameter(name, "token", paths or (name,), system=_FHIR + system if system else "", contact=contact)


def _reference(name: str, *paths: str, to: str = "") -> SearchParameter:
    return SearchParameter(name, "reference", paths or (name,), targets=tuple(to.split()))


def _string(name: str, *paths: str) -> SearchParameter:
    return SearchParameter(name, "string", paths or (name,))


def _date(name: str, *paths: str) -> SearchParameter:
    return SearchParameter(name, "date", paths or (name,))


_IDENTIFIER = _token("identifier")
_PATIENT = _reference("patient", "subject", to="Patient")
_SUBJECT = _reference("subject", to="Patient Group Device Location")
_ENCOUNTER = _reference("encounter", to="Encounter")
_ACTORS = "Practitioner PractitionerRole Organization Patient RelatedPerson Device CareTeam"
_EFFECTIVE = ("effectiveDateTime", "effectivePeriod", "effectiveInstant")
_ACTIVE = _token("active")
_PHONE = _token("phone", "telecom", contact="phone")
_GENDER = _token("gender", system="administrative-gender")
_PERSON_NAME = (_string("name"), _string("family", "name.family"), _string("given", "name.given"))
_BIRTHDATE = SearchParameter("birthdate", "birthdate", ("birthDate",))

SEARCH_PARAMETERS: dict[str, tuple[SearchParameter, ...]] = {
    "Patient": (
        _IDENTIFIER,
        *_PERSON_NAME,
        _BIRTHDATE,
        _GENDER,
        _PHONE,
        _token("telecom"),
        _ACTIVE,
        _reference("link", "link.other", to="Patient RelatedPerson"),
        _reference("organization", "managingOrganization", to="Organization"),
    ),
    "Encounter": (
        _IDENTIFIER,
        _PATIENT,
        _SUBJECT,
        _date("date", "period"),
        _token("status", system="encounter-status"),
        _token("class"),
        _token("type"),
        _reference("location", "location.location", to="Location"),
        _reference("participant", "participant.individual", to="Practitioner PractitionerRole RelatedPerson"),
        _reference("service-provider", "serviceProvider", to="Organization"),
    ),
    "Observation": (
        _IDENTIFIER,
        _PATIENT,
        _SUBJECT,
        _ENCOUNTER,
        _token("code"),
        _token("category"),
        _token("status", system="observation-status"),
        _date("date", *_EFFECTIVE),
        _token("value-concept", "valueCodeableConcept"),
        _reference("performer", to=_ACTORS),
        _reference("specimen", to="Specimen"),
        _reference("based-on", "basedOn"),
    ),
    "DiagnosticReport": (
        _IDENTIFIER,
        _PATIENT,
        _SUBJECT,
        _ENCOUNTER,
        _token("code"),
        _token("category"),
        _token("status", system="diagnostic-report-status"),
        _date("date", *_EFFECTIVE),
        _date("issued"),
        _reference("result", to="Observation"),
        _reference("specimen", to="Specimen"),
        _reference("based-on", "basedOn"),
        _reference("performer", to=_ACTORS),
    ),
    "ServiceRequest": (
        _IDENTIFIER,
        _PATIENT,
        _SUBJECT,
        _ENCOUNTER,
        _token("code"),
        _token("category"),
        _token("status", system="request-status"),
        _token("intent", system="request-intent"),
        _date("authored", "authoredOn"),
        _reference("requester", to=_ACTORS),
        _token("requisition"),
    ),
    "Specimen": (
        _IDENTIFIER,
        _PATIENT,
        _SUBJECT,
        _token("accession", "accessionIdentifier"),
        _token("type"),
        _token("status", system="specimen-status"),
        _date("collected", "collection.collectedDateTime", "collection.collectedPeriod"),
    ),
    "Condition": (
        _IDENTIFIER,
        _PATIENT,
        _SUBJECT,
        _ENCOUNTER,
        _token("code"),
        _token("category"),
        _token("clinical-status", "clinicalStatus"),
        _token("verification-status", "verificationStatus"),
        _date("onset-date", "onsetDateTime", "onsetPeriod"),
        _date("recorded-date", "recordedDate"),
    ),
    "AllergyIntolerance": (
        _IDENTIFIER,
        _reference("patient", to="Patient"),
        _token("code", "code", "reaction.substance"),
        _token("clinical-status", "clinicalStatus"),
        _token("verification-status", "verificationStatus"),
        _token("type", system="allergy-intolerance-type"),
        _token("category", system="allergy-intolerance-category"),
        _token("criticality", system="allergy-intolerance-criticality"),
        _date("date", "recordedDate"),
    ),
    "Coverage": (
        _IDENTIFIER,
        _reference("patient", "beneficiary", to="Patient"),
        _reference("beneficiary", to="Patient"),
        _reference("subscriber", to="Patient RelatedPerson"),
        _reference("payor", to="Organization Patient RelatedPerson"),
        _token("status", system="fm-status"),
        _token("type"),
    ),
    "RelatedPerson": (
        _IDENTIFIER,
        _reference("patient", to="Patient"),
        _string("name"),
        _BIRTHDATE,
        _GENDER,
        _PHONE,
        _token("relationship"),
        _ACTIVE,
    ),
    "Practitioner": (_IDENTIFIER, *_PERSON_NAME, _GENDER, _PHONE, _ACTIVE),
    "Organization": (
        _IDENTIFIER,
        _string("name", "name", "alias"),
        _token("type"),
        _reference("partof", "partOf", to="Organization"),
        _ACTIVE,
    ),
    "Location": (
        _IDENTIFIER,
        _string("name", "name", "alias"),
        _token("type"),
        _token("status", system="location-status"),
        _token("operational-status", "operationalStatus"),
        _reference("organization", "managingOrganization", to="Organization"),
        _reference("partof", "partOf", to="Location"),
    ),
    "PractitionerRole": (
        _IDENTIFIER,
        _reference("practitioner", to="Practitioner"),
        _reference("organization", to="Organization"),
        _token("role", "code"),
        _token("specialty"),
        _date("date", "period"),
        _ACTIVE,
    ),
    "MedicationRequest": (
        _IDENTIFIER,
        _reference("patient", "subject", to="Patient"),
        _SUBJECT,
        _ENCOUNTER,
        _token("status", system="CodeSystem/medicationrequest-status"),
        _token("intent", system="CodeSystem/medicationrequest-intent"),
        _token("category"),
        _token("code", "medicationCodeableConcept"),
        _reference("requester", to=_ACTORS),
        _date("authoredon", "authoredOn"),
    ),
    "MedicationAdministration": (
        _IDENTIFIER,
        _reference("patient", "subject", to="Patient"),
        _SUBJECT,
        _reference("context", to="Encounter EpisodeOfCare"),
        _token("status"),
        _token("code", "medicationCodeableConcept"),
        _reference("request", to="MedicationRequest"),
        _reference("performer", "performer.actor", to=_ACTORS),
        _date("effective-time", "effectiveDateTime", "effectivePeriod"),
    ),
    "DocumentReference": (
        _token("identifier", "masterIdentifier", "identifier"),
        _reference("patient", "subject", to="Patient"),
        _SUBJECT,
        _reference("encounter", "context.encounter", to="Encounter EpisodeOfCare"),
        _token("status", system="document-reference-status"),
        _token("type"),
        _token("category"),
        _reference("author", to=_ACTORS),
        _date("date"),
    ),
    "Flag": (
        _IDENTIFIER,
        _reference("patient", "subject", to="Patient"),
        _SUBJECT,
        _ENCOUNTER,
        _reference("author", to=_ACTORS),
        _date("date", "period"),
    ),
    "Provenance": (
        _reference("target"),
        _reference("patient", "target", to="Patient"),
        _reference("agent", "agent.who", to=_ACTORS),
        _reference("entity", "entity.what"),
        _date("recorded"),
    ),
    "AuditEvent": (
        _date("date", "recorded"),
        _token("type"),
        _token("subtype"),
        _token("action", system="audit-event-action"),
        _token("outcome", system="audit-event-outcome"),
        _reference("agent", "agent.who", to=_ACTORS),
        _reference("entity", "entity.what"),
        _reference("patient", "agent.who", "entity.what", to="Patient"),
    ),
    "Consent": (
        _IDENTIFIER,
        _reference("patient", to="Patient"),
        _token("status", system="consent-state-codes"),
        _token("scope"),
        _token("category"),
        _token("purpose", "provision.purpose"),
        _date("date", "dateTime"),
        _date("period", "provision.period"),
        _reference("actor", "provision.actor.reference", to=_ACTORS),
        _reference("organization", to="Organization"),
    ),
    "Communication": (
        _IDENTIFIER,
        _reference("patient", "subject", to="Patient"),
        _SUBJECT,
        _token("category"),
        _token("status", system="event-status"),
        _date("sent"),
        _reference("recipient", to=_ACTORS),
    ),
    "Task": (
        _IDENTIFIER,
        _reference("patient", "for", to="Patient"),
        _reference("subject", "for"),
        _reference("focus"),
        _reference("owner", to=_ACTORS),
        _token("status", system="task-status"),
        _token("code"),
        _date("authored-on", "authoredOn"),
    ),
}
"""Search parameters by resource type. Others can be searched by ``_id`` and ``_lastUpdated``."""

COMMON_PARAMETERS: tuple[SearchParameter, ...] = (
    SearchParameter("_id", "token", ("id",)),
    SearchParameter("_lastUpdated", "date", ("meta.lastUpdated",)),
)
"""Parameters of every type."""


def parameters_of(resource_type: str) -> dict[str, SearchParameter]:
    """Return the indexed parameters of a type by name; empty for a type that is not listed."""
    return _BY_NAME.get(resource_type, {})


_BY_NAME = {kind: {each.name: each for each in listed} for kind, listed in SEARCH_PARAMETERS.items()}
