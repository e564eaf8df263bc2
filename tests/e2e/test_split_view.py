"""A host that shows two members two ledgers, over real HTTP: found out by the first call between the two."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import g, has_request_context

from anchor import checkpoint
from anchor.chain.embedded import EmbeddedChain
from bridge.errors import PeerError
from bridge.services import gossip
from bridge.services.submission import TransactionSubmitter
from bridge.storage.leases import JobLeases
from tests.exchange_world import AUTHORITY, CHAIN, A, B, World, keys


class TwoFacedHost:
    """The authority's ledger, and another one for B: each member gets a consistent, correctly signed history."""

    def __init__(self, true: EmbeddedChain, other: EmbeddedChain) -> None:
        self._true, self._other = true, other

    def __getattr__(self, name: str) -> Any:
        for_b = has_request_context() and g.get("principal") is not None and g.principal.org == B
        return getattr(self._other if for_b else self._true, name)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(gossip, "NEWEST_CACHE_SECONDS", 0.0)  # nobody waits a second here
    directory = tmp_path / "world"
    directory.mkdir()
    world = World(directory)
    yield world
    world.close()


@pytest.fixture
def split(world: World) -> Iterator[EmbeddedChain]:
    """Both members have cosigned the same beginning; from here on B is shown a ledger of its own."""
    for org in (A, B):
        world[org].witness.run()
    authority = world[AUTHORITY]
    path = world.directory / "for-b.sqlite3"
    with closing(sqlite3.connect(world.directory / "ledger.sqlite3")) as file:
        file.execute("VACUUM INTO ?", (str(path),))
    host = {"host_key": keys(AUTHORITY)[0], "host_org": AUTHORITY, "clock": world.clock}
    other = EmbeddedChain(path, genesis=authority.chain.genesis, **host)
    for chain, address in ((authority.chain, "http://127.0.0.1:1"), (other, "http://127.0.0.1:2")):
        submitter = TransactionSubmitter(
            chain, JobLeases(authority.engine), AUTHORITY, keys(AUTHORITY)[0], CHAIN, world.clock
        )
        submitter.submit("membership.endpoint", {"endpoint": address})
    authority.node.chain = TwoFacedHost(authority.chain, other)
    yield other
    other.close()


def test_two_histories_are_found_out_by_a_call_between_members(world: World, split: EmbeddedChain) -> None:
    world.tick()
    assert world[A].witness.run().outcome == "cosigned"
    assert world[B].witness.run().outcome == "cosigned", "each member's own view holds together"
    world.tick(2)
    assert not world[A].witness.run().alarm
    ask(world)
    runs = {org: world[org].witness.run() for org in (A, B)}
    assert {org: (run.outcome, run.alarm) for org, run in runs.items()} == dict.fromkeys((A, B), ("conflict", True))
    for org, shown_by in ((A, B), (B, A)):
        (conflict,) = world[org].witness.status().conflicts
        assert conflict.source == shown_by
        notes = [checkpoint.parse(note) for note in (conflict.first, conflict.second)]
        assert notes[0].checkpoint.root != notes[1].checkpoint.root
        for note in notes:  # the host's own signature stands under both: it has no answer
            checkpoint.verify_signature(note.checkpoint, note.by(AUTHORITY)[0], keys(AUTHORITY)[0].public_key)


def test_honest_gossip_raises_no_alarm(world: World) -> None:
    for org in (A, B):
        world[org].witness.run()
    world.tick(2)
    ask(world)
    for org in (A, B, AUTHORITY):
        assert not world[org].witness.run().alarm
        assert world[org].witness.status().conflicts == ()
        assert world[org].witness.status().unproven == ()


def ask(world: World) -> None:
    """B calls A: with what does not matter here (it is refused), that they have talked does."""
    with pytest.raises(PeerError):
        world[B].peers.post(A, "/exchange/v1/requests", b"{}", timeout_seconds=10)
