"""What a check of a node found, and how far an interrupted one had come.

The progress is a small JSON file in a folder of its own, beside the scratch file of the ledger's replay. It is written
every few seconds and replaced whole, so that a check killed at any point goes on from a little before it; when a check
ends the folder goes.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anchor.fsck import Difference
from bridge.errors import Conflict

MAX_DIFFERENCES = 10_000
"""Differences named: past it a list helps nobody, and memory stays bounded."""
SAVE_SECONDS = 2.0
"""How often progress is written: what an interruption makes the next run do again."""
_COUNTS = ("entries", "records", "erased", "checkpoints", "blocks")
_FILE, _SCRATCH = "progress.json", "ledger.sqlite3"


@dataclass(slots=True)
class IntegrityReport:
    """What was checked (counts by name) and every difference; ``erased`` counts versions whose key was destroyed."""

    differences: list[Difference] = field(default_factory=list)
    entries: int = 0
    records: int = 0
    erased: int = 0
    checkpoints: int = 0
    blocks: int = 0
    truncated: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def add(self, differences: Iterable[Difference]) -> None:
        """Keep differences, up to ``MAX_DIFFERENCES``."""
        for difference in differences:  # to the end, even past the bound: taking them is what moves a log check on
            if len(self.differences) < MAX_DIFFERENCES:
                self.differences.append(difference)
            else:
                self.truncated = True

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, with stable names."""
        counts = {name: getattr(self, name) for name in _COUNTS}
        named = [{"kind": d.kind, "place": d.place, "expectation": d.expectation} for d in self.differences]
        return {"ok": self.ok, "checked": counts, "differences": named, "truncated": self.truncated}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> IntegrityReport:
        """Read what ``to_json`` gave."""
        named = [Difference(d["kind"], d["place"], d["expectation"]) for d in value["differences"]]
        counts = {name: int(value["checked"][name]) for name in _COUNTS}
        return cls(named, **counts, truncated=bool(value["truncated"]))


class CheckProgress:
    """How far a check has come: kept in ``folder``, or nowhere when that is None.

    ``position``: JSON values by stage name; what a stage puts there is its own matter.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._saved = time.monotonic()
        self.report = IntegrityReport()
        self.position: dict[str, Any] = {}

    @property
    def scratch(self) -> Path | None:
        """Where the ledger's replay may keep its state, None for in memory."""
        return None if self._folder is None else self._folder / _SCRATCH

    def begin(self, *, resume: bool) -> None:
        """Start anew, or go on with what is there; ``Conflict`` when it is to go on and there is nothing to read."""
        if self._folder is None:
            return
        if resume:
            self._read(self._folder / _FILE)
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, mode=0o700)
        self.save(now=True)

    def save(self, *, now: bool = False) -> None:
        """Write the progress when it is time, or ``now``; called only where report and position belong together."""
        if self._folder is None or not (now or time.monotonic() - self._saved >= SAVE_SECONDS):
            return
        content = json.dumps({"v": 1, "position": self.position, "report": self.report.to_json()})
        waiting = self._folder / f"{_FILE}.new"
        with waiting.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        waiting.replace(self._folder / _FILE)
        self._saved = time.monotonic()

    def end(self) -> None:
        """Remove what is no longer needed."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, file: Path) -> None:
        try:
            value = json.loads(file.read_bytes())
            if value["v"] != 1:
                raise ValueError("of another version")
            self.position, self.report = dict(value["position"]), IntegrityReport.from_json(value["report"])
        except FileNotFoundError:
            raise Conflict("no unfinished check is there; run fsck without --continue / 没有未完成的检查") from None
        except (OSError, KeyError, TypeError, ValueError):
            raise Conflict(f"{file} cannot be read; run fsck without --continue / 检查进度文件损坏") from None
