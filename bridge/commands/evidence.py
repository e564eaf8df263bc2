"""`yiqiao anchor`, `receipt` and `verify`: what a node can prove.

`verify` needs no node, no database and no network, and imports none of them; the others load the node when they run.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bridge.wiring import Node

_REFERENCE = re.compile(
    r"(?P<type>[A-Z][A-Za-z]{1,63})/(?P<id>[A-Za-z0-9\-.]{1,64})(?:/_history/(?P<version>[0-9]{1,9}))?\Z"
)
_REQUEST = re.compile(r"[0-9a-f]{32}\Z")

home_option = click.option(
    "--home",
    required=True,
    envvar="YIQIAO_HOME",
    type=click.Path(path_type=Path),
    help="Home of the node; or YIQIAO_HOME.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for programs.")


def open_node_of(home: Path) -> AbstractContextManager[Node]:
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
    with open_node_of(home) as node:
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
@click.argument("reference", metavar="Type/id[/_history/v] | REQUEST-ID | FILE", required=False)
@home_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it here instead of stdout.")
@click.option("--upgrade", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Bring this receipt as far as the ledger is now; without --out the file is replaced.")  # fmt: skip
@click.option("--closed", is_flag=True, help="Leave what a disclosure's request says closed (patient's pseudonym).")
@click.option("--timestamp", is_flag=True, help="With an RFC 3161 time stamp over the ledger's head.")
@json_option
def receipt_command(
    reference: str | None,
    home: Path,
    out: Path | None,
    upgrade: Path | None,
    closed: bool,
    timestamp: bool,
    as_json: bool,
) -> None:
    """Write the receipt of a record version (the current one unless named), or of a disclosure by its request id.

    The receipt is "pending", "committed" or "witnessed"; name its file later to bring it on. A disclosure's receipt
    opens the requester's signed statement unless it is to stay closed.

    \b
    Example:
      yiqiao receipt Observation/0b5f4c1e-9c1d-8f7a-b3a2-111111111111 --home ~/node --out receipt.json
      yiqiao receipt receipt.json --home ~/node
    """
    if (reference is None) == (upgrade is None):
        raise click.UsageError("name a record, a request id or a receipt's file / 请指明记录、请求号或回执文件")
    if upgrade is None and reference is not None and Path(reference).is_file():
        upgrade = Path(reference)
    match = None if upgrade is not None else _REFERENCE.match(reference or "")
    if upgrade is None and match is None and not _REQUEST.match(reference or ""):
        raise click.UsageError("name a record as Type/id or Type/id/_history/version, or a request id / 记录写法不对")
    with open_node_of(home) as node:
        if upgrade is not None:
            content = node.receipts.upgrade(_receipt_in(upgrade), stamped=timestamp)
        elif match is None:
            statement = None if closed else node.receipts.statement_of(str(reference))
            content = node.receipts.for_disclosure(str(reference), statement, stamped=timestamp)
        else:
            version = None if match["version"] is None else int(match["version"])
            content = node.receipts.for_record(match["type"], match["id"], version, stamped=timestamp)
    _write_receipt(content, out or upgrade, as_json)


def _receipt_in(file: Path) -> bytes:
    from anchor.receipt import MAX_RECEIPT_BYTES

    with file.open("rb") as stream:
        return stream.read(MAX_RECEIPT_BYTES + 1)


def _write_receipt(content: bytes, out: Path | None, as_json: bool) -> None:
    """Print a receipt, or put it in a file's place whole: one that is replaced is never half there."""
    if out is None:
        click.echo(content.decode("utf-8"))
        return
    state = json.loads(content)["state"]
    waiting = out.with_name(f"{out.name}.new")
    waiting.write_bytes(content)
    waiting.replace(out)
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
