"""Four real validators of which one lies, has a wrong clock, loses its disk or has a full one: the others go on."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from anchor.chain.cometbft import light_blocks
from anchor.chain.cometbft.packing import unpack
from anchor.chain.cometbft.process import find_binary
from anchor.chain.embedded_replay import check_ledger
from tests.comet_load import Load, check_acknowledged, settle, submit_one
from tests.comet_network import WAIT_SECONDS, Network, Node, require_cometbft, wait_until
from tests.ledger_consortium import AUTHORITY, HOSPITAL_A, HOSPITAL_B, PAYER, genesis_bytes

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(600)]

ORGS = (AUTHORITY, HOSPITAL_A, HOSPITAL_B, PAYER)
SNAPSHOT_BLOCKS = 5
SMALL_DISK = "8m"
SKEW_SECONDS = 7_200


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    require_cometbft()
    with Network(tmp_path / "net", genesis_bytes(), ORGS) as four:
        for node in four.nodes:
            node.settings["snapshot_interval"] = SNAPSHOT_BLOCKS
        four.start()
        four.wait_for_height(2)
        yield four


def restart(node: Node, **settings: Any) -> None:
    node.kill()
    node.settings |= settings
    node.start()


def blocks(node: Node, first: int) -> list[dict[str, Any]]:
    """Return a node's CometBFT blocks from a height on, with the round in which each was decided."""
    rpc = node.rpc()
    try:
        found = []
        for height in range(first, node.height() + 1):
            block = dict(rpc.call("block", {"height": str(height)})["block"])
            block["round"] = rpc.call("commit", {"height": str(height)})["signed_header"]["commit"]["round"]
            found.append(block)
        return found
    finally:
        rpc.close()


def wipe(node: Node) -> None:
    """Lose all but the keys and the record of what the validator has signed."""
    for file in node.folder.glob("ledger.sqlite3*"):
        file.unlink()
    for name in ("blockstore.db", "state.db", "cs.wal", "evidence.db"):
        shutil.rmtree(node.home / "data" / name)


def test_a_lying_proposers_blocks_are_rejected_and_the_round_goes_on(network: Network) -> None:
    liar = network.nodes[2]
    address = bytes.fromhex(liar.status()["validator_info"]["address"])
    restart(liar, lie=True)
    wait_until(lambda: not liar.status()["sync_info"]["catching_up"], "the liar among the others again")
    first = network.nodes[0].height() + 1
    load = Load(network.nodes[0])
    try:
        network.wait_for_height(first + 8, network.nodes[:2])
    finally:
        load.stop()
    submit_one(liar)  # it lies when it proposes; what is submitted to it is proposed by the others
    found = blocks(network.nodes[0], first)
    assert all(bytes.fromhex(each["header"]["proposer_address"]) != address for each in found)
    assert any(each["round"] > 0 for each in found)  # its turns were passed over
    for tx in (tx for each in found for tx in each["data"]["txs"]):
        unpack(base64.b64decode(tx))
    histories = settle(network)
    assert all(one == histories[0] for one in histories)
    assert check_acknowledged(network.nodes[1], [load]) > 0


def test_a_lost_disk_is_rebuilt_by_replaying_the_chain(network: Network) -> None:
    for _ in range(3):
        submit_one(network.nodes[0])
    victim = network.nodes[1]
    victim.kill()
    submit_one(network.nodes[0])
    wipe(victim)
    victim.start()
    network.wait_for_height(network.nodes[0].height() + 1, [victim])
    submit_one(victim)
    assert int(victim.status()["sync_info"]["earliest_block_height"]) == 1
    histories = settle(network)
    assert all(one == histories[0] for one in histories)


def test_a_lost_disk_is_rebuilt_from_the_others_history(network: Network) -> None:
    for _ in range(3):
        submit_one(network.nodes[0])
    victim = network.nodes[1]
    victim.kill()
    wipe(victim)
    network.wait_for_height(3 * SNAPSHOT_BLOCKS, [network.nodes[0]])
    submit_one(network.nodes[0])
    rpc = network.nodes[0].rpc()
    trusted = light_blocks.fetch(rpc, network.nodes[0].height() - 1).signed_header.commit
    rpc.close()
    victim.settings["sync_servers"] = [network.nodes[0].url, network.nodes[2].url]
    victim.settings["trust"] = [trusted.height, trusted.block_id.hash.hex()]
    victim.start()
    network.wait_for_height(network.nodes[0].height() + 1, [victim])
    submit_one(victim)
    assert int(victim.status()["sync_info"]["earliest_block_height"]) > SNAPSHOT_BLOCKS
    histories = settle(network)
    assert all(one == histories[0] for one in histories)
    assert check_ledger(victim.ledger, genesis_bytes()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here; it needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(ballast: Path) -> None:
    """Write until there is no room left."""
    with ballast.open("wb", buffering=0) as stream, suppress(OSError):  # which tells that there is no room left
        while stream.write(bytes(4_096)):
            pass


def test_a_full_disk_stops_one_replica_and_costs_the_ledger_nothing(network: Network, small_disk: Path) -> None:
    submit_one(network.nodes[0])
    victim = network.nodes[3]
    assert victim.stop() == 0
    shutil.move(victim.folder, small_disk / "node3")
    log = victim.folder.with_name("replica3.log")
    victim.folder, victim.log_file = small_disk / "node3", log
    victim.start()
    wait_until(lambda: not victim.status()["sync_info"]["catching_up"], "the victim among the others again")
    ballast = small_disk / "ballast"
    load = Load(network.nodes[0])
    try:
        fill(ballast)
        assert victim.process is not None
        victim.process.wait(WAIT_SECONDS)
        assert victim.process.returncode in (1, 3)
        victim.process = None
        assert "halted.json" not in [file.name for file in victim.home.iterdir()]
        submit_one(network.nodes[1])
        ballast.unlink()
        victim.start()
        network.wait_for_height(network.nodes[0].height() + 1, [victim])
    finally:
        load.stop()
    histories = settle(network)
    assert all(one == histories[0] for one in histories)
    assert check_acknowledged(victim, [load]) > 0


@pytest.fixture(scope="session")
def skewed_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CometBFT whose clock is two hours fast, built from the sources that its binary was installed from."""
    require_cometbft()
    if not os.environ.get("YIQIAO_TEST_CONSENSUS_FAULTS"):
        pytest.skip("builds CometBFT anew with another clock; YIQIAO_TEST_CONSENSUS_FAULTS=1 runs it")
    version = subprocess.run(["go", "version", "-m", find_binary()], capture_output=True, text=True, check=True).stdout
    module = next(line.split()[1:3] for line in version.splitlines() if line.split()[0] == "mod")
    cache = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    source = Path(cache) / f"{module[0]}@{module[1]}"
    folder = tmp_path_factory.mktemp("skewed") / "source"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("docs", "spec"))
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)
    clock = (folder / "types/time/time.go").read_text()
    assert clock.count("return Canonical(time.Now())") == 1
    fast = clock.replace("time.Now()", f"time.Now().Add({SKEW_SECONDS} * time.Second)")
    (folder / "types/time/time.go").write_text(fast)
    subprocess.run(["go", "build", "-C", str(folder), "-o", "fast-cometbft", "./cmd/cometbft"], check=True)
    return folder / "fast-cometbft"


def test_a_wrong_clock_moves_neither_block_time_nor_the_ledger(network: Network, skewed_binary: Path) -> None:
    victim = network.nodes[2]
    restart(victim, binary=str(skewed_binary))
    wait_until(lambda: not victim.status()["sync_info"]["catching_up"], "the victim among the others again")
    first = network.nodes[0].height() + 2
    load = Load(victim)
    try:
        network.wait_for_height(first + 8, network.nodes[:2])
    finally:
        load.stop()
    rpc = network.nodes[0].rpc()
    found = [light_blocks.fetch(rpc, height).signed_header for height in range(first, network.nodes[0].height())]
    rpc.close()
    ahead = [vote for each in found for vote in each.commit.signatures if vote.timestamp.seconds > time.time() + 3_600]
    assert ahead  # it votes, with its own time
    assert all(abs(each.header.time.seconds - time.time()) < 60 for each in found)
    histories = settle(network)
    assert all(one == histories[0] for one in histories)
    assert check_acknowledged(network.nodes[0], [load]) > 0
