"""The runner of the benchmarks: every target is judged, and one benchmark that fails stops no other."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.measure import Comparison, Rate
from benchmarks.runner import run_benchmarks, shown

FAST, SLOW = Rate(100.0, 90.0, 110.0), Rate(10.0, 9.0, 11.0)


@pytest.mark.parametrize(
    ("ours", "theirs", "ratio", "absolute", "met"),
    [
        pytest.param(FAST, SLOW, 10.0, None, True, id="ratio reached"),
        pytest.param(FAST, SLOW, 11.0, None, False, id="ratio missed"),
        pytest.param(FAST, None, None, 100.0, True, id="rate reached"),
        pytest.param(FAST, SLOW, 10.0, 101.0, False, id="ratio reached, rate missed"),
        pytest.param(FAST, SLOW, 11.0, 100.0, False, id="rate reached, ratio missed"),
        pytest.param(FAST, SLOW, None, None, None, id="no target"),
    ],
)
def test_a_comparison_meets_all_its_targets(
    ours: Rate, theirs: Rate | None, ratio: float | None, absolute: float | None, met: bool | None
) -> None:
    made = Comparison("w", ours, "peer", theirs, target=ratio, absolute_target=absolute)
    assert made.met is met
    verdicts = [line for line in shown(made) if line.startswith("target")]
    assert len(verdicts) == (met is not None)
    assert not verdicts or ("NOT" in verdicts[0]) == (not met)


def test_one_that_fails_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(seconds: float) -> list[Comparison]:
        raise OSError("no such peer")

    monkeypatch.setitem(sys.modules, "benchmarks.bench_first", SimpleNamespace(run=fails))
    works = SimpleNamespace(run=lambda seconds: [Comparison("w", FAST, "", None)])
    monkeypatch.setitem(sys.modules, "benchmarks.bench_second", works)
    assert run_benchmarks(["first", "second"], 0.1, tmp_path / "figures.json") == ["first"]
    printed = capsys.readouterr().out
    assert "DID NOT FINISH: OSError: no such peer" in printed
    assert "1 comparisons, 0 below target" in printed
    (written,) = json.loads((tmp_path / "figures.json").read_text())
    assert written["benchmark"] == "second"
    assert written["ours"]["median"] == 100.0
