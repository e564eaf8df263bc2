"""Patients' consents over HTTP: recorded, confirmed, changed and withdrawn as FHIR Consent (IHE PCF).

``POST /fhir/Consent`` makes a draft, or a grant at once where the node asks for no confirmation and the Consent is
"active"; ``POST …/$confirm`` takes the one-time code, the signature (of what ``GET …/$statement`` gives) or the number
of the form; ``PUT`` changes the terms, or ends the grant with status "inactive". ``POST /consent/v1/deliveries`` is for
the system that tells patients their codes, and for nobody else.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from anchor import canonical
from bridge.auth import principal, requires
from bridge.errors import Conflict, InvalidRequest
from bridge.outcomes import FHIR_JSON
from bridge.services.audit_event import Party
from bridge.services.consent_resource import read_consent
from fhir_adapters.validation import validate

MAX_CONSENT_BYTES = 256 * 1024
ENDED = frozenset({"inactive", "entered-in-error", "rejected"})
DRAFTS = frozenset({"draft", "proposed"})


def consent_blueprints(node: Any) -> tuple[Blueprint, Blueprint]:
    """Return the FHIR surface of consents and the one for deliveries."""
    return _fhir(node), _deliveries(node)


def _fhir(node: Any) -> Blueprint:
    blueprint = Blueprint("consents", __name__, url_prefix="/fhir/Consent")

    @blueprint.post("")
    @requires("consent.write")
    def create() -> Response:
        """Record a consent."""
        value = _body()
        patient, terms = read_consent(value, int(node.clock()))
        rules = node.consent.rules
        draft = value["status"] in DRAFTS or rules.confirmation_required
        given = node.consent.propose(patient, terms) if draft else node.consent.grant(patient, terms)
        return _answer(node, given.consent, "create", 201)

    @blueprint.put("/<id>")
    @requires("consent.write")
    def update(id: str) -> Response:
        """Change a consent's terms, or end it."""
        value = _body()
        given = node.consent.of_consent(id)
        if value["status"] in ENDED:
            node.consent.revoke(given.id)
            return _answer(node, given.consent, "update", 200)
        patient, terms = read_consent(value, int(node.clock()))
        if patient != given.patient:
            raise Conflict("a consent does not change its patient / 授权书的患者不可变更")
        node.consent.amend(given.id, terms)
        return _answer(node, given.consent, "update", 200)

    @blueprint.post("/<id>/$confirm")
    @requires("consent.write")
    def confirm(id: str) -> Response:
        """Confirm a draft by one of: code, signature, paper."""
        given = node.consent.of_consent(id)
        node.consent.confirm(given.id, **_parameters("code", "signature", "paper"))
        return _answer(node, given.consent, "operation", 200)

    @blueprint.get("/<id>/$statement")
    @requires("consent.write")
    def statement(id: str) -> Response:
        """The bytes that the patient or the guardian signs to confirm a draft."""
        given, by = node.consent.of_consent(id), principal()
        patient = f"Patient/{given.patient}"
        node.audit.record("operation", client=Party(by.id, by.name), patient=patient, resource=given.consent)
        return Response(node.consent.statement(given.id), content_type="application/json")

    @blueprint.post("/<id>/$remind")
    @requires("consent.write")
    def remind(id: str) -> Response:
        """Make another one-time code for a draft."""
        given = node.consent.of_consent(id)
        node.consent.remind(given.id)
        return _answer(node, given.consent, "operation", 200)

    return blueprint


def _deliveries(node: Any) -> Blueprint:
    blueprint = Blueprint("consent_codes", __name__, url_prefix="/consent/v1")

    @blueprint.post("/deliveries")
    @requires("consent.deliver")
    def deliveries() -> Response:
        """Give the codes that wait to be told to patients, each once, with the patient's telephone numbers."""
        found = [{**each, "phones": _phones(node, each["patient"])} for each in node.consent.confirmations.deliveries()]
        return Response(canonical.dump({"deliveries": found}), content_type="application/json")

    return blueprint


def _answer(node: Any, consent: str, interaction: str, status: int) -> Response:
    """Return the stored Consent, after the audit trail has the interaction."""
    stored = node.records.read(*consent.split("/"))
    caller = principal()
    client = Party(caller.id, caller.name)
    node.audit.record(interaction, client=client, patient=stored.subject, resource=consent)
    response = Response(stored.content, status, content_type=FHIR_JSON)
    response.headers["Location"] = f"{node.settings.node.endpoint.rstrip('/')}/fhir/{stored.ref}"
    response.set_etag(str(stored.version), weak=True)
    return response


def _body() -> dict[str, Any]:
    """Read the Consent in the request's body; raises ``InvalidRequest`` for anything that is none."""
    raw = request.get_data()
    value = canonical.load(raw) if len(raw) <= MAX_CONSENT_BYTES else None
    if not isinstance(value, dict) or value.get("resourceType") != "Consent":
        raise InvalidRequest("the body is a FHIR Consent / 请求体须为 Consent")
    problems = [issue for issue in validate(value) if issue.severity == "error"]
    if problems:
        raise InvalidRequest(f"{problems[0].location}: {problems[0].text}")
    return value


def _parameters(*names: str) -> dict[str, str]:
    """Read texts by name from a FHIR Parameters resource; others are refused."""
    value = canonical.load(request.get_data())
    entries = value.get("parameter") if isinstance(value, dict) else None
    if not isinstance(entries, list) or value.get("resourceType") != "Parameters":
        raise InvalidRequest("the body is a FHIR Parameters resource / 请求体须为 Parameters")
    found = {}
    for each in entries:
        text = each.get("valueString") if isinstance(each, dict) else None
        if not isinstance(text, str) or each.get("name") not in names:
            raise InvalidRequest(f"parameters are valueString and of: {', '.join(names)} / 参数无效")
        found[str(each["name"])] = text
    return found


def _phones(node: Any, patient: str) -> list[str]:
    telecom = node.records.read("Patient", patient).resource().get("telecom", ())
    return [str(each["value"]) for each in telecom if each.get("system") in ("phone", "sms") and each.get("value")]
