"""Client tokens: kept as digests, compared in constant time, effective and ineffective at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge.errors import SettingsError
from bridge.tokens import ROLE_PERMISSIONS, TokenBook, create_token, read_tokens, revoke_token, write_tokens

NOW = 1_800_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.json"
    write_tokens(path, ())
    return path


def test_a_token_is_found_by_its_text_and_not_kept(file: Path) -> None:
    token, text = create_token(file, name="emr", role="reader", now=NOW)
    assert text not in file.read_text()
    assert TokenBook(file).find(text, NOW) == token


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda text: text[:-1], id="cut"),
        pytest.param(lambda text: text + "A", id="lengthened"),
        pytest.param(lambda text: text.swapcase(), id="other case"),
        pytest.param(lambda text: "", id="empty"),
        pytest.param(lambda text: "\udcff" + text, id="not text"),
    ],
)
def test_another_text_finds_nothing(file: Path, wrong: object) -> None:
    _, text = create_token(file, name="emr", role="reader", now=NOW)
    assert TokenBook(file).find(wrong(text), NOW) is None  # type: ignore[operator]


def test_a_token_ends_at_its_time(file: Path) -> None:
    _, text = create_token(file, name="emr", role="reader", now=NOW, seconds=60)
    book = TokenBook(file)
    assert book.find(text, NOW + 59) is not None
    assert book.find(text, NOW + 60) is None


def test_creating_and_revoking_take_effect_on_a_running_node(file: Path) -> None:
    book = TokenBook(file)
    token, text = create_token(file, name="emr", role="reader", now=NOW)
    assert book.find(text, NOW) == token
    revoke_token(file, token.id)
    assert book.find(text, NOW) is None


def test_a_vanished_file_lets_nobody_in(file: Path) -> None:
    _, text = create_token(file, name="emr", role="reader", now=NOW)
    book = TokenBook(file)
    assert book.find(text, NOW)
    file.unlink()
    assert book.find(text, NOW) is None


def test_revoking_what_is_not_there_says_so(file: Path) -> None:
    with pytest.raises(SettingsError, match="yiqiao token list"):
        revoke_token(file, "0" * 12)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="a list"),
        pytest.param('{"v":2,"tokens":[]}', id="another version"),
        pytest.param('{"v":1,"tokens":{}, "x":', id="cut"),
        pytest.param(
            json.dumps({"v": 1, "tokens": [{"id": "a", "name": "b", "role": "king", "sm3": "", "created": 1}]}),
            id="an unknown role",
        ),
    ],
)
def test_what_is_no_token_file(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(SettingsError, match="not a token file"):
        read_tokens(file)


def test_only_the_operator_role_sees_messages() -> None:
    assert {role for role, permissions in ROLE_PERMISSIONS.items() if "messages.inspect" in permissions} == {"operator"}
    assert all("ledger.submit" not in permissions for permissions in ROLE_PERMISSIONS.values())
