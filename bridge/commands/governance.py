"""`yiqiao member` and `yiqiao trust`: who is in the consortium, with which keys, and what an outsider has to know."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.commands.node import home_option, json_option
from bridge.commands.output import FILE_OR_STDOUT, deliver
from bridge.errors import InvalidRequest

if TYPE_CHECKING:
    from bridge.wiring import Node

MAX_CARD_BYTES = 64 * 1024
"""Bytes: a card with eight keys takes about three thousand."""
DEFAULT_OVERLAP_DAYS = 7

json_file = click.Path(dir_okay=False, path_type=Path)


@click.group("member")
def member() -> None:
    """Ask to be admitted; admit, suspend and list members; rotate keys.

    \b
    Example:
      yiqiao member card --home ~/node --out card.json        at the hospital
      yiqiao member admit card.json --home ~/authority        at the authority
    """


@member.command("card")
@home_option
@click.option("--out", type=json_file, required=True, help=FILE_OR_STDOUT)
def card(home: Path, out: Path) -> None:
    """Write this node's card: name, address, public keys and the proof that it has them. It holds no secret.

    \b
    Example:
      yiqiao member card --home ~/node --out card.json
    """
    from anchor.transaction import encode
    from bridge.ledger_setup import member_card
    from bridge.node_keys import load_signer
    from bridge.settings import load_settings

    settings = load_settings(home)
    signer = load_signer(settings)
    said = f"wrote {out}; signing key {signer.sign.public_key.key_id} / 已写入，请核对密钥编号"
    deliver(encode(member_card(settings, signer)), out, said)


@member.command("admit")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@home_option
@json_option
def admit(file: Path, home: Path, as_json: bool) -> None:
    """Propose, as an authority, to admit the institution whose card is FILE.

    \b
    Example:
      yiqiao member admit card.json --home ~/authority
    """
    from anchor.contracts import members

    action = {"kind": "admit", "member": members.admission(_read_card(file))}
    _propose(home, action, as_json)


@member.command("suspend")
@click.argument("org")
@home_option
@json_option
def suspend(org: str, home: Path, as_json: bool) -> None:
    """Propose, as an authority, to suspend a member: its writes stop at once, its past stays valid.

    \b
    Example:
      yiqiao member suspend 12990000MB00000277 --home ~/authority
    """
    _propose(home, {"kind": "suspend", "org": org}, as_json)


@member.command("reinstate")
@click.argument("org")
@home_option
@json_option
def reinstate(org: str, home: Path, as_json: bool) -> None:
    """Propose, as an authority, to end a member's suspension.

    \b
    Example:
      yiqiao member reinstate 12990000MB00000277 --home ~/authority
    """
    _propose(home, {"kind": "reinstate", "org": org}, as_json)


@member.command("replace-keys")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@home_option
@json_option
def replace_keys(file: Path, home: Path, as_json: bool) -> None:
    """Propose, as an authority, to end a member's keys, which it has lost, and to take those of its new card FILE.

    \b
    Example:
      yiqiao member replace-keys card.json --home ~/authority
    """
    value = _read_card(file)
    wanted = {"org", "keys", "proofs"}
    if not wanted <= value.keys():
        raise InvalidRequest(f"{file} is not a member's card / 不是成员名片文件")
    _propose(home, {"kind": "replace-key", **{name: value[name] for name in wanted}}, as_json)


@member.command("threshold")
@click.argument("count", type=click.IntRange(1, 256))
@home_option
@json_option
def threshold(count: int, home: Path, as_json: bool) -> None:
    """Propose, as an authority, how many authorities a decision needs from now on.

    \b
    Example:
      yiqiao member threshold 2 --home ~/authority
    """
    _propose(home, {"kind": "threshold", "value": count}, as_json)


@member.command("approve")
@click.argument("proposal")
@home_option
@json_option
def approve(proposal: str, home: Path, as_json: bool) -> None:
    """Approve, as an authority, another authority's proposal (`yiqiao member proposals` lists them).

    \b
    Example:
      yiqiao member approve 5f0c2a... --home ~/authority
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        node.submitter.submit("membership.approve", {"proposal": proposal})
        _report_proposal(node, proposal, as_json)


@member.command("proposals")
@home_option
@json_option
def proposals(home: Path, as_json: bool) -> None:
    """List the proposals that wait for approvals.

    \b
    Example:
      yiqiao member proposals --home ~/authority
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        now = int(time.time())
        every = node.chain.state_with_prefix("proposal/").values()
    waiting = [one for one in every if one["status"] == "open" and one["until"] > now]
    if as_json:
        click.echo(json.dumps(waiting, ensure_ascii=False))
        return
    for one in waiting:
        action = one["action"]
        subject = action.get("org") or action.get("member", {}).get("org") or action.get("value")
        click.echo(f"{one['proposal']}  {action['kind']:<12} {subject}  approved by {len(one['approvals'])}")


@member.command("list")
@home_option
@json_option
def list_(home: Path, as_json: bool) -> None:
    """List the members with their roles, standing and keys.

    \b
    Example:
      yiqiao member list --home ~/node
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        members = list(node.chain.state_with_prefix("member/").values())
    if as_json:
        click.echo(json.dumps(members, ensure_ascii=False))
        return
    for one in members:
        live = [key["id"] for key in one["keys"] if key["use"] == "sign" and key["until"] is None]
        roles = ",".join(one["roles"])
        click.echo(f"{one['org']}  {one['status']:<9} {roles:<20} {one['name']}  {' '.join(live)}  {one['endpoint']}")


@member.command("rotate-key")
@home_option
@click.option("--use", type=click.Choice(["sign", "encrypt"]), default="sign", show_default=True)
@click.option("--overlap-days", type=click.IntRange(0, 365), default=DEFAULT_OVERLAP_DAYS, show_default=True,
              help="How long the old key stays valid.")  # fmt: skip
def rotate_key(home: Path, use: str, overlap_days: int) -> None:
    """Give this node a new key, register it on the ledger, and retire the old one after an overlap.

    The old key's file is kept beside the new one. Restart the node afterwards, within the overlap.

    \b
    Example:
      yiqiao member rotate-key --home ~/node --overlap-days 14
    """
    from bridge.key_rotation import rotate
    from bridge.wiring import open_node

    with open_node(home) as node:
        old, new = rotate(node, use, overlap_days * 86_400)
    click.echo(f"key {new} replaces {old}; restart the node within {overlap_days} days / 密钥已更换，请重启节点")


@click.command("trust")
@home_option
@click.option("--out", type=json_file, required=True, help=FILE_OR_STDOUT)
@click.option("--quorum", type=click.IntRange(1, 256), help="Cosignatures needed  [default: a majority of the members]")
@click.option("--mandatory", multiple=True, metavar="ORG", help="A member whose cosignature is needed; repeatable.")
@click.option("--tsa", type=json_file, multiple=True, metavar="FILE",
              help="Certificate of a time-stamping authority, PEM or DER; repeatable.")  # fmt: skip
def trust(home: Path, out: Path, quorum: int | None, mandatory: tuple[str, ...], tsa: tuple[Path, ...]) -> None:
    """Write the trust file: all that an outsider needs to check this consortium's receipts offline.

    \b
    Example:
      yiqiao trust --home ~/node --out trust.json
    """
    from anchor.chain.ledger_trust import trust_of
    from bridge.services.timestamping import read_certificates
    from bridge.wiring import open_node

    with open_node(home) as node:
        stamping = tuple(each for file in tsa for each in read_certificates(file))
        built = trust_of(node.chain, node.settings.ledger.chain, quorum or 0, mandatory, stamping)
    said = f"wrote {out}; compare its fingerprint over another channel / 请通过其他渠道核对指纹"
    deliver(built.dump(), out, said, built.fingerprint())


def _read_card(file: Path) -> dict[str, Any]:
    from anchor import canonical
    from anchor.errors import CanonicalError

    content = file.read_bytes()
    try:
        value = canonical.load(content) if len(content) <= MAX_CARD_BYTES else None
    except CanonicalError:
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest(f"{file} is not a member's card / 不是成员名片文件")
    return value


def _propose(home: Path, action: Mapping[str, Any], as_json: bool) -> None:
    from bridge.wiring import open_node

    proposal = secrets.token_hex(16)
    with open_node(home) as node:
        node.submitter.submit("membership.propose", {"proposal": proposal, "action": dict(action)})
        _report_proposal(node, proposal, as_json)


def _report_proposal(node: Node, proposal: str, as_json: bool) -> None:
    """Say whether a proposal has been carried out, or how many approvals it still needs."""
    value = node.chain.state(f"proposal/{proposal}") or {}
    chain = node.chain.state("chain") or {}
    approvals, needed = len(value.get("approvals", ())), chain.get("threshold", 0)
    done = value.get("status") == "executed"
    if as_json:
        answer = {"proposal": proposal, "executed": done, "approvals": approvals, "needed": needed}
        click.echo(json.dumps(answer))
    elif done:
        click.echo(f"done: {value['action']['kind']} ({proposal}) / 已生效")
    else:
        click.echo(f"proposal {proposal} has {approvals} of {needed} approvals / 提案等待其他监管机构批准")
