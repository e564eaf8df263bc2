"""A node refuses every unsafe or incomplete combination of settings, naming the setting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.errors import SettingsError
from bridge.home import HomePlan, create_home
from bridge.settings import Settings, is_loopback, load_settings, sqlite_below
from bridge.settings_rules import check_settings
from fhir_adapters.identifiers.uscc import uscc_check_character

ORG = "1133000000AAAAAAA"
ORG += uscc_check_character(ORG)


def plan(**changes: object) -> HomePlan:
    values: dict[str, object] = {
        "org": ORG, "name": "测试监管平台", "roles": ("authority",), "endpoint": "http://127.0.0.1:18080",
        "environment": "production", "http_host": "127.0.0.1", "http_port": 18080, "mllp_port": 12575, "mllp": True,
        "chain": "unit", "database": "sqlite:///node.sqlite3",
    }  # fmt: skip
    return HomePlan(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("settings") / "home"
    create_home(directory, plan())
    return directory


def loaded(home: Path, **environment: str) -> Settings:
    return load_settings(home, {f"YIQIAO_{name}": value for name, value in environment.items()})


def test_a_new_home_is_a_safe_production_node(home: Path) -> None:
    settings = loaded(home)
    check_settings(settings)
    assert settings.production
    assert settings.database_url == f"sqlite:///{home}/node.sqlite3"
    assert {file.stat().st_mode & 0o777 for file in (home / "keys").iterdir()} == {0o600}
    assert (home / "tokens.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        pytest.param({"NODE__ORG": "123"}, "node.org", id="org is no USCC"),
        pytest.param({"NODE__ORG": ORG[:17] + ("0" if ORG[17] != "0" else "1")}, "node.org", id="org check character"),
        pytest.param({"NODE__ENDPOINT": "ftp://a"}, "node.endpoint", id="endpoint is no web address"),
        pytest.param({"NODE__ENDPOINT": "http://hospital.example"}, "node.endpoint", id="production, endpoint http"),
        pytest.param({"HTTP__HOST": "0.0.0.0"}, "http.host", id="production, plain http beyond loopback"),
        pytest.param({"NODE__ROLES": "observer"}, "node.roles", id="an observer that hosts the ledger"),
        pytest.param({"TIMESTAMP__URL": "http://tsa.example"}, "timestamp.certificate", id="time stamps unchecked"),
        pytest.param({"MLLP__HOST": "0.0.0.0"}, "mllp.host", id="production, MLLP beyond loopback"),
        pytest.param({"MLLP__TLS_CERTIFICATE": "a.pem"}, "mllp.tls_key", id="MLLP certificate without key"),
        pytest.param({"MLLP__TLS_CLIENT_CA": "a.pem"}, "mllp.tls_client_ca", id="client certificates without TLS"),
        pytest.param({"MLLP__TLS_CERTIFICATE": "a", "MLLP__TLS_KEY": "b"}, "mllp.tls_cert", id="no such MLLP file"),
        pytest.param({"RETENTION__FAILED_DAYS": "1"}, "retention.failed_days", id="failed messages go first"),
        pytest.param({"MLLP__PORT": "18080"}, "mllp.port", id="one port for two listeners"),
        pytest.param({"MLLP__SOURCE": "his"}, "mllp.source", id="MLLP fed into a view source"),
        pytest.param({"HTTP__TLS_CERTIFICATE": "a.pem"}, "http.tls_key", id="certificate without key"),
        pytest.param({"HTTP__TLS_CERTIFICATE": "a", "HTTP__TLS_KEY": "b"}, "tls_certificate", id="no such file"),
        pytest.param({"LEDGER__CHAIN": ""}, "ledger.chain", id="no chain"),
        pytest.param({"LEDGER__GENESIS": "none.json"}, "ledger.genesis", id="missing genesis"),
        pytest.param({"LEDGER__ENGINE": "remote"}, "ledger.url", id="remote engine without url"),
        pytest.param({"LEDGER__URL": "https://a.example"}, "ledger.url", id="embedded engine with url"),
        pytest.param(
            {"LEDGER__ENGINE": "remote", "LEDGER__URL": "http://a.example"}, "ledger.url", id="production, ledger http"
        ),
        pytest.param({"EXCHANGE__AUTHORITY_URL": "http://a.example"}, "authority_url", id="production, authority http"),
        pytest.param({"EXCHANGE__AUTHORITY": ""}, "exchange.authority", id="authority url without authority"),
        pytest.param({"KEYS__DIRECTORY": "other"}, "keys.directory", id="keys missing"),
        pytest.param({"SECURITY__TOKENS": "none.json"}, "security.tokens", id="tokens file missing"),
        pytest.param({"SECURITY__TOKENS": ""}, "security.tokens", id="no tokens file named"),
        pytest.param({"DATABASE__URL": "sqlite:///:memory:"}, "database.url", id="database in memory"),
        pytest.param({"ANCHORING__MAX_AGE_SECONDS": "1"}, "anchoring.max_age_seconds", id="alarm below the period"),
    ],
)
def test_refused(home: Path, environment: dict[str, str], named: str) -> None:
    (home / "config.toml").write_text(
        (home / "config.toml").read_text().split("# added")[0]
        + '# added\n[[sources]]\nname = "his"\nkind = "view"\nurl = "sqlite:///his.db"\nviews = ["V_IOP_PATIENT"]\n'
    )
    with pytest.raises(SettingsError, match=named):
        check_settings(loaded(home, **environment))


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        pytest.param({"HTTP__PROT": "1"}, "http.prot", id="unknown key"),
        pytest.param({"NOSUCH__KEY": "1"}, "nosuch", id="unknown section"),
        pytest.param({"HTTP__PORT": "none"}, "http.port", id="not a number"),
        pytest.param({"HTTP__PORT": "70000"}, "http.port", id="port too large"),
        pytest.param({"NODE__ENVIRONMENT": "dev"}, "node.environment", id="unknown environment"),
        pytest.param({"NODE__ROLES": "king"}, "node.roles", id="unknown role"),
        pytest.param({"LEDGER__ENGINE": "paper"}, "ledger.engine", id="unknown engine"),
        pytest.param({"WITNESS__QUORUM": "-1"}, "witness.quorum", id="a quorum below nobody"),
        pytest.param({"MLLP__IDLE_SECONDS": "-1"}, "mllp.idle_seconds", id="negative time"),
        pytest.param({"ANCHORING__SHARD": "../x"}, "anchoring.shard", id="shard with a path in it"),
    ],
)
def test_not_a_setting(home: Path, environment: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        loaded(home, **environment)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param('[[sources]]\nname = "a"\nkind = "view"\n', "url and views", id="view without url"),
        pytest.param('[[sources]]\nname = "a"\nurl = "sqlite://"\n', "kind view", id="hl7v2 with url"),
        pytest.param('[[sources]]\nname = "a"\n[[sources]]\nname = "a"\n', "used twice", id="one name twice"),
        pytest.param('[[sources]]\nname = "a"\nprofile = "none"\n', "profile none", id="no such profile"),
    ],
)
def test_refused_sources(home: Path, text: str, named: str) -> None:
    (home / "config.toml").write_text((home / "config.toml").read_text().split("# added")[0] + "# added\n" + text)
    with pytest.raises(SettingsError, match=named):
        check_settings(loaded(home))


def _open_key(home: Path) -> None:
    (home / "keys" / "kek.key").chmod(0o644)


def _short_key(home: Path) -> None:
    (home / "keys" / "index.key").write_bytes(b"short")


def _lost_key(home: Path) -> None:
    (home / "keys" / "sign.key").unlink()


def _open_tokens(home: Path) -> None:
    (home / "tokens.json").chmod(0o644)


def _broken_tokens(home: Path) -> None:
    (home / "tokens.json").write_text('{"v":1,"tokens":[{"id":"x"}]}')


def _lost_genesis(home: Path) -> None:
    (home / "genesis.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        pytest.param(_open_key, "chmod 600", id="a key that others can read"),
        pytest.param(_short_key, "32 bytes", id="a key of the wrong length"),
        pytest.param(_lost_key, "sign.key is missing", id="a key that is gone"),
        pytest.param(_open_tokens, "chmod 600", id="tokens that others can read"),
        pytest.param(_broken_tokens, "not a token file", id="tokens that are no token file"),
        pytest.param(_lost_genesis, "ledger.genesis", id="a genesis that is gone"),
    ],
)
def test_refused_files(tmp_path: Path, spoil: Callable[[Path], None], named: str) -> None:
    create_home(tmp_path / "home", plan())
    spoil(tmp_path / "home")
    with pytest.raises(SettingsError, match=named):
        check_settings(loaded(tmp_path / "home"))


def test_demo_may_use_plain_http_between_machines(home: Path) -> None:
    (home / "config.toml").write_text((home / "config.toml").read_text().split("# added")[0])
    relaxed = {"NODE__ENVIRONMENT": "demo", "NODE__ENDPOINT": "http://node-a:8080", "HTTP__HOST": "0.0.0.0"}
    check_settings(loaded(home, **relaxed, MLLP__HOST="0.0.0.0"))


def test_behind_a_proxy_the_listener_may_be_plain_and_the_endpoint_not(home: Path) -> None:
    proxied = {"HTTP__HOST": "0.0.0.0", "HTTP__BEHIND_PROXY": "true"}
    check_settings(loaded(home, NODE__ENDPOINT="https://a.example", **proxied))
    with pytest.raises(SettingsError, match=r"node\.endpoint"):
        check_settings(loaded(home, NODE__ENDPOINT="http://a.example", **proxied))


def test_all_broken_rules_are_named_at_once(home: Path) -> None:
    with pytest.raises(SettingsError, match=r"node\.org.*ledger\.chain"):
        check_settings(loaded(home, NODE__ORG="x", LEDGER__CHAIN=""))


def test_the_value_of_a_wrong_setting_is_not_repeated(home: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(home, HTTP__PORT="secret-password")
    assert "secret-password" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("[node", id="not TOML"),
        pytest.param("home = 1", id="sets home"),
        pytest.param("x = 1", id="unknown"),
    ],
)
def test_a_config_file_that_cannot_be_used(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.toml").write_text(content)
    with pytest.raises(SettingsError):
        loaded(tmp_path)


def test_a_directory_that_is_no_home(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="yiqiao init"):
        loaded(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("sqlite:///node.db", "sqlite:////h/node.db", id="relative"),
        pytest.param("sqlite+pysqlite:///a/b.db", "sqlite+pysqlite:////h/a/b.db", id="relative with driver"),
        pytest.param("sqlite:////abs/node.db", "sqlite:////abs/node.db", id="absolute"),
        pytest.param("postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d", id="a server"),
    ],
)
def test_sqlite_paths_lie_below_home(url: str, expected: str) -> None:
    assert sqlite_below(Path("/h"), url) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("localhost", True), ("::1", True), ("[::1]", True),
        ("0.0.0.0", False), ("10.0.0.1", False), ("localhost.example", False), ("", False),
    ],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_every_rule_that_is_written_is_applied() -> None:
    from bridge import settings_rules

    written = {
        value for name, value in vars(settings_rules).items()
        if name.startswith("_") and getattr(value, "__annotations__", {}).get("return") == "str | None"
        and list(value.__annotations__) == ["settings", "return"]
    }  # fmt: skip
    assert written == {*settings_rules.RULES, *settings_rules.PRODUCTION_RULES}


def test_an_observer_keeps_no_records(tmp_path: Path, home: Path) -> None:
    joined = plan(roles=("observer",), genesis=home / "genesis.json", ledger_url="https://ledger.example")
    with pytest.raises(SettingsError, match=r"mllp\.enabled"):
        create_home(tmp_path / "with-mllp", joined)
    made = create_home(tmp_path / "observer", plan(
        roles=("observer",), genesis=home / "genesis.json", ledger_url="https://ledger.example", mllp=False,
    ))  # fmt: skip
    assert (made.observes, made.only_observes) == (True, True)


def test_mllp_beyond_this_machine_needs_tls_and_certificates_of_its_senders(home: Path) -> None:
    beyond = {"MLLP__HOST": "0.0.0.0"}
    files = {}
    for name in ("TLS_CERTIFICATE", "TLS_KEY", "TLS_CLIENT_CA"):
        file = home / f"mllp-{name.lower()}.pem"
        file.write_text("PEM")
        file.chmod(0o600)
        files[f"MLLP__{name}"] = str(file)
    check_settings(loaded(home, **beyond, **files))
    without_ca = {name: value for name, value in files.items() if not name.endswith("CA")}
    with pytest.raises(SettingsError, match="anybody may send"):
        check_settings(loaded(home, **beyond, **without_ca))
    check_settings(loaded(home, **beyond, **without_ca, MLLP__PLAIN_NETWORK="true"))
    Path(files["MLLP__TLS_KEY"]).chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        check_settings(loaded(home, **beyond, **files))
