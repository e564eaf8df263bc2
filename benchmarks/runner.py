"""Runs benchmarks by name, prints each figure beside its peer's, and writes them as JSON."""

from __future__ import annotations

import importlib
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Comparison

NAMES = ("conversion", "cda", "hashing", "signatures", "mllp", "ingest", "ledger", "cometbft", "evidence")


def run_benchmarks(names: Sequence[str], seconds: float, json_file: Path | None) -> int:
    """Run the named benchmarks, each operation for ``seconds``; return how many missed their target."""
    collected: list[dict[str, object]] = []
    missed = 0
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}; median (lowest - highest)"
    )
    for name in names:
        print(f"\n== {name}", flush=True)
        comparisons: list[Comparison] = importlib.import_module(f"benchmarks.bench_{name}").run(seconds)
        for each in comparisons:
            print(f"{each.what}\n    ours   {each.ours}")
            if each.theirs is not None:
                print(f"    beside {each.theirs}  {each.peer}\n    ratio  {each.ratio:.2f}", end="")
                print(f" (target {each.target:g})" if each.target is not None else "", end="")
            if each.absolute_target is not None:
                print(f"    target {each.absolute_target:,.0f}/s", end="")
            print({True: "  reached", False: "  NOT REACHED", None: ""}[each.met])
            if each.milliseconds:
                print("    " + ", ".join(f"{name} {value:,.0f} ms" for name, value in each.milliseconds.items()))
            if each.note:
                print(f"    {each.note}")
            missed += each.met is False
            collected.append({"benchmark": name, **each.as_json()})
    if json_file:
        json_file.write_text(json.dumps(collected, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"\n{len(collected)} comparisons, {missed} below target")
    return missed
