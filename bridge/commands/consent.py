"""`yiqiao grant`, `amend`, `revoke` and `consent`: what patients allow other institutions, recorded by this one."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import asdict, replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.commands.node import home_option, json_option

if TYPE_CHECKING:
    from bridge.services.decision import Exclusion
    from bridge.services.grant_settlement import Grant
    from bridge.services.grant_terms import GrantTerms

_ID = re.compile(r"[0-9a-f]{32}")
_EXCEPTION_FIELDS = ("category", "label", "from", "until", "org")


def identifier(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, str] | None:
    """Read SYSTEM|VALUE."""
    if value is None:
        return None
    system, separator, number = value.partition("|")
    if not separator or not system.strip() or not number.strip():
        raise click.BadParameter("write it as SYSTEM|VALUE, for example urn:oid:2.16.156.10011.1.3|<number>")
    return system.strip(), number.strip()


def grant_id(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Read a grant's id."""
    if value is not None and not _ID.fullmatch(value):
        raise click.BadParameter("a grant id has 32 hexadecimal digits / 授权号为32位十六进制")
    return value


def moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Read a date (then the whole day counts, China time) or a date and time; returns Unix seconds."""
    from bridge.services.grant_terms import CHINA_TIME, end_of_day

    if value is None:
        return None
    try:
        if len(value) == 10:
            return end_of_day(date.fromisoformat(value))
        found = datetime.fromisoformat(value)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter("write a date as 2026-12-31 or 2026-12-31T18:00 / 日期格式错误") from error
    return int((found if found.tzinfo else found.replace(tzinfo=CHINA_TIME)).timestamp())


def _exceptions(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Exclusion, ...]:
    """Read exceptions written as category=laboratory,from=2025-01-01,until=2025-12-31,label=R,org=…"""
    from bridge.services.decision import Exclusion

    found = []
    for value in values:
        parts: dict[str, list[str]] = {}
        for part in value.split(","):
            name, separator, text = part.partition("=")
            if not separator or name not in _EXCEPTION_FIELDS or not text:
                raise click.BadParameter(f"write name=value, names of: {', '.join(_EXCEPTION_FIELDS)} / 例外格式错误")
            parts.setdefault(name, []).append(text)
        days = [parts.get(name, [None])[0] for name in ("from", "until")]
        categories = tuple(parts["category"]) if "category" in parts else None
        found.append(
            Exclusion(categories, tuple(parts.get("label", ())), (days[0], days[1]), tuple(parts.get("org", ())))
        )
    return tuple(found)


def _limits(command: Any) -> Any:
    """Add the options that say what a grant covers."""
    options = (
        click.option("--category", "categories", multiple=True, help="Limit to a category or type; repeatable."),
        click.option("--label", "labels", multiple=True, help="Also records with this security label; repeatable."),
        click.option("--records-from", metavar="DATE", help="Limit to records of care from this day on."),
        click.option("--records-until", metavar="DATE", help="Limit to records of care up to this day."),
        click.option("--except", "exclusions", multiple=True, callback=_exceptions, metavar="NAME=VALUE[,…]",
                     help="Leave out what fits all of: category=, label=, from=, until=, org=. Repeatable."),
        click.option("--role", "roles", multiple=True, help="Limit to practitioners of this role; repeatable."),
        click.option("--copies-days", type=click.IntRange(1), help="How many days a recipient may keep copies."),
        click.option("--paper", metavar="TEXT", help="The patient confirmed on paper: where the signed form is kept."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command("grant")
@home_option
@click.option("--patient", required=True, callback=identifier, metavar="SYSTEM|VALUE", help="A patient of this node.")
@click.option("--to", "grantees", required=True, metavar="ORG[,ORG]", help="Who may ask: social credit codes.")
@click.option("--purpose", "purposes", required=True, multiple=True, metavar="CODE", help="May be repeated.")
@click.option("--until", required=True, callback=moment, metavar="DATE", help="Last day it is valid, or a time.")
@click.option("--from", "valid_from", callback=moment, metavar="TIME", help="From when on; a time.  [default: now]")
@_limits
@click.option("--guardian", metavar="RelatedPerson/ID", help="Who consents for a child: a record of this node.")
@click.option("--draft", is_flag=True, help="Wait for the patient's confirmation by a one-time code.")
@json_option
def grant(
    home: Path,
    patient: tuple[str, str],
    grantees: str,
    purposes: tuple[str, ...],
    until: int,
    valid_from: int | None,
    guardian: str | None,
    draft: bool,
    as_json: bool,
    **limits: Any,
) -> None:
    """Record a patient's consent, and grant other institutions access; prints the grant's id.

    \b
    Example:
      yiqiao grant --home ~/node --patient 'urn:oid:2.16.156.10011.1.3|11010519491231002X' \\
        --to 12330000470050002X --purpose TREAT --until 2026-12-31 --category laboratory
    """
    from bridge.services.grant_terms import GrantTerms
    from bridge.wiring import open_node

    terms = GrantTerms(
        grantees=_orgs(grantees),
        purposes=tuple(dict.fromkeys(purposes)),
        valid_until=until,
        valid_from=int(time.time()) if valid_from is None else valid_from,
        guardian=guardian,
        **_limit_fields(limits),
    )
    with open_node(home) as node:
        found = node.consent.find_patient(*patient)
        if draft:
            given = node.consent.propose(found, terms)
        else:
            paper = limits["paper"]
            by = guardian or f"Patient/{found}"
            confirmed = terms.confirmed(node.consent.confirmations.on_paper(paper, by)) if paper else terms
            given = node.consent.grant(found, confirmed)
    _report(given, given.id, as_json=as_json)


@click.command("amend")
@home_option
@click.argument("grant", metavar="GRANT", callback=grant_id)
@click.option("--to", "grantees", metavar="ORG[,ORG]", help="Who may ask from now on.")
@click.option(
    "--purpose", "purposes", multiple=True, metavar="CODE", help="Instead of the purposes so far; repeatable."
)
@click.option("--until", callback=moment, metavar="DATE", help="Another end.")
@_limits
@json_option
def amend(
    home: Path,
    grant: str,
    grantees: str | None,
    purposes: tuple[str, ...],
    until: int | None,
    as_json: bool,
    **limits: Any,
) -> None:
    """Change a grant: what is named is replaced, the rest stays. What is narrowed counts here at once.

    \b
    Example:
      yiqiao amend 6f1c0b0d2a9e4b53a1d24f6f0c0b7a11 --home ~/node --until 2026-06-30 --category laboratory
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        before = node.consent.terms_of(grant)
        named = {name: value for name, value in _limit_fields(limits).items() if value not in (None, (), (None, None))}
        if grantees:
            named["grantees"] = _orgs(grantees)
        if purposes:
            named["purposes"] = tuple(dict.fromkeys(purposes))
        if until is not None:
            named["valid_until"] = until
        if not named:
            raise click.UsageError("name what is to change / 请指明变更内容")
        terms: GrantTerms = replace(before, **named)
        if limits["paper"]:
            by = before.guardian or "Patient/" + _patient(node, grant)
            terms = terms.confirmed(node.consent.confirmations.on_paper(limits["paper"], by))
        given = node.consent.amend(grant, terms)
    _report(given, f"{given.id} changed / 已变更", as_json=as_json)


@click.command("revoke")
@home_option
@click.argument("grant", metavar="GRANT", callback=grant_id)
@json_option
def revoke(home: Path, grant: str, as_json: bool) -> None:
    """Revoke a grant: here at once, for everybody with the ledger's next block.

    \b
    Example:
      yiqiao revoke --home ~/node 6f1c0b0d2a9e4b53a1d24f6f0c0b7a11
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        ended = node.consent.revoke(grant)
    _report(ended, f"{ended.id} revoked / 已撤销", as_json=as_json)


@click.group("consent")
def consent() -> None:
    """Confirm and list patients' consents.

    \b
    Example:
      yiqiao consent confirm 6f1c0b0d2a9e4b53a1d24f6f0c0b7a11 --home ~/node --code 204811
    """


@consent.command("confirm")
@home_option
@click.argument("grant", metavar="GRANT", callback=grant_id)
@click.option("--code", default="", help="The one-time code that the patient was told.")
@click.option("--signature", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="File with the patient's signature (GM/T 0010, base64).")  # fmt: skip
@click.option("--paper", default="", metavar="TEXT", help="Where the signed form is kept.")
@json_option
def confirm(home: Path, grant: str, code: str, signature: Path | None, paper: str, as_json: bool) -> None:
    """Record the patient's confirmation of a draft; the grant then goes to the ledger.

    \b
    Example:
      yiqiao consent confirm 6f1c0b0d2a9e4b53a1d24f6f0c0b7a11 --home ~/node --code 204811
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        data = signature.read_text("ascii").strip() if signature else ""
        given = node.consent.confirm(grant, code=code, signature=data, paper=paper)
    _report(given, f"{given.id} confirmed / 已确认", as_json=as_json)


@consent.command("list")
@home_option
@click.option("--patient", required=True, callback=identifier, metavar="SYSTEM|VALUE")
@json_option
def list_(home: Path, patient: tuple[str, str], as_json: bool) -> None:
    """List a patient's grants with their terms.

    \b
    Example:
      yiqiao consent list --home ~/node --patient 'urn:oid:2.16.156.10011.1.3|11010519491231002X'
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        grants = node.consent.grants_of(node.consent.find_patient(*patient))
        shown = [{**asdict(each), "terms": node.consent.terms_of(each.id).value()} for each in grants]
    if as_json:
        click.echo(json.dumps(shown, ensure_ascii=False))
        return
    for each in shown:
        terms = each["terms"]
        until = time.strftime("%Y-%m-%d", time.localtime(terms["until"]))
        purposes, orgs = ",".join(terms["purposes"]), ",".join(terms["grantees"])
        click.echo(f"{each['id']}  {each['state']:<9} {purposes:<14} to {orgs} until {until}")


def _patient(node: Any, grant: str) -> str:
    from bridge.storage.database import read_transaction

    with read_transaction(node.engine) as connection:
        found: str = node.consent.patient_of(connection, grant)
    return found


def _orgs(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(org for part in text.split(",") if (org := part.strip())))


def _limit_fields(limits: dict[str, Any]) -> dict[str, Any]:
    """Return the options of ``_limits`` as fields of the terms."""
    for name in ("records_from", "records_until"):
        _check_day("--" + name.replace("_", "-"), limits[name])
    return {
        "categories": tuple(dict.fromkeys(limits["categories"])) or None,
        "labels": tuple(dict.fromkeys(limits["labels"])),
        "period": (limits["records_from"], limits["records_until"]),
        "exclusions": limits["exclusions"],
        "roles": tuple(dict.fromkeys(limits["roles"])),
        "copies_days": limits["copies_days"],
    }


def _check_day(name: str, value: str | None) -> None:
    try:
        if value is not None and date.fromisoformat(value).isoformat() != value:
            raise ValueError
    except ValueError as error:
        raise click.BadParameter("write a day as 2026-12-31 / 日期格式错误", param_hint=name) from error


def _report(given: Grant, text: str, *, as_json: bool) -> None:
    click.echo(json.dumps(asdict(given), ensure_ascii=False) if as_json else text)
    if given.state in ("pending", "amending", "revoking"):
        click.echo(
            "kept here; the ledger does not answer and is told as soon as it does / 已在本地生效，账本恢复后自动上链",
            err=True,
        )
        sys.exit(1)
