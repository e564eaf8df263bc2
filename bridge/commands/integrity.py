"""`yiqiao fsck` and `status`: whether what a node stores still is what it was, and how its evidence stands."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.commands.evidence import home_option, json_option, open_node_of

if TYPE_CHECKING:
    from bridge.services.evidence_status import EvidenceStatus
    from bridge.services.integrity import IntegrityReport, Progress
    from bridge.storage.witness_store import Conflict

MAX_LISTED = 200
"""Differences printed for people; --json has all of them."""
STAGES = {"log": "log entries / 日志", "records": "record versions / 记录版本", "ledger": "ledger blocks / 区块"}
PROGRESS_FOLDER = "fsck"
"""Below the home: where an unfinished check keeps how far it has come."""


@click.command("fsck")
@home_option
@click.option("--continue", "resume", is_flag=True, help="Take up the check that was interrupted.")
@json_option
def fsck_command(home: Path, resume: bool, as_json: bool) -> None:
    """Recompute everything the node stores and compare it with the ledger; name each thing that differs.

    Changes nothing but its own progress, which lies in HOME/fsck until the check has come to its end: stopped or
    killed, it goes on with --continue. Exit code 0: nothing differs; 1: something does.

    \b
    Example:
      yiqiao fsck --home ~/node
      yiqiao fsck --home ~/node --continue
    """
    report = _checked(home, resume, as_json)
    if as_json:
        click.echo(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        _print_report(report)
    sys.exit(0 if report.ok else 1)


def _checked(home: Path, resume: bool, as_json: bool) -> IntegrityReport:
    """Run fsck with a progress bar; a ledger file too damaged to open is a difference like any other."""
    from anchor.errors import ChainCorrupt
    from bridge.services.integrity import CheckProgress, Difference, IntegrityReport

    try:
        with open_node_of(home) as node, _progress(as_json) as progress:
            state = CheckProgress(home / PROGRESS_FOLDER)
            state.begin(resume=resume)
            return node.integrity.check(progress, state)
    except ChainCorrupt as error:
        damaged = Difference("ledger-altered", "file", f"a ledger file that opens: {error}")
        return IntegrityReport(differences=[damaged])
    except KeyboardInterrupt:
        click.echo("stopped; go on with: yiqiao fsck --continue / 已中止，可用 --continue 继续", err=True)
        raise


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


@click.command("status")
@home_option
@click.option("--evidence", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Write the contradicting checkpoints into this folder, to be shown to the others.")  # fmt: skip
@click.option("--acknowledge", metavar="FINGERPRINT", help="Note that you have seen a contradiction; ends its alarm.")
@json_option
def status_command(home: Path, evidence: Path | None, acknowledge: str | None, as_json: bool) -> None:
    """Say how the node's evidence stands: what waits for the ledger, who has cosigned, what contradicts, what alarms.

    Exit code 0: no alarm; 1: there are alarms.

    \b
    Example:
      yiqiao status --home ~/node
      yiqiao status --home ~/node --evidence ./contradictions
    """
    with open_node_of(home) as node:
        if acknowledge is not None and not node.witness.acknowledge(acknowledge):
            raise click.UsageError("no contradiction of that fingerprint is waiting / 没有该编号的待确认冲突")
        status, conflicts = node.evidence_status.read(), node.witness.status().conflicts
        peers = node.watch.alerts()
    if evidence is not None:
        _write_evidence(evidence, conflicts)
    if as_json:
        listed = [{"fingerprint": c.fingerprint, "kind": c.kind, "source": c.source, "detected": c.detected,
                   "acknowledged": c.acknowledged} for c in conflicts]  # fmt: skip
        found = {**status.to_json(), "contradictions": listed, "peers": [asdict(each) for each in peers]}
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        _print_status(status, conflicts)
        for each in peers:
            click.echo(f"conspicuous / 异常成员     {each.org}: {each.kind}, {each.count}")
    sys.exit(1 if status.alarms or peers else 0)


def _write_evidence(folder: Path, conflicts: tuple[Conflict, ...]) -> None:
    """Write each contradiction as two notes (their signatures are the evidence) and the transactions it is about."""
    folder.mkdir(parents=True, exist_ok=True)
    for conflict in conflicts:
        for number, note in enumerate((conflict.first, conflict.second), start=1):
            (folder / f"{conflict.fingerprint[:16]}-{number}.note").write_bytes(note)
        if conflict.transactions:
            (folder / f"{conflict.fingerprint[:16]}-transactions.json").write_bytes(conflict.transactions)
    click.echo(f"{len(conflicts)} contradictions in {folder} / 冲突证据已写出", err=True)


def _print_status(status: EvidenceStatus, conflicts: tuple[Conflict, ...]) -> None:
    up = "answers" if status.ledger_ok else "does not answer"
    lines = [
        f"waiting / 待上链       {status.pending} versions to be logged, {status.unpublished} logged and not "
        f"published, the oldest for {_span(status.lag)}",
        f"own checkpoint / 检查点 {_old(status.checkpoint_age)}",
        f"ledger / 账本          {up}; {status.ledger_size} transactions, newest block {_old(status.ledger_age)}",
        f"witnesses / 见证       {status.witnesses} of {status.quorum} needed have signed the newest head; "
        f"a quorum has signed {status.witnessed_size}",
        f"this node / 本节点      has cosigned {status.cosigned_size}; "
        + (
            "has not looked yet"
            if status.looked_age is None
            else f"looked {_span(status.looked_age)} ago ({status.look})"
        ),
        f"time stamp / 时间戳     {_old(status.timestamp_age)}",
    ]
    if status.replayed_size is not None:
        lines.append(
            f"replayed / 已重放       {status.replayed_size} of {status.ledger_size} transactions computed here, "
            f"height {status.replayed_height}"
        )
    for conflict in conflicts:
        seen = "acknowledged" if conflict.acknowledged is not None else "NOT ACKNOWLEDGED"
        lines.append(
            f"contradiction / 冲突    {conflict.kind}, shown by {conflict.source}, {seen}: {conflict.fingerprint}"
        )
    lines.append(f"alarms / 告警          {', '.join(status.alarms) or 'none / 无'}")
    click.echo("\n".join(lines))


def _old(age: float | None) -> str:
    return "none yet / 尚无" if age is None else f"{_span(age)} old"


def _span(seconds: float) -> str:
    """Say how long something is, in the unit that fits."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
