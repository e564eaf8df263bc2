"""The demo is the product's main job: it must pass, say so as JSON, and leave nothing running."""

import json
import os
import subprocess
import sys

import pytest

from tests.comet_network import require_cometbft

DEMO_WITHIN_SECONDS = 550


@pytest.mark.slow
def test_the_demo_passes_every_check(tmp_path):
    report_file = tmp_path / "demo.json"
    outcome = subprocess.run(
        [sys.executable, "-m", "bridge.cli", "demo", "--home", str(tmp_path / "homes"), "--json", str(report_file)],
        capture_output=True,
        text=True,
        timeout=DEMO_WITHIN_SECONDS,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-2000:]
    report = json.loads(report_file.read_text("utf-8"))
    assert report["passed"] is True
    assert len(report["steps"]) == 12
    assert all(check["passed"] for step in report["steps"] for check in step["checks"])
    assert report["counts"]["records exchanged"] > 10


@pytest.mark.slow
@pytest.mark.service
def test_the_demo_passes_every_check_on_a_ledger_that_four_institutions_replicate(tmp_path):
    require_cometbft()
    report_file = tmp_path / "demo.json"
    command = [sys.executable, "-m", "bridge.cli", "demo", "--engine", "cometbft", "--json", str(report_file)]
    outcome = subprocess.run(
        [*command, "--home", str(tmp_path / "homes")],
        capture_output=True,
        text=True,
        timeout=DEMO_WITHIN_SECONDS,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-2000:]
    report = json.loads(report_file.read_text("utf-8"))
    assert report["passed"] is True
    assert len(report["steps"]) == 13
    checks = {check["what"]: check["detail"] for step in report["steps"] for check in step["checks"]}
    assert "of 40 power" in checks["the receipt carries the validators' commit: final without trust in any one node"]
    assert checks["a validator's bent signature"].startswith("finality: ")
    assert checks["the commit of two validators out of four"].startswith("finality: ")
    assert checks["validators that the trust file does not name"].startswith("finality: ")
    assert "no process is left" in checks
    assert report["counts"]["records exchanged"] > 10


def test_without_its_program_the_replicated_demo_says_how_to_get_it(tmp_path):
    outcome = subprocess.run(
        [sys.executable, "-m", "bridge.cli", "demo", "--engine", "cometbft", "--home", str(tmp_path / "homes")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(tmp_path), "HOME": str(tmp_path)},
    )
    assert outcome.returncode == 1
    assert "go install github.com/cometbft/cometbft/cmd/cometbft@v0.38.25" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not (tmp_path / "homes").exists()


def test_a_home_in_use_is_refused(tmp_path):
    (tmp_path / "something").write_text("here")
    outcome = subprocess.run(
        [sys.executable, "-m", "bridge.cli", "demo", "--home", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode != 0
    assert "not empty" in outcome.stderr
    assert "Traceback" not in outcome.stderr
