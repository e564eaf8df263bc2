"""`yiqiao convert`: source files to FHIR Bundles, stateless, one Bundle a line.

Nothing is stored and no node is needed. Exit code 0: everything was converted; 1: something was not, and each
failure stands on stderr with file, message number and place; 2: wrong usage.
"""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

import click
import orjson

from fhir_adapters import FORMATS, SourceProfile, convert, detect_format, messages
from fhir_adapters.errors import AdapterError, ProfileError

STDIN = "-"
HEAD_BYTES = 4096  # enough to tell the format
MAX_FILE_BYTES = 1024 * 1024 * 1024  # a file is read whole; a bigger one is a database dump and wants splitting
#: what a directory is searched for; a file named outright may have any name
SUFFIXES = frozenset(
    (
        ".hl7",
        ".txt",
        ".msg",
        ".dat",
        ".er7",
        ".adt",
        ".oru",
        ".csv",
        ".tsv",
        ".xml",
        ".xlsx",
        ".xlsm",
        ".json",
        ".ndjson",
    )
)


@dataclass
class _Run:
    """What one call of the command has done so far."""

    format: str
    profile: SourceProfile | None
    out: IO[bytes]
    issues: IO[bytes] | None
    converted: int = 0
    failed: int = 0
    remarks: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Files met in directories that are evidently of another format than the one asked for, by that."""

    def fail(self, source: str, number: int | None, error: Exception) -> None:
        """Count a failure and name it on stderr: file, message number, place and reason, never content."""
        self.failed += 1
        place = source if number is None else f"{source}, message {number}"
        click.echo(f"yiqiao: {place}: {error}", err=True)
        self.note(source, number, {"severity": "fatal", "code": type(error).__name__, "text": str(error),
                                   "location": getattr(error, "location", "")})  # fmt: skip

    def note(self, source: str, number: int | None, issue: dict[str, Any]) -> None:
        """Write one issue to the issues file, if there is one."""
        if self.issues is not None:
            self.issues.write(orjson.dumps({"file": source, "message": number, **issue}) + b"\n")


@click.command("convert")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--format", "format_", type=click.Choice([*FORMATS, "auto"]), default="auto", show_default=True,
              help="Source format; auto looks at the first bytes.")  # fmt: skip
@click.option("--profile", type=click.Path(dir_okay=False), help="Site profile (TOML).")
@click.option("--out", type=click.Path(dir_okay=False), help="Write the Bundles here instead of stdout (NDJSON).")
@click.option("--issues", type=click.Path(dir_okay=False), help="Write what was met in converting here (NDJSON).")
@click.option("--json", "as_json", is_flag=True, help="Closing summary as JSON on stderr.")
def convert_command(
    files: tuple[str, ...], format_: str, profile: str | None, out: str | None, issues: str | None, as_json: bool
) -> None:
    """Convert FILEs to FHIR R4 transaction Bundles, one a line, keeping nothing.

    A FILE may be a directory (searched for messages), a pattern, or - for stdin. Each failure is named on stderr. With
    --format, files of a directory that are evidently of another one are skipped and counted.

    \b
    Example:
      yiqiao convert adt.hl7 oru/ --out bundles.ndjson --issues issues.ndjson
      cat lab.csv | yiqiao convert - --format csv
    """
    sources = list(expand(files))
    if not sources:
        raise click.UsageError("no file to convert: the patterns and directories match nothing / 没有找到文件")
    with ExitStack() as stack:
        run = _Run(format_, _profile(profile), _output(stack, out), _output(stack, issues) if issues else None)
        for source in _with_progress(sources, stack):
            _convert_file(run, source, named=source in files)
    _summarise(run, len(sources), as_json)
    sys.exit(1 if run.failed else 0)


def _convert_file(run: _Run, source: str, *, named: bool) -> None:
    """Convert a file; one that was ``named`` outright must be of the format asked for, a directory holds others too."""
    try:
        raw = read_source(source)
        other = "" if named else _other_format(raw, run.format)
        if other:
            run.skipped[other] += 1
            text = f"the file is {other}, not {run.format}"
            return run.note(source, None, {"severity": "information", "code": "skipped", "text": text, "location": ""})
        pieces = list(messages(raw, run.format))
    except OSError as error:
        return run.fail(source, None, click.FileError(source, error.strerror or "cannot be read"))
    except AdapterError as error:
        return run.fail(source, None, error)
    if not pieces:
        return run.fail(source, None, AdapterError("no message in this file"))
    for number, piece in enumerate(pieces, start=1):
        _convert_piece(run, source, number, piece)
    return None


def _other_format(raw: bytes, wanted: str) -> str:
    """What a file evidently is instead of the format wanted; "" where that is not evident."""
    if wanted == "auto":
        return ""
    found = detect_format(raw[:HEAD_BYTES])
    if found == "csv":  # whatever begins like nothing else: only a JSON array gives itself away
        found = "fhir" if raw[:HEAD_BYTES].lstrip().startswith(b"[") else wanted
    return "" if found == wanted else found


def _convert_piece(run: _Run, source: str, number: int, piece: bytes) -> None:
    try:
        result = convert(piece, run.format, run.profile)
        line = result.to_json()
    except AdapterError as error:
        run.fail(source, number, error)
        return
    run.out.write(line + b"\n")
    run.converted += 1
    for issue in result.issues:
        run.remarks += 1
        run.note(source, number, issue.as_dict())


def expand(files: Sequence[str]) -> Iterator[str]:
    """Yield the files meant by names, directories and patterns, each once, in a fixed order."""
    seen: set[str] = set()
    for name in files:
        for file in _matches(name):
            if file not in seen:
                seen.add(file)
                yield file


def _matches(name: str) -> list[str]:
    if name == STDIN:
        return [name]
    path = Path(name)
    if path.is_dir():
        return sorted(str(file) for file in path.rglob("*") if file.is_file() and file.suffix.lower() in SUFFIXES)
    if not path.exists() and glob.has_magic(name):
        return sorted(file for file in glob.glob(name, recursive=True) if Path(file).is_file())  # noqa: PTH207
    return [name]


def read_source(source: str) -> bytes:
    """Read a file or stdin whole. Raises ``OSError``, and ``AdapterError`` for one that is too large."""
    if source == STDIN:
        return read_whole(sys.stdin.buffer)
    with Path(source).open("rb") as stream:
        return read_whole(stream)


def read_whole(stream: BinaryIO) -> bytes:
    """Read what is left of a stream. Raises ``AdapterError`` when it is too large."""
    raw = stream.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise AdapterError(f"the file is larger than {MAX_FILE_BYTES} bytes; split it")
    return raw


def _profile(name: str | None) -> SourceProfile | None:
    if name is None:
        return None
    try:
        return SourceProfile.from_toml(Path(name).read_bytes())
    except OSError as error:
        raise click.UsageError(f"--profile {name}: {error.strerror} / 无法读取配置") from error
    except ProfileError as error:
        raise click.UsageError(f"--profile {name}: {error}") from error


def _output(stack: ExitStack, name: str | None) -> IO[bytes]:
    """Open an output.

    A file appears under its name only when the run is over, so half a result is never taken for one.
    """
    if name is None or name == STDIN:
        return sys.stdout.buffer
    final, partial = Path(name), Path(f"{name}.partial")
    if final.exists() and not final.is_file():
        partial = final  # a device or a pipe is written to, never replaced
    try:
        stream = partial.open("wb")
    except OSError as error:
        raise click.UsageError(f"cannot write {name}: {error.strerror} / 无法写入") from error

    def finish(kind: type[BaseException] | None, *_: object) -> None:
        stream.close()
        if partial is final:
            return
        if kind is None:
            partial.replace(final)
        else:
            partial.unlink(missing_ok=True)

    stack.push(finish)
    return stream


def _with_progress(sources: list[str], stack: ExitStack) -> Iterator[str]:
    """Yield the sources; show a progress bar when a person watches stderr."""
    if not sys.stderr.isatty() or len(sources) < 2 or os.environ.get("TERM") == "dumb":
        yield from sources
        return
    from rich.console import Console
    from rich.progress import Progress

    progress = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
    yield from progress.track(sources, description="convert")


def _summarise(run: _Run, files: int, as_json: bool) -> None:
    if run.skipped and not as_json:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(run.skipped.items()))
        click.echo(
            f"yiqiao: {run.skipped.total()} files in directories are not {run.format} and were skipped: {kinds} / "
            f"已跳过其他格式的文件 {run.skipped.total()} 个",
            err=True,
        )
    if as_json:
        summary = {"files": files, "converted": run.converted, "failed": run.failed, "issues": run.remarks,
                   "skipped": dict(run.skipped)}  # fmt: skip
        click.echo(orjson.dumps(summary), err=True)
    elif run.failed or files > 1:
        click.echo(
            f"{run.converted} converted, {run.failed} failed, {run.remarks} issues in {files} files / "
            f"已转换 {run.converted}，失败 {run.failed}",
            err=True,
        )
