"""The directory of members: what the ledger says, as mCSD resources, read and searched."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class
from flask.testing import FlaskClient

from anchor.contracts import members
from anchor.gm import PrivateKey
from bridge.app import create_app
from bridge.tokens import create_token
from bridge.wiring import Node, open_node
from tests.node_consortium import org_id
from tests.node_home import make_home

HOSPITAL, OTHER = org_id(41), org_id(42)


def admit(node: Node, org: str, name: str, roles: list[str], endpoint: str) -> None:
    card = members.card(
        chain=node.settings.ledger.chain, org=org, name=name, roles=roles, endpoint=endpoint,
        signing=PrivateKey.generate(), encryption=PrivateKey.generate(), since=int(time.time()) - 10,
    )  # fmt: skip
    act(node, {"kind": "admit", "member": members.admission(card)})


def act(node: Node, action: dict[str, Any]) -> None:
    node.submitter.submit("membership.propose", {"proposal": secrets.token_hex(16), "action": action})


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with open_node(make_home(tmp_path / "home").home) as opened:
        admit(opened, HOSPITAL, "第二医院", ["hospital"], "https://node.second.example.cn")
        admit(opened, OTHER, "Insurer", ["payer"], "https://insurer.example.cn")
        act(opened, {"kind": "suspend", "org": OTHER})
        yield opened


@pytest.fixture
def client(node: Node) -> FlaskClient:
    _, token = create_token(
        node.settings.path(node.settings.security.tokens), name="t", role="reader", now=int(time.time())
    )
    made = create_app(node).test_client()
    made.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return made


def ids(client: FlaskClient, query: str) -> list[str]:
    answer = client.get(f"/directory/{query}")
    assert answer.status_code == 200, answer.text
    bundle = json.loads(answer.data)
    get_fhir_model_class("Bundle").model_validate(bundle)
    found = [entry["resource"]["id"] for entry in bundle.get("entry", ())]
    assert bundle["total"] == len(found)
    return found


@pytest.mark.parametrize("type", ["Organization", "OrganizationAffiliation", "Endpoint"])
def test_every_member_is_there_and_valid(client: FlaskClient, node: Node, type: str) -> None:
    found = ids(client, type)
    assert set(found) == {HOSPITAL, OTHER, node.signer.org}
    for id in found:
        resource = json.loads(client.get(f"/directory/{type}/{id}").data)
        get_fhir_model_class(type).model_validate(resource)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("Organization?name=第二", [HOSPITAL], id="by the beginning of the name"),
        pytest.param("Organization?name=insur", [OTHER], id="in any case"),
        pytest.param(f"Organization?identifier={HOSPITAL}", [HOSPITAL], id="by identifier"),
        pytest.param(f"Organization?identifier=urn:other|{HOSPITAL}", [], id="of another system"),
        pytest.param("Organization?active=false", [OTHER], id="suspended"),
        pytest.param("Organization?type=payer,hospital", [HOSPITAL, OTHER], id="one or the other"),
        pytest.param("Organization?type=payer&active=true", [], id="both"),
        pytest.param("Organization?_id=x", [], id="unknown id"),
        pytest.param(f"OrganizationAffiliation?participating-organization={HOSPITAL}", [HOSPITAL], id="affiliation"),
        pytest.param("OrganizationAffiliation?role=hospital", [HOSPITAL], id="role"),
        pytest.param(f"Endpoint?organization=Organization/{HOSPITAL}", [HOSPITAL], id="endpoint of a member"),
        pytest.param("Endpoint?status=suspended", [OTHER], id="endpoint of a suspended one"),
        pytest.param("Endpoint?connection-type=exchange-v1&status=active&_id=x", [], id="nothing fits"),
    ],
)
def test_searches(client: FlaskClient, query: str, expected: list[str]) -> None:
    found = ids(client, query)
    assert [id for id in found if id in (HOSPITAL, OTHER)] == expected  # the node itself is a hospital as well


def test_an_endpoint_is_the_ledgers(client: FlaskClient) -> None:
    resource = json.loads(client.get(f"/directory/Endpoint/{HOSPITAL}").data)
    assert resource["address"] == "https://node.second.example.cn"
    assert resource["managingOrganization"] == {"reference": f"Organization/{HOSPITAL}"}
    affiliation = json.loads(client.get(f"/directory/OrganizationAffiliation/{HOSPITAL}").data)
    assert affiliation["endpoint"] == [{"reference": f"Endpoint/{HOSPITAL}"}]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/directory/Patient", 404, id="another type"),
        pytest.param("/directory/Organization/none", 404, id="unknown member"),
        pytest.param("/directory/Organization?address=x", 400, id="unknown parameter"),
        pytest.param("/directory/Organization?" + "&".join(["_id=a"] * 21), 400, id="too many parameters"),
    ],
)
def test_refusals(client: FlaskClient, path: str, status: int) -> None:
    assert client.get(path).status_code == status


def test_nobody_reads_it_without_a_token(node: Node) -> None:
    assert create_app(node).test_client().get("/directory/Organization").status_code == 401
