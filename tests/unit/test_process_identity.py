"""A name tells whether its process is gone, and is never wrong about a living or a foreign one."""

import subprocess
import sys

import pytest

from bridge.process_identity import is_gone, process_name, process_prefix


def name_of_a_finished_process() -> str:
    code = "from bridge.process_identity import process_name; print(process_name('job'))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_this_process_is_not_gone():
    assert not is_gone(process_name("job"))


def test_a_finished_process_is_gone():
    assert is_gone(name_of_a_finished_process())


def test_a_process_number_used_again_does_not_bring_the_old_process_back():
    machine, number, started, part = process_name("job").split("/")
    assert is_gone(f"{machine}/{number}/{int(started) - 1}/{part}")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param("worker-1", id="free text"),
        pytest.param("elsewhere:1:2/999999/1/job-1", id="another machine"),
        pytest.param("a/b/c/d", id="no process number"),
    ],
)
def test_what_cannot_be_judged_is_not_gone(name: str):
    assert not is_gone(name)


def test_all_names_of_one_process_share_its_prefix():
    first, second = process_name("anchor"), process_name("submit")
    assert first != second
    assert second.startswith(process_prefix(first))
