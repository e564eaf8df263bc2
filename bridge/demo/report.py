"""What the demo prints and writes: steps, the checks in them, and a closing summary."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console


@dataclass
class Check:
    """One thing that was checked, and whether it held."""

    what: str
    passed: bool
    detail: str = ""


@dataclass
class Step:
    """A step of the demo with its checks and how long it took (seconds)."""

    title: str
    title_zh: str
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0


class Report:
    """Collects the steps, prints them as they happen, and writes the same as JSON."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.steps: list[Step] = []
        self.counts: dict[str, int] = {}
        self._started = time.monotonic()
        self._step_started = self._started

    def step(self, title: str, title_zh: str) -> None:
        """Begin the next step."""
        self._close_step()
        self.steps.append(Step(title, title_zh))
        self.console.print(
            f"\n[bold]{len(self.steps):2}. {title}[/bold]  [dim]{title_zh}[/dim]", highlight=False, soft_wrap=True
        )

    def check(self, what: str, passed: bool, detail: str = "") -> bool:
        """Record and print one check of the current step; return whether it held."""
        self.steps[-1].checks.append(Check(what, passed, detail))
        mark = "[green]✓[/green]" if passed else "[bold red]✗[/bold red]"
        tail = f"  [dim]{detail}[/dim]" if detail else ""
        self.console.print(f"    {mark} {what}{tail}", highlight=False, soft_wrap=True)
        return passed

    def count(self, name: str, value: int) -> None:
        """Keep a figure for the closing summary."""
        self.counts[name] = value

    @property
    def failed(self) -> list[Check]:
        """The checks that did not hold."""
        return [check for step in self.steps for check in step.checks if not check.passed]

    def close(self) -> None:
        """Print the closing summary."""
        self._close_step()
        checks = sum(len(step.checks) for step in self.steps)
        figures = " · ".join(f"{value} {name}" for name, value in self.counts.items())
        self.console.print(f"\n{figures}", highlight=False, soft_wrap=True)
        verdict = (
            f"[bold red]{len(self.failed)} of {checks} checks failed[/bold red]"
            if self.failed
            else f"[bold green]all {checks} checks passed[/bold green]"
        )
        self.console.print(f"{verdict} in {len(self.steps)} steps, {self._total():.1f} s", highlight=False)

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(self.as_json(), ensure_ascii=False, indent=2) + "\n", "utf-8")

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "passed": not self.failed,
            "seconds": round(self._total(), 3),
            "counts": self.counts,
            "steps": [
                {
                    "title": step.title,
                    "title_zh": step.title_zh,
                    "seconds": round(step.seconds, 3),
                    "checks": [{"what": c.what, "passed": c.passed, "detail": c.detail} for c in step.checks],
                }
                for step in self.steps
            ],
        }

    def _total(self) -> float:
        return self._step_started - self._started

    def _close_step(self) -> None:
        now = time.monotonic()
        if self.steps:
            self.steps[-1].seconds = now - self._step_started
        self._step_started = now
