"""Consents over HTTP: recorded, confirmed by code, signature or paper, changed, withdrawn; by whom
and by nobody else.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import x509
from flask.testing import FlaskClient

from anchor.gm import PrivateKey
from bridge.app import create_app
from bridge.pki import gm_certificates as gm
from bridge.pki.signed_data import sign_detached
from bridge.services.audit_event import ACT_REASON, USCC_SYSTEM
from bridge.services.confirmation import terms_statement
from bridge.services.consent import ConsentRules
from bridge.tokens import create_token
from bridge.wiring import Node, open_node
from tests.node_consortium import org_id, store
from tests.node_home import make_home

OTHER = org_id(41)
DAY = 86_400


class Desk:
    """A node with its application, and tokens of each role."""

    def __init__(self, node: Node, client: FlaskClient) -> None:
        self.node, self.client = node, client
        self.tokens: dict[str, str] = {}

    def call(self, method: str, path: str, body: Any = None, role: str = "registrar") -> Any:
        if role not in self.tokens:
            file = self.node.settings.path(self.node.settings.security.tokens)
            _, self.tokens[role] = create_token(file, name=role, role=role, now=int(time.time()))
        headers = {"Authorization": f"Bearer {self.tokens[role]}", "Content-Type": "application/fhir+json"}
        return self.client.open(path, method=method, data=json.dumps(body), headers=headers)

    def consent(self, **provision: Any) -> dict[str, Any]:
        now = time.time()
        period = {"start": _date(now - DAY), "end": _date(now + 30 * DAY)}
        scope = {"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}
        return {
            "resourceType": "Consent",
            "status": "active",
            "scope": {"coding": [scope]},
            "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
            "patient": {"reference": "Patient/p1"},
            "policyRule": {"coding": [{"code": "OPTIN"}]},
            "provision": {
                "type": "permit",
                "period": period,
                "actor": [{"role": {"coding": [{"code": "IRCP"}]},
                           "reference": {"identifier": {"system": USCC_SYSTEM, "value": OTHER}}}],
                "purpose": [{"system": ACT_REASON, "code": "TREAT"}],
                **provision,
            },
        }  # fmt: skip

    def ledger(self, id: str) -> dict[str, Any] | None:
        return self.node.chain.state(f"grant/{self.node.consent.of_consent(id).id}")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    settings = make_home(tmp_path_factory.mktemp("consent") / "home")
    with open_node(settings.home) as node:
        patient = {"resourceType": "Patient", "id": "p1", "birthDate": "1980-01-01",
                   "telecom": [{"system": "phone", "value": "13800000000"}]}  # fmt: skip
        child = {"resourceType": "Patient", "id": "p2", "birthDate": _date(time.time() - 9 * 365 * DAY)}
        guardian = {"resourceType": "RelatedPerson", "id": "r2", "patient": {"reference": "Patient/p2"}}
        store(node, "p1", patient)
        store(node, "p2", child, guardian)
        _admit(node)
        yield Desk(node, create_app(node).test_client())


def _admit(node: Node) -> None:
    from anchor.contracts import members
    from tests.node_consortium import NodeConsortium

    card = members.card(
        chain=node.settings.ledger.chain, org=OTHER, name="乙", roles=["hospital"], endpoint="http://127.0.0.1:9",
        signing=PrivateKey.generate(), encryption=PrivateKey.generate(), since=int(time.time()) - 1,
    )  # fmt: skip
    NodeConsortium.propose(node, {"kind": "admit", "member": members.admission(card)})


@pytest.fixture
def strict(desk: Desk) -> Iterator[Desk]:
    desk.node.consent.rules = ConsentRules(confirmation_required=True)
    yield desk
    desk.node.consent.rules = ConsentRules()


def test_a_consent_is_granted_changed_and_withdrawn(desk: Desk) -> None:
    made = desk.call("POST", "/fhir/Consent", desk.consent())
    assert made.status_code == 201, made.text
    stored = made.get_json()
    assert made.headers["Location"].endswith(f"/fhir/Consent/{stored['id']}/_history/1")
    assert desk.ledger(stored["id"])["purposes"] == ["TREAT"]

    stored["provision"]["provision"][0]["purpose"].append({"system": ACT_REASON, "code": "HPAYMT"})
    changed = desk.call("PUT", f"/fhir/Consent/{stored['id']}", stored)
    assert changed.status_code == 200, changed.text
    assert desk.ledger(stored["id"])["purposes"] == ["HPAYMT", "TREAT"]
    assert desk.ledger(stored["id"])["version"] == 2

    ended = desk.call("PUT", f"/fhir/Consent/{stored['id']}", {**changed.get_json(), "status": "inactive"})
    assert ended.get_json()["status"] == "inactive"
    assert desk.ledger(stored["id"])["status"] == "revoked"
    assert desk.call("PUT", f"/fhir/Consent/{stored['id']}", stored).status_code == 409
    trail = [v.resource() for v in desk.node.records.of_subject("node", ["AuditEvent"])]
    assert {"create", "update"} <= {event["subtype"][0]["code"] for event in trail}


def test_a_draft_grants_nothing_until_the_code_that_the_patient_was_told(strict: Desk) -> None:
    made = strict.call("POST", "/fhir/Consent", strict.consent()).get_json()
    assert made["status"] == "proposed"
    assert strict.ledger(made["id"]) is None
    confirm = f"/fhir/Consent/{made['id']}/$confirm"
    (delivery,) = strict.call("POST", "/consent/v1/deliveries", role="messenger").get_json()["deliveries"]
    assert delivery["phones"] == ["13800000000"]
    assert strict.call("POST", "/consent/v1/deliveries", role="messenger").get_json()["deliveries"] == []
    wrong = "000000" if delivery["code"] != "000000" else "111111"
    assert strict.call("POST", confirm, _parameters(code=wrong)).status_code == 400
    done = strict.call("POST", confirm, _parameters(code=delivery["code"]))
    assert done.status_code == 200, done.text
    assert done.get_json()["status"] == "active"
    assert done.get_json()["verification"][0]["verified"] is True
    assert strict.ledger(made["id"])["status"] == "active"
    assert strict.call("POST", confirm, _parameters(code=delivery["code"])).status_code == 409


def test_codes_end_after_five_tries_and_ten_minutes(strict: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    made = strict.call("POST", "/fhir/Consent", strict.consent()).get_json()
    confirm, remind = (f"/fhir/Consent/{made['id']}/${name}" for name in ("confirm", "remind"))
    (delivery,) = strict.node.consent.confirmations.deliveries()
    wrong = "000000" if delivery["code"] != "000000" else "111111"
    assert [strict.call("POST", confirm, _parameters(code=wrong)).status_code for _ in range(5)] == [400] * 5
    assert strict.call("POST", confirm, _parameters(code=delivery["code"])).status_code == 404
    assert strict.call("POST", remind).status_code == 200
    (second,) = strict.node.consent.confirmations.deliveries()
    now = time.time()
    monkeypatch.setattr(strict.node.consent.confirmations, "_clock", lambda: now + 601)
    assert strict.call("POST", confirm, _parameters(code=second["code"])).status_code == 404


def test_paper_and_nothing_or_two_things(strict: Desk) -> None:
    made = strict.call("POST", "/fhir/Consent", strict.consent()).get_json()
    confirm = f"/fhir/Consent/{made['id']}/$confirm"
    assert strict.call("POST", confirm, _parameters()).status_code == 409
    assert strict.call("POST", confirm, _parameters(code="1", paper="x")).status_code == 409
    assert strict.call("POST", confirm, _parameters(shout="x")).status_code == 400
    assert strict.call("POST", confirm, _parameters(paper="病案室 2026-17")).get_json()["status"] == "active"


def test_a_patients_signature_under_a_trusted_certificate(strict: Desk, tmp_path: Path) -> None:
    root, person = PrivateKey.generate(), PrivateKey.generate()
    now = int(time.time())
    names = [x509.Name.build({"common_name": name}) for name in ("eID CA", "患者")]

    def certificate(key: PrivateKey, subject: Any, profile: gm.Profile, serial: int) -> gm.GmCertificate:
        return gm.issue(
            subject=subject, public=key.public_key, profile=profile, issuer=names[0], issuer_key=root, serial=serial,
            not_before=now - 60, not_after=now + DAY,
        )  # fmt: skip

    anchor, own = certificate(root, names[0], gm.ROOT, 1), certificate(person, names[1], gm.SIGNING, 2)
    file = tmp_path / "anchors.pem"
    file.write_text(anchor.pem())
    made = strict.call("POST", "/fhir/Consent", strict.consent()).get_json()
    confirm = f"/fhir/Consent/{made['id']}/$confirm"
    grant = strict.node.consent.of_consent(made["id"])
    terms = strict.node.consent.terms_of(grant.id)
    statement = terms_statement(grant.id, strict.node.signer.org, "Patient/p1", terms)

    def signature(content: bytes) -> dict[str, Any]:
        data = sign_detached(content, key=person, issuer=names[0], serial=2, certificates=(own,))
        return _parameters(signature=base64.b64encode(data).decode())

    assert strict.call("POST", confirm, signature(statement)).status_code == 500  # no anchors in the settings
    strict.node.consent.confirmations._anchors = file
    other = terms_statement(grant.id, strict.node.signer.org, "Patient/p1", replace(terms, purposes=("HRESCH",)))
    assert strict.call("POST", confirm, signature(other)).status_code == 400
    done = strict.call("POST", confirm, signature(statement))
    assert done.get_json()["status"] == "active"
    assert "certificate 2" in json.dumps(done.get_json()["extension"])


def test_a_wider_grant_needs_confirmation_and_a_narrower_does_not(strict: Desk) -> None:
    made = strict.call("POST", "/fhir/Consent", strict.consent()).get_json()
    confirm = f"/fhir/Consent/{made['id']}/$confirm"
    active = strict.call("POST", confirm, _parameters(paper="x")).get_json()
    permit = active["provision"]["provision"][0]
    permit["class"] = [{"system": "http://hl7.org/fhir/resource-types", "code": "Observation"}]
    assert strict.call("PUT", f"/fhir/Consent/{made['id']}", active).status_code == 200
    del permit["class"]
    assert strict.call("PUT", f"/fhir/Consent/{made['id']}", active).status_code == 400


def test_a_childs_guardian(desk: Desk) -> None:
    child = {**desk.consent(), "patient": {"reference": "Patient/p2"}}
    assert desk.call("POST", "/fhir/Consent", child).status_code == 400
    by = {**child, "performer": [{"reference": "RelatedPerson/r2"}]}
    made = desk.call("POST", "/fhir/Consent", by)
    assert made.status_code == 201, made.text
    assert made.get_json()["performer"] == [{"reference": "RelatedPerson/r2"}]
    foreign = {**desk.consent(), "performer": [{"reference": "RelatedPerson/r2"}]}
    assert desk.call("POST", "/fhir/Consent", foreign).status_code == 400


def test_who_may_do_what(desk: Desk) -> None:
    for role in ("reader", "sender", "messenger", "privacy-officer"):
        assert desk.call("POST", "/fhir/Consent", desk.consent(), role=role).status_code == 403
    for role in ("registrar", "reader", "operator"):
        assert desk.call("POST", "/consent/v1/deliveries", role=role).status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        pytest.param([], id="no object"),
        pytest.param({"resourceType": "Patient"}, id="another resource"),
        pytest.param({"resourceType": "Consent", "status": "active"}, id="not valid"),
        pytest.param({"resourceType": "Consent", "status": "active", "scope": {}, "category": []}, id="empty"),
    ],
)
def test_bodies_that_are_no_consent(desk: Desk, body: Any) -> None:
    answer = desk.call("POST", "/fhir/Consent", body)
    assert answer.status_code == 400
    assert answer.get_json()["resourceType"] == "OperationOutcome"


def _parameters(**texts: str) -> dict[str, Any]:
    return {
        "resourceType": "Parameters",
        "parameter": [{"name": name, "valueString": text} for name, text in texts.items()],
    }
