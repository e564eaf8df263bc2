"""An observer computes the ledger for itself: what it cosigns, what it refuses, and what it keeps as evidence."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anchor import checkpoint, transaction
from anchor.chain import followed
from anchor.chain.embedded_replay import check_ledger
from anchor.chain.followed import FollowedLedger
from anchor.contracts.view import Value
from anchor.errors import ChainCorrupt, ChainError, ChainUnavailable
from anchor.ledger import OBSERVER_TYPES, RULES
from anchor.transaction import Code
from bridge.services.witnessing import BROKEN_RULES, WitnessService
from tests.crooked_host import CrookedHost
from tests.evidence_world import AUTHORITY, CHAIN, HOSPITAL_A, HOSPITAL_B, World, keys
from tests.ledger_consortium import OBSERVER, Sender


class Host:
    """The real ledger, as its host chooses to show it."""

    def __init__(self, chain: Any) -> None:
        self._chain = chain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chain, name)


class Observer:
    """Hospital B's witness with a replay of its own, over a database of its own; A's is an ordinary witness."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.path = world.directory / "observed.sqlite3"
        self.replay = FollowedLedger(self.path, world.genesis)
        self.witness = self.over(world.chain)

    def over(self, chain: Any) -> WitnessService:
        world, key = self.world, keys(HOSPITAL_B)[0]
        return WitnessService(world.engine, chain, HOSPITAL_B, key, CHAIN, world.clock, replay=self.replay)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    for number in range(5):
        world.store(number)
        world.clock.now += 1
        world.anchoring.run()
    yield world
    world.close()


@pytest.fixture
def observer(world: World) -> Iterator[Observer]:
    observer = Observer(world)
    yield observer
    observer.replay.close()


def crooked(world: World) -> CrookedHost:
    world.chain.close()
    return CrookedHost(world.ledger_path, world.genesis, AUTHORITY, keys(AUTHORITY)[0], world.clock)


def reopened(world: World) -> Any:
    world.chain = world.open_chain()
    world.build_services()
    return world.chain


def signed(world: World, org: str, type: str, body: dict[str, Any], *, seq: int, expires: int = 60) -> bytes:
    return transaction.build(
        chain=CHAIN, type=type, sender=org, key=keys(org)[0], seq=seq, expires=int(world.clock()) + expires, body=body
    )


def move(world: World, org: str = HOSPITAL_A, *, seq: int) -> bytes:
    return signed(world, org, "membership.endpoint", {"endpoint": "http://127.0.0.1:9"}, seq=seq)


def test_an_observer_cosigns_what_it_has_computed(world: World, observer: Observer) -> None:
    assert observer.replay.progress() is None
    assert observer.witness.run().outcome == "cosigned"
    health = world.chain.health()
    progress = observer.replay.progress()
    assert progress is not None
    assert (progress.height, progress.size) == (health.height, health.log_size) == (5, 5)
    assert observer.witness.run().outcome == "unchanged"
    assert check_ledger(observer.path, world.genesis) == [], "its copy is a whole ledger, and checked like one"
    assert [one["org"] for one in observer.replay.members()] == sorted([AUTHORITY, HOSPITAL_A, HOSPITAL_B])


def test_a_replay_is_taken_up_where_it_was_left(
    world: World, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the second page: nothing is asked for twice, and the copy goes on from the third."""
    monkeypatch.setattr(followed, "PAGE", 2)
    asked: list[int] = []

    class Dies(Host):
        def __init__(self, after: int) -> None:
            super().__init__(world.chain)
            self.left = after

        def transactions(self, start: int, limit: int) -> Any:
            if not self.left:
                raise ChainUnavailable("down")
            self.left -= 1
            asked.append(start)
            return world.chain.transactions(start, limit)

    with pytest.raises(ChainUnavailable):
        observer.over(Dies(2)).run()
    half = observer.replay.progress()
    assert half is not None
    assert 0 < half.size < 5
    observer.replay.close()
    observer.replay = FollowedLedger(observer.path, world.genesis)  # another process
    assert observer.over(Dies(20)).run().outcome == "cosigned"
    assert asked[2] == half.size


def test_two_processes_share_a_copy(world: World, observer: Observer) -> None:
    other = FollowedLedger(observer.path, world.genesis)
    observer.witness.run()
    other.follow(world.chain, checkpoint.parse(world.chain.checkpoint()).checkpoint)
    world.store(50)
    world.anchoring.run()
    newest = checkpoint.parse(world.chain.checkpoint()).checkpoint
    other.follow(world.chain, newest)
    other.close()
    assert observer.witness.run().outcome == "cosigned"


def _promote(read: Callable[[str], Value | None]) -> Mapping[str, Value]:
    """The host makes hospital A an authority, without a proposal."""
    member = read(f"member/{HOSPITAL_A}")
    assert member is not None
    return {f"member/{HOSPITAL_A}": {**member, "roles": ["authority", "hospital"]}}


def _rewind(read: Callable[[str], Value | None]) -> Mapping[str, Value]:
    """The host forgets what hospital A has published, so that it may publish something else."""
    key = f"log/yiqiao/log/{HOSPITAL_A}/2026"
    value = read(key)
    assert value is not None
    return {key: {**value, "number": 1, "size": 1}}


CROOKED = [
    pytest.param(lambda w, h: h.append(move(w, seq=6), changes=_promote), "state", "another state", id="a role given"),
    pytest.param(lambda w, h: h.append(move(w, seq=6), changes=_rewind), "state", "another state", id="a log rewound"),
    pytest.param(
        lambda w, h: h.append(
            signed(w, HOSPITAL_A, "membership.propose", {"proposal": "0" * 32, "action": {}}, seq=6), force=True
        ),
        "block 6", f"refuse ({Code.NOT_AUTHORISED})", id="a proposal by a hospital taken",
    ),
    pytest.param(
        lambda w, h: h.append(move(w, seq=3), force=True), "block 6", f"refuse ({Code.BAD_SEQUENCE})", id="a replay"
    ),
    pytest.param(
        lambda w, h: h.append(
            signed(w, HOSPITAL_A, "membership.endpoint", {"endpoint": "http://127.0.0.1:9"}, seq=6, expires=-60),
            force=True,
        ),
        "block 6", f"refuse ({Code.EXPIRED})", id="an expired transaction",
    ),
    pytest.param(
        lambda w, h: h.append(_forged_signature(w), force=True), "block 6", f"refuse ({Code.BAD_SIGNATURE})",
        id="a transaction that its sender did not sign",
    ),
]  # fmt: skip


def _forged_signature(world: World) -> bytes:
    return transaction.build(
        chain=CHAIN, type="membership.endpoint", sender=HOSPITAL_A, key=keys(HOSPITAL_A)[0], seq=6,
        expires=int(world.clock()) + 60, body={"endpoint": "http://127.0.0.1:9"},
    ).replace(b"127.0.0.1:9", b"127.0.0.1:8")  # fmt: skip


@pytest.mark.parametrize(("act", "place", "why"), CROOKED)
def test_what_a_host_hides_behind_right_hashes_is_refused(
    world: World, observer: Observer, act: Callable[[World, CrookedHost], None], place: str, why: str
) -> None:
    assert world.witness.run().outcome == "cosigned"
    world.clock.now += 1
    act(world, crooked(world))
    chain = reopened(world)  # opens without complaint: the host has hashed and signed everything anew
    run = observer.over(chain).run()
    assert (run.outcome, run.alarm) == (BROKEN_RULES, True)
    assert why in run.detail
    assert not any(each.org == HOSPITAL_B for each in checkpoint.parse(chain.checkpoint()).signatures)
    (kept,) = observer.witness.status().conflicts
    own, shown = checkpoint.parse(kept.first).checkpoint, checkpoint.parse(kept.second)
    checkpoint.verify_signature(shown.checkpoint, shown.by(AUTHORITY)[0], keys(AUTHORITY)[0].public_key)
    assert kept.kind == BROKEN_RULES
    if place == "state":
        assert (own.size, own.root) == (shown.checkpoint.size, shown.checkpoint.root)
        assert kept.transactions == b""
    else:
        evidence = json.loads(kept.transactions)
        assert (evidence["height"], evidence["first"], own.size) == (6, 5, 5)
        envelope = base64.b64decode(evidence["transactions"][0]["envelope"])
        assert transaction.parse(envelope).sender == HOSPITAL_A
    assert observer.over(chain).run().outcome == BROKEN_RULES
    assert len(observer.witness.status().conflicts) == 1, "the same finding is kept once"


@pytest.mark.parametrize("change", [_promote, _rewind])
def test_a_witness_without_a_replay_does_not_see_it(world: World, change: Any) -> None:
    """Why there are observers: the log only grew, so an ordinary witness has nothing to object to."""
    crooked(world).append(move(world, seq=6), changes=change)
    reopened(world)
    assert world.witness.run().outcome == "cosigned"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param({"block_time": 1}, BROKEN_RULES, id="another block time"),
        pytest.param({"height": 9}, BROKEN_RULES, id="another height"),
        pytest.param({"entry": b"{}"}, BROKEN_RULES, id="another entry"),
        pytest.param({"envelope": b"{}"}, BROKEN_RULES, id="no transaction at all"),
        pytest.param(None, ChainError, id="withheld"),
    ],
)
def test_what_is_handed_out_must_be_what_is_in_the_log(
    world: World, observer: Observer, change: dict[str, Any] | None, error: Any
) -> None:
    class Liar(Host):
        def transactions(self, start: int, limit: int) -> Any:
            found = world.chain.transactions(start, limit)
            return [replace(one, **change) if one.index == 4 else one for one in found] if change else []

    witness = observer.over(Liar(world.chain))
    if isinstance(error, str):
        assert witness.run().outcome == error
    else:
        with pytest.raises(error):
            witness.run()
    assert witness.last() is None


def test_a_block_without_end_is_not_held(world: World, observer: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed, "MAX_BLOCK_TRANSACTIONS", 2)

    class Endless(Host):
        def transactions(self, start: int, limit: int) -> Any:
            return [replace(one, height=1) for one in world.chain.transactions(start, 1)]

    assert "more than 2 transactions" in observer.over(Endless(world.chain)).run().detail


def test_an_observers_copy_is_not_taken_for_a_ledger_to_host(world: World, observer: Observer) -> None:
    observer.witness.run()
    observer.replay.close()
    world.chain.close()
    original, world.ledger_path = world.ledger_path, observer.path
    with pytest.raises(ChainCorrupt, match="observer's copy"):
        world.open_chain()
    world.ledger_path = original
    reopened(world)
    with pytest.raises(ChainCorrupt, match="no observer's copy"):
        FollowedLedger(original, world.genesis).follow(
            world.chain, checkpoint.parse(world.chain.checkpoint()).checkpoint
        )


@pytest.mark.parametrize(
    ("table", "column"), [("bucket", "pairs"), ("tile", "hashes"), ("block", "header"), ("block", "frontier")]
)
def test_a_damaged_copy_accuses_nobody(world: World, observer: Observer, table: str, column: str) -> None:
    observer.witness.run()
    observer.replay.close()
    with closing(sqlite3.connect(observer.path)) as file, file:
        newest = f"SELECT rowid, {column} FROM {table} WHERE length({column}) > 0 ORDER BY rowid DESC LIMIT 1"
        row, content = file.execute(newest).fetchone()
        file.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (bytes([content[0] ^ 1]) + content[1:], row))
    with pytest.raises(ChainCorrupt):
        observer.witness.run()
    assert observer.witness.status().conflicts == ()
    for suffix in ("", "-wal", "-shm"):
        observer.path.with_name(observer.path.name + suffix).unlink(missing_ok=True)
    assert observer.witness.run().outcome == "unchanged", "computed anew"


def test_only_new_blocks_are_computed(world: World, observer: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    compute = followed._take_block

    def counted(replayed: Any, block: Any) -> Any:
        computed.append(block[0].height)
        return compute(replayed, block)

    monkeypatch.setattr(followed, "_take_block", counted)
    observer.witness.run()
    observer.witness.run()
    assert computed == [1, 2, 3, 4, 5]
    world.store(99)
    world.clock.now += 1
    world.anchoring.run()
    observer.witness.run()
    assert computed == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("type", sorted(RULES))
def test_an_observer_writes_about_nothing_but_itself(type: str) -> None:
    """Refused by role for every type there is or will be, before the type's own rules see it."""
    result = Sender().send(OBSERVER, type, {})
    assert (result.code == Code.NOT_AUTHORISED) == (type not in OBSERVER_TYPES)
    assert result.code in {Code.NOT_AUTHORISED, Code.BAD_BODY}
