"""`yiqiao ingest` of a file all the way to stored records: killed in the middle, run again, nothing lost or doubled.

YIQIAO_TEST_BACK_LOAD_STORED says how many messages (100000, 1000000); beyond ``MEASURED_FROM`` memory is judged too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from bridge.settings import Settings
from bridge.storage.database import open_database, read_transaction
from tests.fault.test_back_load import command, write
from tests.node_home import make_home
from tests.stores import new_postgres

MESSAGES = int(os.environ.get("YIQIAO_TEST_BACK_LOAD_STORED", "4000"))
"""Several parts of the file, of which some are taken before the kill and some after."""

MEASURED_FROM = 20_000
"""Messages from which on caches are full, so that memory says something."""

GROWTH_KIBIBYTES = 64 * 1024
"""How much memory may grow over the second half of a run: a million messages are 150 MB of file alone."""

SAMPLED_SECONDS = 0.2
REPOSITORY = Path(__file__).parents[2]
TIMEOUT_SECONDS = 600 + MESSAGES // 20


@pytest.fixture(params=[pytest.param("sqlite"), pytest.param("postgresql", marks=pytest.mark.service)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    if request.param == "sqlite":
        yield make_home(tmp_path / "home")
    else:
        with new_postgres() as url:
            yield make_home(tmp_path / "home", database=url)


def _scalar(engine: Engine, statement: str) -> int:
    with read_transaction(engine) as connection:
        return int(connection.exec_driver_sql(statement).scalar_one())


def resident_kibibytes(pid: int) -> int:
    """What a process holds in memory now (proc_pid_status(5), VmRSS); 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def watched(process: subprocess.Popen[bytes], engine: Engine, until: Callable[[int], bool]) -> list[tuple[int, int]]:
    """Look at a run until it ends or ``until`` says so; return how many messages there were and how much memory."""
    seen = []
    while process.poll() is None:
        kept = _scalar(engine, "SELECT count(*) FROM inbox")
        memory = resident_kibibytes(process.pid)
        if memory:
            seen.append((kept, memory))
        if until(kept):
            break
        time.sleep(SAMPLED_SECONDS)
    return seen


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_file_is_stored_whole_though_the_run_was_killed(settings: Settings, tmp_path: Path) -> None:
    engine = open_database(settings.database_url)
    file = write(tmp_path / "adt.hl7", MESSAGES)
    run = command(file, "--home", settings.home, "--json")
    began = time.monotonic()
    with subprocess.Popen(run, cwd=REPOSITORY, stdout=subprocess.DEVNULL) as killed:
        watched(killed, engine, lambda kept: kept >= MESSAGES // 2)
        assert killed.poll() is None, "the run ended before it could be killed"
        killed.send_signal(signal.SIGKILL)
    kept, stored = (_scalar(engine, f"SELECT count(*) FROM {what}") for what in ("inbox", "resource"))
    with subprocess.Popen(run, cwd=REPOSITORY, stdout=subprocess.PIPE) as resumed:
        seen = watched(resumed, engine, lambda _: False)
        assert resumed.stdout is not None
        counts = json.loads(resumed.stdout.read())
    seconds = time.monotonic() - began
    assert resumed.returncode == 0
    assert counts["earlier"] + counts["repeated"] == kept
    assert counts["earlier"] + counts["repeated"] + counts["accepted"] == MESSAGES
    assert _scalar(engine, "SELECT count(*) FROM inbox WHERE state = 'stored'") == MESSAGES
    assert _scalar(engine, "SELECT count(DISTINCT control_id) FROM inbox") == MESSAGES
    assert _scalar(engine, "SELECT count(*) FROM resource WHERE type = 'Patient'") == MESSAGES, "one each, none doubled"
    assert _scalar(engine, "SELECT count(*) FROM resource_version WHERE type = 'Patient'") == MESSAGES
    engine.dispose()
    beginning = [memory for count, memory in seen if count <= kept + (MESSAGES - kept) // 4]
    end = [memory for _, memory in seen[-max(1, len(seen) // 4) :]]
    taken_in = f"{MESSAGES} messages, {file.stat().st_size} bytes: {MESSAGES / seconds:.0f}/s stored"
    print(f"\n{taken_in}; killed at {kept} kept, {stored} resources; {max(beginning)} -> {max(end)} KiB")
    if MESSAGES >= MEASURED_FROM:
        assert max(end) < max(beginning) + GROWTH_KIBIBYTES
