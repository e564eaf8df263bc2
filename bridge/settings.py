"""The settings of one node: frozen, typed, and checked before anything starts.

Read in this order, later wins: ``config/default.toml``, ``HOME/config.toml``, environment
``YIQIAO_<SECTION>__<KEY>``. An unknown name, a value of the wrong type and every unsafe combination
(``bridge.settings_rules``) refuse to start, naming the setting.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bridge.errors import SettingsError
from bridge.keys.provider import KeyAccess
from bridge.keys.store import KeyStore
from bridge.pki.tls_identity import TlsIdentity

CONFIG_DIRECTORY = Path(__file__).resolve().parent.parent / "config"
CONFIG_FILE = "config.toml"
ENVIRONMENT_PREFIX = "YIQIAO_"
LISTS = frozenset(
    {
        ("node", "roles"),
        ("exchange", "private_networks"),
        ("exchange", "emergency_roles"),
        ("exchange", "approval_purposes"),
    }
)  # settings that are lists of texts

Role = Literal["hospital", "authority", "payer", "card-issuer", "device-gateway", "observer"]
ROLES: tuple[Role, ...] = ("hospital", "authority", "payer", "card-issuer", "device-gateway", "observer")


class _Section(BaseModel):
    """A table of the settings file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeSettings(_Section):
    """Who this node is."""

    org: str
    name: str
    roles: tuple[Role, ...]
    endpoint: str
    environment: Literal["production", "demo", "test"]


class HttpSettings(_Section):
    """The HTTP listener. ``max_body_bytes`` bounds a request body; ``threads`` are blocking threads per worker."""

    host: str
    port: int = Field(ge=1, le=65535)
    workers: int = Field(ge=1, le=64)
    threads: int = Field(ge=1, le=256)
    max_body_bytes: int = Field(ge=1024)
    behind_proxy: bool
    tls_certificate: str
    tls_key: str


class MllpSettings(_Section):
    """The MLLP listener and its bounds (bytes, seconds, connections).

    ``tls_certificate`` and ``tls_key`` (PEM) make it speak TLS 1.2 or newer and nothing else; with ``tls_client_ca``
    (PEM) a sender must show a certificate of one of these authorities.
    """

    enabled: bool
    host: str
    port: int = Field(ge=1, le=65535)
    source: str
    max_frame_bytes: int = Field(ge=1024, le=256 * 1024 * 1024)
    idle_seconds: float = Field(gt=0)
    frame_seconds: float = Field(gt=0)
    max_connections: int = Field(ge=1)
    plain_network: bool
    tls_certificate: str
    tls_key: str
    tls_client_ca: str


class InboxSettings(_Section):
    """What may wait to be processed before no more is taken: messages, bytes as delivered, free bytes on the disk."""

    max_messages: int = Field(ge=1)
    max_bytes: int = Field(ge=1024)
    min_free_bytes: int = Field(ge=0)


class PeerTlsSettings(_Section):
    """Mutual TLS between nodes. ``directory`` holds the certificates (``bridge.pki.tls_identity``)."""

    enabled: bool
    host: str
    port: int = Field(ge=1, le=65535)
    directory: str
    refresh_seconds: float = Field(gt=0)


class DatabaseSettings(_Section):
    """The node's database as an SQLAlchemy URL; a relative SQLite path lies below HOME."""

    url: str


class LedgerSettings(_Section):
    """How this node reaches the ledger: it hosts it (embedded), asks a member that has it (remote), or is one of those
    that replicate it (cometbft).
    """

    engine: Literal["embedded", "remote", "cometbft"]
    chain: str
    genesis: str
    path: str
    url: str
    host: str
    timeout_seconds: float = Field(gt=0, le=300)


class CometbftSettings(_Section):
    """This node's part in the replicated ledger. RPC listens on loopback alone. Times are in milliseconds.

    ``p2p_address``: as the other members reach this node ("host:port"). ``state_sync``: a new node begins with the
    ledger's history from the others instead of computing every block again.
    """

    directory: str
    binary: str
    rpc_port: int = Field(ge=1, le=65535)
    p2p_host: str
    p2p_port: int = Field(ge=1, le=65535)
    p2p_address: str
    heartbeat_ms: int = Field(ge=200, le=30_000)
    propose_ms: int = Field(ge=100, le=60_000)
    vote_ms: int = Field(ge=50, le=60_000)
    commit_ms: int = Field(ge=0, le=10_000)
    snapshot_blocks: int = Field(ge=2, le=10_000_000)
    state_sync: bool


class KeysSettings(_Section):
    """Where the node's key files lie, and what opens them (``bridge.keys``). Paths are below HOME unless absolute."""

    directory: str
    passphrase_file: str
    pkcs11_module: str
    pkcs11_token: str
    pkcs11_label: str
    pin_file: str


class AnchoringSettings(_Section):
    """The scheduled job that logs new record versions and publishes a checkpoint. ``shard`` "": the calendar year."""

    period_seconds: float = Field(gt=0)
    batch: int = Field(ge=1, le=100_000)
    max_age_seconds: float = Field(gt=0)
    shard: str = Field(pattern=r"^([0-9a-z][0-9a-z.-]{0,31})?$")


class WitnessSettings(_Section):
    """Cosigning of the ledger's checkpoints. ``quorum`` 0: a majority of the active members.

    ``max_age_seconds``: how long the ledger's head may lack its quorum before that is an alarm.
    """

    enabled: bool
    period_seconds: float = Field(gt=0)
    quorum: int = Field(ge=0)
    max_age_seconds: float = Field(gt=0)


class TimestampSettings(_Section):
    """RFC 3161 time stamps over the ledger's checkpoints; ``url`` "": none. ``certificate``: the authority's."""

    url: str
    digest: Literal["sm3", "sha256"]
    certificate: str
    period_seconds: float = Field(gt=0)
    timeout_seconds: float = Field(gt=0, le=300)


class WorkerSettings(_Section):
    """Inbox processing. ``drain_seconds``: how long a stopping node lets running work finish."""

    processes: int = Field(ge=1, le=64)
    batch: int = Field(ge=1, le=10_000)
    idle_seconds: float = Field(gt=0, le=60)
    drain_seconds: float = Field(gt=0, le=600)


class ExchangeSettings(_Section):
    """Exchange with the other institutions.

    ``approval_purposes``: purposes of use for which a person here is asked before anything is released;
    ``approval_sensitive``: the same for sensitive information. ``ledger_cache_seconds``: how old what the ledger last
    said may be for a decision about treatment while it does not answer. ``emergency_copies_days``: how long copies of
    what left in an emergency may be kept (0: no limit). ``page_records``, ``page_bytes``: how large one page of a
    release may be.
    """

    authority: str
    authority_url: str
    scope: str
    private_networks: tuple[str, ...]
    emergency_roles: tuple[str, ...]
    emergency_copies_days: int = Field(ge=0, le=3660)
    member_requests: int = Field(ge=1)
    practitioner_requests: int = Field(ge=1)
    suspicious_failures: int = Field(ge=1)
    pseudonyms_per_day: int = Field(ge=1)
    release_timeout_seconds: float = Field(gt=0)
    register_seconds: float = Field(gt=0)
    settle_seconds: float = Field(gt=0)
    collect_seconds: float = Field(gt=0)
    ledger_cache_seconds: float = Field(ge=0, le=3600)
    approval_purposes: tuple[str, ...]
    approval_sensitive: bool
    page_records: int = Field(ge=1, le=5000)
    page_bytes: int = Field(ge=65536, le=32 * 1024 * 1024)


class ConsentSettings(_Section):
    """What a patient's consent must keep to. ``confirmation`` "": required in production, optional elsewhere."""

    confirmation: Literal["", "required", "optional"]
    age_of_consent: int = Field(ge=0, le=18)
    signature_anchors: str


class RetentionSettings(_Section):
    """Removal of what may go: used nonces, messages by state and age (days) and by the room stored ones take (bytes).

    A message sent again after its removal is taken as new; its records stay as they are where it says nothing new.
    """

    purge_period_seconds: float = Field(gt=0)
    stored_days: float = Field(gt=0)
    failed_days: float = Field(gt=0)
    stored_max_bytes: int = Field(ge=0)


class SecuritySettings(_Section):
    """Client authentication."""

    tokens: str


class SourceSettings(_Section):
    """One system that data comes from.

    ``kind`` "hl7v2": messages arrive by MLLP, HTTP or file. ``kind`` "view": ``views`` of ``url`` (standard views, or
    queries that the profile maps; all of these when none is named) are polled every ``poll_seconds``, at most ``batch``
    rows a query, going back ``overlap_seconds`` for rows that became visible late; every ``reread_period_seconds`` the
    last ``reread_seconds`` are read again (0: never). ``kind`` "folder": files in ``path`` are looked for every
    ``poll_seconds``, taken in once they have not changed for ``settle_seconds``, and removed ``keep_seconds`` after.
    ``kind`` "soap": messages arrive at /soap. ``kind`` "fhir": Bundles and resources are written at /fhir.
    """

    name: str = Field(pattern=r"^[0-9a-z][0-9a-z._-]{0,63}$")
    kind: Literal["hl7v2", "view", "folder", "soap", "fhir"] = "hl7v2"
    profile: str = "default"
    url: str = ""
    views: tuple[str, ...] = ()
    poll_seconds: float = Field(default=30.0, gt=0)
    batch: int = Field(default=500, ge=1, le=10_000)
    overlap_seconds: float = Field(default=120.0, ge=0)
    reread_seconds: float = Field(default=86400.0, ge=0)
    reread_period_seconds: float = Field(default=86400.0, gt=0)
    statement_seconds: float = Field(default=20.0, gt=0)
    path: str = ""
    settle_seconds: float = Field(default=10.0, ge=0)
    keep_seconds: float = Field(default=7 * 86400.0, ge=0)
    max_file_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)


class Settings(_Section):
    """All settings of one node. ``home`` is its absolute directory; paths are resolved by ``path``."""

    home: Path
    node: NodeSettings
    http: HttpSettings
    mllp: MllpSettings
    peer_tls: PeerTlsSettings
    inbox: InboxSettings
    database: DatabaseSettings
    ledger: LedgerSettings
    cometbft: CometbftSettings
    keys: KeysSettings
    anchoring: AnchoringSettings
    witness: WitnessSettings
    timestamp: TimestampSettings
    worker: WorkerSettings
    exchange: ExchangeSettings
    consent: ConsentSettings
    retention: RetentionSettings
    security: SecuritySettings
    sources: tuple[SourceSettings, ...] = ()

    @property
    def production(self) -> bool:
        """Whether every safety rule applies."""
        return self.node.environment == "production"

    @property
    def observes(self) -> bool:
        """Whether this node computes the ledger that another member hosts in full, in a file of its own."""
        return "observer" in self.node.roles and self.ledger.engine == "remote"

    @property
    def only_observes(self) -> bool:
        """Whether observer is the node's only role: it keeps no records and publishes nothing."""
        return set(self.node.roles) == {"observer"}

    def path(self, value: str) -> Path:
        """Resolve a path setting: absolute as it is, relative below HOME."""
        return self.home / value

    def key_store(self) -> KeyStore:
        """Return the node's key files."""
        keys = self.keys
        access = KeyAccess(
            passphrase_file=self.path(keys.passphrase_file) if keys.passphrase_file else None,
            pkcs11_module=keys.pkcs11_module,
            pkcs11_token=keys.pkcs11_token,
            pkcs11_label=keys.pkcs11_label,
            pin_file=self.path(keys.pin_file) if keys.pin_file else None,
        )
        return KeyStore(self.path(keys.directory), access)

    def tls_identity(self) -> TlsIdentity:
        """Return this node's certificates."""
        return TlsIdentity(self.path(self.peer_tls.directory), self.key_store())

    @property
    def database_url(self) -> str:
        """The database URL with a relative SQLite path made absolute below HOME."""
        return sqlite_below(self.home, self.database.url)

    def source(self, name: str) -> SourceSettings:
        """Return the source of that name; an undeclared one is an HL7 v2 source with the default profile."""
        return next((source for source in self.sources if source.name == name), SourceSettings(name=name))

    def profile_path(self, name: str) -> Path:
        """Return the file of a source profile: ``config/profiles/NAME.toml``, or a path below HOME."""
        packaged = CONFIG_DIRECTORY / "profiles" / f"{name}.toml"
        return packaged if "/" not in name and packaged.is_file() else self.path(name)


def sqlite_below(home: Path, url: str) -> str:
    """Return ``url`` with the relative path of an SQLite URL placed below ``home``; other URLs unchanged."""
    scheme, separator, rest = url.partition(":///")
    if scheme.split("+")[0] != "sqlite" or not separator or rest.startswith("/") or rest in ("", ":memory:"):
        return url
    return f"{scheme}:///{home / rest}"


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or address) is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load_settings(home: str | Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings of the node at ``home``, without the checks that need its files (``check_settings`` has them).

    Raises ``SettingsError`` when there is no node at ``home``, a file is not TOML, or a name or value is not known.
    """
    home = Path(home).expanduser().resolve()
    file = home / CONFIG_FILE
    if not file.is_file():
        raise SettingsError(
            f"{home} is not the home of a node (it has no {CONFIG_FILE}); create one with: yiqiao init {home} ... / "
            f"{home} 不是节点目录，请先运行 yiqiao init"
        )
    values = _merge(_read_toml(CONFIG_DIRECTORY / "default.toml"), _read_toml(file))
    values = _merge(values, _from_environment(os.environ if environment is None else environment))
    try:
        return Settings(home=home, **values)
    except ValidationError as error:
        raise SettingsError(_first_problem(error)) from error
    except TypeError as error:  # the file itself sets "home"
        raise SettingsError("the settings file may not set home") from error


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not valid TOML: {error} / 配置文件格式错误") from error
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror} / 无法读取配置文件") from error


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the keys of each table of ``over`` laid over it."""
    merged = dict(base)
    for name, value in over.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = {**merged[name], **value} if both_tables else value
    return merged


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Collect ``YIQIAO_<SECTION>__<KEY>``; a value is text, and a comma-separated list where the setting is one."""
    values: dict[str, Any] = {}
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or "__" not in name:
            continue
        section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        values.setdefault(section, {})[key] = text.split(",") if (section, key) in LISTS else text
    return values


def _first_problem(error: ValidationError) -> str:
    """Name the setting that is wrong, never its value: a URL may hold a password."""
    problem = error.errors(include_input=False, include_url=False)[0]
    name = ".".join(str(part) for part in problem["loc"])
    reason = "is not a known setting" if problem["type"] == "extra_forbidden" else problem["msg"]
    return f"setting {name}: {reason} / 配置项 {name} 有误"
