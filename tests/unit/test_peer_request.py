"""Requests whose nonce is stored with the first thing they do: heard once, and of who is a member now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from anchor.gm import PrivateKey
from bridge.auth import guard, peer_request, principal, requires
from bridge.peer_signature import PeerSignatureError, sign_headers
from bridge.services.peers import MemberDirectory, PeerRules, Peers
from bridge.storage.database import migrate, open_database
from bridge.storage.nonces import NonceCache

NOW = 1_790_000_000
ORG, HERE = "12330000000000012G", "12330000000000011J"
FIRST, SECOND = PrivateKey.generate(), PrivateKey.generate()
URL = "http://localhost"


def member(*keys: PrivateKey, status: str = "active") -> dict[str, Any]:
    listed = [
        {
            "id": key.public_key.key_id,
            "use": "sign",
            "public": key.public_key.to_bytes().hex(),
            "from": 0,
            "until": None,
        }
        for key in keys
    ]
    return {"org": ORG, "status": status, "keys": listed}


class Ledger:
    """What the ledger says of the one member, and how often it was asked."""

    def __init__(self) -> None:
        self.record: dict[str, Any] | None = member(FIRST)
        self.asked = 0

    def state(self, key: str) -> dict[str, Any] | None:
        self.asked += 1
        return self.record if key == f"member/{ORG}" else None


class Watch:
    def __init__(self) -> None:
        self.codes: list[str] = []

    def refused(self, org: str, code: str) -> None:
        assert org in (ORG, "")  # no name is counted that is no member's
        self.codes.append(code)


class Here:
    """A node with three views: one that keeps the nonce with its effect, one that forgets to, one that fails."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self.engine, self.ledger, self.watch = engine, Ledger(), Watch()
        peers = Peers(
            directory=MemberDirectory(self.ledger), org=HERE, key=PrivateKey.generate(), nonces=NonceCache(engine),
            rules=PeerRules(https_only=False, allow_local=True), clock=lambda: NOW,
        )  # fmt: skip
        settings = SimpleNamespace(security=SimpleNamespace(tokens="tokens.json"), path=lambda name: directory / name)
        app = Flask(__name__)
        guard(app, SimpleNamespace(settings=settings, clock=lambda: NOW, peers=peers, watch=self.watch))
        app.register_error_handler(PeerSignatureError, lambda error: (error.code, 401))
        self._views(app)
        self.client: FlaskClient = app.test_client()

    def _views(self, app: Flask) -> None:
        @app.post("/effect")
        @requires("exchange.peer", admits=True)
        def effect() -> str:
            with peer_request().transaction() as connection:
                connection.exec_driver_sql("INSERT INTO effect VALUES (1)")
            return principal().id

        @app.post("/forgets")
        @requires("exchange.peer", admits=True)
        def forgets() -> str:
            return "done"

        @app.post("/confirms")
        @requires("exchange.peer", admits=True)
        def confirms() -> str:
            peer_request().confirm(self.ledger.state(f"member/{ORG}"))
            with peer_request().transaction():
                return "done"

        @app.post("/fails")
        @requires("exchange.peer", admits=True)
        def fails() -> str:
            with peer_request().transaction() as connection:
                connection.exec_driver_sql("INSERT INTO effect VALUES (1)")
                raise PeerSignatureError("fails", "half-way")

    def send(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        answer = self.client.post(path, data=b"{}", headers=headers or signed(path))
        return answer.status_code, answer.get_data(as_text=True)

    def rows(self, table: str) -> int:
        with self.engine.connect() as connection:
            return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def signed(path: str, key: PrivateKey = FIRST) -> dict[str, str]:
    return sign_headers("POST", URL + path, b"{}", org=ORG, key=key, audience=HERE, now=NOW)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    engine = open_database(f"sqlite:///{tmp_path / 'node.sqlite3'}")
    migrate(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE effect (n INTEGER)")
    yield Here(engine, tmp_path)
    engine.dispose()


@pytest.mark.parametrize("path", ["/effect", "/forgets", "/confirms"])
def test_a_request_is_heard_once(here: Here, path: str) -> None:
    headers = signed(path)
    assert here.send(path, headers)[0] == 200
    assert here.send(path, headers) == (401, "replayed")
    assert here.rows("peer_nonce") == 1
    assert here.rows("effect") == (path == "/effect")
    assert here.watch.codes == ["replayed"]


def test_an_effect_that_is_rolled_back_leaves_the_nonce_used(here: Here) -> None:
    headers = signed("/fails")
    assert here.send("/fails", headers) == (401, "fails")
    assert here.send("/fails", headers)[1] == "replayed"
    assert (here.rows("effect"), here.rows("peer_nonce")) == (0, 1)


@pytest.mark.parametrize("path", ["/effect", "/forgets", "/confirms"])
@pytest.mark.parametrize(
    ("record", "code"),
    [
        (member(FIRST, status="suspended"), "suspended-member"),
        (member(SECOND), "unknown-key"),
        (None, "unknown-member"),
    ],
)
def test_a_remembered_member_is_not_heard_any_more(here: Here, path: str, record: Any, code: str) -> None:
    assert here.send(path)[0] == 200  # now its record is remembered
    here.ledger.record = record
    before = here.rows("effect")
    assert here.send(path) == (401, code)
    assert here.rows("effect") == before
    assert here.watch.codes == [code]


def test_a_new_key_and_a_member_that_is_back_are_heard_at_once(here: Here) -> None:
    assert here.send("/effect")[0] == 200
    here.ledger.record = member(SECOND)
    assert here.send("/effect", signed("/effect", SECOND))[0] == 200
    here.ledger.record = member(SECOND, status="suspended")
    assert here.send("/effect", signed("/effect", SECOND))[0] == 401
    here.ledger.record = member(SECOND)
    assert here.send("/effect", signed("/effect", SECOND))[0] == 200


def test_the_ledger_is_asked_for_the_sender_once_a_request(here: Here) -> None:
    for path in ("/effect", "/forgets", "/confirms"):
        here.send(path)
        before = here.ledger.asked
        assert here.send(path)[0] == 200
        assert here.ledger.asked == before + 1


def test_another_key_than_the_remembered_one_does_not_sign_for_a_member(here: Here) -> None:
    assert here.send("/effect")[0] == 200
    assert here.send("/effect", signed("/effect", SECOND)) == (401, "unknown-key")
    assert here.rows("effect") == 1


def test_without_a_signature_nothing_is_heard(here: Here) -> None:
    answer = here.client.post("/effect", data=b"{}")
    assert answer.status_code >= 400
    assert here.rows("effect") == 0
