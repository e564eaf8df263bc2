"""`yiqiao ledger` without CometBFT's binary: cards, founding, joining, moving a pilot, and what each refuses."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from anchor import genesis, transaction
from anchor.chain.cometbft import node_files
from anchor.chain.cometbft.replica_file import is_replica
from anchor.chain.cometbft.replica_store import ReplicaStore
from anchor.chain.embedded import EmbeddedChain
from anchor.contracts import members
from bridge.cli import yiqiao
from bridge.ledger_files import read_ledger_file
from bridge.ledger_setup import make_card
from bridge.node_keys import load_signer
from bridge.settings import load_settings
from bridge.settings_file import change_settings
from tests.ledger_consortium import org

CHAIN = "yiqiao-test"
ORGS = tuple(org(number) for number in range(41, 46))


def run(*arguments: object, code: int = 0) -> Result:
    outcome = CliRunner().invoke(yiqiao, [str(each) for each in arguments])
    assert outcome.exit_code == code, (outcome.output, outcome.exception)
    return outcome


def make_home(folder: Path, number: int, role: str, *more: str) -> Path:
    home = folder / f"n{number}"
    run("init", home, "--org", ORGS[number], "--name", f"N{number}", "--role", role, "--environment", "test",
        "--http-port", 18_500 + number, "--mllp-port", 0, *(more or ("--replicated", "--chain", CHAIN)))  # fmt: skip
    return home


def card(home: Path, number: int) -> Path:
    file = home.parent / f"card{number}.json"
    run("ledger", "card", "--home", home, "--p2p-address", f"127.0.0.1:{19_000 + number}", "--out", file)
    return file


@pytest.fixture
def homes(tmp_path: Path) -> list[Path]:
    roles = ("authority", "hospital", "hospital", "payer", "observer")
    return [make_home(tmp_path, number, role) for number, role in enumerate(roles)]


@pytest.fixture
def founded(homes: list[Path], tmp_path: Path) -> Path:
    """The ledger file of four validators and an observer, made by the first home, which has joined."""
    cards = [card(home, number) for number, home in enumerate(homes)]
    run("ledger", "init", *cards[1:], "--home", homes[0], "--out", tmp_path / "ledger.json")
    return tmp_path / "ledger.json"


class TestFounding:
    def test_every_member_holds_the_same_genesis_and_no_card_holds_a_secret(
        self, founded: Path, homes: list[Path], tmp_path: Path
    ) -> None:
        for home in homes[1:]:
            run("ledger", "join", founded, "--home", home)
        documents = {(home / "cometbft/config/genesis.json").read_bytes() for home in homes}
        assert len(documents) == 1
        assert len({(home / "genesis.json").read_bytes() for home in homes}) == 1
        secrets = [(home / "keys/sign.key").read_bytes() for home in homes]
        secrets += [node_files.read_validator_key(home / "cometbft").private_bytes_raw() for home in homes]
        handed = b"".join(file.read_bytes() for file in tmp_path.glob("*.json"))
        assert not [each for each in secrets if each in handed or each.hex().encode() in handed]

    def test_validators_vote_and_the_observer_follows(self, founded: Path) -> None:
        file = read_ledger_file(founded)
        assert sorted(each.name for each in file.validators) == sorted(ORGS[:4])
        assert {each.org for each in file.peers} == set(ORGS)
        state = genesis.parse(file.genesis).state()
        assert f"node/{ORGS[4]}" in state

    def test_rpc_is_on_loopback_and_peers_are_the_ledgers_only(self, founded: Path, homes: list[Path]) -> None:
        from bridge.replica_process import known_peers, replica_options

        settings = load_settings(homes[0])
        options = replica_options(settings)
        node_files.write_config(options.home, options.node)
        text = (options.home / "config/config.toml").read_text()
        assert 'laddr = "tcp://127.0.0.1:26657"' in text
        assert "pex = false" in text
        assert "filter_peers = true" in text
        assert set(known_peers(settings).values()) == {f"127.0.0.1:{19_000 + n}" for n in range(1, 5)}

    @pytest.mark.parametrize("name", ["cometbft/config/priv_validator_key.json", "cometbft/config/node_key.json"])
    def test_keys_are_their_owners_alone(self, founded: Path, homes: list[Path], name: str) -> None:
        assert (homes[0] / name).stat().st_mode & 0o077 == 0

    def test_three_validators_need_an_explicit_choice(self, homes: list[Path], tmp_path: Path) -> None:
        cards = [card(home, number) for number, home in enumerate(homes[:3])]
        arguments = ("ledger", "init", *cards[1:], "--home", homes[0], "--out", tmp_path / "ledger.json")
        refused = run(*arguments, code=1)
        assert "minimum" in str(refused.exception)
        run(*arguments, "--minimum", 3)

    def test_only_an_authority_founds(self, homes: list[Path], tmp_path: Path) -> None:
        card(homes[1], 1)
        refused = run("ledger", "init", "--home", homes[1], "--out", tmp_path / "x", code=1)
        assert "authority" in str(refused.exception)

    def test_a_power_of_somebody_else_is_refused(self, homes: list[Path], tmp_path: Path) -> None:
        cards = [card(home, number) for number, home in enumerate(homes)]
        base = ("ledger", "init", *cards[1:], "--home", homes[0], "--out", tmp_path / "x")
        assert "no card" in str(run(*base, "--power", f"{org(99)}=5", code=1).exception)
        run(*base, "--power", "nonsense", code=2)

    @pytest.mark.parametrize("change", ["proof", "name-of-the-node", "not-json"])
    def test_an_altered_card_is_refused(self, homes: list[Path], tmp_path: Path, change: str) -> None:
        card(homes[0], 0)
        file = card(homes[1], 1)
        value = json.loads(file.read_text())
        value["node"]["proof" if change == "proof" else "node"] = "00" * (64 if change == "proof" else 20)
        file.write_text("{" if change == "not-json" else json.dumps(value))
        run("ledger", "init", file, "--home", homes[0], "--out", tmp_path / "x", "--minimum", 1, code=1)

    @pytest.mark.parametrize("address", ["", "nowhere", "host:0", "tcp://a:1"])
    def test_an_address_that_is_none_is_refused(self, homes: list[Path], tmp_path: Path, address: str) -> None:
        refused = run("ledger", "card", "--home", homes[1], "--p2p-address", address, "--out", tmp_path / "c", code=1)
        assert "HOST:PORT" in str(refused.exception)


class TestJoining:
    def test_a_node_that_has_not_joined_does_not_serve(self, homes: list[Path]) -> None:
        refused = run("serve", "--home", homes[1], code=1)
        assert "joined no ledger" in str(refused.exception)

    def test_a_ledger_file_with_other_keys_of_this_member_is_refused(
        self, founded: Path, homes: list[Path], tmp_path: Path
    ) -> None:
        other = make_home(tmp_path / "again", 1, "hospital")
        refused = run("ledger", "join", founded, "--home", other, code=1)
        assert "another signing key" in str(refused.exception)

    def test_a_ledger_of_another_chain_is_refused(self, founded: Path, homes: list[Path]) -> None:
        change_settings(homes[1], {"ledger": {"chain": "another"}})
        assert "another" in str(run("ledger", "join", founded, "--home", homes[1], code=1).exception)

    @pytest.mark.parametrize("content", ["{}", "nonsense", '{"v":1}', "[]"])
    def test_what_is_no_ledger_file_is_refused(self, homes: list[Path], tmp_path: Path, content: str) -> None:
        file = tmp_path / "ledger.json"
        file.write_text(content)
        run("ledger", "join", file, "--home", homes[1], code=1)

    def test_a_replica_that_is_away_is_not_healthy(self, founded: Path, homes: list[Path]) -> None:
        change_settings(homes[0], {"cometbft": {"rpc_port": 19_999}})
        outcome = run("ledger", "status", "--home", homes[0], "--json", code=1)
        assert json.loads(outcome.output)["ok"] is False


class TestMoving:
    """A pilot on the embedded engine goes on under CometBFT: the same file, the same transactions."""

    @pytest.fixture
    def pilot(self, tmp_path: Path) -> list[Path]:
        authority = make_home(tmp_path, 0, "authority", "--chain", CHAIN)
        joins = ("--ledger-url", "http://127.0.0.1:18500", "--genesis", str(authority / "genesis.json"))
        return [authority, *(make_home(tmp_path, number, "hospital", *joins) for number in (1, 2, 3))]

    def run_pilot(self, pilot: list[Path], powers: int) -> None:
        """Admit the others, register every node, and give the first ``powers`` of them voting power."""
        settings = [load_settings(home) for home in pilot]
        signers = [load_signer(each) for each in settings]
        chain = EmbeddedChain(
            pilot[0] / "ledger.sqlite3", genesis=(pilot[0] / "genesis.json").read_bytes(),
            host_key=signers[0].sign, host_org=ORGS[0],
        )  # fmt: skip

        def send(number: int, type: str, body: dict[str, object]) -> None:
            envelope = transaction.build(
                chain=CHAIN, type=type, sender=ORGS[number], key=signers[number].sign,
                seq=chain.next_seq(ORGS[number]), expires=int(time.time()) + 300, body=body,
            )  # fmt: skip
            (result,) = chain.submit([envelope])
            assert result.ok, (result.code, result.message)

        def decide(action: dict[str, object]) -> None:
            send(0, "membership.propose", {"proposal": f"{chain.health().log_size:032x}", "action": action})

        try:
            for number, each in enumerate(settings):
                made = json.loads(make_card(each, f"127.0.0.1:{19_100 + number}"))
                if number:
                    decide({"kind": "admit", "member": members.admission(made["card"])})
                send(number, "node.register", made["node"])
            for number in range(powers):
                decide({"kind": "validator", "org": ORGS[number], "power": 10})
        finally:
            chain.close()

    def test_every_transaction_moves(self, pilot: list[Path], tmp_path: Path) -> None:
        self.run_pilot(pilot, 4)
        ledger, history = tmp_path / "ledger.json", tmp_path / "ledger.history"
        run("ledger", "migrate", "--home", pilot[0], "--out", ledger, "--history", history)
        for home in pilot[1:]:
            run("ledger", "join", ledger, "--history", history, "--home", home)
        states = []
        for home in pilot:
            settings = load_settings(home)
            assert (settings.ledger.engine, settings.ledger.url) == ("cometbft", "")
            signer, content = load_signer(settings), (home / "genesis.json").read_bytes()
            store = ReplicaStore(home / "ledger.sqlite3", genesis=content, org=signer.org, key=signer.sign)
            states.append((store.app_hash, store.ledger.head.height, store.ledger.head.log.size))
            store.close()
        assert len(set(states)) == 1
        assert len({(home / "cometbft/config/genesis.json").read_bytes() for home in pilot}) == 1
        assert is_replica(pilot[0] / "ledger.sqlite3")

    def test_a_moved_ledger_is_not_hosted_again(self, pilot: list[Path], tmp_path: Path) -> None:
        self.run_pilot(pilot, 4)
        ledger, history = tmp_path / "ledger.json", tmp_path / "ledger.history"
        run("ledger", "migrate", "--home", pilot[0], "--out", ledger, "--history", history)
        signer = load_signer(load_settings(pilot[0]))
        content = (pilot[0] / "genesis.json").read_bytes()
        ReplicaStore(pilot[0] / "ledger.sqlite3", genesis=content, org=signer.org, key=signer.sign).close()
        change_settings(pilot[0], {"ledger": {"engine": "embedded"}})
        assert "replica" in str(run("serve", "--home", pilot[0], code=1).exception)

    def test_too_few_validators_are_named(self, pilot: list[Path], tmp_path: Path) -> None:
        self.run_pilot(pilot, 3)
        refused = run(
            "ledger", "migrate", "--home", pilot[0], "--out", tmp_path / "l", "--history", tmp_path / "h", code=1
        )
        assert "3 members" in str(refused.exception)
        assert load_settings(pilot[0]).ledger.engine == "embedded"

    def test_a_cut_history_is_refused(self, pilot: list[Path], tmp_path: Path) -> None:
        self.run_pilot(pilot, 4)
        ledger, history = tmp_path / "ledger.json", tmp_path / "ledger.history"
        run("ledger", "migrate", "--home", pilot[0], "--out", ledger, "--history", history)
        history.write_bytes(history.read_bytes()[:-3])
        run("ledger", "join", ledger, "--history", history, "--home", pilot[1], code=1)
        assert not (pilot[1] / "ledger.sqlite3").exists()
        run("ledger", "join", ledger, "--home", pilot[2], code=1)


class TestSettingsFile:
    def test_values_are_set_where_they_stand_and_the_rest_is_kept(self, tmp_path: Path) -> None:
        file = tmp_path / "config.toml"
        file.write_text('# mine\n[ledger]\nengine = "embedded"  # pilot\nurl = ""\n\n[[sources]]\nname = "x"\n')
        change_settings(tmp_path, {"ledger": {"engine": "cometbft", "chain": "c"}, "cometbft": {"rpc_port": 7}})
        assert file.read_text() == (
            '# mine\n[ledger]\nchain = "c"\nengine = "cometbft"\nurl = ""\n\n[[sources]]\nname = "x"\n'
            "\n[cometbft]\nrpc_port = 7\n"
        )
