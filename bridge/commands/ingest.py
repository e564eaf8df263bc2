"""`yiqiao ingest`: take files in as if they had arrived by MLLP, SOAP or the drop folder."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from bridge.commands.convert import STDIN, expand, read_source, read_whole
from bridge.commands.node import home_option, json_option
from bridge.commands.progress import Counting, counting

if TYPE_CHECKING:
    from bridge.errors import Overloaded
    from bridge.services.action_intake import ActionAnswer
    from bridge.services.ingest import Acknowledgement
    from bridge.wiring import Node

FILE_SOURCE = "file"
BOOKMARKS = "ingest"
"""Directory below HOME that says how far large files were taken in."""

HEAD_BYTES = 4096  # enough to tell the format
SHOWN_REMARKS = 20  # lines of a table that are named on stderr; `yiqiao inbox list --state failed` has them all
ROOM_SECONDS = 1.0
ROOM_ATTEMPTS = 60


@dataclass
class _Run:
    """One call of the command: what it has done so far."""

    node: Node
    source: str
    process: bool
    from_start: bool
    bar: Counting
    counts: dict[str, int] = field(default_factory=lambda: {"accepted": 0, "repeated": 0, "refused": 0})
    done: dict[str, int] = field(default_factory=lambda: {"stored": 0, "failed": 0, "versions": 0})
    bytes_before: int = 0

    def count(self, **more: int) -> None:
        for name, number in more.items():
            self.counts[name] = self.counts.get(name, 0) + number

    def refuse(self, place: str, why: object) -> None:
        """Count a refusal and name it: file, place and reason, never content."""
        self.count(refused=1)
        click.echo(f"yiqiao: {place}: {why}", err=True)

    def answered(self, place: str, answer: Acknowledgement | ActionAnswer) -> None:
        """Count what became of one document."""
        if not answer.accepted:
            self.refuse(place, _reason(self.node, answer))
        else:
            self.count(**{"repeated" if answer.replayed else "accepted": 1})

    def work_off(self) -> bool:
        """Convert and store all that waits, together with a node that may be running; True when there was something."""
        worked = False
        while self.process and (result := self.node.ingest.process(self.node.settings.worker.batch)):
            worked = True
            self.done["stored"] += result.stored
            self.done["failed"] += result.refused
            self.done["versions"] += result.versions
        return worked


@click.command("ingest")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@home_option
@click.option("--source", default=FILE_SOURCE, show_default=True, help="Source whose profile converts them.")
@click.option("--process/--no-process", default=True, show_default=True, help="Convert now, or leave it to serve.")
@click.option("--from-start", is_flag=True, help="Read files from their beginning, also those left half-way before.")
@json_option
def ingest(files: tuple[str, ...], home: Path, source: str, process: bool, from_start: bool, as_json: bool) -> None:
    """Take files into the node's inbox, and convert them: whatever `yiqiao convert` takes.

    Each message is answered as over MLLP; refused ones are named on stderr and kept. A FILE may be a directory, a
    pattern, or - for stdin. Files of messages may be of any size; a run that was stopped goes on where it was.

    \b
    Example:
      yiqiao ingest adt.hl7 discharge.xml lab.xlsx archive/ --home ~/node
    """
    from bridge.wiring import open_node

    sources = list(expand(files))
    if not sources:
        raise click.UsageError("no file to take in: the patterns and directories match nothing / 没有找到文件")
    with ExitStack() as stack:
        node = stack.enter_context(open_node(home))
        bar = stack.enter_context(counting("ingest", sum(map(_size, sources)), is_bytes=True))
        run = _Run(node, source, process, from_start, bar)
        for file in sources:
            _take_in(run, file)
            run.bytes_before += _size(file)
            bar.reached(run.bytes_before)
        run.work_off()
    counts = run.counts | (run.done if process else {})
    click.echo(json.dumps(counts) if as_json else ", ".join(f"{count} {name}" for name, count in counts.items()))
    sys.exit(1 if counts["refused"] or counts.get("failed") else 0)


def _size(file: str) -> int:
    try:
        return 0 if file == STDIN else Path(file).stat().st_size
    except OSError:
        return 0


def _take_in(run: _Run, file: str) -> None:
    """Take in one file by its format."""
    from bridge.errors import Overloaded
    from fhir_adapters import detect_format
    from fhir_adapters.errors import AdapterError

    try:
        with _opened(file) as stream:
            kind = detect_format(stream.read(HEAD_BYTES))
            stream.seek(0)
            if kind == "hl7v2":
                _take_messages(run, file, stream)
            else:
                _TAKERS[kind](run, file, read_whole(stream))
    except OSError as error:
        run.refuse(file, error.strerror or "cannot be read")
    except AdapterError as error:
        run.refuse(file, error)
    except Overloaded as error:
        raise click.ClickException(
            f"{file}: {error.message}; what was taken is kept, run the command again to go on / "
            "收件箱已满，已收内容不丢失，请稍后重新运行本命令继续"
        ) from None


def _opened(file: str) -> BinaryIO:
    return io.BytesIO(read_source(STDIN)) if file == STDIN else Path(file).open("rb")


def _take_messages(run: _Run, file: str, stream: BinaryIO) -> None:
    """Take in a file of messages part by part, converting each part before the next is read."""
    from bridge.services.back_load import BackLoad, Bookmarks, Reached, Taken

    path = None if file == STDIN else Path(file)
    bookmarks = Bookmarks(run.node.settings.home / BOOKMARKS)
    reached = bookmarks.find(run.source, path) if path and not run.from_start else Reached(0, 0)
    if reached.offset:
        run.count(earlier=reached.numbered)
        number = reached.numbered
        click.echo(f"yiqiao: {file}: goes on after message {number} / 从第 {number} 条之后继续", err=True)
    taken = Taken(numbered=reached.numbered)

    def refused(number: int, answer: Acknowledgement) -> None:
        run.refuse(f"{file}, message {number}", _reason(run.node, answer))

    load = BackLoad(run.node.ingest, run.source, make_room=_room_maker(run), refused=refused)
    for offset in load.take(stream, taken, reached.offset):
        if path:
            reached = Reached(path.stat().st_size, path.stat().st_mtime_ns, offset, taken.numbered)
            bookmarks.note(run.source, path, reached)
        run.work_off()
        run.bar.reached(run.bytes_before + offset)
    if path:
        bookmarks.drop(run.source, path)
    if not taken.numbered:
        run.refuse(file, "no message in this file / 文件中没有消息")
    run.count(accepted=taken.accepted, repeated=taken.repeated)


def _room_maker(run: _Run) -> Callable[[Overloaded], None]:
    """Return what waits until the inbox takes messages again; it gives up after ``ROOM_ATTEMPTS`` without any."""
    left = [ROOM_ATTEMPTS]

    def make_room(error: Overloaded) -> None:
        if run.work_off():
            left[0] = ROOM_ATTEMPTS
            return
        left[0] -= 1
        if left[0] < 0:
            raise error
        time.sleep(ROOM_SECONDS)

    return make_room


def _take_document(run: _Run, file: str, raw: bytes) -> None:
    run.answered(file, run.node.ingest.receive_document(run.source, raw))


def _take_action(run: _Run, file: str, raw: bytes) -> None:
    run.answered(file, run.node.actions.receive(run.source, raw))


def _take_table(run: _Run, file: str, raw: bytes) -> None:
    """Take in the rows of a CSV file or workbook; what is wrong with one is named by its line."""
    report = run.node.files.take(run.source, Path(file).name, raw)
    if report.refused:
        run.refuse(file, report.refused)
        return
    for remark in report.remarks[:SHOWN_REMARKS]:
        place = " ".join(filter(None, (remark.sheet, f"line {remark.line}" if remark.line else "", remark.column)))
        click.echo(f"yiqiao: {file}, {place}: {remark.text}", err=True)
    if len(report.remarks) > SHOWN_REMARKS:
        click.echo(f"yiqiao: {file}: {len(report.remarks) - SHOWN_REMARKS} more remarks", err=True)
    run.count(accepted=report.fresh, repeated=report.records - report.fresh)


def _take_fhir(run: _Run, file: str, raw: bytes) -> None:
    """Take in a Bundle or resource, or one a line. What is refused is named and not kept."""
    from fhir_adapters import messages
    from fhir_adapters.errors import AdapterError

    for number, piece in enumerate(messages(raw, "fhir"), start=1):
        try:
            accepted = run.node.fhir_intake.receive(run.source, piece)
        except AdapterError as error:
            run.refuse(f"{file}, message {number}", error)
        else:
            run.count(accepted=not accepted.replayed, repeated=accepted.replayed)


_TAKERS: dict[str, Callable[[_Run, str, bytes], None]] = {
    "cda": _take_document,
    "action": _take_action,
    "csv": _take_table,
    "xlsx": _take_table,
    "fhir": _take_fhir,
}


def _reason(node: Node, answer: Acknowledgement | ActionAnswer) -> str:
    """Say why a message was refused, and where it is kept."""
    if answer.id is None:
        return f"{answer.code} (not kept, try again)"
    entry = node.inbox.show(answer.id).entry
    return " ".join(filter(None, (answer.code, entry.code, entry.location, entry.reason, f"(inbox {answer.id})")))
