"""Turns among the processes of one machine: one at a time, and what becomes of one who dies or stops with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bridge.errors import DatabaseUnavailable
from bridge.storage.local_turn import LocalTurn

SECONDS = 60.0
HOLD = """
import sys, time
from pathlib import Path
from bridge.storage.local_turn import LocalTurn
turn = LocalTurn(Path(sys.argv[1]))
assert turn.take("submission", "child", 60) == "left for the child"
print("taken", flush=True)
time.sleep(600)
"""


def take(turn: LocalTurn, seconds: float = SECONDS) -> str | None:
    return turn.take("submission", "somebody", seconds)


def leave(turn: LocalTurn, note: str = "") -> None:
    turn.release("submission", "somebody", note)


def test_one_at_a_time_and_the_note_goes_to_the_next(tmp_path: Path) -> None:
    first, second = LocalTurn(tmp_path / "turn"), LocalTurn(tmp_path / "turn")
    assert take(first) == ""
    assert take(second) is None
    leave(second, "of one who has no turn")
    leave(first, "ORG 12345")
    assert take(second) == "ORG 12345"
    leave(second, "ORG 7")
    assert take(first) == "ORG 7"
    leave(first)
    assert take(second) == ""
    leave(second)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_dies_with_the_turn_leaves_it_at_once_and_nothing_in_it(tmp_path: Path, how: int) -> None:
    turn = LocalTurn(tmp_path / "turn")
    assert take(turn) == ""
    leave(turn, "left for the child")
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "turn"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"taken\n"
        assert take(turn) is None
        os.kill(child.pid, how)
        child.wait(SECONDS)
        assert take(turn) == ""
        leave(turn)


def test_one_who_has_had_it_for_too_long_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "turn"
    stopped, other = LocalTurn(path), LocalTurn(path)
    assert take(stopped) == ""
    long_ago = time.time() - 2 * SECONDS
    os.utime(path, (long_ago, long_ago))
    assert take(other) == ""
    leave(other, "is not kept: another has the turn")
    leave(stopped, "ORG 3")
    assert take(other) == "ORG 3"
    leave(other)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable):
        take(LocalTurn(tmp_path / "nowhere" / "turn"))


def test_the_file_is_for_the_node_alone(tmp_path: Path) -> None:
    turn = LocalTurn(tmp_path / "turn")
    take(turn)
    leave(turn, "ORG 3")
    assert (tmp_path / "turn").stat().st_mode & 0o777 == 0o600
