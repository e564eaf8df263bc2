"""Witnessing: what is cosigned, what is not, and the evidence kept against a host that shows two histories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anchor import checkpoint
from anchor.checkpoint import SignedCheckpoint
from anchor.errors import ChainUnavailable
from anchor.gm import PrivateKey, sm3
from bridge.storage import evidence
from bridge.storage.database import read_transaction
from tests.evidence_world import AUTHORITY, HOSPITAL_A, HOSPITAL_B, World, keys


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
        before = evidence.witnessed(conn, "yiqiao/ledger/test-chain")
    assert before is not None
    world.store(5)
    world.anchoring.run()
    world.witness.run()
    world.witness._cosign(checkpoint.parse(before))
    assert world.witness.status().size == 2
