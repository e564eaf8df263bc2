"""`yiqiao anchor`, `receipt`, `verify` and `fsck` on a real home: what they print, and with which exit code."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from anchor import checkpoint
from bridge.cli import main, yiqiao
from bridge.settings import load_settings
from bridge.storage.database import transact
from bridge.wiring import build_node
from tests.evidence_world import LINEAGE, org_id

RECORD = b'{"resourceType":"Observation","id":"o1","status":"final","valueQuantity":{"value":0.40}}'


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(yiqiao, [str(argument) for argument in arguments], catch_exceptions=False)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run the whole command line, expect a failure, and return the one sentence it says."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "node"
    made = run(
        *("init", home, "--org", org_id(1), "--name", "测试医院", "--role", "authority", "--role", "hospital"),
        *("--environment", "test", "--mllp-port", "0", "--chain", "test-chain"),
    )
    assert made.exit_code == 0, made.output
    with closing(build_node(load_settings(home))) as node:
        transact(node.engine, lambda conn: node.records.put(conn, RECORD, LINEAGE, "Patient/p1"))
    return home


def test_from_record_to_verified_receipt(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not in the log" in fails(capsys, "receipt", "Observation/o1", "--home", home)
    anchored = json.loads(run("anchor", "--home", home, "--json").output)
    assert anchored["logged"] == anchored["published"][0]["size"] >= 1
    assert run("anchor", "--home", home).exit_code == 0
    receipt, trust = tmp_path / "receipt.json", tmp_path / "trust.json"
    assert run("receipt", "Observation/o1/_history/1", "--home", home, "--out", receipt).exit_code == 0
    assert json.loads(run("receipt", "Observation/o1", "--home", home).output) == json.loads(receipt.read_bytes())
    assert run("trust", "--home", home, "--out", trust).exit_code == 0
    verified = run("verify", receipt, "--trust", trust)
    assert verified.exit_code == 0
    assert "VERIFIED" in verified.output
    assert "nobody but" in verified.output, "one organisation alone is said to be alone"
    forged = tmp_path / "forged.json"
    forged.write_bytes(receipt.read_bytes().replace(b"/o1/", b"/o2/"))
    refused = run("verify", forged, "--trust", trust)
    assert refused.exit_code == 1
    assert "'entry'" in refused.output
    assert json.loads(run("verify", forged, "--trust", trust, "--json").output)["step"] == "entry"


def test_fsck_says_yes_and_names_what_differs(home: Path) -> None:
    run("anchor", "--home", home)
    clean = run("fsck", "--home", home)
    assert clean.exit_code == 0
    assert "nothing differs" in clean.output
    with closing(sqlite3.connect(home / "node.sqlite3")) as file, file:
        file.execute("UPDATE resource_version SET sealed = zeroblob(length(sealed)) WHERE id = 'o1'")
    altered = run("fsck", "--home", home)
    assert altered.exit_code == 1
    assert "record-altered Observation/o1/_history/1" in altered.output
    report = json.loads(run("fsck", "--home", home, "--json").output)
    assert [each["kind"] for each in report["differences"]] == ["record-altered"]


def test_a_ledger_file_that_does_not_open_is_a_difference(home: Path) -> None:
    run("anchor", "--home", home)
    path = load_settings(home).path(load_settings(home).ledger.path)
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE block SET header = zeroblob(10) WHERE height = 1")
    result = run("fsck", "--home", home)
    assert result.exit_code == 1
    assert "ledger-altered" in result.output


@pytest.mark.parametrize("reference", ["Observation", "observation/1", "Observation/1/_history/x", "../../etc", "00"])
def test_a_reference_of_no_form_is_refused(home: Path, capsys: pytest.CaptureFixture[str], reference: str) -> None:
    assert "name a record" in fails(capsys, "receipt", reference, "--home", home)


def test_what_is_not_there_is_said_in_one_sentence(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no Observation/none here" in fails(capsys, "receipt", "Observation/none", "--home", home)
    assert "no such request" in fails(capsys, "receipt", "00" * 16, "--home", home)


def test_a_receipts_file_is_brought_on_in_its_place(home: Path, tmp_path: Path) -> None:
    with closing(build_node(load_settings(home))) as node:
        node.anchoring.drain()
    receipt, trust = tmp_path / "receipt.json", tmp_path / "trust.json"
    assert run("receipt", "Observation/o1", "--home", home, "--out", receipt).exit_code == 0
    assert json.loads(receipt.read_bytes())["state"] == "pending"
    run("anchor", "--home", home)
    upgraded = json.loads(run("receipt", receipt, "--home", home, "--json").output)
    assert upgraded["state"] == json.loads(receipt.read_bytes())["state"] != "pending"
    assert list(tmp_path.glob("*.new")) == []
    other = tmp_path / "other.json"
    assert run("receipt", "--upgrade", receipt, "--home", home, "--out", other).exit_code == 0
    run("trust", "--home", home, "--out", trust)
    for file in (receipt, other):
        assert run("verify", file, "--trust", trust, "--minimum", "committed").exit_code == 0


def test_a_receipt_names_one_thing(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "name a record" in fails(capsys, "receipt", "--home", home)
    broken = tmp_path / "broken.json"
    broken.write_bytes(b"{}")
    assert "kind" in fails(capsys, "receipt", broken, "--home", home)
    run("anchor", "--home", home)
    assert "no time stamp" in fails(capsys, "receipt", "Observation/o1", "--timestamp", "--home", home)


def test_status_says_how_the_evidence_stands(home: Path) -> None:
    first = json.loads(run("status", "--home", home, "--json").output)
    assert (first["pending"], first["alarms"]) == (1, [])
    run("anchor", "--home", home)
    with closing(build_node(load_settings(home))) as node:
        node.witness.run()
    answer = run("status", "--home", home, "--json")
    after = json.loads(answer.output)
    assert answer.exit_code == 0
    assert (after["pending"], after["unpublished"], after["ledger_size"], after["witnesses"]) == (0, 0, 1, 1)
    assert (after["cosigned_size"], after["look"], after["conflicts"]) == (1, "cosigned", 0)
    assert "alarms" in run("status", "--home", home).output


def test_a_contradiction_alarms_until_it_is_acknowledged(home: Path, tmp_path: Path) -> None:
    run("anchor", "--home", home)
    with closing(build_node(load_settings(home))) as node:
        node.witness.run()
        signed = checkpoint.parse(node.chain.checkpoint())
        point = replace(signed.checkpoint, root=b"\x01" * 32)
        forged = checkpoint.sign(point, node.signer.org, node.signer.sign, point.integer("time"))
        node.witness.observe(checkpoint.render(checkpoint.SignedCheckpoint(point, (forged,))), "somebody")
    notes = tmp_path / "evidence"
    alarmed = run("status", "--home", home, "--evidence", notes)
    assert alarmed.exit_code == 1
    assert "ledger-conflict" in alarmed.output
    assert len(list(notes.glob("*.note"))) == 2
    for note in notes.glob("*.note"):
        checkpoint.parse(note.read_bytes())
    listed = json.loads(run("status", "--home", home, "--json").output)["contradictions"]
    assert run("status", "--home", home, "--acknowledge", listed[0]["fingerprint"]).exit_code == 0
    assert json.loads(run("status", "--home", home, "--json").output)["conflicts"] == 0


def test_fsck_goes_on_only_where_one_was_stopped(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no unfinished check" in fails(capsys, "fsck", "--continue", "--home", home)
    run("anchor", "--home", home)
    assert run("fsck", "--home", home).exit_code == 0
    assert not (home / "fsck").exists()


@pytest.mark.parametrize("command", ["anchor", "receipt", "verify", "fsck", "status", "shred"])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    assert f"yiqiao {command}" in run(command, "--help").output
