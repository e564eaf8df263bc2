"""`yiqiao ingest`: take files in as if they had arrived by MLLP."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.commands.convert import expand, read_source
from bridge.commands.node import home_option, json_option
from bridge.commands.progress import process_all

if TYPE_CHECKING:
    from bridge.wiring import Node

FILE_SOURCE = "file"


@click.command("ingest")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@home_option
@click.option("--source", default=FILE_SOURCE, show_default=True, help="Source whose profile converts them.")
@click.option("--process/--no-process", default=True, show_default=True, help="Convert now, or leave it to serve.")
@json_option
def ingest(files: tuple[str, ...], home: Path, source: str, process: bool, as_json: bool) -> None:
    """Take HL7 v2 files and CDA documents into the node's inbox, and convert them.

    Each message is answered as over MLLP; refused ones are named on stderr and kept.

    \b
    Example:
      yiqiao ingest adt.hl7 discharge.xml archive/ --home ~/node
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
            counts |= process_all(node)
    _summarise(counts, as_json)
    sys.exit(1 if counts["refused"] or counts.get("failed") else 0)


def _take_in(node: Node, source: str, file: str, counts: dict[str, int]) -> None:
    from fhir_adapters import detect_format, messages
    from fhir_adapters.errors import AdapterError

    receive = node.ingest.receive
    try:
        raw = read_source(file)
        if detect_format(raw) == "cda":
            receive, pieces = node.ingest.receive_document, [raw]
        else:
            pieces = list(messages(raw, "hl7v2"))
    except (OSError, AdapterError) as error:
        counts["refused"] += 1
        text = error.strerror if isinstance(error, OSError) else error
        click.echo(f"yiqiao: {file}: {text}", err=True)
        return
    for number, piece in enumerate(pieces, start=1):
        answer = receive(source, piece)
        kind = "refused" if not answer.accepted else "repeated" if answer.replayed else "accepted"
        counts[kind] += 1
        if kind == "refused":
            where = f"inbox {answer.id}" if answer.id else "not kept, try again"
            click.echo(f"yiqiao: {file}, message {number}: {answer.code} ({where})", err=True)


def _summarise(counts: dict[str, int], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(counts))
    else:
        click.echo(", ".join(f"{count} {name}" for name, count in counts.items()))
