"""Rules about the source itself that no linter at hand checks."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("anchor", "fhir_adapters", "bridge")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

DRAWER_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "core", "lib"}

# The ledger's rules must give every member the same answer: nothing in them asks clock, disk, network or chance.
DETERMINISTIC = ["ledger", "transaction", "state_tree", "merkle", "canonical"]
IMPURE_MODULES = {
    *("time", "datetime", "random", "secrets", "uuid", "locale"),
    *("os", "socket", "requests", "sqlite3", "threading"),
}


def deterministic_sources() -> list[Path]:
    return [ROOT / "anchor" / f"{name}.py" for name in DETERMINISTIC] + sorted(
        (ROOT / "anchor" / "contracts").glob("*.py")
    )


def imported_modules(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", deterministic_sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_deterministic_core_imports_no_source_of_difference(path: Path):
    assert not imported_modules(ast.parse(path.read_text("utf-8"))) & IMPURE_MODULES


@pytest.mark.parametrize("path", deterministic_sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_deterministic_core_uses_no_floating_point(path: Path):
    tree = ast.parse(path.read_text("utf-8"))
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, float)]
    divisions = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)]
    assert not [node.lineno for node in [*constants, *divisions]]


def test_no_module_is_a_drawer():
    assert not [path for path in SOURCES if path.stem in DRAWER_NAMES or path.parent.name in DRAWER_NAMES]


@pytest.mark.parametrize("package", ["anchor", "fhir_adapters"])
def test_every_public_name_is_documented_and_typed(package: str):
    missing = []
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        if not ast.get_docstring(tree):
            missing.append(f"{path.relative_to(ROOT)}: no module docstring")
        for node in ast.walk(tree):
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if function and not node.name.startswith("_") and node.returns is None:
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: no return type")
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: no docstring")
    assert not missing


def test_test_files_have_names_of_their_own():
    names = [path.name for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    assert len(names) == len(set(names))
