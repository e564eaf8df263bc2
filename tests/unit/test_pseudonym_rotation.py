"""A rotation of the card authority's key: nobody is lost meanwhile, holders follow, the old version ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge.cli import yiqiao
from bridge.errors import Conflict
from bridge.services import localisation
from tests.exchange_world import AUTHORITY, PERSON, A, World, observation, patient, resident
from tests.node_home import make_home

OTHERS = [resident(31100 + number) for number in range(0, 60, 10)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    directory = tmp_path / "consortium"
    directory.mkdir()
    made = World(directory)
    made[A].store(patient(), observation("o1"))
    for number, person in enumerate(OTHERS):
        made[A].store(patient(f"x{number}", person), patient=f"x{number}")
    made[A].parts.register()
    made.grant()
    yield made
    made.close()


def versions(world: World) -> dict[str, int]:
    """Count the index's registrations by the version of their pseudonyms."""
    found: dict[str, int] = {}
    for pid in world[AUTHORITY].scalars("SELECT pid FROM localisation"):
        version = str(pid).partition(".")[0]
        found[version] = found.get(version, 0) + 1
    return found


def test_a_rotation_from_its_beginning_to_its_end(world: World) -> None:
    service, holder = world[AUTHORITY].parts.pseudonyms, world[A].parts.registrar
    assert versions(world) == {"1": 7}
    assert service.rotate("default") == 2
    assert service.versions("default") == [2, 1]
    assert world.lookup().received, "the holder still stands under the old version"
    with pytest.raises(Conflict):
        service.retire("default", 1)
    assert holder.reregister() == 7
    assert versions(world) == {"2": 7}
    assert world.lookup().received
    assert holder.reregister() == 0
    service.retire("default", 1)
    assert service.versions("default") == [2]
    assert world.lookup().received
    for version in (1, 2, 3):  # gone, the newest, unknown
        with pytest.raises(Conflict):
            service.retire("default", version)


def test_an_interrupted_run_goes_on_where_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localisation, "REREGISTERED_PATIENTS", 2)
    world[AUTHORITY].parts.pseudonyms.rotate("default")
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world[A].parts.registrar.reregister(stop)
    assert seen == [(2, 7), (4, 7)]
    assert versions(world) == {"2": 4, "1": 3}
    assert world.lookup().received
    assert world[A].parts.registrar.reregister() >= 3
    assert versions(world) == {"2": 7}


def test_the_scheduled_job_follows_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localisation, "REREGISTERED_PATIENTS", 3)
    world[AUTHORITY].parts.pseudonyms.rotate("default")
    world.tick(120)
    world[A].store(patient("new", resident(31990)), patient="new")  # from which the holder learns of the new version
    for _ in range(4):
        world.tick(120)
        world[A].parts.register()
    assert versions(world) == {"2": 8}
    assert world.lookup(person=PERSON).received


def test_the_commands(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home").home
    runner = CliRunner()

    def run(*arguments: str) -> str:
        done = runner.invoke(yiqiao, ["pseudonyms", *arguments, "--home", str(home)])
        assert done.exit_code == 0, done.output
        return done.output

    assert run("rotate").startswith("version 2 ")
    assert '"version": 2, "registrations": 0' in run("versions", "--json")
    assert "retired" in run("retire", "1")
    assert "version 1" not in run("versions")
    assert '{"registered": 0}' in run("reregister", "--json")
    assert runner.invoke(yiqiao, ["pseudonyms", "retire", "2", "--home", str(home)]).exit_code != 0
