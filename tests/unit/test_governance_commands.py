"""`yiqiao member` and `yiqiao trust` on real node homes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from anchor.trust import Trust
from bridge.cli import yiqiao
from tests.ledger_consortium import AUTHORITY, HOSPITAL_A
from tests.local_tsa import LocalTsa, needs_openssl


def run(*arguments: object) -> Result:
    return CliRunner().invoke(yiqiao, [str(one) for one in arguments])


def told(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def init(home: Path, org: str, role: str, *more: object) -> Path:
    told("init", home, "--org", org, "--name", "机构", "--role", role, "--environment", "test", "--mllp-port", 0, *more)
    return home


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return init(tmp_path / "authority", AUTHORITY, "authority", "--chain", "yiqiao-test")


@pytest.fixture
def card(tmp_path: Path, authority: Path) -> Path:
    home = init(
        tmp_path / "hospital", HOSPITAL_A, "hospital", "--ledger-url", "http://127.0.0.1:9",
        "--genesis", authority / "genesis.json",
    )  # fmt: skip
    told("member", "card", "--home", home, "--out", tmp_path / "card.json")
    return tmp_path / "card.json"


def test_a_card_and_a_trust_file_go_to_stdout_alone_and_what_is_said_to_stderr(authority: Path, card: Path) -> None:
    written = run("member", "card", "--home", card.parent / "hospital", "--out", "-")
    assert json.loads(written.stdout).keys() == json.loads(card.read_bytes()).keys()
    assert "signing key" in written.stderr
    written = run("trust", "--home", authority, "--out", "-")
    assert Trust.parse(written.stdout.strip().encode()).fingerprint() in written.stderr
    assert not list(Path().glob("-"))


def members(home: Path) -> dict[str, dict[str, object]]:
    return {one["org"]: one for one in json.loads(told("member", "list", "--home", home, "--json"))}


def test_a_card_is_admitted_suspended_and_reinstated(authority: Path, card: Path) -> None:
    assert json.loads(told("member", "admit", card, "--home", authority, "--json"))["executed"] is True
    assert members(authority)[HOSPITAL_A]["status"] == "active"
    told("member", "suspend", HOSPITAL_A, "--home", authority)
    assert members(authority)[HOSPITAL_A]["status"] == "suspended"
    told("member", "reinstate", HOSPITAL_A, "--home", authority)
    assert members(authority)[HOSPITAL_A]["status"] == "active"
    assert HOSPITAL_A in told("member", "list", "--home", authority)
    assert told("member", "proposals", "--home", authority) == ""


def test_a_card_holds_no_private_key(tmp_path: Path, card: Path) -> None:
    for file in (tmp_path / "hospital" / "keys").iterdir():
        assert file.read_bytes().hex() not in card.read_text()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace("hospital", "authority"), id="none-the-wiser-role"),
        pytest.param(lambda text: "not a card", id="not-json"),
        pytest.param(lambda text: "{}", id="empty"),
    ],
)
def test_a_card_that_is_not_right_is_not_admitted(authority: Path, card: Path, change: object) -> None:
    altered = change(card.read_text())  # type: ignore[operator]
    if "authority" in altered:
        altered = altered.replace('"org":"', '"org":"X')
    card.write_text(altered)
    assert run("member", "admit", card, "--home", authority).exit_code != 0
    assert HOSPITAL_A not in members(authority)


def test_keys_rotate_and_the_old_file_is_kept(authority: Path) -> None:
    keys = authority / "keys"
    before = (keys / "sign.key").read_bytes()
    told("member", "rotate-key", "--home", authority, "--overlap-days", 3)
    assert (keys / "sign.key").read_bytes() != before
    (kept,) = keys.glob("sign.key.*")
    assert kept.read_bytes() == before
    signing = [key for key in members(authority)[AUTHORITY]["keys"] if key["use"] == "sign"]  # type: ignore[attr-defined]
    assert [key["until"] is None for key in signing] == [False, True]
    told("member", "rotate-key", "--home", authority, "--use", "encrypt")


def test_an_interrupted_rotation_is_finished_by_the_next(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", stop)
        assert run("member", "rotate-key", "--home", authority).exit_code != 0
    waiting = (authority / "keys" / "sign.key.new").read_bytes()
    told("member", "rotate-key", "--home", authority)
    assert (authority / "keys" / "sign.key").read_bytes() == waiting
    assert len(members(authority)[AUTHORITY]["keys"]) == 3  # type: ignore[arg-type]


def test_the_trust_file_names_the_members_and_a_majority(authority: Path, card: Path, tmp_path: Path) -> None:
    told("member", "admit", card, "--home", authority)
    output = told("trust", "--home", authority, "--out", tmp_path / "trust.json", "--mandatory", AUTHORITY)
    trust = Trust.parse((tmp_path / "trust.json").read_bytes())
    assert (trust.chain, trust.quorum, trust.mandatory) == ("yiqiao-test", 2, (AUTHORITY,))
    assert set(trust.members) == {AUTHORITY, HOSPITAL_A}
    assert trust.fingerprint() in output


def test_the_last_authority_does_not_suspend_itself(authority: Path) -> None:
    assert run("member", "suspend", AUTHORITY, "--home", authority).exit_code != 0


@needs_openssl
def test_the_trust_file_names_time_stamping_authorities(authority: Path, tmp_path: Path) -> None:
    tsa = LocalTsa(tmp_path / "tsa")
    told("trust", "--home", authority, "--out", tmp_path / "trust.json", "--tsa", tsa.directory / "cert.pem")
    assert Trust.parse((tmp_path / "trust.json").read_bytes()).timestamping == (tsa.certificate,)
    refused = run("trust", "--home", authority, "--out", tmp_path / "no.json", "--tsa", tmp_path / "trust.json")
    assert refused.exit_code != 0
    assert not (tmp_path / "no.json").exists()
