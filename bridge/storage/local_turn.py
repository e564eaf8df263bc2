"""Taking turns among the processes of one machine: a locked file, which holds what the last one left for the next.

Where the node's database is a file (SQLite), all processes of the node are on one machine, and the kernel's lock does
what a row of ``job_lease`` does, without two transactions on the disk for each turn. It ends with the process that has
it, however that ends. What is left in the file need not outlive a power failure.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from bridge.errors import DatabaseUnavailable

MODE = 0o600
MAX_NOTE_BYTES = 100
"""As long as a note of ``job_lease``."""


class LocalTurn:
    """One turn, taken and given back as a lease is (``bridge.storage.leases``); ``path`` is its file.

    Not for two threads at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self, name: str, holder: str, seconds: float) -> str | None:  # noqa: ARG002 - as a lease is taken
        """Return the note that was left ("" for none), or None while another has the turn.

        Who has had it for more than ``seconds`` (a process that was stopped) is not waited for. Raises
        ``DatabaseUnavailable`` when the file cannot be used.
        """
        try:
            return self._take(seconds)
        except OSError as error:
            raise DatabaseUnavailable(cause=type(error).__name__) from error

    def _take(self, seconds: float) -> str | None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            taken = os.fstat(descriptor).st_mtime
            os.close(descriptor)
            return "" if time.time() - taken > seconds else None
        note = os.pread(descriptor, MAX_NOTE_BYTES, 0).decode("utf-8", "replace")
        os.ftruncate(descriptor, 0)  # who dies with the turn leaves nothing
        os.utime(descriptor)
        self._descriptor = descriptor
        return note

    def release(self, name: str, holder: str, note: str = "") -> None:  # noqa: ARG002 - as a lease is given back
        """Give the turn back; ``note`` is for the next, if the disk takes it. Nothing happens without the turn."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with suppress(OSError):
            os.pwrite(descriptor, note.encode()[:MAX_NOTE_BYTES], 0)
        os.close(descriptor)
