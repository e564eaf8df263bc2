"""A check that was stopped goes on where it stopped: nothing is checked twice, nothing is left out, nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import Conflict
from bridge.services import integrity_report, integrity_store
from bridge.services.integrity import CheckProgress
from tests.evidence_world import World


class Stopped(BaseException):
    """Like a KeyboardInterrupt: not an error of ours."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(integrity_store, "PAGE", 5)
    monkeypatch.setattr(integrity_report, "SAVE_SECONDS", 0.0)
    world = World(tmp_path)
    world.anchored(23)
    world.build_services(shard="2027")
    for number in range(30, 42):
        world.store(number)
    world.clock.now += 1
    world.anchoring.run()
    world.witness.run()
    world.store(99)
    yield world
    world.close()


def stop_after(calls: int) -> integrity_store.Progress:
    seen = iter(range(1, 10_000))

    def told(stage: str, done: int, total: int) -> None:
        if next(seen) == calls:
            raise Stopped

    return told


def finish(world: World, folder: Path, every: int) -> tuple[CheckProgress, int]:
    """Run a check that is stopped again and again, each time after ``every`` steps; return it and the sittings."""
    state = CheckProgress(folder)
    state.begin(resume=False)
    for sitting in range(1, 200):
        try:
            world.integrity.check(stop_after(every), state)
            return state, sitting
        except Stopped:
            state = CheckProgress(folder)
            state.begin(resume=True)
    raise AssertionError("the check does not come to an end")


@pytest.mark.parametrize("every", [2, 3, 7])
def test_a_check_in_many_sittings_finds_what_one_finds(world: World, tmp_path: Path, every: int) -> None:
    world.sql("UPDATE resource_version SET sealed = zeroblob(40) WHERE id = 'o7'")
    world.sql("UPDATE evidence_entry SET leaf = zeroblob(32) WHERE ref LIKE 'Observation/o35/%'")
    world.sql("DELETE FROM outbox")
    at_once = world.integrity.check()
    state, sittings = finish(world, tmp_path / "fsck", every)
    assert sittings > 2
    assert [str(each) for each in state.report.differences] == [str(each) for each in at_once.differences]
    for name in ("entries", "records", "erased", "checkpoints", "blocks"):
        assert getattr(state.report, name) == getattr(at_once, name), name
    assert not (tmp_path / "fsck").exists(), "a finished check leaves nothing"


def test_a_sound_store_is_sound_in_sittings_too(world: World, tmp_path: Path) -> None:
    state, _ = finish(world, tmp_path / "fsck", 2)
    assert state.report.ok
    assert state.report.entries == 36, "35 versions, and the opening of the second shard"


def test_the_log_may_grow_between_sittings(world: World, tmp_path: Path) -> None:
    state = CheckProgress(tmp_path / "fsck")
    state.begin(resume=False)
    with pytest.raises(Stopped):
        world.integrity.check(stop_after(2), state)
    for number in range(60, 75):
        world.store(number)
    world.clock.now += 1
    world.anchoring.run()
    resumed = CheckProgress(tmp_path / "fsck")
    resumed.begin(resume=True)
    assert world.integrity.check(None, resumed).ok


def test_what_was_cut_off_between_sittings_is_named(world: World, tmp_path: Path) -> None:
    state = CheckProgress(tmp_path / "fsck")
    state.begin(resume=False)
    with pytest.raises(Stopped):
        world.integrity.check(stop_after(2), state)
    world.sql("DELETE FROM evidence_entry WHERE origin LIKE '%2026' AND position >= 20")
    resumed = CheckProgress(tmp_path / "fsck")
    resumed.begin(resume=True)
    kinds = {each.kind for each in world.integrity.check(None, resumed).differences}
    assert "entry-missing" in kinds


def test_there_must_be_something_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="no unfinished check"):
        CheckProgress(tmp_path / "none").begin(resume=True)
    folder = tmp_path / "broken"
    folder.mkdir()
    for content in ("", "{}", '{"v": 2}', '{"v":1,"position":[],"report":{}}', json.dumps({"v": 1, "position": {}})):
        (folder / "progress.json").write_text(content)
        with pytest.raises(Conflict, match="cannot be read"):
            CheckProgress(folder).begin(resume=True)


def test_without_a_folder_nothing_is_kept(world: World, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        world.integrity.check(stop_after(2))
    assert not (tmp_path / "fsck").exists()
