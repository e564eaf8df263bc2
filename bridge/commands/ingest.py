"""`yiqiao ingest` and `inbox`: take files in as if they had arrived by MLLP, and look after what was received."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.commands.convert import expand, read_source
from bridge.commands.node import home_option, json_option

if TYPE_CHECKING:
    from bridge.wiring import Node

FILE_SOURCE = "file"
PROCESS_BATCH = 200
STATES = click.Choice(["received", "stored", "failed", "dead"])


@click.command("ingest")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@home_option
@click.option("--source", default=FILE_SOURCE, show_default=True, help="Source whose profile converts them.")
@click.option("--process/--no-process", default=True, show_default=True, help="Convert now, or leave it to serve.")
@json_option
def ingest(files: tuple[str, ...], home: Path, source: str, process: bool, as_json: bool) -> None:
    """Take HL7 v2 files into the node's inbox, and convert them.

    Each message is answered as over MLLP; refused ones are named on stderr and kept.

    \b
    Example:
      yiqiao ingest adt.hl7 archive/ --home ~/node
    """
    from bridge.wiring import open_node

    sources = list(expand(files))
    if not sources:
        raise click.UsageError("no file to take in: the patterns and directories match nothing / 没有找到文件")
    with open_node(home) as node:
        counts = {"accepted": 0, "repeated": 0, "refused": 0}
        for file in sources:
            _take_in(node, source, file, counts)
        if process:
            counts |= _process_all(node)
    _summarise(counts, as_json)
    sys.exit(1 if counts["refused"] or counts.get("failed") else 0)


def _take_in(node: Node, source: str, file: str, counts: dict[str, int]) -> None:
    from fhir_adapters import messages
    from fhir_adapters.errors import AdapterError

    try:
        pieces = list(messages(read_source(file), "hl7v2"))
    except (OSError, AdapterError) as error:
        counts["refused"] += 1
        text = error.strerror if isinstance(error, OSError) else error
        click.echo(f"yiqiao: {file}: {text}", err=True)
        return
    for number, piece in enumerate(pieces, start=1):
        answer = node.ingest.receive(source, piece)
        kind = "refused" if not answer.accepted else "repeated" if answer.replayed else "accepted"
        counts[kind] += 1
        if kind == "refused":
            where = f"inbox {answer.id}" if answer.id else "not kept, try again"
            click.echo(f"yiqiao: {file}, message {number}: {answer.code} ({where})", err=True)


def _process_all(node: Node) -> dict[str, int]:
    """Work off the inbox together with a node that may be running."""
    done = {"stored": 0, "failed": 0, "versions": 0}
    while result := node.ingest.process(PROCESS_BATCH):
        done["stored"] += result.stored
        done["failed"] += result.refused
        done["versions"] += result.versions
    return done


def _summarise(counts: dict[str, int], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(counts))
    else:
        click.echo(", ".join(f"{count} {name}" for name, count in counts.items()))


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
@click.option("--source", default="", help="Only messages of this source.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
def list_(home: Path, state: str | None, source: str, limit: int, as_json: bool) -> None:
    """List messages, newest first.

    \b
    Example:
      yiqiao inbox list --home ~/node --state failed --json
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        entries = node.inbox.list(state or "", source, limit)
        counts = node.inbox.counts()
    if as_json:
        click.echo(json.dumps({"messages": [asdict(each) for each in entries], "counts": counts}, ensure_ascii=False))
        return
    for each in entries:
        click.echo(_line(asdict(each)))
    click.echo(", ".join(f"{count} {name}" for name, count in counts.items()), err=True)


def _line(entry: dict[str, Any]) -> str:
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["received"] / 1000))
    why = " ".join(filter(None, (entry["code"], entry["location"], entry["reason"])))
    return f"{entry['id']:>8}  {moment}  {entry['state']:<8} {entry['source']:<10} {entry['event']:<12} {why}".rstrip()


@inbox.command("show")
@home_option
@click.argument("number", type=click.IntRange(1))
def show(home: Path, number: int) -> None:
    """Show one message: state, issues of its conversion, record versions it led to. Its content stays sealed.

    \b
    Example:
      yiqiao inbox show 17 --home ~/node
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        detail = asdict(node.inbox.show(number))
    click.echo(json.dumps(detail, ensure_ascii=False, indent=1))


@inbox.command("rerun")
@home_option
@click.argument("numbers", type=click.IntRange(1), nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All failed and dead messages.")
@click.option("--state", type=click.Choice(["failed", "dead"]), help="With --all: only these.")
@click.option("--source", default="", help="With --all: only of this source.")
@click.option("--process/--no-process", default=True, show_default=True, help="Convert now, or leave it to serve.")
@json_option
def rerun(
    home: Path,
    numbers: Iterable[int],
    everything: bool,
    state: str | None,
    source: str,
    process: bool,
    as_json: bool,
) -> None:
    """Process messages again, after a mapping or profile was fixed.

    \b
    Example:
      yiqiao inbox rerun 17 18 --home ~/node
      yiqiao inbox rerun --all --state failed --home ~/node
    """
    from bridge.wiring import open_node

    numbers = tuple(numbers)
    if bool(numbers) == everything:
        raise click.UsageError("name the messages' numbers, or give --all / 请给出编号或 --all")
    with open_node(home) as node:
        for number in numbers:
            node.inbox.rerun(number)
        counts = {"again": node.inbox.rerun_all(state or "", source) if everything else len(numbers)}
        if process:
            counts |= _process_all(node)
    _summarise(counts, as_json)
    sys.exit(1 if counts.get("failed") else 0)
