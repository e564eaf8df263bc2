"""Witnessing: what is cosigned, what is not, and the evidence kept against a host that shows two histories."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anchor import checkpoint
from anchor.checkpoint import SignedCheckpoint
from anchor.errors import ChainUnavailable, VerificationError
from anchor.gm import PrivateKey, sm3
from bridge.services.gossip import MAX_HEADER_CHARACTERS, CheckpointGossip
from bridge.services.witnessing import REACHED_WITHIN_SECONDS
from bridge.storage import witness_store
from bridge.storage.database import read_transaction
from tests.evidence_world import AUTHORITY, CHAIN, HOSPITAL_A, HOSPITAL_B, World, keys


class Host:
    """The real ledger with a lying mouth: shows another checkpoint, loses cosignatures, or has none to give."""

    def __init__(self, chain: Any) -> None:
        self._chain = chain
        self.shown: bytes | None = None
        self.lose_cosignatures = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)

    def checkpoint(self) -> bytes:
        return self.shown or self._chain.checkpoint()

    def cosign(self, note: bytes) -> None:
        if self.lose_cosignatures:
            raise ChainUnavailable("down")
        self._chain.cosign(note)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.anchored(2)
    yield world
    world.close()


@pytest.fixture
def host(world: World) -> Host:
    host = Host(world.chain)
    world.build_services(host)
    return host


def forged(note: bytes, key: PrivateKey | None = None, **changes: Any) -> bytes:
    """Return a checkpoint with changes, signed again by the host's key (or another)."""
    point = replace(checkpoint.parse(note).checkpoint, **changes)
    signature = checkpoint.sign(point, AUTHORITY, key or keys(AUTHORITY)[0], point.integer("time"))
    return checkpoint.render(SignedCheckpoint(point, (signature,)))


def test_a_checkpoint_is_cosigned_once_and_extended_later(world: World) -> None:
    assert world.witness.run().outcome == "cosigned"
    note = world.chain.witnessed_checkpoint()
    assert note is not None
    assert {signature.org for signature in checkpoint.parse(note).signatures} == {AUTHORITY, HOSPITAL_A}
    assert world.witness.run().outcome == "unchanged"
    world.store(5)
    world.anchoring.run()
    run = world.witness.run()
    assert (run.outcome, run.alarm) == ("cosigned", False)
    assert world.witness.status().size == run.size


def test_what_is_cosigned_is_on_the_disk_first(world: World, host: Host) -> None:
    host.lose_cosignatures = True
    with pytest.raises(ChainUnavailable):
        world.witness.run()
    last = world.witness.last()
    assert last is not None
    assert last.by(HOSPITAL_A)
    host.lose_cosignatures = False
    assert world.witness.run().detail == "handed in again"
    assert world.chain.witnessed_checkpoint() is not None


def test_two_roots_of_one_size_are_kept_and_reported(world: World, host: Host) -> None:
    world.witness.run()
    host.shown = forged(world.chain.checkpoint(), root=sm3(b"another history"))
    run = world.witness.run()
    assert (run.outcome, run.alarm) == ("conflict", True)
    assert "two-roots-of-one-size" in run.detail
    world.witness.run()
    kept = world.witness.status().conflicts
    assert len(kept) == 1, "the same evidence is kept once"
    for note in (kept[0].first, kept[0].second):
        point = checkpoint.parse(note)
        checkpoint.verify_signature(point.checkpoint, point.by(AUTHORITY)[0], keys(AUTHORITY)[0].public_key)
    assert checkpoint.parse(kept[0].first).checkpoint.root != checkpoint.parse(kept[0].second).checkpoint.root
    host.shown = None
    assert "ledger-forked" in world.kinds(), "the alarm stays until an operator looks"


def test_a_rewritten_history_is_not_cosigned(world: World, host: Host) -> None:
    world.witness.run()
    world.store(5)
    world.anchoring.run()
    host.shown = forged(world.chain.checkpoint(), root=sm3(b"another history"))
    run = world.witness.run()
    assert run.outcome == "conflict"
    assert "not-an-extension" in run.detail
    assert world.witness.status().size == 1


def test_a_checkpoint_nobody_known_signed_is_no_evidence(world: World, host: Host) -> None:
    note = world.chain.checkpoint()
    cases = [
        forged(note, key=PrivateKey.generate()),
        forged(note, origin="yiqiao/ledger/other"),
        checkpoint.render(SignedCheckpoint(checkpoint.parse(note).checkpoint)),
        b"no checkpoint",
    ]
    for shown in cases:
        host.shown = shown
        run = world.witness.run()
        assert (run.outcome, run.alarm) == ("invalid", True)
    assert world.witness.last() is None
    assert world.witness.status().conflicts == ()


def test_time_does_not_go_back(world: World, host: Host) -> None:
    world.witness.run()
    world.store(5)
    world.anchoring.run()
    note = world.chain.checkpoint()
    point = checkpoint.parse(note).checkpoint
    earlier = tuple((name, "1" if name == "time" else value) for name, value in point.extensions)
    back = replace(point, extensions=earlier)
    signature = checkpoint.sign(back, AUTHORITY, keys(AUTHORITY)[0], point.integer("time"))
    host.shown = checkpoint.render(SignedCheckpoint(back, (signature,)))
    assert world.witness.run().outcome == "conflict"


def test_members_compare_what_they_were_shown(world: World) -> None:
    """A host that shows B another history than A is found out by the first checkpoint that B passes on to A."""
    world.witness.run()
    same = world.chain.checkpoint()
    assert world.witness.observe(same, HOSPITAL_B).outcome == "unchanged"
    split = forged(same, root=sm3(b"what B was shown"))
    run = world.witness.observe(split, HOSPITAL_B)
    assert run.outcome == "conflict"
    assert world.witness.status().conflicts[0].source == HOSPITAL_B
    assert world.witness.observe(b"rubbish", HOSPITAL_B).outcome == "invalid"


def test_an_older_checkpoint_of_the_same_history_is_no_conflict(world: World) -> None:
    older = world.chain.checkpoint()
    for number in range(5, 8):
        world.store(number)
        world.anchoring.run()
    world.witness.run()
    assert world.witness.observe(older, HOSPITAL_B).outcome == "unchanged"
    stale = forged(older, root=sm3(b"another beginning"))
    assert world.witness.observe(stale, HOSPITAL_B).outcome == "conflict"


def test_nothing_older_is_ever_noted_as_cosigned(world: World) -> None:
    world.witness.run()
    with read_transaction(world.engine) as conn:
        before = witness_store.witnessed(conn, "yiqiao/ledger/test-chain")
    assert before is not None
    world.store(5)
    world.anchoring.run()
    world.witness.run()
    world.witness._cosign(checkpoint.parse(before))
    assert world.witness.status().size == 2


def with_time(note: bytes, time: int, **changes: Any) -> bytes:
    """Return a checkpoint dated ``time``, signed again by the host."""
    point = checkpoint.parse(note).checkpoint
    extensions = tuple((name, str(time) if name == "time" else value) for name, value in point.extensions)
    dated = replace(point, extensions=extensions, **changes)
    signature = checkpoint.sign(dated, AUTHORITY, keys(AUTHORITY)[0], time)
    return checkpoint.render(SignedCheckpoint(dated, (signature,)))


@pytest.mark.parametrize(("ahead", "outcome"), [(300, "cosigned"), (301, "clock"), (86_400, "clock")])
def test_a_ledger_ahead_of_this_nodes_clock_is_not_cosigned(world: World, host: Host, ahead: int, outcome: str) -> None:
    host.shown = with_time(world.chain.checkpoint(), int(world.clock.now) + ahead)
    run = world.witness.inspect() if outcome == "cosigned" else world.witness.run()
    assert run.outcome == ("unchanged" if outcome == "cosigned" else "clock")
    assert run.alarm == (outcome == "clock")
    assert world.witness.last() is None


@pytest.mark.parametrize(("behind", "outcome"), [(300, "unchanged"), (301, "clock")])
def test_a_new_block_dated_before_this_node_last_looked_is_not_cosigned(
    world: World, host: Host, behind: int, outcome: str
) -> None:
    """The host keeps its clock back: what it commits now would seem to have been there for a while."""
    world.clock.now += 3600
    world.witness.run()
    looked = int(world.clock.now)
    world.store(5)
    world.clock.now += 1
    world.anchoring.run()
    host.shown = with_time(world.chain.checkpoint(), looked - behind)
    assert world.witness.inspect().outcome == outcome


def test_an_idle_ledger_may_be_cosigned_late(world: World) -> None:
    world.clock.now += 86_400
    assert world.witness.run().outcome == "cosigned"


def test_a_checkpoint_the_host_will_not_prove_is_an_alarm_until_it_does(world: World, host: Host) -> None:
    """The host shows this node less than others: what they were shown is signed, and it proves nothing here."""
    world.witness.run()
    before = world.chain.checkpoint()
    world.store(5)
    world.anchoring.run()
    ahead = world.chain.checkpoint()

    def refuse(size1: int, size2: int) -> list[bytes]:
        raise VerificationError("the ledger's log has no tree of that size")

    host.consistency_proof = refuse  # type: ignore[attr-defined]
    host.shown = before
    gossip = CheckpointGossip(world.engine, CHAIN, HOSPITAL_A, world.clock)
    assert gossip.hear(base64.b64encode(ahead).decode(), HOSPITAL_B)
    run = world.witness.run()
    assert (run.outcome, run.alarm) == ("unproven", True)
    assert [(each.source, each.size) for each in world.witness.status().unproven] == [(HOSPITAL_B, 2)]
    assert world.witness.run().alarm, "until it is proven"
    del host.consistency_proof  # type: ignore[attr-defined]
    host.shown = None
    assert not world.witness.run().alarm
    assert world.witness.status().unproven == ()


@pytest.mark.parametrize(
    ("seconds", "healthy", "outcome"),
    [
        pytest.param(0, True, "unchanged", id="a block behind"),
        pytest.param(REACHED_WITHIN_SECONDS, True, "unchanged", id="at the bound"),
        pytest.param(REACHED_WITHIN_SECONDS + 1, True, "unproven", id="level with the others by its own account"),
        pytest.param(REACHED_WITHIN_SECONDS + 1, False, "unchanged", id="catching up, which health reports"),
    ],
)
def test_a_replica_that_is_behind_the_others_is_waited_for(
    world: World, host: Host, seconds: int, healthy: bool, outcome: str
) -> None:
    world.witness.run()
    behind, condition = world.chain.checkpoint(), replace(world.chain.health(), ok=healthy)
    world.store(5)
    world.anchoring.run()
    gossip = CheckpointGossip(world.engine, CHAIN, HOSPITAL_A, world.clock)
    assert gossip.hear(base64.b64encode(world.chain.checkpoint()).decode(), HOSPITAL_B)

    def refuse(size1: int, size2: int) -> list[bytes]:
        raise VerificationError("the ledger's log has no tree of that size")

    host.shown, host.consistency_proof = behind, refuse  # type: ignore[attr-defined]
    host.lag_seconds, host.health = 5.0, lambda: condition  # type: ignore[attr-defined]
    world.clock.now += seconds
    assert world.witness.run().outcome == outcome
    assert bool(world.witness.status().unproven) == (outcome == "unproven")

    host.shown = None  # the replica has arrived
    del host.consistency_proof, host.health  # type: ignore[attr-defined]
    assert world.witness.run().outcome == "cosigned"
    world.witness.run()
    with read_transaction(world.engine) as conn:
        assert witness_store.heard(conn, checkpoint.ledger_origin(CHAIN)) == [], "what was waited for was compared"


def test_what_is_heard_is_compared_by_the_job_and_kept_when_it_contradicts(world: World) -> None:
    world.witness.run()
    gossip = CheckpointGossip(world.engine, CHAIN, HOSPITAL_A, world.clock)
    same = world.chain.checkpoint()
    split = forged(same, root=sm3(b"what B was shown"))
    assert gossip.hear(base64.b64encode(split).decode(), HOSPITAL_B)
    assert world.witness.status().conflicts == (), "a call only keeps it"
    assert world.witness.run().outcome == "conflict"
    (conflict,) = world.witness.status().conflicts
    assert conflict.source == HOSPITAL_B
    assert world.witness.run().outcome == "unchanged", "compared once"
    assert world.witness.acknowledge(conflict.fingerprint)
    assert not world.witness.acknowledge(conflict.fingerprint)
    assert world.witness.status().conflicts[0].acknowledged is not None


def test_what_nobody_signed_is_forgotten(world: World) -> None:
    world.witness.run()
    gossip = CheckpointGossip(world.engine, CHAIN, HOSPITAL_A, world.clock)
    stranger = forged(world.chain.checkpoint(), key=PrivateKey.generate(), size=77)
    assert gossip.hear(base64.b64encode(stranger).decode(), HOSPITAL_B)
    assert world.witness.run().outcome == "unchanged"
    assert world.witness.status() == replace(world.witness.status(), conflicts=(), unproven=())


def test_the_header_is_the_newest_cosigned_note(world: World) -> None:
    gossip = CheckpointGossip(world.engine, CHAIN, HOSPITAL_A, world.clock)
    assert gossip.newest() is None
    world.witness.run()
    fresh = CheckpointGossip(world.engine, CHAIN, HOSPITAL_A, world.clock)
    value = fresh.newest()
    assert value is not None
    assert len(value) <= MAX_HEADER_CHARACTERS
    note = checkpoint.parse(base64.b64decode(value))
    assert note.checkpoint == checkpoint.parse(world.chain.checkpoint()).checkpoint
    assert {each.org for each in note.signatures} == {AUTHORITY, HOSPITAL_A}
    other = CheckpointGossip(world.engine, CHAIN, HOSPITAL_B, world.clock)
    assert other.hear(value, HOSPITAL_A)
    assert not other.hear(value, HOSPITAL_A), "the same again costs nothing"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("%%%", id="no-base64"),
        pytest.param(base64.b64encode(b"no note").decode(), id="no-note"),
        pytest.param("A" * 5000, id="too-long"),
        pytest.param(
            base64.b64encode(b"yiqiao/ledger/other\n1\n" + base64.b64encode(b"\x01" * 32) + b"\n\n").decode(),
            id="another-ledger",
        ),
    ],
)
def test_a_header_of_no_use_is_ignored(world: World, value: str | None) -> None:
    gossip = CheckpointGossip(world.engine, CHAIN, HOSPITAL_A, world.clock)
    assert not gossip.hear(value, HOSPITAL_B)
