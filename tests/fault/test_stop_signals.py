"""SIGTERM ends a process wherever its main thread is: also inside the wait for the very event that the signal sets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
HUNG_SECONDS = 60

# Raises SIGTERM at the Nth line that the standard library runs in `Event.wait`, and says "ended" when that ended it.
WAITING = """
import faulthandler, signal, sys, threading
from bridge.stop_signals import on_stop_signal

at, plain = int(sys.argv[1]), sys.argv[2] == "plain"
stop = threading.Event()
if plain:
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
else:
    on_stop_signal(stop.set)
lines = 0

def step(frame, event, argument):
    global lines
    if frame.f_code.co_filename != threading.__file__:
        return None
    if event == "line":
        lines += 1
        if lines == at:
            sys.settrace(None)
            signal.raise_signal(signal.SIGTERM)
    return step

sys.settrace(step)
while not stop.is_set():
    stop.wait(0.01)
sys.settrace(None)
print("ended", lines)
"""
LINES = 40
"""Two rounds of a wait that times out, with all that it calls."""


def waits(at: int, how: str, seconds: float) -> str:
    return subprocess.run(
        [sys.executable, "-c", WAITING, str(at), how],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=seconds, check=True,
    ).stdout  # fmt: skip


def test_a_signal_at_any_line_of_a_wait_ends_it() -> None:
    for at in range(1, LINES + 1):
        assert waits(at, "ours", HUNG_SECONDS).startswith("ended"), at


def first_hang() -> int:
    """The first line at which a handler that sets the event itself leaves the process standing; 0 for none."""
    for at in range(1, LINES + 1):
        try:
            waits(at, "plain", 5)
        except subprocess.TimeoutExpired:
            return at
    return 0


def test_without_the_thread_between_some_line_hangs() -> None:
    """Some line holds the event's lock: it is why there is a thread between, and shows that the test above can fail."""
    assert first_hang() > 0
