"""Each alarm of a node's evidence: silent up to its threshold, raised beyond it, gone with its cause; and its metric.

The real services over a real ledger; only the clock moves, and the host shows what a case says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anchor import checkpoint
from anchor.chain.followed import FollowedLedger
from anchor.checkpoint import SignedCheckpoint
from anchor.errors import ChainUnavailable, VerificationError
from anchor.gm import sm3
from bridge.evidence_metrics import evidence_alarms, evidence_metrics
from bridge.services import evidence_status
from bridge.services.evidence_status import EvidenceStatusService, Thresholds
from bridge.services.witnessing import WitnessService
from bridge.storage import witness_store
from bridge.storage.database import transact
from bridge.storage.witness_store import Heard
from tests.crooked_host import CrookedHost
from tests.evidence_world import AUTHORITY, CHAIN, HOSPITAL_A, HOSPITAL_B, World, keys
from tests.unit.test_observer_replay import _promote, move

ANCHORING, WITNESS, STAMP = 3600.0, 600.0, 900.0
"""Seconds: the thresholds of these tests; of the last three periods may pass."""


class Host:
    """The ledger as its host shows it: away, or with another checkpoint."""

    def __init__(self, chain: Any) -> None:
        self.chain, self.away, self.shown = chain, False, None

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise ChainUnavailable("away")
        return getattr(self.chain, name)

    def checkpoint(self) -> bytes:
        if self.away:
            raise ChainUnavailable("away")
        return self.shown or self.chain.checkpoint()


class Node:
    """The parts of hospital A's node that say how its evidence stands."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory)
        self.world.anchored(2)
        self.host = Host(self.world.chain)
        self.world.build_services(self.host)
        self.replay = FollowedLedger(directory / "observed.sqlite3", self.world.genesis)
        self.stamped: int | None = None
        key = keys(HOSPITAL_A)[0]
        self.observer = WitnessService(
            self.world.engine, self.host, HOSPITAL_A, key, CHAIN, self.world.clock, replay=self.replay
        )
        self.evidence_status = EvidenceStatusService(
            self.world.anchoring, self.world.witness, self.host,
            thresholds=Thresholds(ANCHORING, WITNESS, STAMP), quorum=2, last_timestamp=lambda: self.stamped,
            replay=self.replay, clock=self.world.clock,
        )  # fmt: skip

    def alarms(self) -> tuple[str, ...]:
        return self.evidence_status.read().alarms

    def later(self, seconds: float) -> None:
        self.world.clock.now += seconds

    def metrics(self) -> dict[str, float]:
        return {
            sample.labels.get("alarm", family.name): sample.value
            for family in evidence_metrics(self)
            for sample in family.samples
        }


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(evidence_status, "LEDGER_CACHE_SECONDS", -1.0)
    made = Node(tmp_path)
    made.world.witness.run()
    yield made
    made.replay.close()
    made.world.close()


def test_nothing_is_alarming_where_all_is_well(node: Node) -> None:
    assert node.alarms() == ()
    metrics = node.metrics()
    assert metrics["yiqiao_anchoring_lag_seconds"] == 0
    assert (metrics["yiqiao_ledger_witnesses"], metrics["yiqiao_ledger_quorum"]) == (2, 2)
    assert metrics["yiqiao_checkpoint_age_seconds"] == 0
    assert metrics["yiqiao_observer_replayed_size"] == 0, "nothing looked for yet"


def _waits(node: Node) -> None:
    node.world.store(5)


def _logged_and_away(node: Node) -> None:
    node.world.store(5)
    node.world.anchoring.drain()


def _unwitnessed(node: Node) -> None:
    node.world.store(5)
    node.later(1)
    node.world.anchoring.run()


TIMED = [
    pytest.param(_waits, "anchoring-late", ANCHORING, lambda n: n.world.anchoring.run(), "yiqiao_anchoring_lag_seconds",
                 id="a version waits to be logged"),
    pytest.param(_logged_and_away, "anchoring-late", ANCHORING, lambda n: n.world.anchoring.run(),
                 "yiqiao_anchoring_lag_seconds", id="a logged version waits to be published"),
    pytest.param(_unwitnessed, "too-few-witnesses", WITNESS, lambda n: n.world.witness.run(),
                 "yiqiao_ledger_head_age_seconds", id="the head lacks its quorum"),
    pytest.param(lambda n: None, "witness-late", WITNESS, lambda n: n.world.witness.run(),
                 "yiqiao_witness_look_age_seconds", id="this node has not looked"),
    pytest.param(lambda n: setattr(n, "stamped", int(n.world.clock())), "timestamp-late", 3 * STAMP,
                 lambda n: setattr(n, "stamped", int(n.world.clock())), "yiqiao_timestamp_age_seconds",
                 id="no time stamp for three periods"),
]  # fmt: skip


@pytest.mark.parametrize(("begin", "alarm", "threshold", "end", "metric"), TIMED)
def test_a_timed_alarm(
    node: Node, begin: Callable[[Node], Any], alarm: str, threshold: float, end: Callable[[Node], Any], metric: str
) -> None:
    begin(node)
    node.later(threshold)
    assert alarm not in node.alarms(), "at the threshold"
    assert node.metrics()[metric] == threshold
    node.later(1)
    assert alarm in node.alarms(), "beyond it"
    assert node.metrics()[alarm] == 1
    assert alarm in evidence_alarms(node)
    end(node)
    assert alarm not in node.alarms()
    assert alarm not in node.metrics()


def _forked(node: Node) -> None:
    signed = checkpoint.parse(node.world.chain.checkpoint())
    point = replace(signed.checkpoint, root=sm3(b"another history"))
    mine = checkpoint.sign(point, AUTHORITY, keys(AUTHORITY)[0], point.integer("time"))
    node.host.shown = checkpoint.render(SignedCheckpoint(point, (mine,)))
    node.world.witness.run()


def _reconciled(node: Node) -> None:
    node.host.shown = None
    node.world.witness.run()
    (conflict,) = node.world.witness.status().conflicts
    assert "ledger-conflict" in node.alarms(), "until somebody has seen it"
    assert node.world.witness.acknowledge(conflict.fingerprint)


def _unproven(node: Node) -> None:
    """Another member was shown one entry more, which the host does not prove here."""
    before = node.world.chain.checkpoint()
    _unwitnessed(node)
    ahead, origin = node.world.chain.checkpoint(), f"yiqiao/ledger/{CHAIN}"
    heard = Heard(HOSPITAL_B, checkpoint.parse(ahead).checkpoint.size, ahead, int(node.world.clock()), "")
    transact(node.world.engine, lambda conn: witness_store.hear(conn, origin, heard))
    node.host.shown = before

    def refuse(size1: int, size2: int) -> list[bytes]:
        raise VerificationError("no tree of that size")

    node.host.consistency_proof = refuse  # type: ignore[attr-defined]
    node.world.witness.run()


def _proven(node: Node) -> None:
    del node.host.consistency_proof  # type: ignore[attr-defined]
    node.host.shown = None
    node.world.witness.run()


def _nobody_signed(node: Node) -> None:
    point = checkpoint.parse(node.world.chain.checkpoint()).checkpoint
    node.host.shown = checkpoint.render(SignedCheckpoint(point))
    node.world.witness.run()


def _shown_again(node: Node) -> None:
    node.host.shown = None
    node.world.witness.run()


def _away(node: Node) -> None:
    node.host.away = True


def _back(node: Node) -> None:
    node.host.away = False


AT_ONCE = [
    pytest.param(_away, "ledger-away", _back, id="the ledger does not answer"),
    pytest.param(_forked, "ledger-conflict", _reconciled, id="two signed histories"),
    pytest.param(_unproven, "ledger-unproven", _proven, id="another member was shown more"),
    pytest.param(_nobody_signed, "ledger-invalid", _shown_again, id="nobody signed what the host shows"),
]


@pytest.mark.parametrize(("begin", "alarm", "end"), AT_ONCE)
def test_an_alarm_at_once(node: Node, begin: Callable[[Node], Any], alarm: str, end: Callable[[Node], Any]) -> None:
    begin(node)
    assert alarm in node.alarms()
    assert node.metrics()[alarm] == 1
    end(node)
    assert alarm not in node.alarms()


def test_an_observers_alarm_stays_while_the_ledger_is_what_it_is(node: Node) -> None:
    world = node.world
    assert node.observer.run().outcome == "unchanged"
    assert node.metrics()["yiqiao_observer_replayed_size"] == world.chain.health().log_size
    world.chain.close()
    crooked = CrookedHost(world.ledger_path, world.genesis, AUTHORITY, keys(AUTHORITY)[0], world.clock)
    crooked.append(move(world, seq=2), changes=_promote)
    node.host.chain = world.chain = world.open_chain()
    node.observer.run()
    assert {"ledger-rules", "ledger-conflict"} <= set(node.alarms())
    (kept,) = world.witness.status().conflicts
    assert world.witness.acknowledge(kept.fingerprint)
    node.observer.run()
    assert node.alarms() == ("ledger-rules",), "seen, and still so"


def test_counts_that_cannot_be_taken_are_left_out(node: Node) -> None:
    node.host.away = True
    assert node.metrics().get("yiqiao_ledger_head_age_seconds") is None
    assert node.metrics()["ledger-away"] == 1
    broken = SimpleNamespace(evidence_status=SimpleNamespace(read=_raise))
    assert evidence_alarms(broken) == ()


def _raise() -> Any:
    raise ChainUnavailable("its own copy cannot be opened")
