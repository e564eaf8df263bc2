"""The same story on a ledger that four institutions replicate with CometBFT, and what only such a ledger can show."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from anchor.chain.cometbft.rpc import CometRpc
from anchor.errors import ChainError
from bridge.demo import tampering
from bridge.demo.nodes import DemoNode, free_ports, yiqiao
from bridge.demo.report import Report
from bridge.demo.scenario import CHAIN, PATIENT, Scenario, wait_for
from bridge.settings import load_settings

INSURER_ORG = "12990000MB0000051P"
VALIDATORS = 4


class ReplicatedScenario(Scenario):
    """Four nodes, each with a replica of the ledger and CometBFT's binary below it."""

    founding = (
        "An authority and three institutions found a ledger that each of them replicates",
        "主管机构与三家机构共同建立由各方复制的账本",
    )

    def __init__(self, folder: Path, report: Report, binary: str) -> None:
        super().__init__(folder, report)
        self._binary = binary
        http, mllp = free_ports(2)
        self.insurer = DemoNode(folder / "insurer", INSURER_ORG, "Demo Medical Insurer", "payer", http, mllp)
        self.nodes = (*self.nodes, self.insurer)

    def steps(self) -> tuple[Callable[[], None], ...]:
        """Return the steps in their order: a validator is lost before the ledger's bytes are looked through."""
        steps = super().steps()
        where = steps.index(self.look_for_private_data)
        return (*steps[:where], self.lose_a_validator, *steps[where:])

    def start_nodes(self) -> None:
        """Every member hands its card to the authority and takes the ledger file back; then all start."""
        cards = []
        ports = iter(free_ports(2 * len(self.nodes)))
        for node in self.nodes:
            self.init_node(node, "--replicated", "--chain", CHAIN)
            card, p2p = self.folder / f"card-{node.org}.json", next(ports)
            yiqiao(
                "ledger", "card", "--home", node.home, "--out", card, "--p2p-address", f"127.0.0.1:{p2p}",
                "--p2p-port", str(p2p), "--rpc-port", str(next(ports)),
            )  # fmt: skip
            config = node.home / "config.toml"
            text = config.read_text("utf-8").replace("[cometbft]", f"[cometbft]\nbinary = {json.dumps(self._binary)}")
            config.write_text(text, "utf-8")
            cards.append(card)
        self.add_his()
        ledger = self.folder / "ledger.json"
        yiqiao("ledger", "init", *cards[1:], "--home", self.authority.home, "--out", ledger)
        for node in self.nodes[1:]:
            yiqiao("ledger", "join", ledger, "--home", node.home)
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_ready()

    def found_consortium(self) -> None:
        """Found it, and look at what the replicas say of each other."""
        super().found_consortium()
        status = self.authority.command_json("ledger", "status")
        peers = {peer["org"] for peer in status["peers"]}
        self.report.check(
            "four validators of equal power, of which any three go on", len(status["validators"]) == VALIDATORS,
            ", ".join(f"{each['org']} {each['power']}" for each in status["validators"]),
        )  # fmt: skip
        self.report.check(
            "connected to the members that the ledger names, and to nobody else",
            peers == {node.org for node in self.nodes[1:]},
        )

    def anchor(self) -> None:
        """Anchor as everywhere; the receipt carries CometBFT's own proof beside the witnesses' signatures."""
        super().anchor()
        verdict = yiqiao("verify", self.folder / "patient-receipt.json", "--trust", self.trust, "--json")
        steps = {step["name"]: step["detail"] for step in json.loads(verdict.stdout)["steps"]}
        self.report.check(
            "the receipt carries the validators' commit: final without trust in any one node", "finality" in steps,
            steps.get("finality", ""),
        )  # fmt: skip

    def lose_a_validator(self) -> None:
        """Kill one node; the others go on without it, and it takes up what it has missed."""
        self.report.step(
            "One institution's node is killed; the ledger goes on", "一家机构的节点被强制终止，账本继续运行"
        )
        self.insurer.kill()
        started = time.monotonic()
        until = time.strftime("%Y-%m-%d", time.localtime(time.time() + 86_400))
        grant = self.a.command_json("grant", "--patient", PATIENT, "--to", self.b.org, "--purpose", "TREAT",
                                    "--until", until)  # fmt: skip
        self.a.command("revoke", grant["id"])
        self.report.check(
            "the other three committed a grant and its revocation", True, f"{time.monotonic() - started:.1f} s"
        )
        started = time.monotonic()
        self.insurer.start()
        self.insurer.wait_ready()
        height = max(_height(node) for node in self.nodes[:-1])
        wait_for(lambda: _height(self.insurer) >= height or None, "the killed node at the others' height")
        took = time.monotonic() - started
        hashes = {_app_hash(node, height) for node in self.nodes}
        self.report.check(
            "it came back, and all four replicas have one app_hash", len(hashes) == 1,
            f"{', '.join(hashes)} at height {height}, after {took:.1f} s",
        )  # fmt: skip

    def ledger_files(self) -> list[Path]:
        """Return the files of every replica: the state machine's, and CometBFT's blocks and logs."""
        files = [file for node in self.nodes for file in node.home.glob("ledger.sqlite3*")]
        files += [file for node in self.nodes for file in (node.home / "cometbft/data").rglob("*") if file.is_file()]
        return sorted(files)

    def refuse_forgeries(self) -> None:
        """Alter what belongs to the validators as well: their commit, and the trust file's word of who they are."""
        super().refuse_forgeries()
        receipt, trust = self.folder / "patient-receipt.json", self.folder / "forged-trust.json"
        trust.write_bytes(tampering.other_validators(self.trust.read_bytes()))
        verdict = yiqiao("verify", receipt, "--trust", trust, "--json", expect=None)
        self.report.check(
            "validators that the trust file does not name", verdict.returncode == 1,
            tampering.failing_step(verdict.stdout or verdict.stderr),
        )  # fmt: skip


def _height(node: DemoNode) -> int:
    """Return the height of a node's CometBFT, 0 while it does not answer."""
    try:
        return int(_call(node, "status", {})["sync_info"]["latest_block_height"])
    except ChainError:
        return 0


def _app_hash(node: DemoNode, height: int) -> str:
    """Return the application's hash in a node's header: CometBFT keeps none that its own replica has not computed."""
    return str(_call(node, "block", {"height": str(height)})["block"]["header"]["app_hash"]).lower()


def _call(node: DemoNode, method: str, parameters: Mapping[str, str]) -> Mapping[str, Any]:
    rpc = CometRpc(f"http://127.0.0.1:{load_settings(node.home).cometbft.rpc_port}")
    try:
        return rpc.call(method, parameters)
    finally:
        rpc.close()
