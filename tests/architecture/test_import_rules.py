"""The layout's import rules hold, and each of them can fail."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def lint_imports(config: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports_command as command; sys.exit(command())"
    return subprocess.run(
        [sys.executable, "-c", code, "--config", str(config), "--no-cache"],
        cwd=cwd,
        env={"PYTHONPATH": str(cwd), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_import_rules_hold():
    outcome = lint_imports(ROOT / "pyproject.toml", ROOT)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_a_planted_violation_breaks_the_rules(tmp_path):
    for package in ("anchor", "fhir_adapters", "bridge"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "anchor" / "merkle.py").write_text("import fhir_adapters\n")
    config = tmp_path / "rules.toml"
    config.write_text(
        '[tool.importlinter]\nroot_packages = ["bridge", "fhir_adapters", "anchor"]\n'
        '[[tool.importlinter.contracts]]\nname = "layers"\ntype = "layers"\n'
        'layers = ["bridge", "fhir_adapters | anchor"]\n'
    )
    outcome = lint_imports(config, tmp_path)
    assert outcome.returncode == 1
    assert "BROKEN" in outcome.stdout
