"""A pilot's ledger moves to CometBFT by the commands that operators type: every transaction and receipt stays valid."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from anchor.chain.embedded_store import LedgerFile
from anchor.transaction import parse
from bridge.cli import yiqiao as commands
from bridge.demo import sources
from bridge.demo.nodes import DemoNode, free_ports
from bridge.settings_file import change_settings
from tests.comet_network import require_cometbft
from tests.ledger_consortium import org
from tests.node_consortium import wait_for

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(900)]

CHAIN = "moving"
ROLES = ("authority", "hospital", "hospital", "payer")
PATIENT = f"{sources.ID_NUMBER_SYSTEM}|{sources.PATIENT_ID_NUMBER}"
SECONDS = 120.0
IDLE_SECONDS = 180.0
"""Until an idle ledger has made two blocks: two heartbeats of 10 s, and whatever is anchored late before them."""
QUICK = {
    "anchoring": {"period_seconds": 1.0},
    "witness": {"period_seconds": 1.0},
    "worker": {"idle_seconds": 0.05, "drain_seconds": 60.0},  # a bound: a busy machine stops five nodes slowly
    "exchange": {"register_seconds": 1.0},  # which the authority audits, and so anchors: not half a minute later
}


def yiqiao(*arguments: str | Path, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which spares a start for each of some seventy; the nodes are processes."""
    outcome = CliRunner().invoke(commands, [str(each) for each in arguments])
    assert expect is None or outcome.exit_code == expect, (arguments, outcome.output, outcome.exception)
    return subprocess.CompletedProcess(arguments, outcome.exit_code, outcome.stdout, outcome.stderr)


class Consortium:
    """Four homes below one folder, and an observer's; ``close`` kills what still runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes = [self._node(number, role) for number, role in enumerate(ROLES)]
        self.authority, self.hospital = self.nodes[:2]
        self.observer = self._node(len(ROLES), "observer")
        self.alone: subprocess.Popen[bytes] | None = None
        self.ledger, self.history, self.trust = folder / "ledger.json", folder / "ledger.history", folder / "trust.json"

    def _node(self, number: int, role: str) -> DemoNode:
        return DemoNode(self.folder / f"{role}{number}", org(61 + number), f"N{number}", role, *free_ports(2))

    def init(self, node: DemoNode, *more: str | Path) -> None:
        yiqiao(
            "init", node.home, "--org", node.org, "--name", node.name, "--role", node.role, "--environment", "test",
            "--http-port", str(node.http_port), "--mllp-port", str(node.mllp_port), *more,
        )  # fmt: skip
        change_settings(node.home, QUICK)

    def address(self, node: DemoNode) -> None:
        """Give a node's part of the ledger its ports and its keys."""
        p2p, rpc = free_ports(2)
        yiqiao(
            "ledger", "card", "--home", node.home, "--p2p-address", f"127.0.0.1:{p2p}", "--p2p-port", str(p2p),
            "--rpc-port", str(rpc), "--out", self.folder / f"ledger-{node.org}.json",
        )  # fmt: skip

    def admit(self, node: DemoNode) -> None:
        card = self.folder / f"card-{node.org}.json"
        yiqiao("member", "card", "--home", node.home, "--out", card)
        yiqiao("member", "admit", card, "--home", self.authority.home)

    def serve(self, nodes: list[DemoNode]) -> None:
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_ready()

    def stop(self) -> None:
        assert [node.stop() for node in self.nodes if node.process] == [0] * sum(1 for n in self.nodes if n.process)

    def status(self, node: DemoNode) -> dict[str, Any]:
        done = node.command("ledger", "status", "--json", expect=None)
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if found["ok"] else 1)
        return found

    def healthy(self, node: DemoNode) -> dict[str, Any]:
        """Return a replica's status once it is level with the others."""

        def look() -> dict[str, Any] | None:
            found = self.status(node)
            return found if found["ok"] else None

        found: dict[str, Any] = wait_for(look, f"{node.name}'s replica level with the others", SECONDS)
        return found

    def close(self) -> None:
        if self.alone is not None:
            self.alone.kill()
            self.alone.wait()
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.kill()


@pytest.fixture
def consortium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Consortium]:
    require_cometbft()
    monkeypatch.setattr("bridge.demo.nodes.yiqiao", yiqiao)
    made = Consortium(tmp_path)
    yield made
    made.close()


def verify(receipt: Path, trust: Path, resource: Path | None = None) -> dict[str, str]:
    """Verify offline and return the steps that held, by name."""
    more = [] if resource is None else ["--resource", resource]
    done = yiqiao("verify", receipt, "--trust", trust, *more, "--json", expect=None)
    assert done.returncode == 0, done.stdout
    return {step["name"]: step["detail"] for step in json.loads(done.stdout)["steps"]}


def witnessed_receipt(node: DemoNode, reference: str, out: Path) -> Path:
    """Write a record's receipt as soon as the others have cosigned it."""

    def witnessed() -> bool:
        done = node.command("receipt", reference, "--out", out, "--json", expect=None)  # 1: not in the log yet
        return done.returncode == 0 and json.loads(done.stdout)["state"] == "witnessed"

    wait_for(witnessed, "a witnessed receipt", SECONDS)
    return out


def patient_of(node: DemoNode) -> dict[str, Any]:
    created = yiqiao("token", "create", "--home", node.home, "--name", "test", "--role", "operator", "--json")
    node.token = json.loads(created.stdout)["token"]
    found = wait_for(lambda: node.search_by_post("Patient", identifier=PATIENT).get("entry"), "the patient", SECONDS)
    resource: dict[str, Any] = found[0]["resource"]
    return resource


def entries(home: Path) -> list[bytes]:
    """Return the envelopes of a ledger's file in log order."""
    file = LedgerFile(home / "ledger.sqlite3")
    try:
        return [row.envelope for row in file.transactions(0, 10_000)]
    finally:
        file.close()


def listeners(port: int) -> set[str]:
    """Return the local addresses, as the kernel writes them, that listen on a TCP port."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}


def run_pilot(it: Consortium) -> dict[str, Any]:
    """A pilot on the embedded engine with one anchored, witnessed record; every node gets keys and voting power."""
    it.init(it.authority, "--chain", CHAIN)
    for node in it.nodes[1:]:
        it.init(node, "--ledger-url", it.authority.endpoint, "--genesis", it.authority.home / "genesis.json")
    it.serve([it.authority])
    for node in it.nodes[1:]:
        it.admit(node)
    it.serve(it.nodes[1:3])
    assert b"|AA|" in it.hospital.send_mllp(sources.admission())
    patient = patient_of(it.hospital)
    witnessed_receipt(it.hospital, f"Patient/{patient['id']}", it.folder / "old.json")
    (it.folder / "patient.json").write_bytes(it.hospital.get(f"fhir/Patient/{patient['id']}").content)
    yiqiao("trust", "--home", it.authority.home, "--out", it.folder / "old-trust.json")
    verify(it.folder / "old.json", it.folder / "old-trust.json", it.folder / "patient.json")
    for node in it.nodes:
        it.address(node)
        node.command("ledger", "register")
    for node in it.nodes:
        it.authority.command("ledger", "validator", node.org)
    it.stop()
    return patient


def test_a_pilot_moves_with_every_transaction_and_receipt_and_an_observer_follows(consortium: Consortium) -> None:
    it = consortium
    run_pilot(it)
    before = entries(it.authority.home)
    yiqiao("ledger", "migrate", "--home", it.authority.home, "--out", it.ledger, "--history", it.history)
    for node in it.nodes[1:]:
        node.command("ledger", "join", it.ledger, "--history", it.history)
    it.serve(it.nodes)

    status = it.healthy(it.authority)
    assert [each["power"] for each in status["validators"]] == [10] * 4
    it.authority.command("ledger", "export-trust", "--out", it.trust)
    for trust in (it.folder / "old-trust.json", it.trust):  # what was handed out before the move holds after it
        assert "quorum" in verify(it.folder / "old.json", trust, it.folder / "patient.json")

    assert b"|AA|" in it.hospital.send_mllp(sources.laboratory_report())
    found = wait_for(lambda: it.hospital.search_by_post("Observation").get("entry"), "a result", SECONDS)
    new = witnessed_receipt(it.hospital, f"Observation/{found[0]['resource']['id']}", it.folder / "new.json")
    assert "of 40 power" in verify(new, it.trust)["finality"]
    check_refusals(it, new)
    check_follower(it)
    check_new_validator_key(it, new)

    for node in it.nodes:
        port = int(_setting(node, "rpc_port"))
        wait_for(lambda port=port: listeners(port), f"the RPC of {node.name}'s replica", SECONDS)
        assert listeners(port) == {"0100007F"}  # 127.0.0.1
    check_heartbeat(it)
    it.stop()
    histories = [entries(node.home) for node in it.nodes]
    assert all(one[: len(before)] == before for one in histories)
    assert len(histories[0]) > len(before)
    assert len({tuple(one[: min(map(len, histories))]) for one in histories}) == 1


def check_refusals(it: Consortium, receipt: Path) -> None:
    """A receipt is refused under another trust file's validators, and with another header or fewer signatures."""
    from bridge.demo import tampering

    content = receipt.read_bytes()
    forged, others = it.folder / "forged.json", it.folder / "others.json"
    others.write_bytes(tampering.other_validators(it.trust.read_bytes()))
    cases = [(what, made, it.trust) for what, made in tampering.forgeries(content)]
    cases.append(("validators that the trust file does not name", content, others))
    steps = {}
    for what, made, trust in cases:
        forged.write_bytes(made)
        done = yiqiao("verify", forged, "--trust", trust, "--json", expect=1)
        steps[what] = json.loads(done.stdout)["step"]
    assert [what for what, step in steps.items() if step == "finality"] == [
        "another state in the final block's header", "a validator's bent signature",
        "the commit of two validators out of four", "a validator with more power",
        "validators that the trust file does not name",
    ]  # fmt: skip
    assert steps["a bent cosignature"] == "checkpoint"


def check_follower(it: Consortium) -> None:
    """A member admitted later joins through the authority and follows without voting, by `yiqiao ledger start`."""
    node = it.observer
    it.init(node, "--replicated", "--chain", CHAIN)
    it.address(node)
    it.admit(node)
    node.command("ledger", "join", it.ledger, "--history", it.history, "--via", it.authority.endpoint)
    with (node.home / "ledger.log").open("wb") as log:
        command = [sys.executable, "-m", "bridge.cli", "ledger", "start", "--home", str(node.home)]
        it.alone = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def follows() -> dict[str, Any] | None:
        own, first = it.status(node), it.status(it.authority)
        same = ("height", "log_size", "app_hash")
        return own if own["ok"] and [own[name] for name in same] == [first[name] for name in same] else None

    status = wait_for(follows, "the observer at the others' height with their hash", SECONDS)
    assert status["power"] == 0
    assert len(status["validators"]) == 4
    members = {each.org for each in it.nodes}
    assert {peer["org"] for peer in status["peers"]} <= members
    assert {peer["org"] for peer in it.healthy(it.authority)["peers"]} <= members | {node.org}
    assert "follows without voting" in node.command("ledger", "status").stdout
    it.alone.send_signal(signal.SIGTERM)
    assert it.alone.wait(SECONDS) == 0
    assert "NOT HEALTHY" in node.command("ledger", "status", expect=1).stdout


def check_new_validator_key(it: Consortium, receipt: Path) -> None:
    """A node's new key votes once the node is restarted, and receipts from before it stay valid."""
    node, away = it.nodes[3], it.nodes[2]
    before = it.healthy(node)["key"]
    node.command("ledger", "rotate-key")
    assert node.stop() == 0
    node.start()
    node.wait_ready()
    status = it.healthy(node)
    assert (status["key"] != before, status["power"]) == (True, 10)
    assert away.stop() == 0  # three of four are left, and the rotated one is of them
    it.authority.command("ledger", "validator", node.org, "--power", "9")
    away.start()
    away.wait_ready()
    it.authority.command("ledger", "export-trust", "--out", it.trust)
    keys = [{each["key"] for each in one["set"]} for one in json.loads(it.trust.read_text())["validators"]]
    assert before in keys[-3]
    assert before not in keys[-2] | keys[-1]
    assert "of 40 power" in verify(receipt, it.trust)["finality"]


def check_heartbeat(it: Consortium) -> None:
    """An idle ledger makes empty blocks, which are none of its own: its time does not grow stale.

    It is idle once no node has anything left to anchor; what is anchored late begins the watch anew.
    """
    seen = [it.healthy(it.authority)]

    def beats() -> bool:
        now = it.status(it.authority)
        if now["ok"]:
            seen.append(now)
        idle = [each for each in seen if each["height"] == seen[-1]["height"]]
        return bool(idle[-1]["comet_height"] > idle[0]["comet_height"] + 1)

    try:
        wait_for(beats, "blocks without transactions", IDLE_SECONDS)
    except AssertionError as error:
        heights = sorted({(each["height"], each["comet_height"]) for each in seen})
        late = [parse(one).type for one in entries(it.authority.home)[seen[0]["log_size"] :]]
        raise AssertionError(f"{error}; ledger and CometBFT heights {heights}; committed meanwhile: {late}") from None
    wait_for(lambda: it.healthy(it.authority)["block_age_seconds"] < 20, "a block of the last 20 s", SECONDS)


def _setting(node: DemoNode, name: str) -> Any:
    return tomllib.loads((node.home / "config.toml").read_text("utf-8"))["cometbft"][name]
