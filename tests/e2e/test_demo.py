"""The demo is the product's main job: it must pass, say so as JSON, and leave nothing running."""

import json
import subprocess
import sys

import pytest

DEMO_WITHIN_SECONDS = 280


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
