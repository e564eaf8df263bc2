"""`yiqiao ingest` of a large file: killed midway and run again it doubles nothing, and its memory does not grow."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from bridge.settings import Settings
from tests.node_home import make_home

MESSAGES = int(os.environ.get("YIQIAO_TEST_BACK_LOAD", "100000"))
"""Messages of the file whose memory is measured; a million on demand."""

KILLED_MESSAGES = 6000
GROWTH_KIBIBYTES = 24 * 1024
"""How much more memory the long file may need than its first tenth: far below its size."""

REPOSITORY = Path(__file__).parents[2]


def message(number: int) -> bytes:
    return (
        f"MSH|^~\\&|HIS|A|YQ|A|20260101080000||ADT^A08|B{number}|P|2.5||||||UNICODE UTF-8\r"
        "EVN|A08|20260101080000\r"
        f"PID|1||{number}^^^HIS^MR||测试^患者||19800101|M\r"
    ).encode()


def write(file: Path, messages: int) -> Path:
    with file.open("wb") as stream:
        for number in range(messages):
            stream.write(message(number))
    return file


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "bridge.cli", "ingest", *map(str, arguments)]


def taken(settings: Settings) -> int:
    with closing(sqlite3.connect(settings.home / "node.sqlite3", timeout=30)) as database:
        count: int = database.execute("SELECT count(*) FROM inbox").fetchone()[0]
    return count


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    settings = make_home(tmp_path / "home")
    file = write(tmp_path / "adt.hl7", KILLED_MESSAGES)
    for share in (0.2, 0.5):
        with subprocess.Popen(command(file, "--home", settings.home, "--no-process"), cwd=REPOSITORY) as process:
            while taken(settings) < KILLED_MESSAGES * share:
                assert process.poll() is None, "the run ended before it could be killed"
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
    kept = taken(settings)
    assert KILLED_MESSAGES * 0.5 <= kept < KILLED_MESSAGES
    done = subprocess.run(
        command(file, "--home", settings.home, "--no-process", "--json"),
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    counts = json.loads(done.stdout)
    assert 0 < counts["earlier"] <= kept, "it began again at the beginning"
    assert counts["earlier"] + counts["repeated"] == kept
    assert counts["earlier"] + counts["repeated"] + counts["accepted"] == KILLED_MESSAGES
    assert "goes on after message" in done.stderr
    with closing(sqlite3.connect(settings.home / "node.sqlite3")) as database:
        controls = Counter(row[0] for row in database.execute("SELECT control_id FROM inbox"))
    assert controls == {f"B{number}": 1 for number in range(KILLED_MESSAGES)}
    assert list((settings.home / "ingest").iterdir()) == [], "a file that is in needs no mark"


def peak_kibibytes(settings: Settings, file: Path) -> int:
    """Take a file in with a process of its own and return the most memory that it held."""
    pid = os.spawnv(
        os.P_NOWAIT, sys.executable, command(file, "--home", settings.home, "--no-process", "--json")
    )  # fmt: skip
    _, status, usage = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert isinstance(usage, resource.struct_rusage)
    return usage.ru_maxrss


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    settings = make_home(tmp_path / "home")
    short = peak_kibibytes(settings, write(tmp_path / "short.hl7", MESSAGES // 10))
    file = write(tmp_path / "long.hl7", MESSAGES)
    began = time.monotonic()
    long = peak_kibibytes(settings, file)
    rate = MESSAGES / (time.monotonic() - began)
    print(f"\n{MESSAGES} messages, {file.stat().st_size} bytes: {rate:.0f}/s into the inbox, {short} -> {long} KiB")
    assert taken(settings) == MESSAGES
    assert long < short + GROWTH_KIBIBYTES
