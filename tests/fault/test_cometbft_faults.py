"""Four real validators that are killed, cut off, lied to and made to diverge: nothing acknowledged is lost, no fork."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchor.chain.cometbft.client import CometChain
from anchor.chain.cometbft.replica import HALTED_FILE, SOCKET_FILE, halted_reason
from anchor.chain.embedded_replay import check_ledger
from tests.comet_load import Load, check_acknowledged, endure_partition, settle, submit_one
from tests.comet_network import STOP_SECONDS, WAIT_SECONDS, Network, require_cometbft, wait_until
from tests.ledger_consortium import AUTHORITY, HOSPITAL_A, HOSPITAL_B, PAYER, genesis_bytes

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(600)]

ORGS = (AUTHORITY, HOSPITAL_A, HOSPITAL_B, PAYER)
ROUNDS = int(os.environ.get("YIQIAO_KILL_ROUNDS", "6"))
"""Rounds of kill -9; 50 take some four minutes."""
LONG_NAME = "net-" * 30
"""A folder whose path is longer than that of a UNIX socket may be."""
CUT_SECONDS = 8
"""How long there is no quorum: many rounds of consensus, and less than CometBFT waits for a silent peer."""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    require_cometbft()
    with Network(tmp_path / LONG_NAME, genesis_bytes(), ORGS) as four:
        four.start()
        four.wait_for_height(2)
        yield four


@pytest.mark.timeout(300 + 30 * ROUNDS)
def test_random_kills_under_load_lose_and_double_nothing(network: Network) -> None:
    rng = random.Random(20_261_123)
    loads = [Load(node) for node in network.nodes]
    recoveries = []
    try:
        for number in range(ROUNDS):
            victims = rng.sample(network.nodes, rng.choice((1, 1, 2)))
            time.sleep(rng.uniform(0.3, 1.2))
            for node in victims:
                node.kill()
            time.sleep(rng.uniform(0.0, 1.0))
            before = max(each.height() for each in network.nodes if each.process is not None)
            began = time.monotonic()
            for node in victims:
                node.start()
            network.wait_for_height(before + 2)
            recoveries.append(time.monotonic() - began)
            enough = 20 * (number + 1)
            wait_until(lambda: sum(len(each.acknowledged) for each in loads) > enough, "acknowledgements")  # noqa: B023
    finally:
        for load in loads:
            load.stop()
    histories = settle(network)
    print("rounds", ROUNDS, "recovery s: max", round(max(recoveries), 1), "mean", round(sum(recoveries) / ROUNDS, 1))
    assert all(one == histories[0] for one in histories)
    assert check_acknowledged(network.nodes[0], loads) > 20 * ROUNDS
    for node in network.nodes:
        assert check_ledger(node.ledger, genesis_bytes()) == []


def test_one_dead_validator_stops_nothing_and_two_stop_everything_until_one_is_back(network: Network) -> None:
    network.nodes[3].kill()
    submit_one(network.nodes[0])
    network.nodes[2].kill()
    before = max(node.height() for node in network.nodes[:2])
    time.sleep(CUT_SECONDS)
    assert max(node.height() for node in network.nodes[:2]) <= before + 1  # that whose votes were on their way
    network.nodes[2].start()
    wait_until(lambda: network.nodes[0].height() > before + 2, "blocks after one of the two is back")
    submit_one(network.nodes[0])
    network.nodes[3].start()
    network.wait_for_height(network.nodes[0].height() + 1)
    histories = settle(network)
    assert all(one == histories[0] for one in histories)


@pytest.fixture
def severable(tmp_path: Path) -> Iterator[Network]:
    require_cometbft()
    with Network(tmp_path / "net", genesis_bytes(), ORGS, severable=True) as four:
        four.start()
        four.wait_for_height(2)
        yield four


def test_a_partition_of_two_against_two_makes_no_progress_and_no_fork(severable: Network) -> None:
    between = [link for (one, other), link in severable.links.items() if (one < 2) != (other < 2)]

    def split() -> None:
        for link in between:
            link.cut()

    def mend() -> None:
        for link in between:
            link.mend()

    endure_partition(severable, split, mend, CUT_SECONDS)


@pytest.mark.parametrize("when", ["catching-up", "taking-part"])
def test_a_diverging_replica_halts_itself_says_why_and_the_others_go_on(network: Network, when: str) -> None:
    submit_one(network.nodes[0])
    victim = network.nodes[2]
    victim.kill()
    victim.settings["diverge"] = True  # its state machine gives another hash from now on
    if when == "catching-up":
        for _ in range(3):
            submit_one(network.nodes[0])
        victim.start()
    else:
        victim.start()
        wait_until(lambda: not victim.status()["sync_info"]["catching_up"], "the victim among the others again")
        submit_one(network.nodes[0])
    halted = victim.home / HALTED_FILE
    wait_until(halted.is_file, "the halt")
    reason = wait_until(lambda: halted_reason(victim.home), "its reason")
    assert "contradicts the other validators" in reason
    assert "AppHash" in reason, reason
    assert victim.process is not None
    assert victim.process.wait(STOP_SECONDS) == 3
    victim.process = None
    chain = CometChain(victim.url, home=victim.home, timeout_seconds=2)
    health = chain.health()
    chain.close()
    assert not health.ok
    assert health.detail.startswith("halted: ")
    submit_one(network.nodes[3])


@pytest.mark.parametrize("when", ["before-persisting", "before-answering"])
def test_a_crash_between_finalising_and_committing_loses_and_doubles_nothing(network: Network, when: str) -> None:
    submit_one(network.nodes[0])
    victim = network.nodes[1]
    victim.kill()
    victim.settings["crash"] = when  # the next block with transactions is this process's last
    victim.start()
    load = Load(network.nodes[0])
    try:
        assert victim.process is not None
        assert victim.process.wait(WAIT_SECONDS) == -9
        victim.process = None
        assert (victim.home / SOCKET_FILE).is_socket()  # left behind where the next start replaces it
        del victim.settings["crash"]
        victim.start()
        network.wait_for_height(network.nodes[0].height() + 3, [victim])
    finally:
        load.stop()
    submit_one(victim)
    histories = settle(network)
    assert all(one == histories[0] for one in histories)
    for node in network.nodes:
        assert check_acknowledged(node, [load]) > 0
    assert check_ledger(victim.ledger, genesis_bytes()) == []
