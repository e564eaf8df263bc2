"""`yiqiao review`: emergency accesses that wait to be judged, and judging them."""

from __future__ import annotations

import getpass
import json
import re
import time
from dataclasses import asdict
from pathlib import Path

import click

from bridge.commands.node import home_option, json_option

_REQUEST = re.compile(r"[0-9a-f]{32}")


@click.group("review")
def review() -> None:
    """List and judge emergency accesses to this institution's records.

    \b
    Example:
      yiqiao review list --home ~/node
      yiqiao review close 6f1c0b0d2a9e4b53a1d24f6f0c0b7a11 --home ~/node --outcome justified --note '抢救记录可查'
    """


@review.command("list")
@home_option
@click.option("--all", "closed", is_flag=True, help="Also those that have been judged.")
@click.option("--consortium", is_flag=True, help="An authority: the open ones of all members, from the ledger.")
@json_option
def list_(home: Path, closed: bool, consortium: bool, as_json: bool) -> None:
    """List emergency accesses, the next due first. Exit code 1 when one is overdue.

    \b
    Example:
      yiqiao review list --home ~/node
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        found = node.reviews.across_the_ledger() if consortium else node.reviews.here(closed=closed)
        now = node.clock()
    if as_json:
        click.echo(json.dumps([{**asdict(each), "overdue": each.overdue(now)} for each in found]))
    for each in () if as_json else found:
        due = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.due))
        state = "OVERDUE / 已逾期" if each.overdue(now) else each.outcome or each.state
        click.echo(f"{each.request}  by {each.requester}  due {due}  {state}")
    if any(each.overdue(now) for each in found):
        raise SystemExit(1)


@review.command("close")
@click.argument("request", metavar="REQUEST")
@home_option
@click.option("--outcome", type=click.Choice(["justified", "unjustified"]), required=True)
@click.option("--note", required=True, help="Why; kept here under the patient's key, and committed to on the ledger.")
@click.option("--by", default=getpass.getuser, help="Who judges  [default: the user of this machine]")
@json_option
def close(request: str, home: Path, outcome: str, note: str, by: str, as_json: bool) -> None:
    """Judge an emergency access, once; the outcome goes to the ledger.

    \b
    Example:
      yiqiao review close 6f1c0b0d2a9e4b53a1d24f6f0c0b7a11 --home ~/node --outcome justified --note '抢救记录可查'
    """
    from bridge.services.audit_event import Party
    from bridge.wiring import open_node

    if not _REQUEST.fullmatch(request):
        raise click.BadParameter("a request id has 32 hexadecimal digits / 请求号为32位十六进制", param_hint="REQUEST")
    with open_node(home) as node:
        done = node.reviews.close(request, outcome, note, Party(by, by))  # type: ignore[arg-type]
    if as_json:
        click.echo(json.dumps(asdict(done)))
        return
    waits = "" if done.state == "closed" else "; the ledger is told as soon as it answers / 账本恢复后自动上链"
    click.echo(f"{done.request} {done.outcome}{waits} / 已复核")
