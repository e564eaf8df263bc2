"""`yiqiao pki`: the consortium's certificate authority, and this node's certificates."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from bridge.commands.node import home_option, json_option

if TYPE_CHECKING:
    from bridge.pki.enrolment import CertificateRequest, Certificates
    from bridge.wiring import Node

json_file = click.Path(dir_okay=False, path_type=Path)
existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)
DEFAULT_YEARS = 10
DEFAULT_DAYS = 397
MAX_DAYS = 825
DEFAULT_PORT = 8443


@click.group("pki")
def pki() -> None:
    """Certificates for mutual TLS between nodes, and SM2 certificates over the ledger keys.

    \b
    Example:
      yiqiao pki init --home ~/authority                                    at the authority, once
      yiqiao pki request --home ~/node --out request.json                   at a member
      yiqiao pki issue request.json --home ~/authority --out answer.json    at the authority
      yiqiao pki install answer.json --home ~/node                          at the member
    """


@pki.command("init")
@home_option
@click.option("--years", type=click.IntRange(1, 30), default=DEFAULT_YEARS, show_default=True)
@click.option("--new", is_flag=True, help="Begin another TLS authority beside the one there is, to replace it.")
def init(home: Path, years: int, new: bool) -> None:
    """Make this authority's node the consortium's certificate authority.

    Its private keys lie among the node's keys: protect those (yiqiao keys protect) and back them up.

    \b
    Example:
      yiqiao pki init --home ~/authority
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        if "authority" not in node.settings.node.roles:
            raise click.ClickException("only a node with the role authority issues certificates / 仅监管节点可签发证书")
        number = node.certificates.create(years, another=new)
    click.echo(f"TLS authority {number} and the SM2 authority are ready; next: yiqiao pki issue --own / 证书机构已建立")


@pki.command("request")
@home_option
@click.option(
    "--host", "hosts", multiple=True, help="Name or address  [default: the host of node.endpoint]; repeatable."
)
@click.option("--out", type=json_file, required=True, help="File to write.")
def request(home: Path, hosts: tuple[str, ...], out: Path) -> None:
    """Make a new TLS key and a request for its certificate, signed by this node's ledger key.

    The current certificate stays in use until the new one is installed. Use it for the first one and to renew.

    \b
    Example:
      yiqiao pki request --home ~/node --out request.json
    """
    asked = _request(home, hosts)
    asked.write(out)
    click.echo(f"wrote {out}; give it to the authority: yiqiao pki issue / 已写入证书请求")


@pki.command("issue")
@click.argument("file", type=existing_file, required=False)
@home_option
@click.option("--own", is_flag=True, help="For this node itself: request, issue and install in one step.")
@click.option("--allow-host", "more", multiple=True, help="A host beside the one of the ledger's address; repeatable.")
@click.option("--days", type=click.IntRange(1, MAX_DAYS), default=DEFAULT_DAYS, show_default=True)
@click.option("--out", type=json_file, help="File to write the certificates to.")
def issue(file: Path | None, home: Path, own: bool, more: tuple[str, ...], days: int, out: Path | None) -> None:
    """Issue the certificates that a member asks for in FILE: TLS, and SM2 over each of its ledger keys.

    \b
    Example:
      yiqiao pki issue request.json --home ~/authority --out certificates.json
      yiqiao pki issue --own --home ~/authority
    """
    from bridge.pki.enrolment import CertificateRequest
    from bridge.wiring import open_node

    if own == (file is not None) or (out is None and not own):
        raise click.UsageError("name a FILE and --out, or --own / 请指定请求文件与 --out，或使用 --own")
    asked = _request(home, ()) if own else CertificateRequest.read(file or Path())
    with open_node(home) as node:
        found = _issue(node, asked, days, more)
    if own:
        _install(home, found)
    if out is not None:
        found.write(out)
        click.echo(f"wrote {out} for {found.org} / 已签发证书")


@pki.command("install")
@click.argument("file", type=existing_file)
@home_option
@click.option("--port", type=click.IntRange(1, 65535), help=f"Listen for members here  [default: {DEFAULT_PORT}]")
@click.option("--listen", "host", help="Address to listen on  [default: 127.0.0.1]")
def install(file: Path, home: Path, port: int | None, host: str | None) -> None:
    """Put issued certificates in place; a node that is being served takes renewed ones up by itself.

    With --port or --listen the listener for members is switched on in config.toml.

    \b
    Example:
      yiqiao pki install certificates.json --home ~/node --port 8443 --listen 0.0.0.0
    """
    from bridge.pki.enrolment import Certificates

    _install(home, Certificates.read(file))
    if port is not None or host is not None:
        _switch_on(home, host or "127.0.0.1", port or DEFAULT_PORT)


@pki.command("list")
@home_option
@json_option
def list_(home: Path, as_json: bool) -> None:
    """List what this authority issued; at another node, its own certificates.

    \b
    Example:
      yiqiao pki list --home ~/authority
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        own = node.tls.expires()
        issued = node.certificates.issued() if node.certificates.exists else []
        standing = {org: value["status"] for org, value in _members(node).items()}
    shown = [{**{key: value for key, value in each.items() if key != "pem"}, "member": standing.get(each["org"])}
             for each in issued]  # fmt: skip
    if as_json:
        click.echo(json.dumps({"own_expires": own, "issued": shown}, ensure_ascii=False))
        return
    for each in shown:
        until = time.strftime("%Y-%m-%d", time.localtime(each["until"]))
        state = "revoked" if each["revoked"] else each["member"] or "not a member"
        click.echo(f"{each['kind']:<11} {each['org']}  {each['serial']:<34} until {until}  {state}")
    if own is not None:
        click.echo(
            f"this node's TLS certificate ends {time.strftime('%Y-%m-%d', time.localtime(own))} / 本节点证书有效期"
        )


@pki.command("revoke")
@click.argument("serial")
@home_option
def revoke(serial: str, home: Path) -> None:
    """Revoke one certificate by its serial number, for example when its key may be known to others.

    A member's suspension revokes its certificates by itself. The list reaches every node within minutes.

    \b
    Example:
      yiqiao pki revoke 1f3a… --home ~/authority
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        node.certificates.revoke(serial.lower())
        node.refresh_revoked()
    click.echo(f"revoked {serial} / 已吊销")


@pki.command("crl")
@home_option
@click.option("--out", type=json_file, required=True, help="File to write (PEM).")
def crl(home: Path, out: Path) -> None:
    """Write the list of revoked certificates, for a reverse proxy that checks it.

    \b
    Example:
      yiqiao pki crl --home ~/node --out /etc/nginx/yiqiao-crl.pem
    """
    from bridge.pki.tls_identity import REVOKED
    from bridge.wiring import open_node

    with open_node(home) as node:
        node.refresh_revoked()
        out.write_bytes((node.tls.directory / REVOKED).read_bytes())
    click.echo(f"wrote {out} / 已写入吊销列表")


def _members(node: Node) -> dict[str, dict[str, str]]:
    return {str(each["org"]): each for each in node.chain.state_with_prefix("member/").values()}


def _request(home: Path, hosts: tuple[str, ...]) -> CertificateRequest:
    from bridge.node_keys import load_signer
    from bridge.pki.enrolment import CertificateRequest
    from bridge.settings import load_settings

    settings = load_settings(home)
    org, names = settings.node.org, hosts or (str(urlsplit(settings.node.endpoint).hostname),)
    csr = settings.tls_identity().request(org, names)
    return CertificateRequest.make(org=org, csr=csr, key=load_signer(settings).sign, now=int(time.time()))


def _issue(node: Node, asked: CertificateRequest, days: int, more: tuple[str, ...]) -> Certificates:
    member = node.chain.state(f"member/{asked.org}")
    return node.certificates.issue(asked, member, days=days, more_hosts=more)


def _install(home: Path, found: Certificates) -> None:
    from bridge.node_keys import load_signer
    from bridge.settings import load_settings
    from bridge.supervisor import reload_node

    settings = load_settings(home)
    signing = load_signer(settings).sign.public_key.to_bytes()
    settings.tls_identity().install(found, settings.node.org, signing)
    reload_node(home)
    click.echo(f"certificates installed below {settings.path(settings.peer_tls.directory)} / 证书已安装")
    if not settings.peer_tls.enabled:
        click.echo("the listener for members is off: set peer_tls.enabled = true / 成员监听未启用", err=True)


def _switch_on(home: Path, host: str, port: int) -> None:
    """Add the [peer_tls] table to config.toml; one that is there is the operator's and stays."""
    from bridge.settings import CONFIG_FILE, load_settings

    file = load_settings(home).home / CONFIG_FILE
    text = file.read_text("utf-8")
    if "[peer_tls]" in text:
        raise click.ClickException(f"{file} has a table [peer_tls]; change it there / 请在配置文件中修改")
    file.write_text(f'{text}\n[peer_tls]\nenabled = true\nhost = "{host}"\nport = {port}\n', "utf-8")
    click.echo(f"members are listened for on {host}:{port} after the next start / 成员监听已写入配置")
