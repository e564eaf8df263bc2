"""A folder that a source puts files into: CSV files and Excel workbooks of the standard views.

    FOLDER/lab.csv                        put there by the source
    FOLDER/.processing/lab.csv            being taken in
    FOLDER/done/lab.csv                   taken in; lab.csv.errors.csv beside it where something was doubtful
    FOLDER/failed/lab.csv                 nothing of it could be taken; lab.csv.errors.csv says why

1. A file is taken when it has not changed for ``settle_seconds``: nobody writes on it any more. Names that programs
   give to half files (.tmp, .part, ~$...) are left alone, and so is what is no regular file.
2. It is moved by one rename; who reads it afterwards reads what was there.
3. All of its rows are in the durable inbox before it moves on to ``done``. A node that dies in between takes it up
   again, and the inbox knows what it has.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from anchor.gm import sm3
from bridge.errors import IngestError
from bridge.log import get_logger
from bridge.services.file_intake import FileIntake, FileReport, Remark
from bridge.settings import SourceSettings
from bridge.stopping import Stopping, never

PROCESSING, DONE, FAILED = ".processing", "done", "failed"
ERRORS_SUFFIX = ".errors.csv"
TAKEN_SUFFIXES = frozenset({".csv", ".tsv", ".txt", ".xlsx", ".xlsm", ".xls", ".json", ".ndjson"})
HALF_SUFFIXES = frozenset({".tmp", ".part", ".partial", ".filepart", ".crdownload", ".swp", ".lock"})
MAX_FILES = 100
"""Most files of one run: the next run goes on."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """What one run did, in files; false when there was nothing."""

    files: int = 0
    failed: int = 0
    records: int = 0

    def __bool__(self) -> bool:
        return self.files > 0


class DropFolder:
    """Takes in the files of one source's folder."""

    def __init__(
        self,
        settings: SourceSettings,
        folder: Path,
        intake: FileIntake,
        clock: Callable[[], float] = time.time,
        stopping: Stopping = never,
    ) -> None:
        self.source = settings.name
        self.period_seconds = settings.poll_seconds
        self._settings = settings
        self._folder = folder
        self._intake = intake
        self._clock = clock
        self._stopping = stopping
        self._seen: dict[str, tuple[int, int, float]] = {}

    def run(self) -> Dropped:
        """Take in what is complete, oldest first.

        Raises ``IngestError`` when the folder cannot be used, ``StorageError`` and ``Overloaded``: what is in hand
        stays there and is taken up again by the next run.
        """
        try:
            for name in (PROCESSING, DONE, FAILED):
                (self._folder / name).mkdir(exist_ok=True)
            self._forget_done()
            files = failed = records = 0
            for name in self._next():
                if self._stopping():
                    break  # what was moved to .processing is taken up again
                report = self._take(name)
                files, records = files + 1, records + report.fresh
                failed += bool(report.refused)
        except OSError as error:
            raise IngestError(
                f"sources.{self.source}.path cannot be used: {error.strerror} / 投递目录无法使用",
                cause=type(error).__name__,
            ) from None
        return Dropped(files, failed, records)

    def _next(self) -> Iterator[str]:
        """Give the names of files in hand: left over from a run that broke off, then those that have settled."""
        for left in sorted((self._folder / PROCESSING).iterdir()):
            if left.suffix.lower() in TAKEN_SUFFIXES:
                yield left.name
        for name in self._settled()[:MAX_FILES]:
            (self._folder / name).rename(self._folder / PROCESSING / name)
            self._seen.pop(name, None)
            yield name

    def _settled(self) -> list[str]:
        """Return the files that nobody has written on for a while, oldest first."""
        now = self._clock()
        present: dict[str, tuple[int, int, float]] = {}
        ready: list[tuple[int, str]] = []
        for entry in os.scandir(self._folder):
            if not _is_wanted(entry):
                continue
            status = entry.stat(follow_symlinks=False)
            size, changed = status.st_size, status.st_mtime_ns
            known = self._seen.get(entry.name)
            since = known[2] if known is not None and known[:2] == (size, changed) else now
            present[entry.name] = (size, changed, since)
            if now - since >= self._settings.settle_seconds:
                ready.append((changed, entry.name))
        self._seen = present
        return [name for _, name in sorted(ready)]

    def _take(self, name: str) -> FileReport:
        file = self._folder / PROCESSING / name
        raw, report = b"", FileReport()
        if file.stat().st_size > self._settings.max_file_bytes:
            text = f"the file is larger than {self._settings.max_file_bytes} bytes; deliver it in parts"
            report = FileReport(refused=text, remarks=[Remark("", 0, "", "error", "too-large", text)])
        else:
            raw = file.read_bytes()
            report = self._intake.take(self.source, name, raw)
        failed = bool(report.refused) or (report.rows > 0 and report.bad_rows == report.rows)
        target = _free(self._folder / (FAILED if failed else DONE) / name, raw)
        self._write_errors(target, report)
        os.utime(file)  # from now on its time says when it was taken in
        file.rename(target)
        get_logger("worker").info(
            "file taken in", source=self.source, rows=report.rows, records=report.records, new=report.fresh,
            bad_rows=report.bad_rows, failed=failed,
        )  # fmt: skip
        return report

    def _write_errors(self, target: Path, report: FileReport) -> None:
        errors = target.with_name(target.name + ERRORS_SUFFIX)
        if not report.remarks:
            errors.unlink(missing_ok=True)
            return
        partial = errors.with_name(errors.name + ".tmp")
        partial.write_bytes(report.as_csv())
        partial.replace(errors)

    def _forget_done(self) -> None:
        """Remove what was taken in long enough ago: it holds patients' data in clear, and the inbox has it sealed."""
        oldest = self._clock() - self._settings.keep_seconds
        for entry in os.scandir(self._folder / DONE):
            if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                Path(entry.path).unlink(missing_ok=True)


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    """Whether a directory entry is a whole file of a kind that is taken; a link could lead anywhere."""
    name = entry.name.lower()
    if name.startswith((".", "~$")) or Path(name).suffix in HALF_SUFFIXES or name.endswith(ERRORS_SUFFIX):
        return False
    return Path(name).suffix in TAKEN_SUFFIXES and stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode)


def _free(target: Path, raw: bytes) -> Path:
    """Return ``target``, with a mark of the content in its name where another file has that name already."""
    if not target.exists() or (target.is_file() and target.stat().st_size == len(raw) and target.read_bytes() == raw):
        return target
    return target.with_name(f"{target.stem}-{sm3(raw).hex()[:8]}{target.suffix}")
