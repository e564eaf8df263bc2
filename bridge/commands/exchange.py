"""`yiqiao lookup`: ask other institutions for a patient's records.

It works beside a served node, on the same database. Exit codes: 0 something was received and verified, 3
no institution holds records, 4 every holder refused, 5 nothing that holds was received (yet).
"""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.commands.consent import grant_id, identifier
from bridge.commands.node import home_option, json_option

if TYPE_CHECKING:
    from bridge.services.lookup import LookupResult
    from bridge.wiring import Node

NO_HOLDER, REFUSED, NOT_RECEIVED = 3, 4, 5
SHOWN_RECORDS = 50  # records listed for people; --json has all of them

_STATUS = {
    "received": "received and verified / 已接收并验证",
    "denied": "refused / 被拒绝",
    "rejected": "what came does not hold, nothing was stored / 验证未通过，未入库",
    "waiting": "a person there is asked first; this node asks again / 对方人工审批中，稍后自动获取",
    "interrupted": "broke off; this node goes on by itself / 传输中断，稍后自动续传",
    "unavailable": "no answer; this node asks again / 无应答，稍后自动重试",
}


def _open_node(home: Path) -> AbstractContextManager[Node]:
    """Build the node of a home and close it afterwards."""
    from bridge.settings import load_settings
    from bridge.wiring import build_node

    return closing(build_node(load_settings(home)))


@click.command("lookup")
@home_option
@click.option("--identifier", required=True, callback=identifier, metavar="SYSTEM|VALUE", help="Whom to look up.")
@click.option("--purpose", required=True, metavar="CODE", help="Purpose of use, for example TREAT.")
@click.option("--grant", callback=grant_id, metavar="ID", help="Use this grant, of its institution only.")
@click.option("--holder", metavar="ORG", help="Ask this institution alone (a referral's, a card's), not the authority.")
@click.option("--emergency", metavar="CODE", help="Emergency access by this coded reason, for example BTG.")
@click.option("--reason", metavar="TEXT", help="The emergency's reason in words; it is reviewed.")
@click.option("--practitioner", metavar="TEXT", help="Who asks; this institution signs for it.")
@click.option("--role", default="physician", show_default=True, help="Role of who asks.")
@click.option("--category", "categories", multiple=True, help="Ask for this category only. May be repeated.")
@json_option
def lookup(
    home: Path,
    identifier: tuple[str, str],
    purpose: str,
    grant: str | None,
    holder: str | None,
    emergency: str | None,
    reason: str | None,
    practitioner: str | None,
    role: str,
    categories: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find, request, receive and verify a patient's records of other institutions.

    \b
    Example:
      yiqiao lookup --home ~/node --identifier 'urn:oid:2.16.156.10011.1.3|110100198507120149' --purpose TREAT
      yiqiao lookup --home ~/node --identifier '…' --purpose TREAT --emergency BTG --reason '昏迷，无法取得同意'
      yiqiao lookup --home ~/node --identifier '…' --purpose TREAT --holder 12990000MB00000277
    """
    if (emergency is None) != (reason is None):
        raise click.UsageError("--emergency and --reason belong together / 两者须同时给出")
    if emergency is not None and grant is not None:
        raise click.UsageError("--grant and --emergency exclude each other / 两者不能同时使用")
    with _open_node(home) as node:
        result = node.exchange.lookup(
            *identifier,
            purpose,
            grant=grant,
            holder=holder,
            emergency=emergency,
            reason=reason,
            practitioner=practitioner,
            role=role,
            categories=frozenset(categories) or None,
            progress=None if as_json else lambda text: click.echo(text, err=True),
        )
    if as_json:
        click.echo(json.dumps({"holders": [asdict(each) for each in result.holders]}, ensure_ascii=False))
    else:
        _show(result)
    sys.exit(_exit_code(result))


def _show(result: LookupResult) -> None:
    for outcome in result.holders:
        click.echo(f"{outcome.name or outcome.holder}: {_STATUS[outcome.status]} ({outcome.seconds:.2f} s)")
        if outcome.status != "received":
            click.echo(f"  {outcome.message}")
            continue
        proven = sum(record.receipt != "pending" for record in outcome.records)
        count = f"{len(outcome.records)} records, {proven} with a receipt on the ledger"
        click.echo(f"  {count}; request {outcome.request}")
        if outcome.gap:
            click.echo("  the release is not on the ledger yet and is reported as a gap / 放行事件尚未上链")
        for record in outcome.records[:SHOWN_RECORDS]:
            click.echo(f"  {record.local}  <- {record.original}  SM3 {record.digest[:16]}… {record.receipt}")
        if len(outcome.records) > SHOWN_RECORDS:
            click.echo(f"  … and {len(outcome.records) - SHOWN_RECORDS} more; --json lists all")
    if not result.holders:
        click.echo("no institution has registered records of this patient / 没有机构登记该患者的记录")


def _exit_code(result: LookupResult) -> int:
    if result.received:
        return 0
    if not result.holders:
        return NO_HOLDER
    return REFUSED if all(outcome.status == "denied" for outcome in result.holders) else NOT_RECEIVED
