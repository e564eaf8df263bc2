"""Every combination of settings that a node refuses to run with, one rule a row.

A rule takes the settings and returns what is wrong, naming the setting and the way out, or None. ``check_settings``
runs all of them and reports all that fail. Rules under ``PRODUCTION_RULES`` apply only with ``node.environment =
"production"``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from anchor.chain.cometbft.replica_file import is_replica
from anchor.errors import AnchorError
from bridge.errors import SettingsError
from bridge.services.decision import PURPOSES
from bridge.services.timestamping import read_certificates
from bridge.settings import Settings, is_loopback
from bridge.tokens import read_tokens
from fhir_adapters.identifiers.uscc import uscc_problem

#: key file -> length in bytes: SM2 private keys 32, SM4 key 16, HMAC keys 32
KEY_FILES = {"sign.key": 32, "encrypt.key": 32, "kek.key": 16, "index.key": 32, "resource-id.key": 32}

COMET_GENESIS = "config/genesis.json"

Rule = Callable[[Settings], str | None]


def check_settings(settings: Settings, *, ledger: bool = True) -> None:
    """Raise ``SettingsError`` naming every rule that the settings break.

    ``ledger`` False is for a node that is still to join a replicated ledger.
    """
    rules = [*RULES, *(PRODUCTION_RULES if settings.production else ())]
    if not ledger:
        rules.remove(_ledger)
    problems = [problem for rule in rules if (problem := rule(settings)) is not None]
    if problems:
        raise SettingsError("; ".join(problems) + " / 配置不安全或不完整，拒绝启动")


def _org(settings: Settings) -> str | None:
    problem = uscc_problem(settings.node.org)
    return f"node.org is not a unified social credit code: {problem}" if problem else None


def _roles(settings: Settings) -> str | None:
    return None if settings.node.roles else "node.roles is empty; name at least one role"


def _observer(settings: Settings) -> str | None:
    if "observer" in settings.node.roles and settings.ledger.engine == "embedded":
        return "node.roles has observer and ledger.engine is embedded: a host cannot observe itself; set it to remote"
    if settings.only_observes and (settings.mllp.enabled or settings.sources):
        return "node.roles is observer alone, which keeps no records; set mllp.enabled = false and remove [[sources]]"
    return None


def _endpoint(settings: Settings) -> str | None:
    return None if _is_web_url(settings.node.endpoint) else "node.endpoint must be an http(s) URL without query"


def _ports(settings: Settings) -> str | None:
    same = settings.mllp.enabled and settings.mllp.port == settings.http.port
    return "mllp.port and http.port are the same; give each its own" if same else None


def _tls_pair(settings: Settings) -> str | None:
    return _tls_files(settings, "http", settings.http.tls_certificate, settings.http.tls_key)


def _mllp_tls(settings: Settings) -> str | None:
    mllp = settings.mllp
    if mllp.tls_client_ca and not mllp.tls_certificate:
        return "mllp.tls_client_ca asks for client certificates without TLS; set mllp.tls_certificate and mllp.tls_key"
    if mllp.tls_client_ca and not settings.path(mllp.tls_client_ca).is_file():
        return "mllp.tls_client_ca names a file that does not exist"
    return _tls_files(settings, "mllp", mllp.tls_certificate, mllp.tls_key)


def _tls_files(settings: Settings, section: str, certificate: str, key: str) -> str | None:
    if bool(certificate) != bool(key):
        return f"{section}.tls_certificate and {section}.tls_key belong together; set both or neither"
    for name, value in (("tls_certificate", certificate), ("tls_key", key)):
        if value and not settings.path(value).is_file():
            return f"{section}.{name} names a file that does not exist"
    if key and _open_to_others(settings.path(key)):
        return f"{section}.tls_key can be read by other users; run: chmod 600 {settings.path(key)}"
    return None


def _retention(settings: Settings) -> str | None:
    if settings.retention.failed_days < settings.retention.stored_days:
        return "retention.failed_days is shorter than retention.stored_days: what failed is the only copy there is"
    return None


def _peer_tls(settings: Settings) -> str | None:
    tls = settings.peer_tls
    if not tls.enabled:
        return None
    if tls.port in (settings.http.port, settings.mllp.port if settings.mllp.enabled else 0):
        return "peer_tls.port is another listener's; give each its own"
    if not settings.tls_identity().exists:
        return "peer_tls.enabled needs a certificate; run: yiqiao pki request, and install what the authority issues"
    if urlsplit(settings.node.endpoint).scheme != "https":
        return "peer_tls.enabled is set and node.endpoint is not https; it is where the other members reach this node"
    return None


def _ledger(settings: Settings) -> str | None:
    ledger = settings.ledger
    if not ledger.chain:
        return "ledger.chain is empty; it names the ledger that this node's transactions are for"
    if ledger.engine == "cometbft" and not (settings.path(settings.cometbft.directory) / COMET_GENESIS).is_file():
        return "ledger.engine is cometbft and this node has joined no ledger yet; run: yiqiao ledger card, then join"
    if not settings.path(ledger.genesis).is_file() or not ledger.genesis:
        return f"ledger.genesis: {settings.path(ledger.genesis)} does not exist; get the file from the authority"
    if ledger.engine == "remote" and not _is_web_url(ledger.url):
        return "ledger.url is needed with ledger.engine = remote: the base URL of the member that hosts the ledger"
    if ledger.engine != "remote" and ledger.url:
        return f"ledger.url is set although ledger.engine is {ledger.engine}; set it to remote or remove the URL"
    if ledger.engine == "embedded" and is_replica(settings.path(ledger.path)):
        return "ledger.path is a replica of a CometBFT ledger, and ledger.engine is embedded; set it to cometbft"
    return None


def _keys(settings: Settings) -> str | None:
    store = settings.key_store()
    try:
        store.finish()  # of a change of protection that was interrupted
        for name, length in KEY_FILES.items():
            file = store.directory / name
            if not file.is_file():
                return (
                    f"keys.directory: {file} is missing; restore it from the backup (a new key cannot open old records)"
                )
            if len(store.read(name)) != length:
                return f"keys.directory: {file} does not hold a key of {length} bytes"
    except SettingsError as error:
        return error.message
    return None


def _tokens(settings: Settings) -> str | None:
    if not settings.security.tokens:
        return "security.tokens is empty; name the file of client tokens"
    try:
        read_tokens(settings.path(settings.security.tokens))
    except (SettingsError, AnchorError) as error:
        return f"security.tokens: {error}"
    return None


def _sources(settings: Settings) -> str | None:
    names = [source.name for source in settings.sources]
    for source in settings.sources:
        if names.count(source.name) > 1:
            return f"sources: the name {source.name} is used twice"
        if source.kind == "view" and (not source.url or (not source.views and source.profile == "default")):
            return f"sources.{source.name}: a source of kind view needs url and views (or a profile that maps them)"
        if source.kind != "view" and (source.url or source.views):
            return f"sources.{source.name}: url and views are for sources of kind view"
        if source.kind == "folder" and not (source.path and settings.path(source.path).is_dir()):
            return f"sources.{source.name}: a source of kind folder needs path, a directory that exists"
        if source.kind != "folder" and source.path:
            return f"sources.{source.name}: path is for sources of kind folder"
        if source.profile != "default" and not settings.profile_path(source.profile).is_file():
            return f"sources.{source.name}: there is no profile {source.profile}"
    if settings.mllp.enabled and settings.source(settings.mllp.source).kind != "hl7v2":
        return "mllp.source names a source that is not of kind hl7v2"
    return None


def _anchoring(settings: Settings) -> str | None:
    if settings.anchoring.max_age_seconds < settings.anchoring.period_seconds:
        return "anchoring.max_age_seconds is shorter than anchoring.period_seconds, so the alarm would always sound"
    return None


def _timestamp(settings: Settings) -> str | None:
    stamping = settings.timestamp
    if not stamping.url:
        return None
    if not _is_web_url(stamping.url):
        return "timestamp.url must be an http(s) URL without query"
    if not stamping.certificate:
        return "timestamp.certificate is needed with timestamp.url: stamps that cannot be checked prove nothing"
    try:
        read_certificates(settings.path(stamping.certificate))
    except SettingsError as error:
        return f"timestamp.certificate: {error}"
    return None


def _exchange(settings: Settings) -> str | None:
    exchange = settings.exchange
    if bool(exchange.authority) != bool(exchange.authority_url):
        return "exchange.authority and exchange.authority_url belong together; set both or neither"
    if exchange.authority_url and not _is_web_url(exchange.authority_url):
        return "exchange.authority_url must be an http(s) URL without query"
    unknown = sorted(set(exchange.approval_purposes) - PURPOSES)
    if unknown:
        return f"exchange.approval_purposes: {unknown[0]} is no purpose of use; they are: {', '.join(sorted(PURPOSES))}"
    for network in exchange.private_networks:
        try:
            ip_network(network)
        except ValueError:
            return f"exchange.private_networks: {network} is not a network such as 10.20.0.0/16"
    return None


def _https_urls(settings: Settings) -> str | None:
    urls = {
        "node.endpoint": settings.node.endpoint,
        "ledger.url": settings.ledger.url,
        "exchange.authority_url": settings.exchange.authority_url,
    }
    for name, url in urls.items():
        if url and urlsplit(url).scheme != "https" and not is_loopback(urlsplit(url).hostname or ""):
            return f"{name} is not https; in production members speak TLS beyond this machine"
    return None


def _http_listener(settings: Settings) -> str | None:
    http = settings.http
    if is_loopback(http.host) or http.behind_proxy or http.tls_certificate:
        return None
    return (
        "http.host listens beyond this machine without TLS; set http.tls_certificate and http.tls_key, "
        "or http.behind_proxy = true where a proxy terminates it"
    )


def _mllp_listener(settings: Settings) -> str | None:
    mllp = settings.mllp
    if not mllp.enabled or is_loopback(mllp.host) or mllp.plain_network or mllp.tls_client_ca:
        return None
    if mllp.tls_certificate:
        return (
            "mllp.host listens beyond this machine and anybody may send; set mllp.tls_client_ca so that senders show "
            "a certificate, or mllp.plain_network = true for an isolated network"
        )
    return (
        "mllp.host listens beyond this machine without TLS; set mllp.tls_certificate, mllp.tls_key and "
        "mllp.tls_client_ca, keep it on loopback, or set mllp.plain_network = true for an isolated network"
    )


def _database(settings: Settings) -> str | None:
    if settings.database.url.partition(":///")[2] in ("", ":memory:") and settings.database.url.startswith("sqlite"):
        return "database.url is an in-memory database: everything would be lost at the next stop"
    return None


RULES: tuple[Rule, ...] = (
    _org, _roles, _observer, _endpoint, _ports, _tls_pair, _mllp_tls, _peer_tls, _ledger, _keys, _tokens, _sources,
    _anchoring, _timestamp, _retention, _exchange, _database,
)  # fmt: skip
PRODUCTION_RULES: tuple[Rule, ...] = (_https_urls, _http_listener, _mllp_listener)


def _is_web_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
    except ValueError:
        return False


def _open_to_others(file: Path) -> bool:
    """Whether group or others may read or write ``file``; Windows has no such bits."""
    return os.name == "posix" and bool(stat.S_IMODE(file.stat().st_mode) & 0o077)
