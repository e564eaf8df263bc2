"""The source profiles of a running node, read again when their files change.

A mapping is mended while the node runs: what arrives next, and what is run again, must meet the new one without a
restart. A file that cannot be used keeps the old profile in force and is said in the log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bridge.errors import SettingsError
from bridge.log import get_logger
from fhir_adapters import SourceProfile

CHECK_SECONDS = 2.0
"""How often the files are looked at."""

Stamp = tuple[tuple[int, int] | None, ...]


class ProfileBook(Mapping[str, SourceProfile]):
    """Profiles by source name. ``load`` reads all of them and raises ``SettingsError``; ``files`` are what it reads."""

    def __init__(
        self,
        load: Callable[[], Mapping[str, SourceProfile]],
        files: Sequence[Path],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._files = tuple(dict.fromkeys(files))
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._stamp = self._read_stamp()
        self._profiles = load()
        self._checked = monotonic()

    def __getitem__(self, source: str) -> SourceProfile:
        return self._current()[source]

    def __iter__(self) -> Iterator[str]:
        return iter(self._current())

    def __len__(self) -> int:
        return len(self._current())

    def _current(self) -> Mapping[str, SourceProfile]:
        now = self._monotonic()
        if now - self._checked >= CHECK_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._checked = now
                self._refresh()
            finally:
                self._lock.release()
        return self._profiles

    def _refresh(self) -> None:
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._profiles = self._load()
        except SettingsError as error:
            get_logger("profiles").error("the profiles in force stay", detail=error.message)
        else:
            get_logger("profiles").info("profiles read again")

    def _read_stamp(self) -> Stamp:
        return tuple(_stamp(file) for file in self._files)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
