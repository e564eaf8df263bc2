"""AuditEvents in the shapes of IHE Basic Audit Log Patterns (BALP 1.1): pure functions of facts, no clock, no storage.

| what happened | profile | type / subtype |
|---|---|---|
| a FHIR read or search | PatientRead, PatientQuery (Read, Query without a patient) | rest / read, vread, search |
| a FHIR create or update | PatientCreate, PatientUpdate | rest / create, update |
| a decision on a peer's request | AuthZconsent (claimed only when a Consent decided) | DCM 110113 / AuthZ-Consent |
| a release to a peer | PrivacyDisclosure.Source | DCM 110106 / disclose |
| a release received | PrivacyDisclosure.Recipient | DCM 110107 / disclose |
| a patient's data erased | none | DCM 110110 / destroy |
| a signature of a member that is not accepted | none | DCM 110113 / 110126 |

A patient stands in them only as the local reference ``Patient/<id>``: no name, no identifier.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

BALP = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
ACT_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
USCC_SYSTEM = "urn:oid:2.16.156.10011.1.5"  # medical institution codes
_ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_OBJECT_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_REST = {
    "system": "http://terminology.hl7.org/CodeSystem/audit-event-type",
    "code": "rest",
    "display": "RESTful Operation",
}
_ACTIONS = {"create": "C", "update": "U", "delete": "D", "operation": "E"}
_SHAPES = {"C": "Create", "U": "Update", "D": "Delete"}
_DISCLOSE = {
    "system": "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle",
    "code": "disclose",
    "display": "Disclose Record Lifecycle Event",
}
_DESTROY = {
    "system": "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle",
    "code": "destroy",
    "display": "Destroy/Delete Record Lifecycle Event",
}
_AUTHZ = {
    "system": "https://profiles.ihe.net/ITI/BALP/CodeSystem/AuthZsubType",
    "code": "AuthZ-Consent",
    "display": "Authorization Decision using Roles and Consent",
}

Outcome = Literal["0", "4", "8", "12"]
SUCCESS: Outcome = "0"
MINOR_FAILURE: Outcome = "4"
SERIOUS_FAILURE: Outcome = "8"


@dataclass(frozen=True, slots=True)
class Party:
    """An institution, or a caller of this node: ``id`` is an org id, a token id or "operator"; ``address`` a URL."""

    id: str
    name: str = ""
    address: str = ""

    def who(self) -> dict[str, Any]:
        """Return the Reference that names the party."""
        reference: dict[str, Any] = {"identifier": {"system": USCC_SYSTEM, "value": self.id}}
        return {**reference, "display": self.name} if self.name else reference


@dataclass(frozen=True, slots=True)
class ExchangeFacts:
    """What both sides know about one request between institutions. ``records`` are references with version."""

    request: str
    purpose: str
    holder: Party
    requester: Party
    outcome: Outcome = SUCCESS
    description: str = ""
    patient: str | None = None
    consent: str | None = None
    practitioner: str | None = None
    role: str = ""
    emergency: bool = False
    records: Sequence[str] = field(default=())


def rest_event(
    interaction: str,
    *,
    recorded: str,
    server: Party,
    client: Party,
    outcome: Outcome = SUCCESS,
    patient: str | None = None,
    resource: str | None = None,
    query: bytes | None = None,
) -> dict[str, Any]:
    """Return the event of one FHIR interaction ("read", "vread", "search-type", "history-instance", …).

    ``query`` is the raw search request, kept base64-encoded as BALP asks; ``resource`` a "Type/id" reference.
    """
    search = query is not None
    # BALP: in a query the client is the Source Role and the server the Destination Role; in a read the reverse.
    client_role, server_role = ("110153", "110152") if search else ("110152", "110153")
    entities = [_patient(patient)] if patient else []
    if query is not None:
        role = {"system": _OBJECT_ROLE, "code": "24", "display": "Query"}
        entities.append({"type": _system_object(), "role": role, "query": base64.b64encode(query).decode()})
    if resource:
        role = {"system": _OBJECT_ROLE, "code": "4", "display": "Domain Resource"}
        entities.append({"what": {"reference": resource}, "type": _system_object(), "role": role})
    subtype = {"system": "http://hl7.org/fhir/restful-interaction", "code": interaction, "display": interaction}
    action = "E" if search else _ACTIONS.get(interaction, "R")
    event = _event(_REST, subtype, action, recorded, outcome, server)
    if outcome == SUCCESS:
        shape = "Query" if search else _SHAPES.get(action, "Read")
        event["meta"] = {"profile": [BALP + f"IHE.BasicAudit.{'Patient' if patient else ''}{shape}"]}
    event["agent"] = [_agent(client_role, client, requestor=True), _agent(server_role, server, requestor=False)]
    if entities:  # FHIR JSON has no empty arrays
        event["entity"] = entities
    return event


def decision_event(facts: ExchangeFacts, *, recorded: str) -> dict[str, Any]:
    """Return the holder's event of a permit or a denial; ``facts.description`` says which rule decided."""
    event = _event(_dcm("110113", "Security Alert"), _AUTHZ, "E", recorded, facts.outcome, facts.holder)
    if facts.patient and facts.consent:  # the profile demands both
        event["meta"] = {"profile": [BALP + "IHE.BasicAudit.AuthZconsent"]}
    event["agent"] = [
        _agent("110150", facts.requester, requestor=False),
        _user(facts, requestor=True) | {"purposeOfUse": [_purpose(facts)]},
        {
            "type": _concept("http://terminology.hl7.org/CodeSystem/v3-RoleClass", "PROV"),
            "who": facts.requester.who(),
            "requestor": False,
        },
        {
            "type": _concept("http://terminology.hl7.org/CodeSystem/extra-security-role-type", "authserver"),
            "who": facts.holder.who(),
            "requestor": False,
        },
    ]
    return _exchange(event, facts)


def disclosure_event(facts: ExchangeFacts, *, recorded: str, at_source: bool) -> dict[str, Any]:
    """Return the event of a release: of the holder (``at_source``) or of the requester who received it."""
    code = _dcm("110106", "Export") if at_source else _dcm("110107", "Import")
    observer = facts.holder if at_source else facts.requester
    event = _event(code, _DISCLOSE, "R" if at_source else "C", recorded, facts.outcome, observer)
    if facts.patient and facts.outcome == SUCCESS:
        event["meta"] = {
            "profile": [BALP + f"IHE.BasicAudit.PrivacyDisclosure.{'Source' if at_source else 'Recipient'}"]
        }
    event["agent"] = [
        _agent("110153", facts.holder, requestor=False),
        _agent("110152", facts.requester, requestor=True),
    ]
    if facts.practitioner:
        event["agent"].append(_user(facts, requestor=False))  # FHIR has one initiator: the institution, which signed
    return _exchange(event, facts)


def erasure_event(patient: str, description: str, *, recorded: str, node: Party) -> dict[str, Any]:
    """Return the event of a patient's data being erased here; ``description`` names reason and counts."""
    event = _event(_dcm("110110", "Patient Record"), _DESTROY, "D", recorded, SUCCESS, node)
    event["outcomeDesc"] = description
    event["agent"] = [_agent("110153", node, requestor=True)]
    event["entity"] = [_patient(patient)]
    return event


def refusal_event(claimed: Party, code: str, *, recorded: str, node: Party) -> dict[str, Any]:
    """Return the event of a request whose signature was not accepted; ``claimed``: whose it said it was."""
    event = _event(
        _dcm("110113", "Security Alert"), _dcm("110126", "Node Authentication"), "E", recorded, SERIOUS_FAILURE, node
    )
    event["outcomeDesc"] = f"request refused: {code}"
    event["agent"] = [_agent("110153", claimed, requestor=True), _agent("110152", node, requestor=False)]
    return event


def _exchange(event: dict[str, Any], facts: ExchangeFacts) -> dict[str, Any]:
    """Add what every event of an exchange has: purposes, the patient, the Consent, the request and the records."""
    event["purposeOfEvent"] = [_purpose(facts)]
    if facts.emergency:
        event["purposeOfEvent"].append(_concept(ACT_REASON, "BTG"))
    if facts.description:
        event["outcomeDesc"] = facts.description
    job = {"system": _OBJECT_ROLE, "code": "20", "display": "Job"}
    event["entity"] = [_patient(facts.patient)] if facts.patient else []
    if facts.consent:
        role = {"system": _OBJECT_ROLE, "code": "4", "display": "Domain Resource"}
        event["entity"].append({"what": {"reference": facts.consent}, "type": _system_object(), "role": role})
    event["entity"].append(
        {
            "what": {"identifier": {"system": "urn:yiqiao:request", "value": facts.request}},
            "type": _system_object(),
            "role": job,
        }
    )
    role = {"system": _OBJECT_ROLE, "code": "3", "display": "Report"}
    event["entity"] += [{"what": {"reference": ref}, "type": _system_object(), "role": role} for ref in facts.records]
    return event


def _event(
    code: dict[str, str], subtype: dict[str, str], action: str, recorded: str, outcome: Outcome, observer: Party
) -> dict[str, Any]:
    source_type = {
        "system": "http://terminology.hl7.org/CodeSystem/security-source-type",
        "code": "4",
        "display": "Application Server",
    }
    return {
        "resourceType": "AuditEvent",
        "type": code,
        "subtype": [subtype],
        "action": action,
        "recorded": recorded,
        "outcome": outcome,
        "source": {"observer": observer.who(), "type": [source_type]},
    }


def _agent(role: str, party: Party, *, requestor: bool) -> dict[str, Any]:
    agent = {"type": _concept(DCM, role), "who": party.who(), "requestor": requestor}
    if party.address:
        agent["network"] = {"address": party.address, "type": "5"}  # network-type 5: URI
    return agent


def _user(facts: ExchangeFacts, *, requestor: bool) -> dict[str, Any]:
    """Return the agent of whoever asks at the requesting institution, as that institution signed it."""
    user: dict[str, Any] = {
        "type": _concept("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "IRCP"),
        "who": {"display": facts.practitioner} if facts.practitioner else facts.requester.who(),
        "requestor": requestor,
    }
    if facts.role:
        user["role"] = [{"text": facts.role}]
    return user


def _purpose(facts: ExchangeFacts) -> dict[str, Any]:
    return _concept(ACT_REASON, facts.purpose)


def _patient(reference: str) -> dict[str, Any]:
    return {
        "what": {"reference": reference},
        "type": {"system": _ENTITY_TYPE, "code": "1", "display": "Person"},
        "role": {"system": _OBJECT_ROLE, "code": "1", "display": "Patient"},
    }


def _system_object() -> dict[str, str]:
    return {"system": _ENTITY_TYPE, "code": "2", "display": "System Object"}


def _dcm(code: str, display: str) -> dict[str, str]:
    return {"system": DCM, "code": code, "display": display}


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}
