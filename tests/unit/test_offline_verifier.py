"""``python -m anchor.verify`` alone on a court expert's machine: no web, database or network library in sight."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evidence_world import World

ROOT = Path(__file__).resolve().parents[2]
BLOCKED = ("flask", "werkzeug", "sqlalchemy", "sqlmodel", "sqlite3", "_sqlite3", "requests", "urllib3", "ssl", "_ssl")
RUNNER = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocker())
def offline(event, arguments):
    if event.startswith("socket."):
        raise PermissionError("a socket was opened")
sys.addaudithook(offline)
import runpy
sys.argv[0] = "anchor.verify"
runpy.run_module("anchor.verify", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("court")
    world = World(directory)
    ref = world.anchored(3)[1]
    (directory / "early.json").write_bytes(world.receipts.for_record("Observation", "o1", 1))
    world.witness.run()
    (directory / "receipt.json").write_bytes(world.receipts.for_record("Observation", "o1", 1))
    (directory / "trust.json").write_bytes(world.trust())
    (directory / "record.json").write_bytes(world.content(ref))
    (directory / "other.json").write_bytes(world.content("Observation/o2/_history/1"))
    world.close()
    return directory


def run(files: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUNNER, *arguments], cwd=files, env={"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_it_verifies_with_everything_else_blocked(files: Path) -> None:
    result = run(files, "receipt.json", "--trust", "trust.json", "--resource", "record.json", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["verified"] is True
    assert report["state"] == "witnessed"
    assert len(report["steps"]) == 12


def test_it_says_in_words_what_is_proven(files: Path) -> None:
    result = run(files, "receipt.json", "--trust", "trust.json")
    assert result.returncode == 0
    assert "VERIFIED" in result.stdout
    assert "验证通过" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "step"),
    [
        pytest.param(["receipt.json", "--trust", "trust.json", "--resource", "other.json"], 1, "resource", id="other"),
        pytest.param(["early.json", "--trust", "trust.json"], 1, "state", id="not witnessed yet"),
        pytest.param(["trust.json", "--trust", "trust.json"], 1, "format", id="no receipt"),
        pytest.param(["receipt.json", "--trust", "receipt.json"], 1, "trust", id="no trust file"),
        pytest.param(["early.json", "--trust", "trust.json", "--minimum", "committed"], 0, None, id="asked for less"),
    ],
)
def test_it_names_the_failing_step(files: Path, arguments: list[str], code: int, step: str | None) -> None:
    result = run(files, *arguments, "--json")
    assert result.returncode == code, result.stderr
    assert json.loads(result.stdout).get("step") == step
    words = run(files, *arguments)
    assert words.returncode == code
    assert "Traceback" not in words.stdout + words.stderr
    if step:
        assert step in words.stdout


def test_a_missing_file_is_one_sentence(files: Path) -> None:
    result = run(files, "nowhere.json", "--trust", "trust.json")
    assert result.returncode == 2
    assert result.stderr.startswith("nowhere.json: ")
    assert "Traceback" not in result.stderr
