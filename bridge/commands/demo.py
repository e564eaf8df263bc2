"""`yiqiao demo`: the whole job on this machine, for real, with every step checked."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bridge.demo.report import Report
    from bridge.demo.scenario import Scenario


@click.command("demo")
@click.option("--home", type=click.Path(path_type=Path, file_okay=False),
              help="Keep the nodes' homes here; new or empty.  [default: a temporary folder, removed]")  # fmt: skip
@click.option("--engine", type=click.Choice(["embedded", "cometbft"]), default="embedded", show_default=True,
              help="embedded: the authority hosts the ledger; cometbft: four members replicate it.")  # fmt: skip
@click.option("--keep-serving", is_flag=True, help="Stay up after the checks, until Ctrl-C.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report to this file."
)
def demo(home: Path | None, engine: str, keep_serving: bool, json_file: Path | None) -> None:
    """Run the main job on this machine: an authority and two hospitals as real processes on loopback.

    With --engine cometbft an insurer is the fourth validator; the program cometbft must be installed.
    Exit code 0: every check passed; 1: one did not.

    \b
    Example:
      yiqiao demo
      yiqiao demo --engine cometbft
      yiqiao demo --home ./demo-home --keep-serving --json demo.json
    """
    from rich.console import Console

    from bridge.demo.report import Report

    binary = _find_cometbft() if engine == "cometbft" else ""
    if home is not None and home.exists() and any(home.iterdir()):
        raise click.ClickException(f"{home} is not empty; choose a new folder / 目录非空，请换一个目录")
    folder = (home or Path(tempfile.mkdtemp(prefix="yiqiao-demo-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    report = Report(Console(highlight=False))
    signal.signal(signal.SIGTERM, _interrupt)
    scenario = _scenario(folder, report, binary)
    _play(scenario, keep_serving)
    report.close()
    if json_file is not None:
        report.write(json_file)
        click.echo(f"report: {json_file}")
    if home is None and not report.failed:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        click.echo(f"homes and logs: {folder}")
    sys.exit(1 if report.failed else 0)


def _find_cometbft() -> str:
    from anchor.chain.cometbft.process import find_binary
    from anchor.errors import ChainUnavailable

    try:
        return find_binary()
    except ChainUnavailable as error:
        raise click.ClickException(f"{error} / 未找到 cometbft 程序，请先安装") from None


def _scenario(folder: Path, report: Report, binary: str) -> Scenario:
    from bridge.demo.replicated import ReplicatedScenario
    from bridge.demo.scenario import Scenario

    return ReplicatedScenario(folder, report, binary) if binary else Scenario(folder, report)


def _play(scenario: Scenario, keep_serving: bool) -> None:
    """Run the steps; whatever happens, stop every node at the end."""
    from bridge.demo.nodes import DemoFailed

    try:
        scenario.run()
        if keep_serving:
            _show_addresses(scenario)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
    except DemoFailed as error:
        scenario.report.check(str(error), False)
    except KeyboardInterrupt:
        scenario.report.check("interrupted / 已中断", False)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not leave nodes behind
        scenario.stop()


def _show_addresses(scenario: Scenario) -> None:
    click.echo("\nserving until Ctrl-C / 持续运行，按 Ctrl-C 停止")
    for node in scenario.nodes:
        click.echo(
            f"  {node.name}: {node.endpoint}/fhir  MLLP 127.0.0.1:{node.mllp_port}\n"
            f"    token {node.token}  home {node.home}"
        )


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
