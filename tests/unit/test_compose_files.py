"""The container files without a container engine: what they build from and publish; the entry point is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from anchor.contracts.org_id import check_character
from bridge.ledger_files import read_ledger_file
from bridge.settings import load_settings

ROOT = Path(__file__).parents[2]
COMPOSE_FILES = sorted((ROOT / "docker").glob("compose.*.yml"))
DATABASES = {"postgres:15"}
"""Images that are not built here: the database's own."""


def services(file: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text("utf-8"))["services"]
    return found


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: file.name)
def test_every_node_is_built_from_this_source(file: Path) -> None:
    for name, service in services(file).items():
        if "image" in service:
            assert service["image"] in DATABASES, name
        else:
            assert (file.parent / service["build"]["context"]).resolve() == ROOT
            assert service["build"]["dockerfile"] == "docker/Dockerfile"
            assert service["build"].get("target", "replicated") in stages()


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: file.name)
def test_volumes_are_declared_and_ports_are_on_loopback_or_mllps(file: Path) -> None:
    document = yaml.safe_load(file.read_text("utf-8"))
    for name, service in document["services"].items():
        named = {volume.split(":")[0] for volume in service.get("volumes", []) if not volume.startswith(".")}
        assert named <= document["volumes"].keys(), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:") or port == "2575:2575", (name, port)
            assert not port.endswith(":26657")  # the consensus engine's RPC has no authentication


def stages() -> dict[str, str]:
    """Return the Dockerfile's named stages with what each is built from."""
    lines = re.findall(r"^FROM (\S+) AS (\S+)$", (ROOT / "docker/Dockerfile").read_text("utf-8"), re.MULTILINE)
    return {name: image for image, name in lines}


def test_images_come_from_the_official_library_and_cometbft_from_its_sources() -> None:
    made = stages()
    assert set(made.values()) - made.keys() == {"python:3.11-slim", "golang:1.24-bookworm"}
    text = (ROOT / "docker/Dockerfile").read_text("utf-8")
    assert "go install github.com/cometbft/cometbft/cmd/cometbft@v0.38.25" in text
    assert "COMETBFT_VERSION=v0.38.25" in (ROOT / ".ci/run").read_text("utf-8")


def consortium() -> dict[str, dict[str, str]]:
    return {name: service["environment"] for name, service in services(ROOT / "docker/compose.consortium.yml").items()}


def test_four_institutions_replicate_and_the_authority_founds() -> None:
    settings = consortium()
    orgs = [each["YIQIAO_INIT_ORG"] for each in settings.values()]
    assert len(set(orgs)) == 4
    assert all(org[-1] == check_character(org[:-1]) for org in orgs)
    founders = [name for name, each in settings.items() if "YIQIAO_INIT_MEMBERS" in each]
    assert founders == ["authority"]
    assert settings["authority"]["YIQIAO_INIT_MEMBERS"].split() == orgs[1:]
    for name, each in settings.items():
        assert each["YIQIAO_INIT_P2P_ADDRESS"] == f"{name}:26656"


def test_the_entry_point_founds_and_joins_the_ledger_and_does_nothing_twice(tmp_path: Path) -> None:
    """Four homes at once, as compose starts the containers: one waits for the other's files."""
    shared = tmp_path / "consortium"
    shared.mkdir()
    program = tmp_path / "bin"
    program.mkdir()
    (program / "yiqiao").write_text(f'#!/bin/sh\nexec {sys.executable} -m bridge.cli "$@"\n')
    (program / "yiqiao").chmod(0o755)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("YIQIAO_")}

    def start(name: str, settings: dict[str, str]) -> subprocess.Popen[str]:
        own = {**plain, **settings, "YIQIAO_HOME": str(tmp_path / name), "YIQIAO_INIT_SHARED": str(shared)}
        own |= {"PATH": f"{program}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        command = ["sh", str(ROOT / "docker/entrypoint.sh"), "echo", "served"]
        return subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    for expected in ("created", "served"):  # the second time the homes are there
        running = {name: start(name, settings) for name, settings in consortium().items()}
        for name, process in running.items():
            printed, _ = process.communicate(timeout=120)
            assert process.returncode == 0, (name, printed)
            assert printed.rstrip().endswith("served")
            assert expected in printed
    ledger = read_ledger_file(shared / "ledger.json")
    assert len(ledger.validators) == 4
    documents = {(tmp_path / name / "cometbft/config/genesis.json").read_bytes() for name in consortium()}
    assert len(documents) == 1
    for name in consortium():
        assert load_settings(tmp_path / name).ledger.engine == "cometbft"
