"""`yiqiao practitioner`, `sign` and `check-signature` on a real home, from certificate to offline verification."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridge.cli import yiqiao
from bridge.keys import provider
from bridge.wiring import open_node
from tests.node_consortium import store
from tests.node_home import make_home

RECORD = {"resourceType": "Observation", "id": "o1", "status": "final", "code": {"text": "测试"}}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(yiqiao, [str(each) for each in arguments])


def told(*arguments: object) -> str:
    outcome = run(*arguments)
    assert outcome.exit_code == 0, (outcome.output, outcome.exception)
    return outcome.output


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_home(tmp_path_factory.mktemp("sign") / "home").home
    with open_node(made) as node:
        store(node, "p1", {"resourceType": "Patient", "id": "p1"}, RECORD)
    told("pki", "init", "--home", made)
    told("pki", "issue", "--own", "--home", made)
    return made


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(provider, "SCRYPT", {"n": 2**4, "r": 8, "p": 1})
    file = tmp_path / "secret"
    file.write_text("a passphrase of some length\n")
    file.chmod(0o600)
    return file


def issued(home: Path, tmp_path: Path, secret: Path, id: str = "D1") -> Path:
    key = tmp_path / f"{id}.key.json"
    told("practitioner", "issue", "--home", home, "--id", id, "--name", "李医生", "--role", "physician",
         "--key-out", key, "--passphrase-file", secret)  # fmt: skip
    return key


def test_a_record_is_signed_dated_and_checked_offline_across_rotation(home: Path, tmp_path: Path, secret: Path) -> None:
    key = issued(home, tmp_path, secret)
    answer = json.loads(told("sign", "Observation/o1", "--home", home, "--practitioner", key,
                             "--passphrase-file", secret, "--json"))  # fmt: skip
    told("anchor", "--home", home)
    receipt, trust, provenance = tmp_path / "receipt.json", tmp_path / "trust.json", tmp_path / "provenance.json"
    told("receipt", answer["provenance"], "--home", home, "--out", receipt)
    told("keys", "rotate", "sign", "--home", home)
    told("trust", "--home", home, "--out", trust, "--quorum", 1)
    with open_node(home) as node:
        kind, id, _, version = answer["provenance"].split("/")
        provenance.write_bytes(node.records.vread(kind, id, int(version)).content)
        record = tmp_path / "record.json"
        record.write_bytes(node.records.read("Observation", "o1").content)
        assert node.records.read(kind, id).subject == "Patient/p1"
    check = ("check-signature", provenance, "--trust", trust, "--receipt", receipt, "--resource", record, "--json")
    report = json.loads(told(*check))
    assert report["verified"]
    assert [each["who"].split(":")[0] for each in report["signatures"]] == ["org", "practitioner"]
    assert report["targets"][0]["checked"]
    assert report["dated"] is not None
    assert "李医生" in told("check-signature", provenance, "--trust", trust)

    record.write_bytes(record.read_bytes().replace(b"final", b"amended"))
    refused = run(*check)
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["code"] == "record-differs"
    told("pki", "issue", "--own", "--home", home)  # certificates over the new key


def test_a_revoked_practitioner_signs_nothing(home: Path, tmp_path: Path, secret: Path) -> None:
    key = issued(home, tmp_path, secret, "D2")
    listed = json.loads(told("practitioner", "list", "--home", home, "--json"))
    serial = next(each["serial"] for each in listed if each["id"] == "D2")
    assert "physician" in told("practitioner", "list", "--home", home)
    told("practitioner", "revoke", serial, "--home", home)
    refused = run("sign", "Observation/o1", "--home", home, "--practitioner", key, "--passphrase-file", secret)
    assert "not in force" in str(refused.exception)
    assert run("practitioner", "revoke", "00", "--home", home).exit_code != 0


def test_wrong_use_is_refused(home: Path, tmp_path: Path, secret: Path) -> None:
    key = issued(home, tmp_path, secret, "D3")
    other = tmp_path / "other"
    other.write_text("another passphrase entirely\n")
    other.chmod(0o600)
    sign = ("sign", "Observation/o1", "--home", home)
    assert run(*sign, "--practitioner", key, "--passphrase-file", other).exit_code != 0
    assert run(*sign, "--practitioner", secret, "--passphrase-file", secret).exit_code != 0
    assert run("sign", "Observation/none", "--home", home).exit_code != 0
    assert run("sign", "observation", "--home", home).exit_code == 2
    assert run("practitioner", "issue", "--home", home, "--id", "D4", "--name", "x", "--role", "y").exit_code == 2
    bad = ("practitioner", "issue", "--home", home, "--id", "D4", "--name", "x", "--role", "y", "--public")
    assert run(*bad, "04").exit_code == 2


def test_a_key_on_a_card_is_certified_by_its_public_half(home: Path, tmp_path: Path) -> None:
    from anchor.gm import PrivateKey
    from bridge.pki import gm_certificates as gm

    key, out = PrivateKey.generate(), tmp_path / "card.pem"
    told("practitioner", "issue", "--home", home, "--id", "D5", "--name", "王护士", "--role", "nurse",
         "--public", key.public_key.to_bytes().hex(), "--certificate-out", out)  # fmt: skip
    certificate = gm.parse(out.read_bytes())
    assert (certificate.public, certificate.practitioner) == (key.public_key, "D5")
