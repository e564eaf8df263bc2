"""Runs benchmarks by name, prints each figure beside its peer's, and writes them as JSON."""

from __future__ import annotations

import importlib
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Comparison

NAMES = (
    "conversion",
    "families",
    "cda",
    "hashing",
    "signatures",
    "mllp",
    "ingest",
    "ledger",
    "cometbft",
    "evidence",
    "lookup",
)


def run_benchmarks(names: Sequence[str], seconds: float, json_file: Path | None) -> list[str]:
    """Run the named benchmarks, each operation for ``seconds``; return the names of those that failed."""
    collected: list[dict[str, object]] = []
    missed = 0
    unfinished: list[str] = []
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}; median (lowest - highest)"
    )
    for name in names:
        print(f"\n== {name}", flush=True)
        started = time.monotonic()
        try:
            comparisons: list[Comparison] = importlib.import_module(f"benchmarks.bench_{name}").run(seconds)
        except Exception as error:  # noqa: BLE001 - one that fails is said so, and the others are still measured
            print(f"DID NOT FINISH: {type(error).__name__}: {error}")
            unfinished.append(name)
            continue
        for each in comparisons:
            print("\n    ".join(shown(each)))
            missed += each.met is False
            collected.append({"benchmark": name, **each.as_json()})
        print(f"({name} took {time.monotonic() - started:,.0f} s)")
    if json_file:
        json_file.write_text(json.dumps(collected, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"\n{len(collected)} comparisons, {missed} below target")
    return unfinished


def shown(each: Comparison) -> list[str]:
    """Return a comparison as lines: what, our rate, the peer's, targets and whether they were reached, notes."""
    lines = [each.what, f"ours   {each.ours}"]
    if each.theirs is not None:
        lines += [f"beside {each.theirs}  {each.peer}", f"ratio  {each.ratio:.2f}"]
    targets = [f"{each.target:.3g} times the peer"] if each.target is not None else []
    targets += [f"{each.absolute_target:,.0f}/s"] if each.absolute_target is not None else []
    if each.met is not None:
        lines.append(f"target {' and '.join(targets)}: {'reached' if each.met else 'NOT REACHED'}")
    if each.milliseconds:
        lines.append(", ".join(f"{name} {value:,.0f} ms" for name, value in each.milliseconds.items()))
    return [*lines, each.note] if each.note else lines
