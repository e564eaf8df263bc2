"""`yiqiao anchor`, `receipt`, `verify` and `fsck`: what a node can prove, and whether what it stores still is what it
was.

`verify` needs no node, no database and no network, and imports none of them; the other three load the node when they
run.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bridge.services.integrity import IntegrityReport, Progress
    from bridge.wiring import Node

_REFERENCE = re.compile(
    r"(?P<type>[A-Z][A-Za-z]{1,63})/(?P<id>[A-Za-z0-9\-.]{1,64})(?:/_history/(?P<version>[0-9]{1,9}))?\Z"
)
_REQUEST = re.compile(r"[0-9a-f]{32}\Z")
MAX_LISTED = 200
"""Differences printed for people; --json has all of them."""
STAGES = {"log": "log entries / 日志", "records": "record versions / 记录版本", "ledger": "ledger blocks / 区块"}

home_option = click.option(
    "--home",
    required=True,
    envvar="YIQIAO_HOME",
    type=click.Path(path_type=Path),
    help="Home of the node; or YIQIAO_HOME.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for programs.")


def _open_node(home: Path) -> AbstractContextManager[Node]:
    """Build the node of a home and close it afterwards."""
    from bridge.settings import load_settings
    from bridge.wiring import build_node

    return closing(build_node(load_settings(home)))


@click.command("anchor")
@home_option
@json_option
def anchor_command(home: Path, as_json: bool) -> None:
    """Log the record versions that wait and publish the log's checkpoint on the ledger, now.

    \b
    Example:
      yiqiao anchor --home ~/node
    """
    with _open_node(home) as node:
        run = node.anchoring.run()
        status = node.anchoring.status()
    if as_json:
        published = [
            {
                "log": p.origin,
                "number": p.number,
                "size": p.size,
                "root": p.root.hex(),
                "tx": p.tx_id,
                "time": p.block_time,
            }
            for p in run.published
        ]
        answer = {"logged": run.logged, "published": published, "skipped": run.skipped, "pending": status.pending}
        click.echo(json.dumps(answer))
        return
    if run.skipped:
        click.echo("another process of this node is anchoring right now / 本节点的另一进程正在上链")
        return
    click.echo(f"{run.logged} record versions logged / 已写入日志")
    for each in run.published:
        click.echo(f"checkpoint {each.number} of {each.origin}: {each.size} entries, block {each.height} / 已发布")
    if status.pending:
        click.echo(f"{status.pending} versions still wait; run it again / 仍有待写入的版本")


@click.command("receipt")
@click.argument("reference", metavar="Type/id[/_history/v] | REQUEST-ID")
@home_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it here instead of stdout.")
@json_option
def receipt_command(reference: str, home: Path, out: Path | None, as_json: bool) -> None:
    """Write the receipt of a record version (the current one unless named), or of a disclosure by its request id.

    The receipt is "pending", "committed" or "witnessed"; ask again later for a stronger one.

    \b
    Example:
      yiqiao receipt Observation/0b5f4c1e-9c1d-8f7a-b3a2-111111111111 --home ~/node --out receipt.json
    """
    match = _REFERENCE.match(reference)
    if match is None and not _REQUEST.match(reference):
        raise click.UsageError("name a record as Type/id or Type/id/_history/version, or a request id / 记录写法不对")
    with _open_node(home) as node:
        if match is None:
            content = node.receipts.for_disclosure(reference)
        else:
            version = match["version"]
            content = node.receipts.for_record(match["type"], match["id"], None if version is None else int(version))
    state = json.loads(content)["state"]
    if out is None:
        click.echo(content.decode("utf-8"))
        return
    out.write_bytes(content)
    if as_json:
        click.echo(json.dumps({"file": str(out), "state": state, "bytes": len(content)}))
    else:
        click.echo(f"{out}: a {state} receipt, {len(content)} bytes / 回执已写出")


@click.command("verify")
@click.argument("receipt", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--trust", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The consortium's trust file.")  # fmt: skip
@click.option("--resource", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The record itself, to be checked as well.")  # fmt: skip
@click.option("--minimum", type=click.Choice(["pending", "committed", "witnessed"]), default="witnessed",
              show_default=True, help="How far the receipt must have come.")  # fmt: skip
@json_option
def verify_command(receipt: Path, trust: Path, resource: Path | None, minimum: str, as_json: bool) -> None:
    """Check a RECEIPT offline: says what it proves, by whose signatures and at what time, or which step fails.

    Exit code 0: verified; 1: not verified, the failing step is named. The same as python -m anchor.verify.

    \b
    Example:
      yiqiao verify receipt.json --trust trust.json --resource observation.json
    """
    from anchor.verify import run

    code, text = run(receipt, trust, resource, minimum, as_json)  # type: ignore[arg-type]
    click.echo(text)
    sys.exit(code)


@click.command("fsck")
@home_option
@json_option
def fsck_command(home: Path, as_json: bool) -> None:
    """Recompute everything the node stores and compare it with the ledger; name each thing that differs.

    Changes nothing. Exit code 0: nothing differs; 1: something does.

    \b
    Example:
      yiqiao fsck --home ~/node
    """
    report = _checked(home, as_json)
    if as_json:
        click.echo(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        _print_report(report)
    sys.exit(0 if report.ok else 1)


def _checked(home: Path, as_json: bool) -> IntegrityReport:
    """Run fsck with a progress bar; a ledger file too damaged to open is a difference like any other."""
    from anchor.errors import ChainCorrupt
    from bridge.services.integrity import Difference, IntegrityReport

    try:
        with _open_node(home) as node, _progress(as_json) as progress:
            return node.integrity.check(progress)
    except ChainCorrupt as error:
        damaged = Difference("ledger-altered", "file", f"a ledger file that opens: {error}")
        return IntegrityReport(differences=[damaged])


def _progress(as_json: bool) -> AbstractContextManager[Progress | None]:
    """Return a progress bar on stderr, or nothing where nobody watches."""
    if as_json or not sys.stderr.isatty():
        return nullcontext(None)
    return _Bar()


class _Bar:
    """A rich progress bar with one line a stage."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        columns.append(TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Progress:
        self._bar.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _tell(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(STAGES[stage], total=total)
        self._bar.update(self._tasks[stage], completed=done, total=total)


def _print_report(report: IntegrityReport) -> None:
    for difference in report.differences[:MAX_LISTED]:
        click.echo(str(difference))
    more = len(report.differences) - MAX_LISTED
    if more > 0:
        click.echo(f"… and {more} more; --json lists them / 其余见 --json")
    checked = (
        f"{report.records} record versions, {report.entries} log entries, {report.checkpoints} checkpoints, "
        f"{report.blocks} ledger blocks checked, {report.erased} erased versions opaque"
    )
    if report.ok:
        click.echo(f"nothing differs / 未发现差异: {checked}")
    else:
        click.echo(f"{len(report.differences)} differences / 处差异: {checked}")
