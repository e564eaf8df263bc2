"""Anchoring over a real database and ledger: once each, whatever fails in between; the submitter's retries."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from anchor import merkle
from anchor.chain.client import TransactionResult
from anchor.errors import AnchorError, ChainUnavailable, TransactionRejected
from anchor.receipt import LogEntry
from anchor.tiles import TileLog
from bridge.services import submission
from bridge.services.anchoring import AnchoringService, LogDiverged
from bridge.storage import evidence
from bridge.storage.database import read_transaction
from bridge.storage.evidence import DatabaseTiles
from bridge.storage.leases import JobLeases
from tests.evidence_world import HOSPITAL_A, HOSPITAL_B, World


class FaultyChain:
    """The real ledger with a switch: answers get lost, or the line is down before they are asked for."""

    def __init__(self, chain: Any) -> None:
        self._chain = chain
        self.lose_answers = 0
        self.down = False

    def __getattr__(self, name: str) -> Any:
        if self.down:
            raise ChainUnavailable("down")
        return getattr(self._chain, name)

    def submit(self, envelopes: Sequence[bytes]) -> list[TransactionResult]:
        if self.down:
            raise ChainUnavailable("down")
        results: list[TransactionResult] = self._chain.submit(envelopes)
        if self.lose_answers:
            self.lose_answers -= 1
            self.down = True
            raise ChainUnavailable("the answer was lost")
        return results


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def entries(world: World) -> list[str]:
    with read_transaction(world.engine) as conn:
        return [entry.ref for entry in evidence.entries_from(conn, world.anchoring.origin)]


def test_every_version_is_logged_once_and_in_order(world: World) -> None:
    refs = [world.store(number) for number in range(5)]
    assert world.anchoring.drain(2) == 2
    assert world.anchoring.drain(2) == 2
    run = world.anchoring.run()
    assert (run.logged, len(run.published)) == (1, 1)
    assert entries(world) == refs
    again = world.anchoring.run()
    assert (again.logged, again.published) == (0, ())
    with read_transaction(world.engine) as conn:
        head = evidence.log_head(conn, world.anchoring.origin)
        assert head is not None
        stored = list(evidence.entries_from(conn, head.origin))
        assert head.root == merkle.root_from_leaves([entry.leaf for entry in stored])
        content = world.keyring.open(conn, stored[3].subject, stored[3].sealed, evidence.entry_aad(head.origin, 3))
    entry = LogEntry.parse(content)
    assert (entry.org, entry.ref, entry.adapter, len(entry.salt)) == (HOSPITAL_A, refs[3], "hl7v2/1.0", 32)
    assert merkle.leaf_hash(content) == stored[3].leaf


def test_checkpoints_count_up_without_a_gap(world: World) -> None:
    for number in range(4):
        world.store(number)
        world.anchoring.run()
    state = world.chain.state(f"log/{world.anchoring.origin}")
    with read_transaction(world.engine) as conn:
        published = evidence.checkpoints(conn, world.anchoring.origin)
    assert [each.number for each in published] == [1, 2, 3, 4]
    assert (state["number"], state["size"], state["root"]) == (4, 4, published[-1].root.hex())


def test_a_failed_drain_leaves_nothing_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = [world.store(number) for number in range(3)]

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(evidence, "set_log_head", fail)
        with pytest.raises(RuntimeError):
            world.anchoring.drain()
    assert entries(world) == []
    assert world.anchoring.drain() == 3
    assert entries(world) == refs
    assert world.kinds() == set()


def test_a_lost_answer_is_made_good_by_asking(world: World) -> None:
    chain = FaultyChain(world.chain)
    world.build_services(chain)
    world.store(1)
    chain.lose_answers = 1
    with pytest.raises(ChainUnavailable):
        world.anchoring.run()
    chain.down = False
    run = world.anchoring.run()
    assert [each.number for each in run.published] == [1]
    assert world.chain.health().log_size == 1, "the checkpoint is on the ledger once"
    assert world.kinds() == set()


def test_a_checkpoint_not_noted_before_a_crash_is_noted_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.store(1)

    def fail(*_: Any) -> None:
        raise RuntimeError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(evidence, "add_checkpoint", fail)
        with pytest.raises(RuntimeError):
            world.anchoring.run()
    assert world.kinds() == set(), "what the next run will make good is no difference"
    world.store(2)
    world.anchoring.run()
    with read_transaction(world.engine) as conn:
        published = evidence.checkpoints(conn, world.anchoring.origin)
    assert [(each.number, each.size) for each in published] == [(1, 1), (2, 2)]
    assert world.kinds() == set()


def test_an_outage_is_caught_up_after(world: World) -> None:
    chain = FaultyChain(world.chain)
    world.build_services(chain)
    chain.down = True
    for number in range(5):
        world.store(number)
        with pytest.raises(ChainUnavailable):
            world.anchoring.run()
    status = world.anchoring.status()
    assert (status.pending, status.unpublished, status.published) == (0, 5, None)
    chain.down = False
    assert [each.size for each in world.anchoring.run().published] == [5]
    assert world.anchoring.status().unpublished == 0


def test_one_process_at_a_time_runs_it(world: World) -> None:
    world.store(1)
    leases = JobLeases(world.engine, world.clock)
    assert leases.acquire("anchoring", "another process", 60)
    assert world.anchoring.run().skipped
    leases.release("anchoring", "another process")
    assert world.anchoring.run().logged == 1


def test_a_process_that_ends_leaves_the_rest_to_the_next_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        world.store(number)
    drains = []
    drain = AnchoringService.drain

    def counted(self: AnchoringService, limit: int) -> int:
        drains.append(limit)
        return drain(self, limit)

    monkeypatch.setattr(AnchoringService, "drain", counted)
    stopped = AnchoringService(
        world.engine, world.keyring, world.chain, world.signer, HOSPITAL_A, world.clock,
        submitter=world.submitter(HOSPITAL_A), shard="2026", batch=3, stopping=lambda: len(drains) == 1,
    )  # fmt: skip
    run = stopped.run()
    assert (run.logged, run.published) == (3, ())
    assert world.anchoring.status().pending == 4
    run = world.anchoring.run()
    assert (run.logged, run.skipped) == (4, False)
    assert run.published[0].size == 7


def test_a_new_shard_begins_with_the_last_checkpoint_of_the_old_one(world: World) -> None:
    world.anchored(2)
    world.build_services(shard="2027")
    world.store(7)
    run = world.anchoring.run()
    assert [(each.origin[-4:], each.size) for each in run.published] == [("2027", 2)]
    assert entries(world)[0] == "Checkpoint/2026/1"
    world.sql("UPDATE evidence_checkpoint SET note = note || X'0A' WHERE origin LIKE '%2026'")
    assert "checkpoint-altered Checkpoint/2026/1" in world.places()


def test_the_shard_follows_chinas_calendar(world: World) -> None:
    world.build_services(shard="")
    assert world.anchoring.origin.endswith("/2026")
    world.clock.now = 1_798_732_800  # 2026-12-31T16:00:00Z: the new year in China
    assert world.anchoring.origin.endswith("/2027")


def test_a_log_that_contradicts_the_ledger_publishes_nothing(world: World) -> None:
    world.anchored(3)
    world.store(9)
    world.anchoring.drain()
    with world.engine.begin() as conn:
        conn.exec_driver_sql("DELETE FROM evidence_tile")
        TileLog(DatabaseTiles(conn, world.anchoring.origin)).append([bytes([n]) * 32 for n in range(4)])
    with pytest.raises(LogDiverged):
        world.anchoring.publish()


def test_the_submitter_takes_the_number_the_ledger_expects(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    submitter = world.submitter(HOSPITAL_B)
    monkeypatch.setattr(world.chain, "next_seq", lambda org: 7)
    assert submitter.submit("membership.endpoint", {"endpoint": "http://127.0.0.1:2"}).ok


def test_the_number_that_comes_next_is_left_with_the_lease(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    next_seq = world.chain.next_seq
    monkeypatch.setattr(world.chain, "next_seq", lambda org: asked.append(org) or next_seq(org))
    first, second = world.submitter(HOSPITAL_B), world.submitter(HOSPITAL_B)  # as of two processes of one node
    for number, submitter in enumerate((first, second, first), start=2):
        assert submitter.submit("membership.endpoint", {"endpoint": f"http://127.0.0.1:{number}"}).ok
    assert asked == [HOSPITAL_B]
    with pytest.raises(TransactionRejected):
        first.submit("consent.revoke", {"grant": "00" * 16})
    assert second.submit("membership.endpoint", {"endpoint": "http://127.0.0.1:7"}).ok
    assert (asked, next_seq(HOSPITAL_B)) == ([HOSPITAL_B], 5)


def test_a_number_that_was_taken_elsewhere_is_noticed(world: World) -> None:
    submitter = world.submitter(HOSPITAL_B)
    assert submitter.submit("membership.endpoint", {"endpoint": "http://127.0.0.1:2"}).ok
    world.sql(
        f"UPDATE job_lease SET note = '{HOSPITAL_B} 1' WHERE name = 'ledger-submission'"
    )  # a database that was restored
    assert submitter.submit("membership.endpoint", {"endpoint": "http://127.0.0.1:3"}).ok
    assert world.chain.next_seq(HOSPITAL_B) == 3


def test_submitters_of_many_processes_do_not_lose_each_other(world: World) -> None:
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            submitter = world.submitter(HOSPITAL_B)
            for step in range(4):
                submitter.submit("membership.endpoint", {"endpoint": f"http://127.0.0.1:{1000 * number + step + 1}"})
        except AnchorError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert world.chain.next_seq(HOSPITAL_B) == 17


def test_a_lost_answer_is_looked_up_before_it_is_signed_again(world: World) -> None:
    chain = FaultyChain(world.chain)
    submitter = world.submitter(HOSPITAL_B, chain)
    original = chain.submit

    def lose_once(envelopes: Sequence[bytes]) -> list[TransactionResult]:
        original(envelopes)
        raise ChainUnavailable("the answer was lost")

    chain.submit = lose_once  # type: ignore[method-assign]
    assert submitter.submit("membership.endpoint", {"endpoint": "http://127.0.0.1:3"}).ok
    assert world.chain.next_seq(HOSPITAL_B) == 2


def test_a_refusal_and_a_turn_that_never_comes_are_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    submitter = world.submitter(HOSPITAL_B)
    with pytest.raises(TransactionRejected) as refused:
        submitter.submit("consent.revoke", {"grant": "00" * 16})
    assert refused.value.code == "not-found"
    monkeypatch.setattr(submission, "LEASE_WAIT_SECONDS", 0.05)
    assert JobLeases(world.engine).acquire(submission.LEASE_NAME, "somebody else", 60)
    with pytest.raises(ChainUnavailable):
        submitter.submit("membership.endpoint", {"endpoint": "http://127.0.0.1:3"})
