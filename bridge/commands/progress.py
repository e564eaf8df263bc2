"""What long commands show while they work: a bar where a person watches, nothing where none does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from bridge.wiring import Node


class Counting(Protocol):
    """Something that is told how far the work is."""

    def reached(self, done: float) -> None:
        """Say how much is done, in the unit of the total."""


class _Silent:
    def reached(self, done: float) -> None:
        """Nobody watches."""


@contextmanager
def counting(what: str, total: float | None, *, is_bytes: bool = False) -> Iterator[Counting]:
    """Give something to report progress to; ``total`` None when it is not known."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    amount = DownloadColumn() if is_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield _Bar(progress, task)


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def reached(self, done: float) -> None:
        self._progress.update(self._task, completed=done)


def process_all(node: Node) -> dict[str, int]:
    """Work off the inbox together with a node that may be running; return what was done."""
    done = {"stored": 0, "failed": 0, "versions": 0}
    while result := node.ingest.process(node.settings.worker.batch):
        done["stored"] += result.stored
        done["failed"] += result.refused
        done["versions"] += result.versions
    return done
