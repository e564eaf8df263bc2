"""The supervisor with real processes: starts, restarts, gives up, drains, and is not outlived by its children."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bridge.errors import SettingsError
from bridge.supervisor import RAPID_DEATHS_MAX, check_port, node_lock

SECONDS = 60.0
"""How long to wait for what must happen, on a machine with other work."""

SUPERVISE = """
import sys
from pathlib import Path
import bridge.supervisor as s
s.BACKOFF_FIRST_SECONDS = 0.02
s.BACKOFF_MAX_SECONDS = 0.05
home, drain = Path(sys.argv[1]), float(sys.argv[2])
with s.node_lock(home) as lock:
    commands = {f"child-{n}": [sys.executable, "-c", code] for n, code in enumerate(sys.argv[3:])}
    sys.exit(s.Supervisor(commands, drain_seconds=drain, pass_descriptors=[lock]).run())
"""
CHILD = """
import os, signal, sys, time
from pathlib import Path
from bridge.lifeline import end_with_supervisor
end_with_supervisor()
home = Path({home!r})
"""
WAIT = (
    CHILD
    + """
def finish(*_):
    (home / "drained").write_text("yes")
    sys.exit(0)
signal.signal(signal.SIGTERM, finish)
(home / "pid").write_text(str(os.getpid()))
time.sleep(60)
"""
)
STUBBORN = (
    CHILD
    + """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
(home / "pid").write_text(str(os.getpid()))
time.sleep(60)
"""
)
DIE_ONCE = (
    CHILD
    + """
with (home / "starts").open("a") as stream:
    stream.write("x")
if len((home / "starts").read_text()) < 3:
    sys.exit(3)
(home / "pid").write_text(str(os.getpid()))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
time.sleep(60)
"""
)
DIE_ALWAYS = (
    CHILD
    + """
with (home / "starts").open("a") as stream:
    stream.write("x")
sys.exit(4)
"""
)
GRANDCHILD = (
    CHILD
    + """
if os.fork() == 0:
    end_with_supervisor()
    (home / "grandchild").write_text(str(os.getpid()))
    time.sleep(60)
    os._exit(0)
(home / "pid").write_text(str(os.getpid()))
time.sleep(60)
"""
)


def start(home: Path, *children: str, drain: float = SECONDS / 2) -> subprocess.Popen[bytes]:
    arguments = [str(home), str(drain), *(code.format(home=str(home)) for code in children)]
    return subprocess.Popen([sys.executable, "-c", SUPERVISE, *arguments], stderr=subprocess.DEVNULL)


def wait_for(file: Path, seconds: float = SECONDS) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if file.exists() and file.read_text():
            return file.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{file.name} did not appear")


def is_gone(pid: int, seconds: float = SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_stopping_lets_the_children_finish(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, WAIT)
    pid = int(wait_for(tmp_path / "pid"))
    process.send_signal(number)
    assert process.wait(SECONDS) == 0
    assert (tmp_path / "drained").read_text() == "yes"
    assert is_gone(pid)


def test_a_child_that_does_not_finish_is_killed_and_the_exit_code_says_so(tmp_path: Path) -> None:
    process = start(tmp_path, STUBBORN, drain=1.0)
    pid = int(wait_for(tmp_path / "pid"))
    process.terminate()
    assert process.wait(SECONDS) == 1
    assert is_gone(pid)


def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    process = start(tmp_path, DIE_ONCE)
    wait_for(tmp_path / "pid")
    assert (tmp_path / "starts").read_text() == "xxx"
    process.terminate()
    assert process.wait(SECONDS) == 0


def test_a_child_that_keeps_dying_ends_the_node_and_its_other_children(tmp_path: Path) -> None:
    process = start(tmp_path, DIE_ALWAYS, WAIT)
    assert process.wait(SECONDS) == 1
    assert (tmp_path / "starts").read_text() == "x" * RAPID_DEATHS_MAX
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_kill_9_of_the_supervisor_takes_children_and_grandchildren_with_it(tmp_path: Path) -> None:
    process = start(tmp_path, GRANDCHILD)
    pids = [int(wait_for(tmp_path / name)) for name in ("pid", "grandchild")]
    process.kill()
    process.wait()
    assert all(is_gone(pid) for pid in pids)


def test_a_second_node_of_one_home_is_refused(tmp_path: Path) -> None:
    process = start(tmp_path, WAIT)
    wait_for(tmp_path / "pid")
    try:
        with pytest.raises(SettingsError, match=f"already running.*{process.pid}"), node_lock(tmp_path):
            pass
    finally:
        process.terminate()
        assert process.wait(SECONDS) == 0


def test_a_home_whose_supervisor_was_killed_can_be_served_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, WAIT)
    wait_for(tmp_path / "pid")
    process.kill()
    process.wait()
    with node_lock(tmp_path):
        assert (tmp_path / "serve.lock").read_text().strip() == str(os.getpid())


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"http\.port: cannot listen on 127\.0\.0\.1:{port}"):
            check_port("127.0.0.1", port, "http.port")
    check_port("127.0.0.1", port, "http.port")


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid"], ids=["not our address", "no such name"])
def test_an_address_that_is_not_ours_is_named(host: str) -> None:
    with pytest.raises(SettingsError, match=r"mllp\.port"):
        check_port(host, 40001, "mllp.port")
