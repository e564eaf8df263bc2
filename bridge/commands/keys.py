"""`yiqiao keys`: what protects this node's keys, how old they are, and replacing each of them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.commands.node import home_option, json_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bridge.wiring import Node

SECONDS_PER_DAY = 86_400
DEFAULT_OVERLAP_DAYS = 7


@click.group("keys")
def keys() -> None:
    """Show, protect and replace this node's keys.

    \b
    Example:
      yiqiao keys status --home ~/node
      yiqiao keys protect --home ~/node --provider passphrase
      yiqiao keys rotate kek --home ~/node
    """


@keys.command("status")
@home_option
@json_option
def status(home: Path, as_json: bool) -> None:
    """Say what protects the keys, how old each is, what the ledger knows and what each key-encryption key wraps.

    \b
    Example:
      yiqiao keys status --home ~/node
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        report = _status(node)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
        return
    click.echo(f"protected by: {report['provider']} / 保护方式")
    for each in report["files"]:
        click.echo(f"  {each['name']:<34} {each['days']:>5} days old / 天")
    for each in report["keks"]:
        current = "current / 当前" if each["current"] else "older / 旧"
        click.echo(f"key-encryption key {each['id']}: {each['wraps']} data keys, {current}")
    for each in report["ledger"]:
        until = time.strftime("until %Y-%m-%d", time.localtime(each["until"])) if each["until"] else "no end"
        click.echo(f"ledger {each['use']:<7} {each['id']}  {until}")


def _status(node: Node) -> dict[str, Any]:
    """Collect what ``status`` shows; holds no secret."""
    now = time.time()
    files = []
    for name in node.keys.names():
        age = now - (node.keys.directory / name).stat().st_mtime
        files.append({"name": name, "days": int(age // SECONDS_PER_DAY)})
    current, wrapped = node.keyring.current_kek(), node.keyring.wrapped_keys()
    keks = [
        {"id": name, "wraps": wrapped.get(name, 0), "current": name == current}
        for name in sorted({current, *wrapped}, key=lambda name: name != current)
    ]
    member = node.chain.state(f"member/{node.signer.org}") or {"keys": []}
    live = [key for key in member["keys"] if key["until"] is None or key["until"] > now]
    ledger = [{name: key[name] for name in ("id", "use", "from", "until")} for key in live]
    return {"provider": node.keys.provider, "files": files, "keks": keks, "ledger": ledger}


@keys.command("protect")
@home_option
@click.option(
    "--provider", type=click.Choice(["file", "passphrase", "pkcs11"]), required=True, help="What opens the keys."
)
@click.option("--kdf", type=click.Choice(["scrypt", "pbkdf2-sm3"]), default="scrypt", show_default=True,
              help="How a passphrase becomes a key.")  # fmt: skip
@click.option("--new-passphrase-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The new passphrase  [default: keys.passphrase_file]")  # fmt: skip
@click.option("--create", is_flag=True, help="pkcs11: make the key in the token when it is not there.")
def protect(home: Path, provider: str, kdf: str, new_passphrase_file: Path | None, create: bool) -> None:
    """Put the key files under a passphrase or a hardware key, change the passphrase, or go back to plain files.

    The node must be stopped. Name the passphrase's file in keys.passphrase_file, or the token in keys.pkcs11_*, first.

    \b
    Example:
      yiqiao keys protect --home ~/node --provider pkcs11 --create
      yiqiao keys protect --home ~/node --provider passphrase --new-passphrase-file /run/new   (a changed passphrase)
    """
    from bridge.keys.pkcs11_provider import Pkcs11Provider
    from bridge.keys.provider import KeyProvider, PassphraseProvider, provider_for, read_secret_file
    from bridge.settings import load_settings
    from bridge.supervisor import node_lock

    settings = load_settings(home)
    store = settings.key_store()
    with node_lock(settings.home, wait_seconds=0):
        chosen: KeyProvider | None = None
        if provider == "file":
            pass
        elif provider == "passphrase" and new_passphrase_file is not None:
            chosen = PassphraseProvider(read_secret_file(new_passphrase_file, "--new-passphrase-file"), kdf)  # type: ignore[arg-type]
        else:
            chosen = provider_for(provider, store.access, kdf)  # type: ignore[arg-type]
        if create and isinstance(chosen, Pkcs11Provider):
            chosen.create_key()
        count = store.protect(chosen)
    click.echo(f"protected by {provider}; {count} file(s) rewritten / 密钥保护方式已更改")
    if provider == "file":
        click.echo("whoever can read these files has the keys / 能读取文件者即持有密钥", err=True)


@keys.command("rotate")
@home_option
@click.argument("which", type=click.Choice(["kek", "sign", "encrypt", "pseudonym"]))
@click.option("--overlap-days", type=click.IntRange(0, 365), default=DEFAULT_OVERLAP_DAYS, show_default=True,
              help="sign, encrypt: how long the old key stays valid.")  # fmt: skip
@click.option("--finish", is_flag=True, help="kek: only finish a rotation that was interrupted.")
def rotate_command(home: Path, which: str, overlap_days: int, finish: bool) -> None:
    """Replace a key: kek (every data key is wrapped anew), sign or encrypt (the ledger learns it), or pseudonym.

    A node that is being served takes the new key up by itself. Retired keys are kept; see: yiqiao keys forget.

    \b
    Example:
      yiqiao keys rotate kek --home ~/node
      yiqiao keys rotate encrypt --home ~/node --overlap-days 14
    """
    from bridge import key_rotation
    from bridge.supervisor import reload_node
    from bridge.wiring import open_node

    with open_node(home) as node, _bar() as progress:
        if which == "kek" and finish:
            text = f"{key_rotation.finish_kek(node, progress)} data keys wrapped anew / 数据密钥已重新加密"
        elif which == "kek":
            old, new, count = key_rotation.rotate_kek(node, progress)
            text = f"key-encryption key {new} replaces {old}; {count} data keys wrapped anew / 密钥加密密钥已更换"
        elif which == "pseudonym":
            version = node.pseudonyms.rotate(node.settings.exchange.scope)
            text = f"pseudonyms have key version {version}; holders register anew at their next run / 假名密钥已更换"
        else:
            old, new = key_rotation.rotate(node, which, overlap_days * SECONDS_PER_DAY)
            text = f"key {new} replaces {old} / 密钥已更换"
    click.echo(text)
    if which in ("sign", "encrypt") and not reload_node(home):
        click.echo("the node is not running here; a node elsewhere is to be restarted / 请重启节点", err=True)


@keys.command("forget")
@home_option
@click.argument("kek", metavar="KEK-ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(home: Path, kek: str, yes: bool) -> None:
    """Delete a retired key-encryption key for good. Backups from before its replacement cannot be opened any more.

    \b
    Example:
      yiqiao keys forget 3f9a1c2b4d5e6f70 --home ~/node
    """
    from bridge import key_rotation
    from bridge.wiring import open_node

    if not yes:
        click.confirm("backups made under that key become unreadable; go on? / 旧备份将无法打开，继续？", abort=True)
    with open_node(home) as node:
        key_rotation.forget_kek(node, kek)
    click.echo(f"deleted {kek} / 已删除")


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """Give a progress callback that draws a bar where somebody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("wrapping / 重新加密", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
