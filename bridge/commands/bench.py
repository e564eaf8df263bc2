"""`yiqiao bench`: measure this machine beside named peers, where the benchmarks are at hand (a source checkout)."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

DEFAULT_SECONDS = 2.0


@click.command("bench")
@click.argument("names", nargs=-1)
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=DEFAULT_SECONDS, show_default=True,
              help="How long each operation is measured.")  # fmt: skip
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures here."
)
def bench(names: tuple[str, ...], seconds: float, json_file: Path | None) -> None:
    """Measure conversion, hashing, signatures, ingest and the ledger beside their peers, in one run of some minutes.

    Runs from a source checkout, which `make bench` sets up; NAMES picks some of the benchmarks.

    \b
    Example:
      yiqiao bench
      yiqiao bench conversion hashing --json figures.json
    """
    sys.path.insert(0, str(Path.cwd()))
    try:
        runner = importlib.import_module("benchmarks.runner")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "benchmarks":
            raise
        raise click.ClickException(
            "the benchmarks are part of the source, not of the installed package: run make bench in a checkout / "
            "基准测试只在源代码目录中提供，请在源代码目录运行 make bench"
        ) from error
    if unknown := [name for name in names if name not in runner.NAMES]:
        raise click.UsageError(f"no benchmark {', '.join(unknown)}; there are: {', '.join(runner.NAMES)}")
    unfinished = runner.run_benchmarks(names or runner.NAMES, seconds, json_file)
    if unfinished:
        raise click.ClickException(
            f"did not finish: {', '.join(unfinished)}; the reason stands above; run it again by its name / "
            f"未能完成：{'、'.join(unfinished)}，原因见上，请按名称单独重新运行"
        )
