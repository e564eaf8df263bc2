"""`yiqiao lookup`, `grant` and `revoke`: ask other institutions for a patient's records; allow them to ask for ours.

They work beside a served node, on the same database. Exit codes of `lookup`: 0 something was received and verified, 3
no institution holds records, 4 every holder refused, 5 nothing that holds was received.
"""

from __future__ import annotations

import json
import re
import sys
import time
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bridge.services.exchange import LookupResult
    from bridge.wiring import Node

CHINA_TIME = timezone(timedelta(hours=8))
NO_HOLDER, REFUSED, NOT_RECEIVED = 3, 4, 5
SHOWN_RECORDS = 50  # records listed for people; --json has all of them

_ID = re.compile(r"[0-9a-f]{32}")
_STATUS = {
    "received": "received and verified / 已接收并验证",
    "denied": "refused / 被拒绝",
    "rejected": "what came does not hold, nothing was stored / 验证未通过，未入库",
    "unavailable": "no answer / 无应答",
}

home_option = click.option(
    "--home",
    required=True,
    envvar="YIQIAO_HOME",
    type=click.Path(path_type=Path),
    help="Home of the node; or YIQIAO_HOME.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for programs.")


def _open_node(home: Path) -> AbstractContextManager[Node]:
    """Build the node of a home and close it afterwards."""
    from bridge.settings import load_settings
    from bridge.wiring import build_node

    return closing(build_node(load_settings(home)))


def _identifier(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, str]:
    system, separator, number = value.partition("|")
    if not separator or not system.strip() or not number.strip():
        raise click.BadParameter("write it as SYSTEM|VALUE, for example urn:oid:2.16.156.10011.1.3|<number>")
    return system.strip(), number.strip()


def _grant_id(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _ID.fullmatch(value):
        raise click.BadParameter("a grant id has 32 hexadecimal digits / 授权号为32位十六进制")
    return value


def _moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Read a date (then the whole day counts, China time) or a date and time; returns Unix seconds."""
    if value is None:
        return None
    try:
        if len(value) == 10:
            day = date.fromisoformat(value) + timedelta(days=1)
            return int(datetime(day.year, day.month, day.day, tzinfo=CHINA_TIME).timestamp())
        moment = datetime.fromisoformat(value)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter("write a date as 2026-12-31 or 2026-12-31T18:00 / 日期格式错误") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=CHINA_TIME)).timestamp())


@click.command("lookup")
@home_option
@click.option("--identifier", required=True, callback=_identifier, metavar="SYSTEM|VALUE", help="Whom to look up.")
@click.option("--purpose", required=True, metavar="CODE", help="Purpose of use, for example TREAT.")
@click.option("--grant", "grant_id", callback=_grant_id, metavar="ID", help="Use this grant, of its institution only.")
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
    grant_id: str | None,
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
    """
    if (emergency is None) != (reason is None):
        raise click.UsageError("--emergency and --reason belong together / 两者须同时给出")
    if emergency is not None and grant_id is not None:
        raise click.UsageError("--grant and --emergency exclude each other / 两者不能同时使用")
    with _open_node(home) as node:
        result = node.exchange.lookup(
            *identifier,
            purpose,
            grant=grant_id,
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


@click.command("grant")
@home_option
@click.option("--patient", required=True, callback=_identifier, metavar="SYSTEM|VALUE", help="A patient of this node.")
@click.option("--to", "grantees", required=True, metavar="ORG[,ORG]", help="Who may ask: social credit codes.")
@click.option("--purpose", "purposes", required=True, multiple=True, metavar="CODE", help="May be repeated.")
@click.option("--until", required=True, callback=_moment, metavar="DATE", help="Last day it is valid, or a time.")
@click.option("--from", "valid_from", callback=_moment, metavar="TIME", help="From when on; a time.  [default: now]")
@click.option("--category", "categories", multiple=True, help="Limit to a category or resource type; repeatable.")
@click.option("--label", "labels", multiple=True, help="Also records with this security label; repeatable.")
@click.option("--records-from", metavar="DATE", help="Limit to records of care from this day on.")
@click.option("--records-until", metavar="DATE", help="Limit to records of care up to this day.")
@json_option
def grant(
    home: Path,
    patient: tuple[str, str],
    grantees: str,
    purposes: tuple[str, ...],
    until: int,
    valid_from: int | None,
    categories: tuple[str, ...],
    labels: tuple[str, ...],
    records_from: str | None,
    records_until: str | None,
    as_json: bool,
) -> None:
    """Record a patient's consent, and grant other institutions access; prints the grant's id.

    \b
    Example:
      yiqiao grant --home ~/node --patient 'urn:oid:2.16.156.10011.1.3|110100198507120149' \\
        --to 12990000MB00000352 --purpose TREAT --until 2026-12-31 --category laboratory
    """
    from bridge.services.consent import GrantTerms

    for name, value in (("--records-from", records_from), ("--records-until", records_until)):
        _check_day(name, value)
    orgs = tuple(org for part in grantees.split(",") if (org := part.strip()))
    with _open_node(home) as node:
        terms = GrantTerms(
            grantees=tuple(dict.fromkeys(orgs)),
            purposes=tuple(dict.fromkeys(purposes)),
            valid_until=until,
            valid_from=int(time.time()) if valid_from is None else valid_from,
            categories=categories or None,
            labels=labels,
            period=(records_from, records_until),
        )
        given = node.consent.grant(node.consent.find_patient(*patient), terms)
    _report(asdict(given), given.id, waiting=given.state == "pending", as_json=as_json)


def _check_day(name: str, value: str | None) -> None:
    try:
        if value is not None and date.fromisoformat(value).isoformat() != value:
            raise ValueError
    except ValueError as error:
        raise click.BadParameter("write a day as 2026-12-31 / 日期格式错误", param_hint=name) from error


@click.command("revoke")
@home_option
@click.argument("grant_id", metavar="GRANT", callback=_grant_id)
@json_option
def revoke(home: Path, grant_id: str, as_json: bool) -> None:
    """Revoke a grant: here at once, for everybody with the ledger's next block.

    \b
    Example:
      yiqiao revoke --home ~/node 6f1c0b0d2a9e4b53a1d24f6f0c0b7a11
    """
    with _open_node(home) as node:
        ended = node.consent.revoke(grant_id)
    _report(asdict(ended), f"{ended.id} revoked / 已撤销", waiting=ended.state == "revoking", as_json=as_json)


def _report(value: dict[str, Any], text: str, *, waiting: bool, as_json: bool) -> None:
    click.echo(json.dumps(value, ensure_ascii=False) if as_json else text)
    if waiting:
        click.echo(
            "kept here; the ledger does not answer and is told as soon as it does / 已在本地生效，账本恢复后自动上链",
            err=True,
        )
        sys.exit(1)
