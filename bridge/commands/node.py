"""`yiqiao init`, `serve` and `token`: create, run and open up a node."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import click

from bridge.settings import ROLES, Settings, load_settings
from bridge.tokens import ROLE_PERMISSIONS

ENVIRONMENTS = ["production", "demo", "test"]
DEFAULT_HTTP_PORT = 8080
DEFAULT_MLLP_PORT = 2575
SECONDS_PER_DAY = 86_400

home_option = click.option(
    "--home",
    required=True,
    envvar="YIQIAO_HOME",
    type=click.Path(path_type=Path),
    help="Home of the node; or YIQIAO_HOME.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for programs.")


@click.command("init")
@click.argument("home", type=click.Path(path_type=Path))
@click.option("--org", required=True, metavar="USCC", help="18-character unified social credit code 统一社会信用代码.")
@click.option("--name", required=True, help="Name of the institution.")
@click.option("--role", "roles", required=True, multiple=True, type=click.Choice(ROLES), help="May be repeated.")
@click.option("--endpoint", default="", help="Base URL for the other members  [default: http://127.0.0.1:HTTP-PORT]")
@click.option("--environment", type=click.Choice(ENVIRONMENTS), default="production", show_default=True)
@click.option("--http-host", default="127.0.0.1", show_default=True)
@click.option("--http-port", type=click.IntRange(1, 65535), default=DEFAULT_HTTP_PORT, show_default=True)
@click.option("--mllp-port", type=click.IntRange(0, 65535), default=DEFAULT_MLLP_PORT, show_default=True,
              help="0: no MLLP listener.")  # fmt: skip
@click.option(
    "--ledger-url", default="", help="Base URL of the member that hosts the ledger; without it, this node does."
)
@click.option(
    "--genesis", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The ledger's genesis file."
)
@click.option("--replicated", is_flag=True, help="The members replicate the ledger; found or join it: yiqiao ledger.")
@click.option("--chain", default="yiqiao", show_default=True, help="Name of a ledger that this node begins.")
@click.option(
    "--database", default="sqlite:///node.sqlite3", show_default=True, help="SQLAlchemy URL; paths below HOME."
)
@json_option
def init(home: Path, mllp_port: int, endpoint: str, http_port: int, as_json: bool, **plan: object) -> None:
    """Create the home of a node: keys, settings, database.

    An authority without --genesis begins a ledger; give HOME/genesis.json and its URL to those who join.

    \b
    Example:
      yiqiao init ~/authority --org 12990000MB0000019C --name "省卫健委" --role authority --chain zhejiang
      yiqiao init ~/node --org 12990000MB00000277 --name "第一医院" --role hospital \\
        --ledger-url https://ledger.example.cn --genesis genesis.json
      yiqiao init ~/observer --org 12990000MB00000285 --name "卫生监督所" --role observer \\
        --ledger-url https://ledger.example.cn --genesis genesis.json
    """
    from bridge.home import HomePlan, create_home
    from bridge.wiring import prepare_database

    settings = create_home(
        home,
        HomePlan(
            endpoint=endpoint or f"http://127.0.0.1:{http_port}",
            http_port=http_port,
            mllp=mllp_port != 0 and plan["roles"] != ("observer",),
            mllp_port=mllp_port or DEFAULT_MLLP_PORT,
            **plan,  # type: ignore[arg-type]
        ),
    )
    prepare_database(settings)
    _report_home(settings, as_json)


def _report_home(settings: Settings, as_json: bool) -> None:
    if as_json:
        created = {
            "home": str(settings.home),
            "org": settings.node.org,
            "chain": settings.ledger.chain,
            "genesis": str(settings.path(settings.ledger.genesis)),
            "endpoint": settings.node.endpoint,
        }
        click.echo(json.dumps(created))
        return
    keys = settings.path(settings.keys.directory)
    click.echo(f"created {settings.home} for {settings.node.name} ({settings.node.org}) / 节点已创建")
    click.echo(f"back up {keys}: without these keys the records cannot be opened / 请备份密钥")
    joined = settings.ledger.engine != "cometbft"
    click.echo(f"next: yiqiao {'serve' if joined else 'ledger card'} --home {settings.home}")


@click.command("serve")
@home_option
def serve(home: Path) -> None:
    """Run the node: HTTP, MLLP listener and scheduled jobs, until SIGTERM or Ctrl-C.

    \b
    Example:
      yiqiao serve --home ~/node
    """
    from bridge.log import configure_logging, get_logger
    from bridge.settings_rules import check_settings
    from bridge.supervisor import Supervisor, check_port, child_commands, node_lock

    settings = load_settings(home)
    check_settings(settings)
    with node_lock(settings.home) as lock:
        check_port(settings.http.host, settings.http.port, "http.port")
        if settings.mllp.enabled:
            check_port(settings.mllp.host, settings.mllp.port, "mllp.port")
        if settings.ledger.engine == "cometbft":
            check_port("127.0.0.1", settings.cometbft.rpc_port, "cometbft.rpc_port")
            check_port(settings.cometbft.p2p_host, settings.cometbft.p2p_port, "cometbft.p2p_port")
        from bridge.wiring import prepare_database  # the whole node: what refuses to start does so before loading it

        prepare_database(settings)
        configure_logging("supervisor")
        get_logger("supervisor").info("starting", org=settings.node.org, http=settings.http.port, pid=os.getpid())
        supervisor = Supervisor(
            child_commands(settings), drain_seconds=settings.worker.drain_seconds, pass_descriptors=[lock]
        )
        sys.exit(supervisor.run())


@click.group("token")
def token() -> None:
    """Create, list and revoke the tokens with which client applications call this node.

    \b
    Example:
      yiqiao token create --home ~/node --name emr-viewer --role reader
    """


@token.command("create")
@home_option
@click.option("--name", required=True, help="Which application it is for; it stands in the audit trail.")
@click.option("--role", required=True, type=click.Choice(sorted(ROLE_PERMISSIONS)))
@click.option("--days", type=click.IntRange(1, 3650), help="Days until it expires; without it, it does not.")
@json_option
def create(home: Path, name: str, role: str, days: int | None, as_json: bool) -> None:
    """Create a token and print it once; the node keeps only its digest.

    \b
    Example:
      yiqiao token create --home ~/node --name lab-engine --role sender --days 365
    """
    from bridge.tokens import create_token

    file = _tokens_file(home)
    entry, text = create_token(
        file, name=name, role=role, now=int(time.time()), seconds=days * SECONDS_PER_DAY if days else None
    )
    if as_json:
        click.echo(json.dumps({"id": entry.id, "token": text, "role": role, "expires": entry.expires}))
    else:
        click.echo(text)
        click.echo(f"token {entry.id} for {name}, role {role}; it is not shown again / 令牌仅显示一次", err=True)


@token.command("list")
@home_option
@json_option
def list_(home: Path, as_json: bool) -> None:
    """List the tokens, without the tokens themselves.

    \b
    Example:
      yiqiao token list --home ~/node
    """
    from bridge.tokens import read_tokens

    tokens = read_tokens(_tokens_file(home))
    if as_json:
        shown = [{key: value for key, value in asdict(each).items() if key != "sm3"} for each in tokens]
        click.echo(json.dumps(shown, ensure_ascii=False))
        return
    for each in tokens:
        until = time.strftime("%Y-%m-%d", time.localtime(each.expires)) if each.expires else "-"
        click.echo(f"{each.id}  {each.role:<10} {until:<10} {each.name}")


@token.command("revoke")
@home_option
@click.argument("token_id")
def revoke(home: Path, token_id: str) -> None:
    """Revoke a token by its id; it stops working at once.

    \b
    Example:
      yiqiao token revoke --home ~/node 3f9a1c2b4d5e
    """
    from bridge.tokens import revoke_token

    revoke_token(_tokens_file(home), token_id)
    click.echo(f"revoked {token_id} / 已吊销")


def _tokens_file(home: Path) -> Path:
    settings = load_settings(home)
    return settings.path(settings.security.tokens)
