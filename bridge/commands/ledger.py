"""`yiqiao ledger`: a ledger that the members replicate among themselves with CometBFT."""

from __future__ import annotations

import json
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import click

from bridge.commands.node import home_option, json_option
from bridge.commands.output import FILE_OR_STDOUT, deliver
from bridge.errors import InvalidRequest

json_file = click.Path(dir_okay=False, path_type=Path)
existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)
address_option = click.option("--p2p-address", default="", metavar="HOST:PORT", help="As the other members reach it.")


@click.group("ledger")
def ledger() -> None:
    """Found, join, run and watch a ledger that the members replicate with CometBFT.

    \b
    Example (four members; every HOME was made by `yiqiao init HOME ... --replicated`):
      yiqiao ledger card --home HOME --p2p-address node1.example.cn:26656 --out card.json      every member
      yiqiao ledger init card2.json card3.json card4.json --home HOME --out ledger.json        the authority
      yiqiao ledger join ledger.json --home HOME                                               the others
      yiqiao serve --home HOME                                                                 all
    """


@ledger.command("card")
@home_option
@address_option
@click.option("--p2p-port", type=click.IntRange(1, 65535), help="Port to listen on for the other nodes.")
@click.option("--rpc-port", type=click.IntRange(1, 65535), help="Port of the consensus engine's RPC, on loopback.")
@click.option("--out", type=json_file, required=True, help=FILE_OR_STDOUT)
def card(home: Path, p2p_address: str, p2p_port: int | None, rpc_port: int | None, out: Path) -> None:
    """Make this node's keys, and write its card for the authority. The card holds no secret.

    \b
    Example:
      yiqiao ledger card --home ~/node --p2p-address node1.example.cn:26656 --out card.json
    """
    from bridge.ledger_setup import fingerprint, make_card
    from bridge.settings import load_settings
    from bridge.settings_file import change_settings

    given: dict[str, Any] = {"p2p_address": p2p_address, "p2p_port": p2p_port, "rpc_port": rpc_port}
    change_settings(home, {"cometbft": {name: value for name, value in given.items() if value}})
    settings = load_settings(home)
    content = make_card(settings, settings.cometbft.p2p_address)
    said = f"wrote {out}; its fingerprint, to compare over another channel / 已写入，请通过其他渠道核对指纹"
    deliver(content, out, said, fingerprint(content))


@ledger.command("init")
@click.argument("cards", nargs=-1, type=existing_file)
@home_option
@address_option
@click.option("--power", "powers", multiple=True, metavar="ORG=N", help="Voting power, where it is not 10; 0 follows.")
@click.option("--threshold", type=click.IntRange(1, 256), default=1, show_default=True,
              help="Authorities that a decision needs.")  # fmt: skip
@click.option("--minimum", type=click.IntRange(1, 100), default=4, show_default=True,
              help="Validators below which the set must not fall; fewer than four tolerate no fault.")  # fmt: skip
@click.option("--out", type=json_file, required=True, help="Ledger file to write, for every member.")
def init(
    cards: tuple[Path, ...],
    home: Path,
    p2p_address: str,
    powers: tuple[str, ...],
    threshold: int,
    minimum: int,
    out: Path,
) -> None:
    """Found a ledger, as an authority, from the other members' CARDS and this node's own keys.

    \b
    Example:
      yiqiao ledger init hospital-*.json --home ~/authority --p2p-address ledger.example.cn:26656 --out ledger.json
    """
    from bridge.ledger_files import Card, read_card
    from bridge.ledger_setup import found_ledger, join_ledger, make_card
    from bridge.settings import load_settings
    from bridge.settings_file import change_settings

    if p2p_address:
        change_settings(home, {"cometbft": {"p2p_address": p2p_address}})
    settings = load_settings(home)
    if "authority" not in settings.node.roles:
        raise InvalidRequest("a ledger is founded by an authority / 账本须由监管机构创建")
    own = json.loads(make_card(settings, settings.cometbft.p2p_address))
    member = {name: value for name, value in own["card"].items() if name not in ("v", "chain")}
    made = [read_card(file, settings.ledger.chain) for file in cards]
    every = [Card(member, own["node"]), *(one for one in made if one.org != settings.node.org)]
    file = found_ledger(settings, every, threshold=threshold, minimum=minimum, powers=_powers(powers))
    out.write_bytes(file.encode())
    join_ledger(settings, file)
    click.echo(f"wrote {out} for {len(every)} members, {len(file.validators)} of them validators / 账本文件已生成")
    click.echo(file.fingerprint())


@ledger.command("join")
@click.argument("file", type=existing_file)
@home_option
@click.option("--history", type=existing_file, help="For a ledger that moved from another engine: its history.")
@click.option("--via", metavar="URL", help="A member's base URL: registers this node, whose member was admitted later.")
@click.option("--state-sync", is_flag=True, help="Begin with the others' history instead of computing every block.")
def join(file: Path, home: Path, history: Path | None, via: str | None, state_sync: bool) -> None:
    """Join the ledger of the ledger FILE. Compare the fingerprint with the authority's over another channel.

    \b
    Example:
      yiqiao ledger join ledger.json --home ~/node
      yiqiao ledger join ledger.json --home ~/node --via https://ledger.example.cn --state-sync     a later member
    """
    from bridge.ledger_files import read_ledger_file
    from bridge.ledger_setup import join_ledger
    from bridge.settings import load_settings
    from bridge.settings_file import change_settings

    if state_sync:
        change_settings(home, {"cometbft": {"state_sync": True}})
    found = read_ledger_file(file)
    settings = join_ledger(load_settings(home), found, history)
    if via is not None:
        _register_via(settings, via)
    click.echo(f"joined {settings.ledger.chain}; fingerprint / 已加入，请核对指纹")
    click.echo(found.fingerprint())


def _register_via(settings: Any, url: str) -> None:
    """Put this node on the ledger through another member, so that the others let it in."""
    from anchor import transaction
    from anchor.errors import TransactionRejected
    from bridge.ledger_setup import ledger_over, register_node
    from bridge.ledger_wiring import ledger_host, read_genesis
    from bridge.node_keys import load_signer

    signer = load_signer(settings)
    org = settings.exchange.authority or ledger_host(settings, read_genesis(settings))
    chain = ledger_over(settings, url, org, signer)

    def submit(type: str, body: dict[str, Any]) -> None:
        envelope = transaction.build(
            chain=settings.ledger.chain, type=type, sender=signer.org, key=signer.sign, seq=chain.next_seq(signer.org),
            expires=int(time.time()) + 300, body=body,
        )  # fmt: skip
        (result,) = chain.submit([envelope])
        if not result.ok:
            raise TransactionRejected(result.code, result.message)

    try:
        register_node(settings, chain, settings.cometbft.p2p_address, submit)
    finally:
        chain.close()


@ledger.command("register")
@home_option
@address_option
def register(home: Path, p2p_address: str) -> None:
    """Put this node's keys and address on the ledger: before a pilot moves, and when they change.

    \b
    Example:
      yiqiao ledger register --home ~/node --p2p-address node1.example.cn:26656
    """
    from bridge.ledger_setup import register_node
    from bridge.settings_file import change_settings
    from bridge.wiring import open_node

    if p2p_address:
        change_settings(home, {"cometbft": {"p2p_address": p2p_address}})
    with open_node(home) as node:
        address = node.settings.cometbft.p2p_address
        done = register_node(node.settings, node.chain, address, node.submitter.submit)
    click.echo("registered / 已登记" if done else "registered already / 此前已登记")


@ledger.command("rotate-key")
@home_option
def rotate_key(home: Path) -> None:
    """Replace the key with which this node votes. Restart the node at once: until then it does not vote.

    \b
    Example:
      yiqiao ledger rotate-key --home ~/node
    """
    from bridge.ledger_setup import rotate_validator_key
    from bridge.wiring import open_node

    with open_node(home) as node:
        key = rotate_validator_key(node.settings, node.chain, node.submitter.submit)
    click.echo(f"the ledger has the key {key}; restart the node now / 密钥已登记，请立即重启节点")


@ledger.command("validator")
@click.argument("org")
@home_option
@click.option("--power", type=click.IntRange(0, 1000), default=10, show_default=True, help="0: votes no longer.")
@json_option
def validator(org: str, home: Path, power: int, as_json: bool) -> None:
    """Propose, as an authority, a member's voting power. At most a third of the power changes in one block.

    \b
    Example:
      yiqiao ledger validator 12990000MB00000277 --power 10 --home ~/authority
    """
    _propose(home, {"kind": "validator", "org": org, "power": power}, as_json)


@ledger.command("minimum")
@click.argument("count", type=click.IntRange(1, 100))
@home_option
@json_option
def minimum(count: int, home: Path, as_json: bool) -> None:
    """Propose, as an authority, how many validators there must be at least.

    \b
    Example:
      yiqiao ledger minimum 7 --home ~/authority
    """
    _propose(home, {"kind": "minimum-validators", "value": count}, as_json)


def _propose(home: Path, action: dict[str, Any], as_json: bool) -> None:
    from bridge.wiring import open_node

    proposal = secrets.token_hex(16)
    with open_node(home) as node:
        node.submitter.submit("membership.propose", {"proposal": proposal, "action": action})
        value = node.chain.state(f"proposal/{proposal}") or {}
    done = value.get("status") == "executed"
    if as_json:
        click.echo(json.dumps({"proposal": proposal, "executed": done}))
    else:
        click.echo(f"done ({proposal}) / 已生效" if done else f"proposal {proposal} needs further approvals / 等待批准")


@ledger.command("start")
@home_option
def start(home: Path) -> None:
    """Run this node's replica alone, until SIGTERM or Ctrl-C: for a machine that does nothing else.

    `yiqiao serve` runs it together with the rest of the node.

    \b
    Example:
      yiqiao ledger start --home ~/observer
    """
    from bridge.log import configure_logging
    from bridge.node_keys import load_signer
    from bridge.replica_process import run_replica
    from bridge.settings import load_settings
    from bridge.settings_rules import check_settings
    from bridge.supervisor import node_lock

    settings = load_settings(home)
    check_settings(settings)
    if settings.ledger.engine != "cometbft":
        raise InvalidRequest(f"this node's ledger.engine is {settings.ledger.engine} / 本节点未参与复制账本")
    with node_lock(settings.home):
        configure_logging("ledger")
        run_replica(settings, load_signer(settings).sign)


@ledger.command("status")
@home_option
@json_option
def status(home: Path, as_json: bool) -> None:
    """Show how far this node's replica is, its peers and the validators. Exit code 1 when it is not healthy.

    \b
    Example:
      yiqiao ledger status --home ~/node
    """
    from bridge.ledger_status import ledger_status, status_text
    from bridge.settings import load_settings

    found = ledger_status(load_settings(home))
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else status_text(found))
    sys.exit(0 if found["ok"] else 1)


@ledger.command("export-trust")
@home_option
@click.option("--out", type=json_file, required=True, help=FILE_OR_STDOUT)
@click.option("--quorum", type=click.IntRange(1, 256), help="Cosignatures needed  [default: a majority of the members]")
@click.option("--mandatory", multiple=True, metavar="ORG", help="A member whose cosignature is needed; repeatable.")
def export_trust(home: Path, out: Path, quorum: int | None, mandatory: tuple[str, ...]) -> None:
    """Write the trust file with the validators: an outsider checks finality and cosignatures offline with it.

    \b
    Example:
      yiqiao ledger export-trust --home ~/node --out trust.json
    """
    from anchor.chain.ledger_trust import trust_of
    from bridge.wiring import open_node

    with open_node(home) as node:
        built = trust_of(node.chain, node.settings.ledger.chain, quorum or 0, mandatory)
    said = f"wrote {out}; compare its fingerprint over another channel / 请通过其他渠道核对指纹"
    deliver(built.dump(), out, said, built.fingerprint())


@ledger.command("migrate")
@home_option
@click.option("--out", type=json_file, required=True, help="Ledger file to write, for every member.")
@click.option("--history", type=json_file, required=True, help="History file to write, for every member.")
def migrate(home: Path, out: Path, history: Path) -> None:
    """Move a pilot's ledger, which this stopped node hosts, to CometBFT: every transaction and receipt stays valid.

    Before: every member runs `yiqiao ledger register`, and the authority `yiqiao ledger validator` for each. After: the
    members run `yiqiao ledger join LEDGER --history HISTORY`, and all serve again.

    \b
    Example:
      yiqiao ledger migrate --home ~/authority --out ledger.json --history ledger.history
    """
    from bridge.ledger_setup import join_ledger, move_ledger
    from bridge.settings import load_settings
    from bridge.supervisor import node_lock

    settings = load_settings(home)
    if settings.ledger.engine != "embedded":
        raise InvalidRequest("a ledger moves from the node that hosts it (ledger.engine = embedded) / 仅托管节点可迁移")
    with node_lock(settings.home):
        file = move_ledger(settings, history)
        out.write_bytes(file.encode())
        join_ledger(settings, file, history)
    size = file.app_state["size"]
    click.echo(f"{size} transactions move; wrote {out} and {history} for {len(file.peers)} members / 迁移文件已生成")
    click.echo(file.fingerprint())


def _powers(values: tuple[str, ...]) -> dict[str, int]:
    powers: dict[str, int] = {}
    for value in values:
        org, _, number = value.partition("=")
        if not number.isdigit():
            raise click.BadParameter(f"{value} is not ORG=N", param_hint="--power")
        powers[org] = int(number)
    return powers
