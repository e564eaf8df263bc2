"""`yiqiao release`, `yiqiao collect` and /releases/v1 on a real home."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge.app import create_app
from bridge.cli import yiqiao
from bridge.services import access_request
from bridge.storage.database import write_transaction
from bridge.tokens import create_token
from bridge.wiring import Node, open_node
from tests.node_consortium import org_id, store
from tests.node_home import make_home

OTHER = org_id(77)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home").home


def waits(node: Node) -> str:
    """Let a request wait for a person; return its id."""
    store(node, "p1", {"resourceType": "Patient", "id": "p1"})
    asked = access_request.build(
        chain="unit", requester=OTHER, key=node.signer.sign, holder=node.signer.org, pid="1." + "0" * 64,
        purpose="HRESCH", now=int(time.time()), role="researcher", categories=frozenset({"laboratory"}),
    )  # fmt: skip
    disclosures = node.exchange_parts.releases._store
    now = int(time.time())
    facts = {"requester": OTHER, "purpose": "HRESCH", "digest": "d" * 64, "raw": asked.dump()}
    with write_transaction(node.engine) as connection:
        disclosures.begin(connection, asked.id, **facts, now=now)
        node.approvals.open(connection, asked, "p1", "approval-for-HRESCH")
    return asked.id


def run(home: Path, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(yiqiao, [*arguments, "--home", str(home)], catch_exceptions=True)
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def test_listed_approved_and_refused(home: Path) -> None:
    assert "nothing waits" in run(home, "release", "list")
    with open_node(home) as node:
        first, second = waits(node), waits(node)
    assert {first, second} == {line.split()[0] for line in run(home, "release", "list").splitlines()}
    assert "approved" in run(home, "release", "approve", first, "--note", "ok", "--by", "officer")
    assert "refused" in run(home, "release", "refuse", second, "--note", "no", "--by", "officer")
    (left,) = json.loads(run(home, "release", "list", "--json"))
    assert (left["request"], left["approved"]) == (first, True)
    run(home, "release", "approve", second, "--note", "after all", code=1)
    run(home, "release", "approve", "xyz", "--note", "ok", code=2)


def test_the_gap_report_names_what_has_no_end(home: Path) -> None:
    assert "every release" in run(home, "release", "gaps")
    with open_node(home) as node:
        request = waits(node)
        node.exchange_parts.events.enqueue("access.release", {"request": request})
        with write_transaction(node.engine) as connection:
            node.exchange_parts.releases._store.set(connection, "0" * 32, 1)
            node.exchange_parts.releases._store.set(connection, request, 1000, state="released")
    found = json.loads(run(home, "release", "gaps", "--json", code=1))
    assert [(each["kind"], each["request"]) for each in found] == [
        ("release-without-receive", request),
        ("event-queued", request),
    ]
    assert "release-without-receive" in run(home, "release", "gaps", code=1)


def test_collect_says_what_goes_on(home: Path) -> None:
    assert "no request" in run(home, "collect")
    assert json.loads(run(home, "collect", "--json")) == {"outcomes": [], "unfinished": []}
    run(home, "collect", "0" * 32, code=1)
    with open_node(home) as node:
        requests = node.exchange._requests
        statement = {"holder": OTHER, "purpose": "TREAT", "emergency": None, "grant": None}
        requests.note("a" * 32, b"{}", statement, now=int(time.time()), due=int(time.time()) + 900)
    assert "a" * 32 in run(home, "collect")


def test_the_desk_over_http(home: Path) -> None:
    with open_node(home) as node:
        request = waits(node)
        file = node.settings.path(node.settings.security.tokens)
        texts = {
            role: create_token(file, name=role, role=role, now=int(time.time()))[1]
            for role in ("privacy-officer", "reader")
        }
        client = create_app(node).test_client()
        officer, reader = ({"Authorization": f"Bearer {texts[each]}"} for each in ("privacy-officer", "reader"))
        (item,) = client.get("/releases/v1/requests", headers=officer).json["items"]
        assert item["request"] == request
        assert client.get("/releases/v1/requests", headers=reader).status_code == 403
        assert client.get("/releases/v1/gaps", headers=officer).json == {"items": []}
        path = f"/releases/v1/requests/{request}"
        answers = [
            client.post(path, json={"decision": "maybe", "note": "x"}, headers=officer).status_code,
            client.post(path, json={"decision": "approve", "note": "x"}, headers=reader).status_code,
            client.post(path, json={"decision": "approve", "note": "伦理批件"}, headers=officer).status_code,
            client.post(path, json={"decision": "approve", "note": "x"}, headers=officer).status_code,
        ]
        assert answers == [400, 403, 200, 409]
        task = node.records.read("Task", f"approval-{request}").resource()
        assert task["status"] == "accepted"
