"""`yiqiao inbox`: look at received messages without their content, and run them again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bridge.commands.node import home_option, json_option
from bridge.commands.progress import Counting, counting, process_all

if TYPE_CHECKING:
    from bridge.storage.inbox import InboxFilter, RerunProgress
    from bridge.wiring import Node

STATES = click.Choice(["received", "stored", "failed", "dead"])
WATCH_SECONDS = 0.5
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Moment(click.ParamType[int]):
    """A local time as people write it; becomes Unix milliseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a date, a date with a time, or either with an offset."""
        if isinstance(value, int):
            return value
        try:
            return int(datetime.fromisoformat(value).timestamp() * 1000)
        except (ValueError, OverflowError, OSError):
            self.fail("write a time like 2026-05-01 or 2026-05-01T08:30 / 时间格式如 2026-05-01T08:30", param, ctx)


def filter_options(command: _Command) -> _Command:
    """Add the options that say which messages are meant."""
    options = (
        click.option("--source", default="", help="Only of this source."),
        click.option("--code", default="", help="Only failures for this reason, for example unsupported."),
        click.option("--event", default="", help="Only of this type and event, for example ADT^A01."),
        click.option("--control-id", default="", help="Only with this message control id (MSH-10)."),
        click.option("--patient", default="", help="Only of this patient: number^assigning authority, as in PID-3."),
        click.option("--since", type=Moment(), help="Only arrived at or after this time."),
        click.option("--until", type=Moment(), help="Only arrived before this time."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group("inbox")
def inbox() -> None:
    """Look at received messages, without their content, and run them again.

    \b
    Example:
      yiqiao inbox list --home ~/node --state failed
    """


@inbox.command("list")
@home_option
@click.option("--state", type=STATES, help="Only messages in this state.")
@filter_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--before", type=click.IntRange(1), help="Only with a smaller number: the next page.")
@json_option
def list_(home: Path, limit: int, before: int | None, as_json: bool, **chosen: Any) -> None:
    """List messages, newest first.

    \b
    Example:
      yiqiao inbox list --home ~/node --state failed --json
      yiqiao inbox list --home ~/node --patient '100045^HIS' --since 2026-05-01
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        entries = node.inbox.list(_filter(chosen), limit, before)
        counts = node.inbox.counts()
    if as_json:
        following = entries[-1].id if len(entries) == limit else None
        listed = {"messages": [asdict(each) for each in entries], "counts": counts, "before": following}
        click.echo(json.dumps(listed, ensure_ascii=False))
        return
    for each in entries:
        click.echo(_line(asdict(each)))
    if len(entries) == limit:
        click.echo(f"more: --before {entries[-1].id}", err=True)
    click.echo(", ".join(f"{count} {name}" for name, count in counts.items()), err=True)


def _filter(chosen: dict[str, Any]) -> InboxFilter:
    from bridge.storage.inbox import InboxFilter

    return InboxFilter(**{name: value for name, value in chosen.items() if value is not None})


def _line(entry: dict[str, Any]) -> str:
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["received"] / 1000))
    why = " ".join(filter(None, (entry["code"], entry["location"], entry["reason"])))
    return f"{entry['id']:>8}  {moment}  {entry['state']:<8} {entry['source']:<10} {entry['event']:<12} {why}".rstrip()


@inbox.command("show")
@home_option
@click.argument("number", type=click.IntRange(1))
def show(home: Path, number: int) -> None:
    """Show one message from its arrival to its evidence: what its sender was answered, its state, the issues of its
    conversion, the record versions it led to, and how far these are in log and ledger. Its content stays sealed.

    \b
    Example:
      yiqiao inbox show 17 --home ~/node
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        shown = node.journeys.of(number).as_dict()
    click.echo(json.dumps(shown, ensure_ascii=False, indent=1))


@inbox.command("rerun")
@home_option
@click.argument("numbers", type=click.IntRange(1), nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All failed and dead messages that the options below leave.")
@click.option("--state", type=click.Choice(["failed", "dead"]), help="With --all: only these.")
@filter_options
@click.option("--process/--no-process", default=True, show_default=True, help="Convert now, or leave it to serve.")
@json_option
def rerun(home: Path, numbers: Iterable[int], everything: bool, process: bool, as_json: bool, **chosen: Any) -> None:
    """Process messages again, after a mapping or profile was fixed. What a later message wrote stays as it is.

    \b
    Example:
      yiqiao inbox rerun 17 18 --home ~/node
      yiqiao inbox rerun --all --state failed --source his --home ~/node
    """
    from bridge.wiring import open_node

    numbers = tuple(numbers)
    if bool(numbers) == everything:
        raise click.UsageError("name the messages' numbers, or give --all / 请给出编号或 --all")
    if numbers and any(chosen.values()):
        raise click.UsageError("the options that choose messages go with --all / 筛选选项需与 --all 同用")
    with open_node(home) as node:
        if everything:
            counts = _rerun_many(node, _filter(chosen), process)
        else:
            for number in numbers:
                node.inbox.rerun(number)
            counts = {"again": len(numbers)} | (process_all(node) if process else {})
    click.echo(json.dumps(counts) if as_json else ", ".join(f"{count} {name}" for name, count in counts.items()))
    sys.exit(1 if counts.get("failed") or counts.get("dead") else 0)


def _rerun_many(node: Node, chosen: InboxFilter, process: bool) -> dict[str, int]:
    """Put messages back and follow them until none waits; a running node takes its share of them."""
    progress = node.inbox.rerun_all(chosen)
    if not process:
        return {"again": progress.messages, "rerun": progress.id}
    with counting("rerun", progress.messages) as bar:
        while progress.waiting:
            if not node.ingest.process(node.settings.worker.batch):
                time.sleep(WATCH_SECONDS)  # what is left waits for a retry, or is in another process's hands
            progress = _followed(node, progress, bar)
    ended = {name: count for name, count in progress.counts.items() if name != "received"}
    return {"again": progress.messages, "rerun": progress.id, **ended}


def _followed(node: Node, progress: RerunProgress, bar: Counting) -> RerunProgress:
    progress = node.inbox.rerun_progress(progress.id)
    bar.reached(progress.messages - progress.waiting)
    return progress
