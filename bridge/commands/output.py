"""Where a command's file goes: a file, or stdout for "-"."""

from __future__ import annotations

from pathlib import Path

import click

STDOUT = Path("-")
FILE_OR_STDOUT = "File to write; - for stdout."


def deliver(content: bytes, out: Path, *said: str) -> None:
    """Write ``content``, and say ``said``: on stderr when stdout has the content. Raises ``OSError``."""
    if out == STDOUT:
        with click.open_file("-", "wb") as stdout:
            stdout.write(content)
        click.echo(err=True)  # the content ends without a line feed
    else:
        out.write_bytes(content)
    for line in said:
        click.echo(line, err=out == STDOUT)
