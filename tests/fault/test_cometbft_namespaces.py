"""Four real validators in network namespaces: the network is split and a line is lost below TCP, no process touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.comet_load import Load, check_acknowledged, endure_partition, settle, submit_one
from tests.comet_network import Network, require_cometbft, wait_until
from tests.ledger_consortium import AUTHORITY, HOSPITAL_A, HOSPITAL_B, PAYER, genesis_bytes
from tests.network_namespaces import Switch, require_namespaces

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(600)]

ORGS = (AUTHORITY, HOSPITAL_A, HOSPITAL_B, PAYER)
SPLIT_SECONDS = 5
"""Several rounds of consensus; TCP tries a silent line again after at most as long as it was silent."""


@pytest.fixture
def switch() -> Iterator[Switch]:
    require_cometbft()
    require_namespaces()
    with Switch(len(ORGS)) as made:
        yield made


@pytest.fixture
def network(switch: Switch, tmp_path: Path) -> Iterator[Network]:
    with Network(tmp_path / "net", genesis_bytes(), ORGS, switch=switch) as four:
        four.start()
        four.wait_for_height(2)
        yield four


def test_a_network_split_in_halves_makes_no_progress_and_no_fork(network: Network, switch: Switch) -> None:
    endure_partition(network, lambda: switch.split((2, 3)), switch.mend, SPLIT_SECONDS)


def test_a_validator_whose_line_is_lost_stops_nobody_and_catches_up(network: Network, switch: Switch) -> None:
    lost = network.nodes[3]
    loads = [Load(network.nodes[0]), Load(lost)]
    try:
        wait_until(lambda: all(load.acknowledged for load in loads), "an acknowledgement at each node")
        switch.unplug(3)
        alone = lost.height()
        network.wait_for_height(alone + 5, network.nodes[:3])  # three of four go on
        submit_one(network.nodes[1])
        assert lost.height() <= alone + 1
        before = len(loads[1].acknowledged)
        switch.mend()
        network.wait_for_height(alone + 5, [lost])
        wait_until(lambda: len(loads[1].acknowledged) > before, "an acknowledgement after the line is back")
    finally:
        for load in loads:
            load.stop()
    histories = settle(network)
    assert all(one == histories[0] for one in histories)
    assert check_acknowledged(lost, loads) > 0
