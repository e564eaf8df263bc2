"""`yiqiao pseudonyms`: the versions of the card authority's key, and registering patients anew under the newest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.commands.node import home_option, json_option

if TYPE_CHECKING:
    from bridge.wiring import Node


@click.group("pseudonyms")
def pseudonyms() -> None:
    """Pseudonyms of patients: replace the card authority's key, and follow it as a holder.

    \b
    Example:
      yiqiao pseudonyms rotate --home ~/authority        (authority: from now on, a new version)
      yiqiao pseudonyms reregister --home ~/node         (every holder, or wait for the scheduled job)
      yiqiao pseudonyms retire 1 --home ~/authority      (authority: when nobody stands under it any more)
    """


@pseudonyms.command("versions")
@home_option
@json_option
def versions(home: Path, as_json: bool) -> None:
    """List the versions of the key that are served, and how many registrations stand under each.

    \b
    Example:
      yiqiao pseudonyms versions --home ~/authority
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        scope = _authority_scope(node)
        found = [
            {"version": each, "registrations": node.pseudonyms.registered(each)}
            for each in node.pseudonyms.versions(scope)
        ]
    if as_json:
        click.echo(json.dumps({"scope": scope, "versions": found}))
        return
    for each in found:
        click.echo(f"version {each['version']}: {each['registrations']} registrations / 条登记")


@pseudonyms.command("rotate")
@home_option
def rotate(home: Path) -> None:
    """Make the next version of the key. Earlier versions stay served until they are retired.

    \b
    Example:
      yiqiao pseudonyms rotate --home ~/authority
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        version = node.pseudonyms.rotate(_authority_scope(node))
    click.echo(f"version {version} is used from now on; back up the keys; holders follow by themselves / 已启用新版本")


@pseudonyms.command("retire")
@click.argument("version", type=click.IntRange(min=1))
@home_option
def retire(version: int, home: Path) -> None:
    """Stop serving an earlier version of the key, once no registration stands under it.

    \b
    Example:
      yiqiao pseudonyms retire 1 --home ~/authority
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        node.pseudonyms.retire(_authority_scope(node), version)
    click.echo(f"version {version} is retired / 已停用")


@pseudonyms.command("reregister")
@home_option
@json_option
def reregister(home: Path, as_json: bool) -> None:
    """Register this institution's patients anew under the newest version. May be stopped and run again.

    \b
    Example:
      yiqiao pseudonyms reregister --home ~/node
    """
    from bridge.commands.progress import counting
    from bridge.wiring import open_node

    with open_node(home) as node, counting("patients / 患者", None) as shown:
        done = node.exchange_parts.registrar.reregister(lambda done, _: shown.reached(done))
    click.echo(json.dumps({"registered": done}) if as_json else f"{done} patients registered anew / 已重新登记")


def _authority_scope(node: Node) -> str:
    """Return the scope of the pseudonyms that this node computes; raises ``UsageError`` where it computes none."""
    exchange = node.settings.exchange
    if exchange.authority != node.settings.node.org:
        raise click.UsageError("this node is not the card authority / 本节点不是假名服务机构")
    return exchange.scope
