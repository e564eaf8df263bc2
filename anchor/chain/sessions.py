"""HTTP sessions of a ledger's client, lent to one thread at a time and kept open for the next.

Submissions come from threads that end with them (a bounded wait has one of its own), so a session for each thread would
open a connection for each transaction and keep it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import requests

from anchor.errors import ChainUnavailable


class SessionPool:
    """As many sessions as were ever needed at once; ``new`` makes one. Threads share an instance."""

    def __init__(self, new: Callable[[], requests.Session] = requests.Session) -> None:
        self._new = new
        self._idle: list[requests.Session] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def lend(self) -> Iterator[requests.Session]:
        """Lend a session, the one used last if it is free; raises ``ChainUnavailable`` when closed.

        When a request fails the idle ones are closed as well: whoever tries again has a new connection.
        """
        with self._lock:
            if self._closed:
                raise ChainUnavailable("the ledger is closed")
            session = self._idle.pop() if self._idle else None
        if session is None:
            session = self._new()
            session.trust_env = False  # no proxy and no .netrc between members, none on loopback
        try:
            yield session
        except requests.RequestException:
            self._drop([session])
            raise
        except BaseException:
            self._take_back(session)
            raise
        self._take_back(session)

    def close(self) -> None:
        """Close what is idle now, and what is lent when it comes back."""
        with self._lock:
            self._closed = True
        self._drop([])

    def _take_back(self, session: requests.Session) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(session)
                return
        session.close()

    def _drop(self, sessions: list[requests.Session]) -> None:
        with self._lock:
            sessions += self._idle
            self._idle = []
        for each in sessions:
            each.close()
