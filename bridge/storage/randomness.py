"""Random bytes in small portions: many nonces from one call to the operating system.

A message takes several nonces, and a system call for each is a tenth of the time to acknowledge it. The bytes are the
system's own and each is given out once; a forked child begins with none of its parent's.
"""

from __future__ import annotations

import os
import secrets
import threading

POOL_BYTES = 4096


class RandomPool:
    """Gives out the system's random bytes; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = b""
        self._used = 0
        os.register_at_fork(before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._forked)

    def take(self, count: int) -> bytes:
        """Return ``count`` bytes that nobody else gets."""
        if count > POOL_BYTES:
            return secrets.token_bytes(count)
        with self._lock:
            if self._used + count > len(self._bytes):
                self._bytes, self._used = secrets.token_bytes(POOL_BYTES), 0
            start = self._used
            self._used = start + count
            return self._bytes[start : self._used]

    def _forked(self) -> None:
        self._bytes, self._used = b"", 0
        self._lock.release()


RANDOM = RandomPool()
"""The process's own."""
