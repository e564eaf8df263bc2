"""Names for processes that outlive them, and whether the process behind a name is gone.

What a process holds in the database (a lease, a claimed message) carries its name. When a node is killed and started
again, its successors need not wait for such a hold to run out: a name of this machine whose process no longer runs is
gone for certain. A name of another machine, boot or process namespace is never judged; its hold runs out by itself.
"""

from __future__ import annotations

import os
import secrets
import socket
from functools import cache
from pathlib import Path

_SEPARATOR = "/"
_UNKNOWN = "-"  # where the operating system has no such file, names are told apart by host and process number only


def process_name(part: str) -> str:
    """Return a name for ``part`` of this process: ``machine/process number/start time/part-random``."""
    number = os.getpid()
    return _SEPARATOR.join([_machine(), str(number), _started(number), f"{part}-{secrets.token_hex(4)}"])


def process_prefix(name: str) -> str:
    """Return what all names of one process begin with."""
    return _SEPARATOR.join(name.split(_SEPARATOR)[:3]) + _SEPARATOR


def is_gone(name: str) -> bool:
    """Whether the process that bore ``name`` ran on this machine and certainly does not run any more."""
    machine, _, rest = name.partition(_SEPARATOR)
    number, _, rest = rest.partition(_SEPARATOR)
    started, separator, _ = rest.partition(_SEPARATOR)
    if not separator or machine != _machine() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return started != _UNKNOWN and _started(int(number)) not in (started, _UNKNOWN)


@cache
def _machine() -> str:
    """Name this machine since its last boot, and this process namespace: containers share neither."""
    parts = [socket.gethostname().replace(_SEPARATOR, "_")]
    for read in (_boot, _namespace):
        try:
            parts.append(read())
        except OSError:
            parts.append(_UNKNOWN)
    return ":".join(parts)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()[:8]


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid").partition("[")[2].rstrip("]")  # noqa: PTH115 - the link has no target file


def _started(number: int) -> str:
    """Return when a process began, in clock ticks since boot: process numbers are used again, pairs of both are not."""
    try:
        stat = Path(f"/proc/{number}/stat").read_text("ascii", "replace")
    except OSError:
        return _UNKNOWN
    return stat.rpartition(")")[2].split()[19]  # field 22 of proc(5); the name in parentheses may hold blanks
