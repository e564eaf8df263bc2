"""The exchange's metrics and the commands of the privacy officer, on a real home."""

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


def opened_review(node: Node, *, late: bool) -> str:
    store(node, "p1", {"resourceType": "Patient", "id": "p1"})
    asked = access_request.build(
        chain="unit", requester=OTHER, key=node.signer.sign, holder=node.signer.org, pid="1." + "0" * 64,
        purpose="ETREAT", now=int(time.time()), emergency="BTG", reason="昏迷患者", role="physician",
    )  # fmt: skip
    node.reviews._clock = lambda: time.time() - (100_000 if late else 0)
    with write_transaction(node.engine) as connection:
        node.reviews.open(connection, asked, "p1")
    node.reviews._clock = time.time
    return asked.id


def metrics(node: Node) -> dict[str, float]:
    file = node.settings.path(node.settings.security.tokens)
    _, token = create_token(file, name="m", role="monitor", now=int(time.time()))
    text = create_app(node).test_client().get("/metrics", headers={"Authorization": f"Bearer {token}"}).text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def test_gaps_reviews_and_grants_are_counted(home: Path) -> None:
    with open_node(home) as node:
        before = metrics(node)
        assert before['yiqiao_ledger_gaps{state="queued"}'] == 0
        assert before["yiqiao_emergency_reviews_overdue"] == 0
        request = opened_review(node, late=True)
        node.exchange_parts.events.enqueue("access.release", {"request": request})
        node.exchange_parts.events._clock = lambda: time.time() - 500
        after = metrics(node)
        assert after['yiqiao_ledger_gaps{state="queued"}'] == 1
        assert after["yiqiao_ledger_gap_oldest_seconds"] >= 0
        assert after["yiqiao_emergency_reviews_open"] == after["yiqiao_emergency_reviews_overdue"] == 1
        assert after['yiqiao_grants{state="draft"}'] == 0


def test_reviews_on_the_command_line(home: Path) -> None:
    with open_node(home) as node:
        request = opened_review(node, late=True)
    runner = CliRunner()
    listed = runner.invoke(yiqiao, ["review", "list", "--home", str(home)])
    assert listed.exit_code == 1  # one is overdue
    assert request in listed.output
    assert "OVERDUE" in listed.output
    as_json = runner.invoke(yiqiao, ["review", "list", "--home", str(home), "--json"])
    assert json.loads(as_json.stdout)[0]["overdue"] is True
    assert runner.invoke(yiqiao, ["review", "list", "--home", str(home), "--consortium"]).exit_code == 0
    bad = runner.invoke(yiqiao, ["review", "close", "x", "--home", str(home), "--outcome", "justified", "--note", "n"])
    assert bad.exit_code == 2
    done = runner.invoke(
        yiqiao, ["review", "close", request, "--home", str(home), "--outcome", "justified", "--note", "抢救", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["state"] == "closing"  # no such request on this ledger: it is told later


def test_reviews_over_http(home: Path) -> None:
    with open_node(home) as node:
        request = opened_review(node, late=False)
        client = create_app(node).test_client()
        file = node.settings.path(node.settings.security.tokens)
        headers = {}
        for role in ("privacy-officer", "reader"):
            _, token = create_token(file, name=role, role=role, now=int(time.time()))
            headers[role] = {"Authorization": f"Bearer {token}"}
        assert client.get("/reviews/v1/emergencies", headers=headers["reader"]).status_code == 403
        found = client.get("/reviews/v1/emergencies", headers=headers["privacy-officer"]).get_json()["items"]
        assert [each["request"] for each in found] == [request]
        path = f"/reviews/v1/emergencies/{request}"
        body = json.dumps({"outcome": "unjustified", "note": "无依据"})
        assert client.post(path, data=body, headers=headers["reader"]).status_code == 403
        assert client.post(path, data="{}", headers=headers["privacy-officer"]).status_code == 400
        assert client.post(path, data=body, headers=headers["privacy-officer"]).get_json()["outcome"] == "unjustified"
        assert client.post(path, data=body, headers=headers["privacy-officer"]).status_code == 409
