"""The HTTP surfaces of one node: FHIR answers byte for byte, who may do what, and what errors look like."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from anchor.gm import sm3
from bridge.app import create_app
from bridge.auth import PERMISSIONS, PUBLIC, declared_permission
from bridge.tokens import create_token
from bridge.wiring import Node, build_node
from tests.node_home import adt, make_home

NOW = 1_700_000_000
PUBLIC_ENDPOINTS = {"operations.healthz", "operations.readyz", "metadata.metadata", "soap.wsdl"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    settings = make_home(tmp_path_factory.mktemp("http") / "home")
    with build_node(settings) as built:
        for number in range(5):
            assert built.ingest.receive("mllp", adt(f"C{number}", f"P{number}")).accepted
        while built.ingest.process(100):
            pass
        yield built


@pytest.fixture(scope="module")
def app(node: Node) -> Flask:
    return create_app(node)


@pytest.fixture(scope="module")
def tokens(node: Node) -> dict[str, str]:
    file = node.settings.path(node.settings.security.tokens)
    roles = ("reader", "sender", "monitor", "operator")
    return {role: create_token(file, name=f"test {role}", role=role, now=NOW)[1] for role in roles}


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def get(client: FlaskClient, tokens: dict[str, str]):  # type: ignore[no-untyped-def]
    def send(path: str, role: str = "operator", **headers: str) -> TestResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.get(path, headers={"Authorization": f"Bearer {tokens[role]}", **named})

    return send


@pytest.fixture
def patient(node: Node) -> str:
    return node.identity.find("http://127.0.0.1:18080/fhir/NamingSystem/HIS", "P1")[0].id


# --- deny by default


def test_every_route_declares_a_permission(app: Flask) -> None:
    declared = {
        rule.endpoint: declared_permission(app.view_functions[rule.endpoint]) for rule in app.url_map.iter_rules()
    }
    assert {endpoint for endpoint, permission in declared.items() if permission is None} == set()
    assert {endpoint for endpoint, permission in declared.items() if permission == PUBLIC} == PUBLIC_ENDPOINTS
    assert set(declared.values()) <= PERMISSIONS | {PUBLIC}


def test_every_route_but_the_public_ones_is_closed_to_strangers(app: Flask, client: FlaskClient) -> None:
    for rule in app.url_map.iter_rules():
        path = rule.build(dict.fromkeys(rule.arguments, 1))[1]  # type: ignore[index]
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            status = client.open(path, method=method).status_code
            assert (status != 401) == (rule.endpoint in PUBLIC_ENDPOINTS), (method, path, status)


def test_a_route_without_declaration_is_denied_to_everybody(node: Node, tokens: dict[str, str]) -> None:
    app = create_app(node)
    app.add_url_rule("/forgotten", view_func=lambda: "open", endpoint="forgotten")
    answer = app.test_client().get("/forgotten", headers={"Authorization": f"Bearer {tokens['operator']}"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("role", "path", "status"),
    [
        pytest.param("reader", "/fhir/Patient", 200, id="a reader searches"),
        pytest.param("reader", "/messages", 403, id="a reader sees no messages"),
        pytest.param("reader", "/metrics", 403, id="a reader sees no metrics"),
        pytest.param("reader", "/fhir/AuditEvent", 403, id="a reader sees no audit trail"),
        pytest.param("sender", "/fhir/Patient", 403, id="a sender reads nothing"),
        pytest.param("sender", "/messages", 403, id="a sender sees no messages"),
        pytest.param("monitor", "/metrics", 200, id="a monitor sees metrics"),
        pytest.param("monitor", "/fhir/Patient", 403, id="a monitor reads nothing"),
        pytest.param("operator", "/messages", 200, id="an operator sees messages"),
        pytest.param("operator", "/fhir/AuditEvent", 200, id="an operator sees the audit trail"),
        pytest.param("operator", "/ledger/v1/checkpoint", 200, id="an operator reads the ledger"),
    ],
)
def test_roles(get, role: str, path: str, status: int) -> None:  # type: ignore[no-untyped-def]
    assert get(path, role).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"Authorization": "Bearer "}, id="empty"),
        pytest.param({"Authorization": "Bearer wrong"}, id="wrong"),
        pytest.param({"Authorization": "Basic YTpi"}, id="another scheme"),
        pytest.param({"Signature-Input": "yiqiao=()", "Signature": "x"}, id="a signature that is none"),
    ],
)
def test_who_does_not_prove_who_it_is_gets_401(client: FlaskClient, headers: dict[str, str]) -> None:
    answer = client.get("/fhir/Patient", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.get_json(force=True)["issue"][0]["code"] == "login"


# --- reads


def test_read_serves_the_stored_bytes_with_their_version(node: Node, get, patient: str) -> None:  # type: ignore[no-untyped-def]
    stored = node.records.read("Patient", patient)
    answer = get(f"/fhir/Patient/{patient}")
    assert answer.data == stored.content
    assert sm3(answer.data) == stored.digest
    assert answer.headers["ETag"] == f'W/"{stored.version}"'
    assert answer.headers["Content-Type"] == "application/fhir+json"
    assert answer.last_modified is not None


@pytest.mark.parametrize(
    ("tag", "status"),
    [
        pytest.param('W/"1"', 304, id="current"),
        pytest.param('W/"9"', 200, id="other"),
        pytest.param("*", 304, id="any"),
    ],
)
def test_read_if_none_match(get, patient: str, tag: str, status: int) -> None:  # type: ignore[no-untyped-def]
    assert get(f"/fhir/Patient/{patient}", If_None_Match=tag).status_code == status


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        pytest.param("/fhir/Patient/none", 404, "not-found", id="no such resource"),
        pytest.param("/fhir/Nothing/1", 404, "not-found", id="no such type"),
        pytest.param("/fhir/Patient/{id}/_history/9", 404, "not-found", id="no such version"),
        pytest.param("/fhir/Patient/{id}/_history/x", 404, "not-found", id="a version that is no number"),
        pytest.param("/fhir/Patient/none/_history", 404, "not-found", id="history of nothing"),
        pytest.param("/fhir/Patient/_history?_count=x", 400, "invalid", id="a count that is no number"),
        pytest.param("/fhir/Patient/_history?_since=yesterday", 400, "invalid", id="a since that is no instant"),
        pytest.param("/fhir/Patient?nonsense=1", 400, "not-supported", id="an unknown parameter"),
        pytest.param("/fhir/Patient?_page=AAAA", 400, "not-supported", id="a token of somebody else"),
        pytest.param("/fhir/Patient?_format=xml", 406, "not-supported", id="XML by parameter"),
        pytest.param("/nowhere", 404, "not-found", id="no such address"),
    ],
)
def test_errors_are_operation_outcomes(get, patient: str, path: str, status: int, code: str) -> None:  # type: ignore[no-untyped-def]
    answer = get(path.format(id=patient))
    assert answer.status_code == status
    outcome = answer.get_json(force=True)
    assert outcome["resourceType"] == "OperationOutcome"
    assert outcome["issue"][0]["code"] == code


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        pytest.param("application/fhir+json", 200, id="fhir json"),
        pytest.param("application/json", 200, id="json"),
        pytest.param("*/*", 200, id="anything"),
        pytest.param("application/fhir+xml, application/json;q=0.1", 200, id="json at last"),
        pytest.param("application/fhir+xml", 406, id="xml only"),
        pytest.param("text/html", 406, id="a page"),
    ],
)
def test_accept(get, accept: str, status: int) -> None:  # type: ignore[no-untyped-def]
    assert get("/fhir/Patient", Accept=accept).status_code == status


def test_nothing_is_deleted_and_not_even_the_operator_writes(
    client: FlaskClient, tokens: dict[str, str], patient: str
) -> None:
    headers = {"Authorization": f"Bearer {tokens['operator']}"}
    for method, status in (("PUT", 403), ("DELETE", 405), ("PATCH", 405)):
        assert client.open(f"/fhir/Patient/{patient}", method=method, headers=headers).status_code == status


def test_an_update_shows_in_history_and_the_old_version_stays(node: Node, get) -> None:  # type: ignore[no-untyped-def]
    assert node.ingest.receive("mllp", adt("U1", "P4", "新^名")).accepted
    node.ingest.process(10)
    found = node.identity.find("http://127.0.0.1:18080/fhir/NamingSystem/HIS", "P4")[0]
    assert found.version == 2
    bundle = get(f"/fhir/Patient/{found.id}/_history").get_json(force=True)
    assert (bundle["type"], bundle["total"]) == ("history", 2)
    assert [entry["response"]["etag"] for entry in bundle["entry"]] == ['W/"2"', 'W/"1"']
    assert [entry["response"]["status"] for entry in bundle["entry"]] == ["200", "201"]
    old = get(f"/fhir/Patient/{found.id}/_history/1")
    assert old.data == node.records.vread("Patient", found.id, 1).content
    newest = get("/fhir/Patient/_history?_count=1").get_json(force=True)
    assert newest["entry"][0]["resource"]["id"] == found.id
    assert {link["relation"] for link in newest["link"]} == {"self", "next"}


# --- search


def test_paging_links_carry_no_parameter_in_clear_and_reach_everything(get) -> None:  # type: ignore[no-untyped-def]
    seen: list[str] = []
    path = "/fhir/Patient?gender=male&_count=2"
    while path:
        bundle = get(path).get_json(force=True)
        seen += [entry["resource"]["id"] for entry in bundle["entry"]]
        links = {link["relation"]: link["url"] for link in bundle["link"]}
        assert all("gender" not in url and "male" not in url for url in links.values())
        path = links.get("next", "").removeprefix("http://127.0.0.1:18080")
    assert len(seen) == len(set(seen)) == 5


def test_a_self_link_repeats_the_search(get) -> None:  # type: ignore[no-untyped-def]
    bundle = get("/fhir/Patient?gender=male&_count=1").get_json(force=True)
    again = get(bundle["link"][0]["url"].removeprefix("http://127.0.0.1:18080")).get_json(force=True)
    assert again["entry"] == bundle["entry"]


def test_a_paging_token_of_another_type_is_refused(get) -> None:  # type: ignore[no-untyped-def]
    link = get("/fhir/Patient?_count=1").get_json(force=True)["link"][0]["url"]
    assert get("/fhir/Encounter?" + link.partition("?")[2]).status_code == 400


def test_search_by_post_takes_parameters_from_the_body_only_as_a_form(
    client: FlaskClient, tokens: dict[str, str]
) -> None:
    headers = {"Authorization": f"Bearer {tokens['reader']}"}
    found = client.post("/fhir/Patient/_search", data={"identifier": "P1"}, headers=headers).get_json(force=True)
    assert len(found["entry"]) == 1
    refused = client.post("/fhir/Patient/_search", json={"identifier": "P1"}, headers=headers)
    assert refused.status_code == 415


def test_entries_hold_the_stored_bytes(node: Node, get, patient: str) -> None:  # type: ignore[no-untyped-def]
    assert node.records.read("Patient", patient).content in get(f"/fhir/Patient?_id={patient}").data


def test_every_read_and_search_is_in_the_audit_trail(node: Node, get, patient: str) -> None:  # type: ignore[no-untyped-def]
    before = node.records.count("AuditEvent")
    get(f"/fhir/Patient/{patient}", "reader")
    get(f"/fhir/Patient/{patient}/_history/1", "reader")
    get(f"/fhir/Patient/{patient}/_history", "reader")
    get("/fhir/Patient/_history", "reader")
    get("/fhir/Patient?gender=male", "reader")
    get("/fhir/Patient/none", "reader")
    get("/fhir/Patient?nonsense=1", "reader")
    assert node.records.count("AuditEvent") == before + 7


# --- the rest


def test_metadata_promises_what_the_search_table_holds(client: FlaskClient) -> None:
    statement = client.get("/fhir/metadata").get_json(force=True)
    assert statement["fhirVersion"] == "4.0.1"
    offered = {each["type"]: each for each in statement["rest"][0]["resource"]}
    assert {"Patient", "Observation", "DiagnosticReport"} <= offered.keys()
    assert "birthdate" in {each["name"] for each in offered["Patient"]["searchParam"]}


def test_health_readiness_and_metrics(client: FlaskClient, get) -> None:  # type: ignore[no-untyped-def]
    assert client.get("/healthz").get_json() == {"status": "ok"}
    assert client.get("/readyz").status_code == 200
    text = get("/metrics", "monitor").get_data(as_text=True)
    assert 'yiqiao_inbox_messages{state="stored"}' in text
    assert "yiqiao_ledger_up 1.0" in text


def test_answers_carry_security_headers(client: FlaskClient) -> None:
    for path in ("/healthz", "/fhir/Patient", "/nowhere"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Request-Id"]


def test_a_body_that_is_too_large_is_refused(client: FlaskClient, tokens: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {tokens['sender']}"}
    answer = client.post(
        "/messages/hl7v2", data=bytes(16 * 1024 * 1024 + 1), headers=headers, content_type="text/plain"
    )
    assert answer.status_code == 413
    assert answer.get_json(force=True)["issue"][0]["code"] == "too-long"


@pytest.mark.parametrize(
    ("body", "status", "ack"),
    [
        pytest.param(adt("H1", "P9"), 200, b"MSA|AA|H1", id="a good message"),
        pytest.param(adt("H2", "P9").replace(b"ADT^A08", b"ZZZ^Z99"), 422, b"MSA|AR|H2", id="an unknown type"),
        pytest.param(b"nonsense", 422, b"MSA|AE|", id="no message at all"),
        pytest.param(b"", 422, b"MSA|AE|", id="nothing"),
    ],
)
def test_messages_over_http(client: FlaskClient, tokens: dict[str, str], body: bytes, status: int, ack: bytes) -> None:
    headers = {"Authorization": f"Bearer {tokens['sender']}"}
    answer = client.post("/messages/hl7v2", data=body, headers=headers, content_type="application/hl7-v2")
    assert answer.status_code == status
    assert ack in answer.data
    assert b"nonsense" not in answer.data


@pytest.mark.parametrize(
    ("query", "content_type"),
    [
        pytest.param("?source=made-up", "text/plain", id="a source nobody declared"),
        pytest.param("", "application/pdf", id="another content type"),
    ],
)
def test_messages_refused_before_they_are_read(
    client: FlaskClient, tokens: dict[str, str], query: str, content_type: str
) -> None:
    headers = {"Authorization": f"Bearer {tokens['sender']}"}
    answer = client.post(f"/messages/hl7v2{query}", data=adt("H9", "P9"), headers=headers, content_type=content_type)
    assert answer.status_code == 400


def test_messages_are_shown_without_content_and_run_again(
    node: Node, client: FlaskClient, tokens: dict[str, str]
) -> None:
    headers = {"Authorization": f"Bearer {tokens['operator']}"}
    refused = node.ingest.receive("mllp", adt("R1", "SECRET77").replace(b"ADT^A08", b"ZZZ^Z99"))
    listed = client.get("/messages?state=failed", headers=headers)
    assert refused.id in {each["id"] for each in listed.get_json()["messages"]}
    shown = client.get(f"/messages/{refused.id}", headers=headers)
    assert b"SECRET77" not in listed.data + shown.data
    assert client.post(f"/messages/{refused.id}/rerun", headers=headers).status_code == 202
    assert client.get("/messages/999999", headers=headers).status_code == 404
    assert client.get("/messages?state=strange", headers=headers).status_code == 400


def test_an_unexpected_error_says_nothing_of_itself(
    node: Node, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret-of-a-patient")

    monkeypatch.setattr(node.reading, "read", broken)
    answer = (
        create_app(node).test_client().get("/fhir/Patient/1", headers={"Authorization": f"Bearer {tokens['reader']}"})
    )
    assert answer.status_code == 500
    assert b"secret-of-a-patient" not in answer.data
    output = capsys.readouterr()
    assert "secret-of-a-patient" not in output.out + output.err
    assert json.loads(answer.data)["issue"][0]["code"] == "exception"
