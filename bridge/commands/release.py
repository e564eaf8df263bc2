"""`yiqiao release`: requests of other institutions that a person here is asked about, and the gap report."""

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


def request_id(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Check a request id."""
    if value is not None and not _REQUEST.fullmatch(value):
        raise click.BadParameter("a request id has 32 hexadecimal digits / 请求号为32位十六进制")
    return value


@click.group("release")
def release() -> None:
    """Approve or refuse what other institutions ask for; report what of releases is not settled.

    \b
    Example:
      yiqiao release list --home ~/node
      yiqiao release approve 6f1c0b0d2a9e4b53a1d24f6f0c0b7a11 --home ~/node --note '伦理批件 2026-17'
      yiqiao release gaps --home ~/node
    """


@release.command("list")
@home_option
@json_option
def list_(home: Path, as_json: bool) -> None:
    """List requests that wait for a person here, the next due first.

    \b
    Example:
      yiqiao release list --home ~/node
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        found = node.approvals.waiting()
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found]))
        return
    for each in found:
        state = "approved, not collected yet / 已批准待取" if each.approved else f"due {_moment(each.due)}"
        click.echo(f"{each.request}  {each.purpose}  by {each.requester}  {each.rule}  {state}")
    if not found:
        click.echo("nothing waits for approval / 没有待审批请求")


@release.command("approve")
@click.argument("request", metavar="REQUEST", callback=request_id)
@home_option
@click.option("--note", required=True, help="Why; kept here, sealed.")
@click.option("--by", default=getpass.getuser, help="Who decides  [default: the user of this machine]")
@json_option
def approve(request: str, home: Path, note: str, by: str, as_json: bool) -> None:
    """Let a request be released when its requester asks again; the rules are applied once more then.

    \b
    Example:
      yiqiao release approve 6f1c0b0d2a9e4b53a1d24f6f0c0b7a11 --home ~/node --note '伦理批件 2026-17'
    """
    _decide(home, request, approve=True, note=note, by=by, as_json=as_json)


@release.command("refuse")
@click.argument("request", metavar="REQUEST", callback=request_id)
@home_option
@click.option("--note", required=True, help='Why; kept here, sealed. The requester is told "not permitted".')
@click.option("--by", default=getpass.getuser, help="Who decides  [default: the user of this machine]")
@json_option
def refuse(request: str, home: Path, note: str, by: str, as_json: bool) -> None:
    """Refuse a request; the ledger has it as denied.

    \b
    Example:
      yiqiao release refuse 6f1c0b0d2a9e4b53a1d24f6f0c0b7a11 --home ~/node --note '与授权目的不符'
    """
    _decide(home, request, approve=False, note=note, by=by, as_json=as_json)


@release.command("gaps")
@home_option
@json_option
def gaps(home: Path, as_json: bool) -> None:
    """Report what of exchanges has no end yet. Exit code 1 when there is anything.

    queued and refused events (they happened, and the ledger has them not yet, or would not take them), releases that
    their requester has not confirmed, receptions that were rejected, requests of this node that go on.

    \b
    Example:
      yiqiao release gaps --home ~/node
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        found = node.exchange_parts.gaps()
        now = node.clock()
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found]))
    for each in () if as_json else found:
        hours = (now - each.since) / 3600
        click.echo(f"{each.kind}  {each.request}  {each.other}  for {hours:.1f} h  {each.detail}".rstrip())
    if not as_json and not found:
        click.echo("every release is on the ledger and confirmed / 全部放行均已上链并确认")
    if found:
        raise SystemExit(1)


@click.command("collect")
@click.argument("request", metavar="[REQUEST]", required=False, callback=request_id)
@home_option
@json_option
def collect(request: str | None, home: Path, as_json: bool) -> None:
    """Go on with this node's own requests that have not ended: waiting for a person, broken off, unanswered.

    The node does so by itself; with REQUEST it is done now.

    \b
    Example:
      yiqiao collect --home ~/node
      yiqiao collect 6f1c0b0d2a9e4b53a1d24f6f0c0b7a11 --home ~/node
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        done = node.exchange.collect(request)
        waiting = node.exchange.unfinished()
    if as_json:
        outcomes = [asdict(each) for each in done]
        click.echo(json.dumps({"outcomes": outcomes, "unfinished": waiting}, ensure_ascii=False))
        return
    for outcome in done:
        click.echo(f"{outcome.request}  {outcome.name or outcome.holder}  {outcome.status}  {outcome.message}".rstrip())
    for row in waiting:
        click.echo(f"{row['request']}  {row['holder']}  {row['state']}  next try {_moment(row['due'])}")
    if not done and not waiting:
        click.echo("no request of this node is unfinished / 没有未完成的请求")


def _decide(home: Path, request: str, *, approve: bool, note: str, by: str, as_json: bool) -> None:
    from bridge.services.audit_event import Party
    from bridge.wiring import open_node

    with open_node(home) as node:
        done = node.approvals.decide(request, approve=approve, note=note, by=Party(by, by))
    if as_json:
        click.echo(json.dumps(asdict(done)))
        return
    said = "approved; it leaves when its requester asks again / 已批准" if approve else "refused / 已拒绝"
    click.echo(f"{request} {said}")


def _moment(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
