"""Makes a child process end when its supervisor is gone, even when that was killed with SIGKILL.

Two means, since each alone has a gap: the kernel's parent-death signal (Linux; set after the fork, so a parent that
died before is noticed by asking for the parent again), and a pipe whose other end only the supervisor holds (any
POSIX; covers grandchildren such as the web server's workers).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

LIFELINE_VARIABLE = "YIQIAO_LIFELINE"
_PR_SET_PDEATHSIG = 1


def end_with_supervisor() -> None:
    """End this process at once when its parent or the supervisor ends. Call it first in every child."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
    descriptor = os.environ.get(LIFELINE_VARIABLE)
    if descriptor is not None:
        threading.Thread(target=_wait_for_end, args=(int(descriptor),), name="lifeline", daemon=True).start()


def _wait_for_end(descriptor: int) -> None:
    """Block until the supervisor's end of the pipe closes; nothing is ever written to it."""
    try:
        while os.read(descriptor, 1):
            pass
    except OSError:
        return  # started without a supervisor, by hand or in a test
    os._exit(1)
