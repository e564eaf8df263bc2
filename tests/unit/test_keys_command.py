"""`yiqiao keys` on a real home: status, protection, and the rotation of what wraps the data keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridge.cli import yiqiao
from bridge.keys import provider
from bridge.storage.database import write_transaction
from bridge.wiring import open_node
from tests.node_home import make_home


def run(*arguments: object) -> Result:
    return CliRunner().invoke(yiqiao, [str(each) for each in arguments])


def told(*arguments: object) -> str:
    outcome = run(*arguments)
    assert outcome.exit_code == 0, (outcome.output, outcome.exception)
    return outcome.output


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(provider, "SCRYPT", {"n": 2**4, "r": 8, "p": 1})
    return make_home(tmp_path / "home").home


def sealed(home: Path) -> bytes:
    with open_node(home) as node, write_transaction(node.engine) as connection:
        return node.keyring.seal(connection, "Patient/1", b"content", b"")


def opened(home: Path, content: bytes) -> bytes:
    with open_node(home) as node, write_transaction(node.engine) as connection:
        return node.keyring.open(connection, "Patient/1", content, b"")


def test_the_kek_is_replaced_and_the_retired_one_forgotten_only_when_unused(home: Path) -> None:
    content = sealed(home)
    before = json.loads(told("keys", "status", "--home", home, "--json"))
    (old,) = [each["id"] for each in before["keks"]]
    assert "1 data keys wrapped anew" in told("keys", "rotate", "kek", "--home", home)
    after = json.loads(told("keys", "status", "--home", home, "--json"))
    assert [(each["wraps"], each["current"]) for each in after["keks"]] == [(1, True)]
    assert after["keks"][0]["id"] != old
    assert opened(home, content) == b"content"
    assert "0 data keys" in told("keys", "rotate", "kek", "--home", home, "--finish")
    assert (home / "keys" / f"kek.key.{old}").exists()
    told("keys", "forget", old, "--home", home, "--yes")
    assert not (home / "keys" / f"kek.key.{old}").exists()
    assert opened(home, content) == b"content"
    assert run("keys", "forget", after["keks"][0]["id"], "--home", home, "--yes").exit_code != 0


def test_a_protected_node_needs_its_passphrase(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = sealed(home)
    secret = tmp_path / "secret"
    secret.write_text("a passphrase of some length\n")
    secret.chmod(0o600)
    assert run("keys", "protect", "--home", home, "--provider", "passphrase").exit_code != 0
    monkeypatch.setenv("YIQIAO_KEYS__PASSPHRASE_FILE", str(secret))
    told("keys", "protect", "--home", home, "--provider", "passphrase")
    assert "passphrase" in told("keys", "status", "--home", home)
    assert opened(home, content) == b"content"
    told("keys", "rotate", "kek", "--home", home)
    told("keys", "rotate", "sign", "--home", home)
    told("keys", "rotate", "pseudonym", "--home", home)
    assert opened(home, content) == b"content"

    monkeypatch.delenv("YIQIAO_KEYS__PASSPHRASE_FILE")
    refused = run("keys", "status", "--home", home)
    assert refused.exit_code != 0
    assert "keys.passphrase_file" in str(refused.exception)
    monkeypatch.setenv("YIQIAO_KEYS__PASSPHRASE_FILE", str(secret))
    told("keys", "protect", "--home", home, "--provider", "file")
    monkeypatch.delenv("YIQIAO_KEYS__PASSPHRASE_FILE")
    assert opened(home, content) == b"content"
