"""The consent desk's pages: consents recorded, confirmed, changed and ended by a registrar in a browser, and who else
is kept out.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from anchor import canonical
from anchor.contracts import members
from anchor.gm import PrivateKey
from bridge.app import create_app
from bridge.errors import InvalidRequest
from bridge.services import consent_words as words
from bridge.services.consent_form import fields_of, read_terms
from bridge.services.decision import CATEGORIES, PURPOSES, ROLES, Exclusion
from bridge.services.grant_terms import SENSITIVE_LABELS, GrantTerms, end_of_day
from bridge.tokens import create_token
from bridge.wiring import Node, open_node
from fhir_adapters.identifiers import ID_CARD_SYSTEM
from tests.exchange_world import PERSON
from tests.node_consortium import NodeConsortium, org_id, store
from tests.node_home import make_home

ROOT = "/console/consents"
OTHER, NAME, CHILD = org_id(41), "虚构患者欧阳", "虚构患儿"
DAY = 86_400
HERE = {"Origin": "http://localhost"}


def day(from_now: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + from_now * DAY))


class Page(HTMLParser):
    """What a page lets a person do: forms with the values they start with, and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[tuple[str, dict[str, list[str]]]] = []
        self.links: list[str] = []
        self._select = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        has = dict(attributes)
        if tag == "form":
            self.forms.append((has.get("action") or "", {}))
        elif tag == "a":
            self.links.append(has.get("href") or "")
        elif tag == "select":
            self._select = has.get("name") or ""
        elif tag == "option" and "selected" in has:
            self._add(self._select, has)
        elif tag == "input" and (has.get("type") != "checkbox" or "checked" in has):
            self._add(has.get("name") or "", has)

    def _add(self, name: str, has: dict[str, str | None]) -> None:
        self.forms[-1][1].setdefault(name, []).append(has.get("value") or "")


class Browser:
    """A registrar's browser: signs in with the token, and says where its forms come from."""

    def __init__(self, node: Node, client: FlaskClient) -> None:
        self.node, self.client = node, client
        self.tokens: dict[str, str] = {}

    def go(
        self, path: str, form: dict[str, Any] | None = None, role: str = "registrar", **headers: str
    ) -> TestResponse:
        if role not in self.tokens:
            file = self.node.settings.path(self.node.settings.security.tokens)
            _, self.tokens[role] = create_token(file, name=f"{role}王", role=role, now=int(time.time()))
        secret = base64.b64encode(f"anybody:{self.tokens[role]}".encode()).decode()
        told = {"Authorization": f"Basic {secret}", **(headers or HERE)}
        if form is None:
            return self.client.get(path, headers=told)
        return self.client.post(path, data=form, headers=told)

    def page(self, path: str) -> Page:
        found = self.go(path)
        assert found.status_code == 200, found.text
        return Page(found.text)

    def grants(self, patient: str = "p1") -> list[Any]:
        return self.node.consent.grants_of(patient)

    def newest(self, patient: str = "p1") -> Any:
        return max(self.grants(patient), key=lambda each: self.node.consent.terms_of(each.id).valid_from)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Browser]:
    settings = make_home(tmp_path / "home")
    with open_node(settings.home) as node:
        card = {"system": ID_CARD_SYSTEM, "value": PERSON}
        adult = {"resourceType": "Patient", "id": "p1", "birthDate": "1980-01-01", "gender": "female",
                 "name": [{"text": NAME}], "identifier": [card]}  # fmt: skip
        child = {"resourceType": "Patient", "id": "p2", "birthDate": day(-9 * 365), "name": [{"text": CHILD}]}
        mother = {"resourceType": "RelatedPerson", "id": "r2", "patient": {"reference": "Patient/p2"},
                  "name": [{"family": "虚构", "given": ["母"]}], "relationship": [{"text": "母亲"}]}  # fmt: skip
        store(node, "p1", adult)
        store(node, "p2", child, mother)
        admitted = members.card(
            chain=node.settings.ledger.chain, org=OTHER, name="第二<医院>", roles=["hospital"],
            endpoint="http://127.0.0.1:9", signing=PrivateKey.generate(), encryption=PrivateKey.generate(),
            since=int(time.time()) - 1,
        )  # fmt: skip
        NodeConsortium.propose(node, {"kind": "admit", "member": members.admission(admitted)})
        yield Browser(node, create_app(node).test_client())


FORM: dict[str, Any] = {"grantee": [OTHER], "purpose": ["TREAT"]}


def test_a_patient_is_found_and_no_identifier_is_in_an_address(desk: Browser) -> None:
    found = desk.go(ROOT, {"system": ID_CARD_SYSTEM, "value": f" {PERSON} "})
    assert (found.status_code, found.headers["Location"]) == (303, f"{ROOT}/p1")
    shown = desk.go(f"{ROOT}/p1").text
    assert NAME in shown
    assert "第二&lt;医院&gt;" in shown  # another institution's word is text, not markup
    assert PERSON not in shown
    missing = desk.go(ROOT, {"system": ID_CARD_SYSTEM, "value": "11010519491231002X"})
    assert missing.status_code == 404
    assert "no patient of this node" in missing.text


def test_a_consent_is_sent_for_confirmation_and_counts_with_the_code(desk: Browser) -> None:
    assert desk.go(f"{ROOT}/p1", {**FORM, "until": day(30)}).status_code == 303
    (grant,) = desk.grants()
    assert grant.state == "draft"
    assert desk.node.chain.state(f"grant/{grant.id}") is None
    (delivery,) = desk.node.consent.confirmations.deliveries()
    wrong = "000000" if delivery["code"] != "000000" else "000001"
    refused = desk.go(f"{ROOT}/p1/{grant.id}/confirm", {"code": wrong})
    assert (refused.status_code, "验证码错误" in refused.text) == (400, True)
    assert desk.go(f"{ROOT}/p1/{grant.id}/remind", {}).status_code == 303
    (delivery,) = desk.node.consent.confirmations.deliveries()
    assert desk.go(f"{ROOT}/p1/{grant.id}/confirm", {"code": delivery["code"]}).status_code == 303
    (grant,) = desk.grants()
    assert grant.state == "active"
    state = desk.node.chain.state(f"grant/{grant.id}") or {}
    assert (state["grantees"], state["purposes"], state["status"]) == ([OTHER], ["TREAT"], "active")


def test_with_a_signed_form_it_counts_at_once_with_every_limit(desk: Browser) -> None:
    form = {
        **FORM, "until": day(30), "category": ["laboratory", "report"], "records-from": "2026-01-01",
        "except-0-category": ["imaging"], "except-0-from": "2026-02-01", "role": ["physician"], "copies-days": "90",
        "paper": "同意书 2026-17", "guardian": "",
    }  # fmt: skip
    assert desk.go(f"{ROOT}/p1", form).status_code == 303
    (grant,) = desk.grants()
    terms = desk.node.consent.terms_of(grant.id)
    assert (grant.state, terms.categories, terms.period) == ("active", ("laboratory", "report"), ("2026-01-01", None))
    assert terms.exclusions == (Exclusion(("imaging",), period=("2026-02-01", None)),)
    assert (terms.roles, terms.copies_days) == (("physician",), 90)
    assert terms.confirmation is not None
    assert (terms.confirmation.method, terms.confirmation.reference) == ("paper", "同意书 2026-17")


def test_a_consent_is_changed_in_its_own_form_and_ended(desk: Browser) -> None:
    desk.go(f"{ROOT}/p1", {**FORM, "until": day(30), "except-0-category": ["imaging"], "paper": "1"})
    (grant,) = desk.grants()
    before = desk.node.consent.terms_of(grant.id)
    address = f"{ROOT}/p1/{grant.id}"
    assert address in desk.page(f"{ROOT}/p1").links
    ((action, shown),) = desk.page(address).forms
    assert action == address
    assert desk.go(address, shown).status_code == 303  # nothing changed in the form: the same terms
    assert replace(desk.node.consent.terms_of(grant.id), confirmation=before.confirmation) == before
    assert desk.go(address, {**shown, "category": ["laboratory"], "until": day(10)}).status_code == 303
    after = desk.node.consent.terms_of(grant.id)
    assert (after.categories, after.exclusions) == (("laboratory",), before.exclusions)
    assert after.valid_until < before.valid_until
    assert (desk.node.chain.state(f"grant/{grant.id}") or {})["version"] == 3
    assert desk.go(f"{address}/revoke", {}).status_code == 303
    assert (desk.node.chain.state(f"grant/{grant.id}") or {})["status"] == "revoked"
    assert desk.go(f"{address}/revoke", {}).status_code == 409
    trail = [v.resource() for v in desk.node.records.of_subject("node", ["AuditEvent"])]
    done = {event["subtype"][0]["code"] for event in trail if "registrar王" in canonical.dump(event).decode()}
    assert {"create", "update", "read"} <= done


def test_a_childs_consent_is_its_guardians(desk: Browser) -> None:
    assert desk.go(f"{ROOT}/p2", {**FORM, "until": day(30), "paper": "1"}).status_code == 400
    assert "虚构 母 母亲" in desk.go(f"{ROOT}/p2").text
    guarded = {**FORM, "until": day(30), "paper": "1", "guardian": "RelatedPerson/r2"}
    assert desk.go(f"{ROOT}/p2", guarded).status_code == 303
    (grant,) = desk.grants("p2")
    terms = desk.node.consent.terms_of(grant.id)
    assert (terms.guardian, terms.confirmation and terms.confirmation.by) == ("RelatedPerson/r2", "RelatedPerson/r2")


def test_sensitive_information_has_a_consent_of_its_own(desk: Browser) -> None:
    mixed = desk.go(f"{ROOT}/p1", {**FORM, "until": day(30), "label": ["HIV", "R"], "paper": "1"})
    assert (mixed.status_code, "敏感信息须单独同意" in mixed.text) == (400, True)
    assert desk.go(f"{ROOT}/p1", {**FORM, "until": day(30), "label": ["HIV"], "paper": "1"}).status_code == 303
    assert desk.node.consent.terms_of(desk.newest().id).sensitive


def test_what_is_signed_can_be_fetched(desk: Browser) -> None:
    desk.go(f"{ROOT}/p1", {**FORM, "until": day(30)})
    (grant,) = desk.grants()
    statement = canonical.load(desk.go(f"{ROOT}/p1/{grant.id}/statement").data)
    assert (statement["grant"], statement["patient"]) == (grant.id, "Patient/p1")
    assert statement["terms"]["grantees"] == [OTHER]
    api = desk.go(f"/fhir/{grant.consent}/$statement")
    assert canonical.load(api.data) == statement


def test_another_patients_consent_is_not_to_be_had(desk: Browser) -> None:
    desk.go(f"{ROOT}/p1", {**FORM, "until": day(30), "paper": "1"})
    (grant,) = desk.grants()
    for path, form in (("", None), ("", FORM), ("/statement", None), ("/confirm", {"paper": "1"}), ("/revoke", {})):
        assert desk.go(f"{ROOT}/p2/{grant.id}{path}", form).status_code == 404
    assert [each.state for each in desk.grants()] == ["active"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param(HERE, 303, id="this node's page"),
        pytest.param({**HERE, "Sec-Fetch-Site": "same-origin"}, 303, id="and the browser says so"),
        pytest.param({"Origin": "https://evil.example"}, 403, id="another site"),
        pytest.param({**HERE, "Sec-Fetch-Site": "cross-site"}, 403, id="another site, as the browser says"),
        pytest.param({"Origin": "null"}, 403, id="a site that hides"),
        pytest.param({"X-Nothing": "1"}, 403, id="nobody says from where"),
    ],
)
def test_forms_of_other_sites_do_nothing(desk: Browser, headers: dict[str, str], status: int) -> None:
    done = desk.go(f"{ROOT}/p1", {**FORM, "until": day(30), "paper": "1"}, **headers)
    assert done.status_code == status
    assert len(desk.grants()) == (status == 303)


@pytest.mark.parametrize("role", ["reader", "sender", "portal", "messenger", "monitor", "privacy-officer"])
def test_other_roles_are_kept_out(desk: Browser, role: str) -> None:
    assert desk.go(f"{ROOT}/p1", role=role).status_code == 403
    assert desk.go(f"{ROOT}/p1", {**FORM, "until": day(30)}, role=role).status_code == 403
    assert desk.grants() == []


def test_a_stranger_is_asked_to_sign_in_and_pages_run_nothing(desk: Browser) -> None:
    stranger = desk.client.get(f"{ROOT}/p1")
    assert stranger.status_code == 401
    assert stranger.headers["WWW-Authenticate"].startswith("Basic ")
    assert NAME not in stranger.text
    policy = desk.go(f"{ROOT}/p1").headers
    assert "default-src 'none'" in policy["Content-Security-Policy"]
    assert "script-src" not in policy["Content-Security-Policy"]
    assert policy["Referrer-Policy"] == "same-origin"
    assert policy["Cache-Control"] == "no-store"
    assert "<script" not in desk.go(f"{ROOT}/p1").text


def test_a_consent_that_the_ledger_refuses_is_rejected_here_too(desk: Browser) -> None:
    done = desk.go(f"{ROOT}/p1", {"grantee": [org_id(77)], "purpose": ["TREAT"], "until": day(30), "paper": "1"})
    assert done.status_code == 403
    (grant,) = desk.grants()
    assert grant.state == "refused"
    assert desk.node.records.read(*grant.consent.split("/")).resource()["status"] == "rejected"


# --- the form alone

TERMS = GrantTerms(
    (OTHER,), ("TREAT", "HPAYMT"), 1_800_000_000, 1_790_000_000, ("laboratory", "Observation"), ("R",),
    ("2026-01-01", None), (Exclusion(("imaging",), ("R",), (None, "2026-05-31"), (OTHER,)),), ("physician",), 30,
    "RelatedPerson/r1",
)  # fmt: skip


def flat(shown: dict[str, Any]) -> dict[str, list[str]]:
    """Return what a browser sends for a form that shows this."""
    sent = {name: values for name, values in shown.items() if name != "exceptions"}
    for number, row in enumerate(shown["exceptions"]):
        sent |= {f"except-{number}-{name}": values for name, values in row.items()}
    return sent


def test_terms_survive_the_form() -> None:
    assert read_terms(flat(fields_of(TERMS)), now=0, before=TERMS) == TERMS
    new = read_terms(flat(fields_of(TERMS)), now=1_790_000_001)
    assert (new.valid_from, new.valid_until % DAY) == (1_790_000_001, end_of_day(date(2027, 1, 15)) % DAY)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param({"until": [""]}, "last day", id="no end"),
        pytest.param({"until": ["31.12.2026"]}, "until", id="a day of another form"),
        pytest.param({"until": ["9999-12-31"]}, "until", id="an end that no clock counts"),
        pytest.param({"until": ["2026-12-31", "2027-12-31"]}, "until", id="two ends"),
        pytest.param({"records-from": ["yesterday"]}, "records-from", id="no day"),
        pytest.param({"copies-days": ["many"]}, "copies-days", id="no number"),
        pytest.param({"except-0-from": ["soon"]}, "from", id="an exception of no day"),
        pytest.param({"everything": ["yes"]}, "everything", id="no such field"),
        pytest.param({"except-0-everything": ["yes"]}, "except-0-everything", id="no such field of an exception"),
        pytest.param({"guardian": ["x" * 300]}, "guardian", id="too long"),
    ],
)
def test_forms_that_are_refused_by_name(change: dict[str, list[str]], named: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(named)):
        read_terms({**flat(fields_of(TERMS)), **change}, now=0)


@given(
    st.dictionaries(
        st.sampled_from(["until", "category", "except-1-label", "except-99-until", "copies-days", "x"]) | st.text(),
        st.lists(st.text(max_size=20), max_size=3),
        max_size=6,
    )
)
def test_any_form_is_read_or_refused(fields: dict[str, list[str]]) -> None:
    try:
        read_terms(fields, now=0)
    except InvalidRequest:
        return


def test_every_code_has_words() -> None:
    assert set(words.PURPOSES) == PURPOSES
    assert set(words.CATEGORIES) == CATEGORIES
    assert set(words.SENSITIVE) == SENSITIVE_LABELS
    assert set(words.ROLES) == ROLES
