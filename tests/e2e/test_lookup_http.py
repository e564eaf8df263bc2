"""Lookups over HTTP, as an institution's own application makes them; and what it may not ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from anchor.errors import CanonicalError
from bridge.app import _answer_error
from bridge.auth import guard
from bridge.errors import InvalidRequest
from bridge.routes.lookups import lookups_blueprint, read_lookup
from bridge.tokens import create_token, write_tokens
from fhir_adapters.identifiers import ID_CARD_SYSTEM
from tests.exchange_world import NAME, OTHER, PERSON, A, B, World, observation, patient

DOCTOR = "虚构医师丙"
ASKED = {"system": ID_CARD_SYSTEM, "value": PERSON, "purpose": "TREAT", "practitioner": DOCTOR, "role": "physician"}


class Emr:
    """An application of hospital B, with a token of the role "clinical"."""

    def __init__(self, world: World) -> None:
        self.world, site = world, world[B]
        site.node.audit = site.audit
        self._tokens = site.node.settings.path("tokens.json")
        write_tokens(self._tokens, ())
        app = Flask("lookups", static_folder=None)
        guard(app, site.node)
        app.register_blueprint(lookups_blueprint(site.node))
        app.register_error_handler(Exception, _answer_error)
        self.client: FlaskClient = app.test_client()

    def headers(self, role: str = "clinical") -> dict[str, str]:
        _, token = create_token(self._tokens, name="EMR", role=role, now=0)
        return {"Authorization": f"Bearer {token}"}

    def ask(self, token: str = "clinical", **more: Any) -> Any:
        self.world.tick()
        return self.client.post("/lookups/v1", data=json.dumps({**ASKED, **more}), headers=self.headers(token))


@pytest.fixture
def emr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emr]:
    monkeypatch.setattr("bridge.services.exchange.RETRY_SECONDS", 0.01)
    directory = tmp_path / "consortium"
    directory.mkdir()
    made = World(directory)
    made[A].store(patient(), observation("o1"))
    made[A].parts.register()
    yield Emr(made)
    made.close()


def test_a_granted_lookup(emr: Emr) -> None:
    emr.world.grant()
    answer = emr.ask()
    assert answer.status_code == 200, answer.text
    (outcome,) = answer.get_json()["holders"]
    assert (outcome["holder"], outcome["status"], len(outcome["records"])) == (A, "received", 2)
    stored = {f"{each['local']}" for each in outcome["records"]}
    status = emr.client.get(f"/lookups/v1/{outcome['request']}", headers=emr.headers()).get_json()
    assert (status["state"], status["holder"], status["due"]) == ("verified", A, None)
    assert stored <= set(status["records"])
    assert NAME not in answer.text + json.dumps(status, ensure_ascii=False)
    told = json.dumps(emr.world[B].audits(), ensure_ascii=False)
    assert DOCTOR in told
    assert PERSON not in told
    assert DOCTOR in json.dumps(emr.world[A].audits(), ensure_ascii=False)  # B has signed for it


def test_a_refused_lookup_says_no_more_than_that(emr: Emr) -> None:
    (refused,) = emr.ask().get_json()["holders"]
    assert (refused["status"], refused["code"]) == ("denied", "not-permitted")
    assert "no-grant" not in json.dumps(refused)
    status = emr.client.get(f"/lookups/v1/{refused['request']}", headers=emr.headers()).get_json()
    assert (status["state"], status["reason"], status["records"]) == ("denied", "not-permitted", [])


def test_an_emergency(emr: Emr) -> None:
    (outcome,) = emr.ask(emergency="BTG", reason="昏迷，无法取得同意").get_json()["holders"]
    assert outcome["status"] == "received"
    assert [each.requester for each in emr.world[A].parts.reviews.here()] == [B]


def test_a_known_holder_and_nobody_known(emr: Emr) -> None:
    emr.world.grant()
    assert [each["holder"] for each in emr.ask(holder=A).get_json()["holders"]] == [A]
    assert emr.ask(value=OTHER).get_json() == {"holders": []}
    assert any(each["subtype"][0]["code"] == "operation" for each in emr.world[B].audits())


@pytest.mark.parametrize("role", ["reader", "sender", "registrar", "portal", "messenger", "monitor", "privacy-officer"])
def test_other_roles_ask_nobody(emr: Emr, role: str) -> None:
    emr.world.grant()
    assert emr.ask(role).status_code == 403
    assert emr.world[B].scalars("SELECT count(*) FROM exchange_request") == [0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param({"practitioner": ""}, "practitioner", id="nobody asks"),
        pytest.param({"practitioner": None}, "practitioner", id="nothing for a practitioner"),
        pytest.param({"role": "king"}, "roles", id="an unknown role"),
        pytest.param({"purpose": "FUN"}, "purposes", id="an unknown purpose"),
        pytest.param({"categories": ["everything"]}, "categories", id="an unknown category"),
        pytest.param({"categories": [["laboratory"]]}, "categories", id="no list of texts"),
        pytest.param({"categories": []}, "categories", id="no category at all"),
        pytest.param({"emergency": "BTG"}, "reason", id="an emergency without words"),
        pytest.param({"emergency": "BORED", "reason": "没有理由"}, "emergency codes", id="an unknown emergency"),
        pytest.param({"patient": "p1"}, "patient", id="a field that there is not"),
        pytest.param({"value": "11010519491231002"}, "resident number", id="no valid number"),
        pytest.param({"holder": B}, "holder", id="itself"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(emr: Emr, change: dict[str, Any], named: str) -> None:
    answer = emr.ask(**change)
    assert answer.status_code == 400, answer.text
    assert named in answer.get_json()["issue"][0]["diagnostics"]
    assert emr.world[B].scalars("SELECT count(*) FROM exchange_request") == [0]


def test_a_request_that_this_node_did_not_make(emr: Emr) -> None:
    assert emr.client.get(f"/lookups/v1/{'0' * 32}", headers=emr.headers()).status_code == 404


@given(
    st.dictionaries(
        st.sampled_from([*ASKED, "grant", "categories", "emergency"]) | st.text(max_size=8),
        st.none() | st.booleans() | st.text(max_size=12) | st.lists(st.text(max_size=8), max_size=3),
    )
)
def test_any_body_is_read_or_refused(value: dict[str, Any]) -> None:
    try:
        assert set(read_lookup(json.dumps(value).encode())) >= set(ASKED)
    except (InvalidRequest, CanonicalError):
        return
