"""Group commit: many threads hand in rows, one thread writes all that wait in a single transaction.

Each caller's rows are on the disk when its future is done. One commit costs one fsync however many rows it carries, so
the rate grows with the number of senders, without any artificial delay for a single one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from bridge.errors import BridgeError, Overloaded, StorageError

ROWS_PER_COMMIT = 256
"""Most rows of one transaction: bounds how long the first of them waits for the last."""

WAITING_ROWS = 10_000
"""Most rows waiting for the writer: beyond, senders are told to try later rather than memory filling up."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Item(Generic[T, R]):
    row: T
    future: Future[R]


class GroupWriter(Generic[T, R]):
    """Runs ``write(rows) -> results`` on a thread of its own over everything that waits.

    A result that is a ``BridgeError`` is raised to the one whose row it is; an error of ``write`` itself to all.
    """

    def __init__(self, write: Callable[[Sequence[T]], Sequence[R | BridgeError]], name: str) -> None:
        self._write = write
        self._name = name
        self._queue: queue.Queue[_Item[T, R] | None] = queue.Queue(WAITING_ROWS)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, row: T) -> Future[R]:
        """Hand in a row; the future gives its result once committed, or raises. Raises ``Overloaded`` at once."""
        item: _Item[T, R] = _Item(row, Future())
        with self._lock:
            if self._closed:
                raise Overloaded("the node is shutting down; try again later")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            try:
                self._queue.put_nowait(item)
            except queue.Full:
                raise Overloaded from None
        return item.future

    def close(self) -> None:
        """Write what waits and end the thread; later submissions are refused."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def _run(self) -> None:
        while True:
            batch, last = self._next_batch()
            if batch:
                self._write_batch(batch)
            if last:
                return

    def _next_batch(self) -> tuple[list[_Item[T, R]], bool]:
        """Wait for a row, then take all that wait with it."""
        batch: list[_Item[T, R]] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) == ROWS_PER_COMMIT:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _write_batch(self, batch: list[_Item[T, R]]) -> None:
        try:
            results = self._write([item.row for item in batch])
        except BridgeError as error:
            for item in batch:
                item.future.set_exception(error)
        except Exception as error:  # noqa: BLE001 - the senders must get an answer and the thread must live
            failure = StorageError(cause=type(error).__name__)
            for item in batch:
                item.future.set_exception(failure)
        else:
            for item, result in zip(batch, results, strict=True):
                if isinstance(result, BridgeError):
                    item.future.set_exception(result)
                else:
                    item.future.set_result(result)
