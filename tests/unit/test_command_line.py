"""The command line: quick help, an example everywhere, and one sentence with the way out for every failure."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from bridge.cli import COMMANDS, main, yiqiao
from tests.node_home import ORG, adt, make_home

HELP_SECONDS = 0.4
COMMAND_SECONDS = 240  # hung, not slow: a command needs two seconds of processor time, which a busy machine gives late


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=COMMAND_SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("cli") / "home").home


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run the command in this process, as the entry point does."""
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return int(exit.value.code or 0), output.out, output.err


def test_help_starts_quickly_and_names_every_command() -> None:
    best = 9.0
    for _ in range(3):
        began = time.perf_counter()
        answer = run("--help")
        best = min(best, time.perf_counter() - began)
    assert answer.returncode == 0
    assert all(f"  {name} " in answer.stdout for name in COMMANDS)
    assert best < HELP_SECONDS


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        if path == () and name == "bench":  # needs the benchmark peers, which a node does not
            continue
        command = group.get_command(context, name)
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += _commands(command, (*path, name))
    return found


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for path in _commands(yiqiao):
        code, out, _ = call(capsys, *path, "--help")
        assert code == 0, path
        assert "Example" in out, path
        assert f"yiqiao {path[0]}" in out, path


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param([], 2, "name a command", id="nothing"),
        pytest.param(["nonsense"], 2, "No such command", id="an unknown command"),
        pytest.param(["serve"], 2, "--home", id="serve without home"),
        pytest.param(["serve", "--home", "/nowhere/node"], 1, "yiqiao init", id="serve of a home that is none"),
        pytest.param(["inbox", "list", "--home", "/nowhere/node"], 1, "yiqiao init", id="inbox of a home that is none"),
        pytest.param(["token", "list", "--home", "/nowhere/node"], 1, "yiqiao init", id="token of a home that is none"),
        pytest.param(["convert"], 2, "FILE", id="convert without file"),
        pytest.param(["convert", "/nowhere/*.hl7"], 2, "match nothing", id="convert of a pattern without match"),
        pytest.param(["convert", "/nowhere/a.hl7"], 1, "No such file", id="convert of a file that is not there"),
        pytest.param(["convert", "--profile", "/nowhere/p.toml", "a"], 2, "--profile", id="no such profile"),
        pytest.param(["convert", "--format", "docx", "a"], 2, "--format", id="an unknown format"),
        pytest.param(["convert", "--out", "/nowhere/x/o", "a"], 2, "cannot write", id="no such output directory"),
    ],
)
def test_wrong_use_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    got, _, err = call(capsys, *arguments)
    assert got == code
    assert said in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("yiqiao")]) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"--org": "123"}, "node.org", id="an org that is none"),
        pytest.param({"--endpoint": "http://hospital.example"}, "node.endpoint", id="an unsafe endpoint"),
        pytest.param({"--role": "hospital"}, "--genesis", id="a hospital without ledger"),
        pytest.param({"--chain": "NOT OK"}, "chain id", id="a chain name that is none"),
        pytest.param({"--database": "sqlite:///:memory:"}, "database.url", id="a database that forgets"),
        pytest.param({"--http-host": "0.0.0.0"}, "http.host", id="plain http beyond this machine"),
    ],
)
def test_init_refuses_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    options = {"--org": ORG, "--name": "测试", "--role": "authority"} | changes
    arguments = [part for pair in options.items() for part in pair]
    code, _, err = call(capsys, "init", tmp_path / "home", *arguments)
    assert code == 1
    assert said in err
    assert not (tmp_path / "home").exists()


def test_init_refuses_a_directory_in_use(capsys: pytest.CaptureFixture[str], tmp_path: Path, home: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    options = ("--org", ORG, "--name", "测试", "--role", "authority")
    assert "not empty" in call(capsys, "init", tmp_path, *options)[2]
    assert "already the home" in call(capsys, "init", home, *options)[2]
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_init_writes_names_that_toml_has_to_escape(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = 'a "quoted" \\ name 医院'
    code, out, err = call(
        capsys, "init", tmp_path / "home", "--org", ORG, "--name", name, "--role", "authority", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["org"] == ORG
    from bridge.settings import load_settings

    assert load_settings(tmp_path / "home", {}).node.name == name


def test_tokens_are_created_listed_and_revoked(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    _, out, _ = call(
        capsys, "token", "create", "--home", home, "--name", "emr", "--role", "reader", "--days", "3", "--json"
    )
    made = json.loads(out)
    _, listed, _ = call(capsys, "token", "list", "--home", home, "--json")
    assert made["id"] in {each["id"] for each in json.loads(listed)}
    assert made["token"] not in listed
    assert call(capsys, "token", "revoke", "--home", home, made["id"])[0] == 0
    code, _, err = call(capsys, "token", "revoke", "--home", home, made["id"])
    assert code == 1
    assert "yiqiao token list" in err


def test_files_are_taken_in_once_and_failures_can_be_run_again(
    capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "adt.hl7"
    file.write_bytes(adt("F1", "F1") + adt("F2", "F2") + adt("F3", "F3").replace(b"ADT^A08", b"ZZZ^Z99"))
    code, out, err = call(capsys, "ingest", file, "--home", home, "--json")
    counts = json.loads(out)
    assert (code, counts["accepted"], counts["refused"], counts["stored"]) == (1, 2, 1, 2)
    assert "message 3: AR" in err
    code, out, _ = call(capsys, "ingest", file, "--home", home, "--json")
    assert json.loads(out)["repeated"] == 2
    _, out, _ = call(capsys, "inbox", "list", "--home", home, "--state", "failed", "--json")
    failed = json.loads(out)["messages"]
    assert [each["control_id"] for each in failed] == ["F3"]
    _, out, _ = call(capsys, "inbox", "show", str(failed[0]["id"]), "--home", home)
    assert json.loads(out)["entry"]["code"] == "unsupported"
    code, out, _ = call(capsys, "inbox", "rerun", str(failed[0]["id"]), "--home", home, "--json")
    assert (code, json.loads(out)["failed"]) == (1, 1)
    assert call(capsys, "inbox", "rerun", "--home", home)[0] == 2
    assert call(capsys, "inbox", "show", "999999", "--home", home)[0] == 1


def test_a_file_of_fhir_is_taken_in(capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path) -> None:
    file = tmp_path / "patients.ndjson"
    file.write_text('{"resourceType":"Patient","id":"n1"}\n{"resourceType":"Patient","birthDate":"x"}\n')
    code, out, err = call(capsys, "ingest", file, "--home", home, "--json")
    counts = json.loads(out)
    assert (code, counts["accepted"], counts["refused"], counts["stored"]) == (1, 1, 1, 1)
    assert "message 2: Patient.birthDate" in err


def test_serve_names_a_taken_port(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = run("serve", "--home", home, YIQIAO_HTTP__PORT=str(taken.getsockname()[1]))
    assert answer.returncode == 1
    assert "http.port: cannot listen" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_unreachable_ledger_is_one_sentence(tmp_path: Path, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    answer = run("member", "list", "--home", home,
                 YIQIAO_LEDGER__ENGINE="remote", YIQIAO_LEDGER__URL=f"http://127.0.0.1:{port}")  # fmt: skip
    assert answer.returncode == 1
    assert "ledger" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_unreachable_database_is_one_sentence(home: Path) -> None:
    answer = run("inbox", "list", "--home", home, YIQIAO_DATABASE__URL="sqlite:////nowhere/at/all/node.sqlite3")
    assert answer.returncode == 1
    assert "database" in answer.stderr
    assert "Traceback" not in answer.stderr
