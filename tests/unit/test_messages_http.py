"""/messages for operators: found without a patient in an address, run again in bulk after a mapping was fixed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge import profiles
from bridge.app import create_app
from bridge.settings import load_settings
from bridge.tokens import create_token
from bridge.wiring import Node, build_node
from tests.node_home import adt, make_home

PROFILE = 'name = "lis"\ncharset = "UTF-8"\n'
LATIN = 'name = "lis"\ncharset = "ISO-8859-1"\n'


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(profiles, "CHECK_SECONDS", 0.0)
    home = make_home(tmp_path / "home").home
    (home / "lis.toml").write_text(PROFILE, "utf-8")
    with (home / "config.toml").open("a", encoding="utf-8") as config:
        config.write('\n[[sources]]\nname = "lis"\nkind = "hl7v2"\nprofile = "lis.toml"\n')
    with build_node(load_settings(home)) as built:
        yield built


class Operator:
    """Asks the node as an operator does."""

    def __init__(self, node: Node) -> None:
        _, token = create_token(node.settings.path("tokens.json"), name="op", role="operator", now=0)
        self.client = create_app(node).test_client()
        self.headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> Any:
        return self.client.get(path, headers=self.headers)

    def post(self, path: str, body: Any = None) -> Any:
        return self.client.post(path, json=body, headers=self.headers)


@pytest.fixture
def operator(node: Node) -> Operator:
    return Operator(node)


def accented(control_id: str, patient: str) -> bytes:
    """A message that says nothing of its character set and is Latin-1 that is no GB18030 either."""
    raw = adt(control_id, patient, "M\u00fcller\u00ff^\u00c9").replace(b"||||||UNICODE UTF-8", b"")
    return raw.decode().encode("latin-1", "ignore")


def test_failures_are_run_again_in_bulk_after_a_mapping_was_fixed(node: Node, operator: Operator) -> None:
    for number in range(3):
        assert not node.ingest.receive("lis", accented(f"B{number}", f"SECRET{number}")).accepted
    node.ingest.receive("lis", adt("G1", "SECRET9"))
    node.ingest.receive("lis", adt("Z1", "SECRET9").replace(b"ADT^A08", b"ZZZ^Z99"))
    while node.ingest.process(10):
        pass
    failed = operator.get("/messages?state=failed&code=undecodable").get_json()
    assert [each["id"] for each in failed["messages"]] == [3, 2, 1]
    assert {each["location"] for each in failed["messages"]} == {"MSH-18"}

    (node.settings.home / "lis.toml").write_text(LATIN, "utf-8")
    begun = operator.post("/messages/rerun", {"state": "failed", "code": "undecodable"})
    assert begun.status_code == 202
    assert (begun.get_json()["messages"], begun.get_json()["waiting"]) == (3, 3)
    while node.ingest.process(10):
        pass
    done = operator.get(begun.headers["Location"]).get_json()
    assert (done["waiting"], done["counts"]["stored"]) == (0, 3)
    assert node.inbox.counts() == {"received": 0, "stored": 4, "failed": 1, "dead": 0}
    assert node.records.count("Patient") == 4
    everything = b"".join(answer.data for answer in (begun, operator.get("/messages"), operator.get("/messages/1")))
    assert b"SECRET" not in everything
    assert "\u00fcller".encode() not in everything


def test_a_patients_messages_are_found_by_a_body_and_never_by_an_address(node: Node, operator: Operator) -> None:
    for number, patient in enumerate(("77", "78", "77")):
        node.ingest.receive("lis", adt(f"F{number}", patient))
    found = operator.post("/messages/search", {"patient": "77^HIS"}).get_json()
    assert [each["control_id"] for each in found["messages"]] == ["F2", "F0"]
    assert operator.get("/messages?patient=77^HIS").status_code == 400
    page = operator.post("/messages/search", {"patient": "77^HIS", "limit": 1}).get_json()
    following = operator.post(
        "/messages/search", {"patient": "77^HIS", "limit": 1, "before": page["before"]}
    ).get_json()
    assert [page["messages"][0]["control_id"], following["messages"][0]["control_id"]] == ["F2", "F0"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param("/messages/search", {"state": "failed", "nam": "x"}, 400, id="a name that there is not"),
        pytest.param("/messages/search", {"since": "yesterday"}, 400, id="a time that is no number"),
        pytest.param("/messages/search", [1], 400, id="a body that is no object"),
        pytest.param("/messages/rerun", {"state": "stored"}, 400, id="what did not fail"),
        pytest.param("/messages/rerun", {"source": 7}, 400, id="a choice that is no text"),
        pytest.param("/messages/4711/rerun", None, 404, id="a message that there is not"),
    ],
)
def test_what_cannot_be_asked(operator: Operator, path: str, body: Any, status: int) -> None:
    assert operator.post(path, body).status_code == status


def test_a_rerun_that_there_was_not(operator: Operator) -> None:
    assert operator.get("/messages/reruns/4711").status_code == 404


def test_a_message_that_waits_is_not_run_again(node: Node, operator: Operator) -> None:
    waiting = node.ingest.receive("lis", adt("W1", "1"))
    assert operator.post(f"/messages/{waiting.id}/rerun").status_code == 409
    began = time.monotonic()
    while node.ingest.process(10):
        assert time.monotonic() - began < 60
    assert operator.post(f"/messages/{waiting.id}/rerun").status_code == 202
