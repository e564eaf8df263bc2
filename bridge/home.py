"""Creates the home of a node: keys, tokens, genesis, settings, database.

``config.toml`` is written last: a directory is a node's home when it has that file, so an interrupted creation is
not one. All files are readable by their owner only.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anchor import genesis as chain_genesis
from anchor.errors import AnchorError
from anchor.gm import PrivateKey, self_test
from bridge.errors import SettingsError
from bridge.settings import CONFIG_FILE, Settings, load_settings
from bridge.settings_file import toml_value
from bridge.settings_rules import KEY_FILES, check_settings
from bridge.tokens import write_tokens
from fhir_adapters.identifiers.uscc import uscc_problem

KEYS_DIRECTORY = "keys"
TOKENS_FILE = "tokens.json"
GENESIS_FILE = "genesis.json"
IGNORED_ENTRIES = frozenset({"lost+found", "serve.log"})  # an empty volume, and where an outer process sends our log
DEFAULT_CHAIN = "yiqiao"


@dataclass(frozen=True, slots=True)
class HomePlan:
    """What is asked for. ``genesis``: the chain's genesis file; None for an authority that begins a chain.

    ``replicated``: the node will be one of those that replicate the ledger, founded or joined by `yiqiao ledger`.
    """

    org: str
    name: str
    roles: Sequence[str]
    endpoint: str
    environment: str
    http_host: str
    http_port: int
    mllp_port: int
    mllp: bool
    chain: str
    database: str
    ledger_url: str = ""
    genesis: Path | None = None
    replicated: bool = False


def create_home(home: Path, plan: HomePlan) -> Settings:
    """Create the node; return its checked settings.

    Raises ``SettingsError`` when ``home`` is in use, or when the plan makes an unsafe or incomplete node; what
    was created is then removed again.
    """
    self_test()
    if problem := uscc_problem(plan.org):
        raise SettingsError(f"node.org is not a unified social credit code: {problem} / 统一社会信用代码有误")
    home = home.expanduser().resolve()
    existed = home.is_dir()
    _refuse_used(home)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        keys = _write_keys(home / KEYS_DIRECTORY)
        write_tokens(home / TOKENS_FILE, ())
        genesis = None if plan.replicated else _write_genesis(home / GENESIS_FILE, plan, keys)
        _write(home / CONFIG_FILE, _config(plan, genesis).encode())
        settings = load_settings(home)
        check_settings(settings, ledger=not plan.replicated)
    except (SettingsError, AnchorError, OSError) as error:
        _remove(home, existed)
        if isinstance(error, OSError):
            raise SettingsError(f"{home} cannot be written ({error.strerror}) / 无法写入目录") from error
        raise
    return settings


def _refuse_used(home: Path) -> None:
    if (home / CONFIG_FILE).exists():
        raise SettingsError(f"{home} is already the home of a node; choose another directory / 该目录已是节点目录")
    if home.exists() and (not home.is_dir() or any(each.name not in IGNORED_ENTRIES for each in home.iterdir())):
        raise SettingsError(f"{home} is not empty; choose a new or empty directory / 目录非空，请换一个空目录")


def _write_keys(directory: Path) -> tuple[PrivateKey, PrivateKey]:
    """Create every key of the node; return the signing and the encryption key."""
    directory.mkdir(mode=0o700)
    pair = PrivateKey.generate(), PrivateKey.generate()
    content = {"sign.key": pair[0].to_bytes(), "encrypt.key": pair[1].to_bytes()}
    for name, length in KEY_FILES.items():
        _write(directory / name, content.get(name) or secrets.token_bytes(length))
    return pair


def _write_genesis(file: Path, plan: HomePlan, keys: tuple[PrivateKey, PrivateKey]) -> chain_genesis.Genesis:
    if plan.genesis is not None:
        content = plan.genesis.read_bytes()
    elif "authority" in plan.roles:
        content = chain_genesis.genesis_for(
            chain=plan.chain, org=plan.org, name=plan.name, endpoint=plan.endpoint, roles=plan.roles,
            signing=keys[0], encryption=keys[1], time=int(time.time()),
        )  # fmt: skip
    else:
        raise SettingsError(
            "a node that is not an authority joins an existing ledger: give --genesis FILE and --ledger-url URL, "
            "both from the authority / 非监管节点须提供 --genesis 与 --ledger-url"
        )
    genesis = chain_genesis.parse(content)
    _write(file, content)
    return genesis


def _config(plan: HomePlan, genesis: chain_genesis.Genesis | None) -> str:
    """Return config.toml: what differs from the built-in values, and nothing else. Joining a ledger adds the rest."""
    joins = bool(plan.ledger_url)
    if genesis is None:
        ledger, exchange = {"engine": "cometbft", "chain": plan.chain}, {"authority": "", "authority_url": ""}
    else:
        founder = next(member for member in genesis.members if "authority" in member["roles"])
        ledger = {"engine": "remote" if joins else "embedded", "chain": genesis.chain, "url": plan.ledger_url}
        exchange = {"authority": founder["org"], "authority_url": plan.ledger_url if joins else plan.endpoint}
    tables: dict[str, dict[str, Any]] = {
        "node": {"org": plan.org, "name": plan.name, "roles": list(plan.roles), "endpoint": plan.endpoint,
                 "environment": plan.environment},
        "http": {"host": plan.http_host, "port": plan.http_port},
        "mllp": {"enabled": plan.mllp, "port": plan.mllp_port},
        "database": {"url": plan.database},
        "ledger": ledger,
        "exchange": exchange,
    }  # fmt: skip
    lines = ["# Settings of this node; every other value: config/default.toml of the installation."]
    for table, values in tables.items():
        lines += ["", f"[{table}]", *(f"{key} = {toml_value(value)}" for key, value in values.items())]
    if plan.mllp:
        lines += ["", "[[sources]]", 'name = "mllp"', 'kind = "hl7v2"', 'profile = "default"']
    return "\n".join(lines) + "\n"


def _write(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _remove(home: Path, existed: bool) -> None:
    """Take back what a failed creation left; a directory that was there before stays, empty."""
    if not existed:
        shutil.rmtree(home, ignore_errors=True)
        return
    shutil.rmtree(home / KEYS_DIRECTORY, ignore_errors=True)
    for name in (TOKENS_FILE, GENESIS_FILE, CONFIG_FILE):
        (home / name).unlink(missing_ok=True)
