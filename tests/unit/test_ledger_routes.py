"""The ledger's routes: each states its permission, and a request that cannot be read is answered as such."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask

from bridge.auth import declared_permission
from bridge.errors import InvalidRequest
from bridge.routes.ledger import ledger_blueprint


class NoChain:
    """A chain that must not be asked."""

    def __getattr__(self, name: str) -> Any:
        def asked(*_: object) -> None:
            raise AssertionError(f"the ledger was asked for {name}")

        return asked


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.register_blueprint(ledger_blueprint(SimpleNamespace(chain=NoChain())))
    app.testing = True
    return app


def test_every_route_states_its_permission_and_only_two_write(app: Flask) -> None:
    stated = {
        rule.rule: (declared_permission(app.view_functions[rule.endpoint]), "POST" in (rule.methods or ()))
        for rule in app.url_map.iter_rules()
        if rule.endpoint != "static"
    }
    assert len(stated) >= 12
    assert {permission for permission, _ in stated.values()} == {"ledger.read", "ledger.submit"}
    assert all((permission == "ledger.submit") == writes or rule.endswith(("/transactions", "/v1/state"))
               for rule, (permission, writes) in stated.items())  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "/transactions",
        "/transactions?from=-1",
        "/transactions?from=1e3",
        "/transactions?from=٣",
        "/proofs/inclusion?index=1",
        "/proofs/inclusion?index=1&size=x",
        "/proofs/consistency?size1=1&size2=99999999999999999",
        "/state?limit=all",
    ],
)
def test_a_query_that_cannot_be_read_is_refused_before_the_ledger_is_asked(app: Flask, path: str) -> None:
    with pytest.raises(InvalidRequest):
        app.test_client().get(f"/ledger/v1{path}")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"keys":[]}',
        b'{"keys":[1],"prefixes":[]}',
        b'{"keys":"member/","prefixes":[]}',
        b'{"keys":[' + b",".join([b'"k"'] * 256) + b'],"prefixes":["p"]}',
    ],
)
def test_a_question_that_cannot_be_read_is_refused_before_the_ledger_is_asked(app: Flask, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        app.test_client().post("/ledger/v1/state", data=body)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"transactions":[]}', b'{"transactions":["*"]}', b'{"transactions":[1]}']
)
def test_a_submission_that_cannot_be_read_is_refused_before_the_ledger_is_asked(app: Flask, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        app.test_client().post("/ledger/v1/transactions", data=body)
