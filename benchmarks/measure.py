"""One way to measure a rate, and one shape for what a benchmark returns."""

from __future__ import annotations

import gc
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

ROUNDS = 5  # the median of five rounds is what is reported; min and max show the machine's noise

WHOLE_FROM = 10  # operations a second; slower ones are shown with a decimal


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the peers' own remarks off the terminal: writing them is not what is measured."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@dataclass(frozen=True)
class Rate:
    """Operations per second: median, lowest and highest of the rounds."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 0 if self.median >= WHOLE_FROM else 1
        return f"{self.median:,.{digits}f}/s ({self.low:,.{digits}f} - {self.high:,.{digits}f})"


def rate(operation: Callable[[], object], seconds: float, operations_per_call: int = 1) -> Rate:
    """Call ``operation`` for ``seconds`` in all, in rounds, and return its rate. The first call is not counted."""
    operation()
    rounds = []
    for _ in range(ROUNDS):
        done, started = 0, time.perf_counter()
        until = started + seconds / ROUNDS
        while (now := time.perf_counter()) < until or not done:
            operation()
            done += operations_per_call
        del now
        rounds.append(done / (time.perf_counter() - started))
    return Rate(statistics.median(rounds), min(rounds), max(rounds))


def rates_in_turn(
    operations: Mapping[str, tuple[Callable[[], object], int]],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Rate]:
    """Measure several operations round by round in turn, so that the machine's noise meets all of them alike.

    ``operations``: name -> (callable, operations per call); ``seconds`` is spent on each. With ``time.process_time`` as
    ``clock`` the rate is that of one core, whatever else the machine does: for work that waits for nothing.
    """
    collected: dict[str, list[float]] = {name: [] for name in operations}
    for operation, _ in operations.values():
        operation()
    gc.collect()
    gc.freeze()  # what one peer keeps loaded (a hundred thousand objects) is not for the others' collections to walk
    for _ in range(ROUNDS):
        for name, (operation, per_call) in operations.items():
            done, started = 0, clock()
            until = started + seconds / ROUNDS
            while clock() < until or not done:
                operation()
                done += per_call
            collected[name].append(done / (clock() - started))
    return {name: Rate(statistics.median(each), min(each), max(each)) for name, each in collected.items()}


@dataclass(frozen=True)
class Comparison:
    """Our rate beside a peer's in the same run; ``target`` is the ratio that we want at least."""

    what: str
    ours: Rate
    peer: str
    theirs: Rate | None
    target: float | None = None
    absolute_target: float | None = None
    note: str = ""
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """Latencies by name, for example p50 and p99."""

    @property
    def ratio(self) -> float | None:
        """Ours divided by theirs."""
        return self.ours.median / self.theirs.median if self.theirs else None

    @property
    def met(self) -> bool | None:
        """Whether every target was reached; None where there is none."""
        verdicts = []
        if self.target is not None and self.ratio is not None:
            verdicts.append(self.ratio >= self.target)
        if self.absolute_target is not None:
            verdicts.append(self.ours.median >= self.absolute_target)
        return all(verdicts) if verdicts else None

    def as_json(self) -> dict[str, object]:
        """Return the comparison with its ratio and verdict as plain values."""
        return {**asdict(self), "ratio": self.ratio, "met": self.met}
