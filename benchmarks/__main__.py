"""Run the benchmarks: python -m benchmarks [NAME...] [--seconds N] [--json FILE]."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path

from benchmarks.measure import Comparison

NAMES = ("conversion", "hashing", "signatures", "mllp", "ledger")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help=f"which: {', '.join(NAMES)} (default: all)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each operation is measured (default 5)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    collected: list[dict[str, object]] = []
    missed = 0
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}; median (lowest - highest)"
    )
    for name in arguments.names or NAMES:
        print(f"\n== {name}", flush=True)
        comparisons: list[Comparison] = importlib.import_module(f"benchmarks.bench_{name}").run(arguments.seconds)
        for each in comparisons:
            print(f"{each.what}\n    ours   {each.ours}")
            if each.theirs is not None:
                print(f"    beside {each.theirs}  {each.peer}\n    ratio  {each.ratio:.2f}", end="")
                print(f" (target {each.target:g})" if each.target is not None else "", end="")
            if each.absolute_target is not None:
                print(f"    target {each.absolute_target:,.0f}/s", end="")
            print({True: "  reached", False: "  NOT REACHED", None: ""}[each.met])
            if each.note:
                print(f"    {each.note}")
            missed += each.met is False
            collected.append({"benchmark": name, **each.as_json()})
    if arguments.json:
        arguments.json.write_text(json.dumps(collected, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"\n{len(collected)} comparisons, {missed} below target")
    return 0


if __name__ == "__main__":
    sys.exit(main())
