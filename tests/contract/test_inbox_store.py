"""The inbox: duplicates, order for each patient, leases, faults, re-runs, and what may be shown."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.errors import Conflict, InvalidRequest, KeyDestroyed, LeaseLost, NotFound, Overloaded
from bridge.storage.database import open_database, write_transaction
from bridge.storage.inbox import Backlog, Claim, Delivery, Inbox, InboxBounds, InboxFilter, Refusal
from bridge.storage.inbox_claims import MAX_ATTEMPTS, MAX_CRASHES, SOLO_CRASHES
from tests.stores import Stores


def delivery(number: int, patient: str = "", **more: Any) -> Delivery:
    values = {"raw": b"MSH|%d" % number, "control_id": f"c{number}", "acknowledgement": b"AA %d" % number} | more
    return Delivery(source="his", event="ADT^A01", patient=patient, **values)


def finish(stores: Stores, claim: Claim, **more: Any) -> None:
    with write_transaction(stores.engine) as connection:
        stores.inbox.finish(connection, claim, **more)


def claimed(stores: Stores, limit: int = 10, worker: str = "w1") -> list[str]:
    return [claim.control_id for claim in stores.inbox.claim(worker, limit)]


def test_a_redelivery_gets_the_stored_answer_and_creates_nothing(stores: Stores) -> None:
    first = stores.inbox.accept(delivery(1))
    again = stores.inbox.accept(delivery(1, acknowledgement=b"AA of another second"))
    assert (first.replayed, again.replayed) == (False, True)
    assert (again.id, again.acknowledgement) == (first.id, b"AA 1")
    assert stores.inbox.counts() == {"received": 1, "stored": 0, "failed": 0, "dead": 0}


def test_a_redelivery_after_processing_creates_nothing(stores: Stores) -> None:
    stores.inbox.accept(delivery(1))
    finish(stores, stores.inbox.claim("w1", 1)[0])
    assert stores.inbox.accept(delivery(1)).replayed
    assert claimed(stores) == []


def test_the_same_control_id_with_other_content_is_kept_and_flagged(stores: Stores) -> None:
    first = stores.inbox.accept(delivery(1))
    second = stores.inbox.accept(delivery(1, raw=b"MSH|other"))
    elsewhere = stores.inbox.accept(Delivery(source="lis", raw=b"MSH|other", control_id="c1"))
    assert (first.conflict, second.conflict, elsewhere.conflict) == (False, True, False)
    assert [entry.conflict for entry in stores.inbox.list()] == [False, True, False]
    assert len(claimed(stores)) == 3


def test_messages_without_a_control_id_are_told_apart_by_content(stores: Stores) -> None:
    ids = {stores.inbox.accept(delivery(number, control_id="")).id for number in (1, 2, 1)}
    assert len(ids) == 2
    assert not any(entry.conflict for entry in stores.inbox.list())


def test_many_senders_share_commits_and_nothing_is_mixed_up(stores: Stores) -> None:
    answers: dict[int, bytes] = {}

    def send(numbers: range) -> None:
        for number in numbers:
            answers[number] = stores.inbox.accept(delivery(number % 150)).acknowledgement

    senders = [threading.Thread(target=send, args=(range(start, start + 50),)) for start in range(0, 400, 50)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert answers == {number: b"AA %d" % (number % 150) for number in range(400)}
    assert stores.inbox.counts()["received"] == 150


def test_a_patients_messages_come_one_after_the_other(stores: Stores) -> None:
    for number, patient in enumerate(["a", "a", "b", "", "a", "b", ""]):
        stores.inbox.accept(delivery(number, patient))
    first = stores.inbox.claim("w1", 4)
    assert [each.control_id for each in first] == ["c0", "c2", "c3", "c6"]
    assert claimed(stores, worker="w2") == []
    finish(stores, first[0])
    assert claimed(stores, worker="w2") == ["c1", "c4"]
    stores.inbox.refuse(first[1], Refusal("malformed", "PID-7", "not a date"))
    assert claimed(stores, worker="w2") == ["c5"]  # a poison message does not hold up the patient's next


def test_a_message_that_waits_for_its_retry_holds_its_patient_and_nobody_else(stores: Stores) -> None:
    for number, patient in enumerate(["a", "a", "b"]):
        stores.inbox.accept(delivery(number, patient))
    first = stores.inbox.claim("w1", 1)[0]
    assert stores.inbox.retry(first, Refusal("unavailable")) == "received"
    assert claimed(stores) == ["c2"]
    stores.clock.forward(2)
    assert claimed(stores) == ["c0", "c1"]


def test_repeated_faults_of_the_node_end_in_dead_with_growing_pauses(stores: Stores) -> None:
    stores.inbox.accept(delivery(1, "a"))
    stores.inbox.accept(delivery(2, "a"))
    pauses = []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        [claim] = stores.inbox.claim("w1", 1)
        assert claim.attempts == attempt - 1
        state = stores.inbox.retry(claim, Refusal("unavailable", "", "the node's database is not available"))
        waited = 0
        while state == "received" and not stores.scalar(f"SELECT id FROM inbox WHERE id = {claim.id} AND available <= "
                                                        f"{int(stores.clock() * 1000)}"):  # fmt: skip
            stores.clock.forward(0.5)
            waited += 1
        pauses.append(waited)
    assert state == "dead"
    assert pauses[:-1] == sorted(pauses[:-1])
    assert pauses[-2] > pauses[0]
    assert stores.inbox.list(InboxFilter("dead"))[0].reason == "the node's database is not available"
    assert claimed(stores) == ["c2"]


def test_a_lost_worker_gives_its_messages_back_and_cannot_finish_them(stores: Stores) -> None:
    stores.inbox.accept(delivery(1, "a"))
    [lost] = stores.inbox.claim("w1", 10)
    stores.clock.forward(stores.inbox.visibility_seconds - 1)
    assert claimed(stores, worker="w2") == []
    stores.inbox.renew([lost])
    stores.clock.forward(2)
    assert claimed(stores, worker="w2") == []
    stores.clock.forward(stores.inbox.visibility_seconds)
    [taken] = stores.inbox.claim("w2", 10)
    for late in (
        lambda: finish(stores, lost),
        lambda: stores.inbox.refuse(lost, Refusal("malformed")),
        lambda: stores.inbox.retry(lost, Refusal("unavailable")),
    ):
        with pytest.raises(LeaseLost):
            late()
    finish(stores, taken)
    with pytest.raises(LeaseLost):
        finish(stores, taken)


def test_released_and_recovered_messages_are_there_at_once(stores: Stores) -> None:
    for number in range(4):
        stores.inbox.accept(delivery(number))
    one = stores.inbox.claim("host/1/a", 2)
    stores.inbox.claim("host/22/b", 2)
    assert stores.inbox.lease_holders() == {"host/1/a", "host/22/b"}
    stores.inbox.release(one)
    assert claimed(stores) == ["c0", "c1"]
    assert stores.inbox.recover("host/2/") == 0
    assert stores.inbox.recover("host/22/") == 2
    assert claimed(stores) == ["c2", "c3"]


def test_a_message_that_kills_its_worker_ends_dead_and_its_neighbours_do_not(stores: Stores) -> None:
    for number in range(3):
        stores.inbox.accept(delivery(number))
    batches = []
    for _ in range(40):
        claims = stores.inbox.claim("w1", 10)
        if not claims:
            break
        batches.append(len(claims))
        if any(each.control_id == "c0" for each in claims):
            stores.inbox.recover("w1")  # the worker dies of it
        else:
            for each in claims:
                finish(stores, each)
    assert batches[: SOLO_CRASHES + 1] == [3, 3, 1]
    assert stores.inbox.counts() == {"received": 0, "stored": 2, "failed": 0, "dead": 1}
    assert len(batches) <= MAX_CRASHES + 3


def test_raw_bytes_come_back_and_are_not_there_in_clear(stores: Stores) -> None:
    stores.inbox.accept(delivery(1, raw="MSH|张三".encode()))
    [claim] = stores.inbox.claim("w1", 1)
    assert stores.inbox.raw(claim) == "MSH|张三".encode()
    assert "张三".encode() not in stores.scalar("SELECT raw FROM inbox")


def test_a_list_shows_no_content(stores: Stores) -> None:
    stores.inbox.accept(delivery(1, "张三", raw="MSH|张三".encode()))
    stores.inbox.accept(delivery(2, refusal=Refusal("malformed", "PID-7", "not a date")))
    finish(
        stores,
        stores.inbox.claim("w1", 1)[0],
        subject="Patient/p1",
        issues=[{"severity": "warning", "code": "not-mapped", "location": "PID-30", "text": "not read"}],
        versions=["Patient/p1/_history/1"],
    )
    failed, stored = stores.inbox.list()
    assert "张三" not in repr(stored)
    assert (stored.state, stored.event, stored.size) == ("stored", "ADT^A01", 10)
    assert (failed.state, failed.code, failed.location, failed.reason) == ("failed", "malformed", "PID-7", "not a date")
    detail = stores.inbox.show(stored.id)
    assert detail.issues[0]["location"] == "PID-30"
    assert detail.versions == ("Patient/p1/_history/1",)
    assert stores.inbox.show(failed.id).issues == ()
    assert stores.inbox.list(InboxFilter("failed")) == [failed]
    assert stores.inbox.list(InboxFilter(source="nobody")) == []
    assert stores.inbox.list(before=failed.id, limit=1) == [stored]


def test_rerun_one_and_many(stores: Stores) -> None:
    ids = [stores.inbox.accept(delivery(number, refusal=Refusal("malformed"))).id for number in range(3)]
    waiting = stores.inbox.accept(delivery(9)).id
    stores.inbox.rerun(ids[0])
    with pytest.raises(Conflict):
        stores.inbox.rerun(waiting)
    with pytest.raises(NotFound):
        stores.inbox.rerun(999)
    assert stores.inbox.rerun_all(InboxFilter(source="lis")).messages == 0
    assert stores.inbox.rerun_all(InboxFilter("dead")).messages == 0
    assert stores.inbox.rerun_all(InboxFilter("failed", "his")).messages == 2
    assert claimed(stores) == ["c0", "c1", "c2", "c9"]


@pytest.mark.parametrize("state", ["stored", "received", "unheard"])
def test_only_what_failed_is_run_again_in_bulk(stores: Stores, state: str) -> None:
    with pytest.raises(InvalidRequest):
        stores.inbox.rerun_all(InboxFilter(state))


def test_old_messages_are_removed_by_state(stores: Stores) -> None:
    stores.inbox.accept(delivery(1))
    stores.inbox.accept(delivery(2, refusal=Refusal("malformed")))
    stores.inbox.accept(delivery(3))
    finish(stores, stores.inbox.claim("w1", 1)[0])
    assert stores.inbox.purge(stores.clock()) == 0
    stores.clock.forward(10)
    assert stores.inbox.purge(stores.clock()) == 1
    assert stores.inbox.purge(stores.clock(), ["failed", "received"]) == 1
    assert stores.inbox.counts() == {"received": 1, "stored": 0, "failed": 0, "dead": 0}


BOUNDS = [
    pytest.param(InboxBounds(max_messages=10), "inbox.max_messages", id="messages"),
    pytest.param(InboxBounds(max_bytes=11 * len(b"MSH|1")), "inbox.max_bytes", id="bytes"),
]


@pytest.mark.parametrize(("bounds", "named"), BOUNDS)
def test_a_full_inbox_refuses_by_name_and_takes_again_when_there_is_room(
    stores: Stores, bounds: InboxBounds, named: str
) -> None:
    inbox = Inbox(stores.engine, stores.keyring, stores.clock, bounds=bounds)
    moment = [0.0]
    inbox.gate._monotonic = lambda: moment[0]
    for number in range(10):
        inbox.accept(delivery(number))
    with pytest.raises(Overloaded, match=named):
        inbox.accept(delivery(10))
    assert inbox.accept(delivery(3)).replayed, "a redelivery is answered as ever"
    finish(stores, stores.inbox.claim("w1", 1)[0])
    moment[0] += 1
    with pytest.raises(Overloaded):  # one place is free, a tenth of all must be
        inbox.accept(delivery(10))
    finish(stores, stores.inbox.claim("w1", 1)[0])
    moment[0] += 1
    assert not inbox.accept(delivery(10)).replayed
    assert stores.inbox.counts() == {"received": 9, "stored": 2, "failed": 0, "dead": 0}
    inbox.close()
    with pytest.raises(Overloaded):
        inbox.accept(delivery(11))


def test_a_disk_that_fills_up_is_noticed_before_it_is_full(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [1000]
    monkeypatch.setattr("bridge.storage.inbox_bounds.shutil.disk_usage", lambda path: SimpleNamespace(free=free[0]))
    inbox = Inbox(
        stores.engine, stores.keyring, stores.clock, bounds=InboxBounds(min_free_bytes=900, directory=tmp_path)
    )
    inbox.accept(delivery(1))
    moment = [0.0]
    inbox.gate._monotonic = lambda: moment[0]
    free[0] = 899
    moment[0] = time.monotonic() + 1
    with pytest.raises(Overloaded, match="min_free_bytes"):
        inbox.accept(delivery(2))
    free[0] = 950
    moment[0] += 1
    with pytest.raises(Overloaded):  # a tenth more than the bound must be free again
        inbox.accept(delivery(2))
    free[0] = 1001
    moment[0] += 1
    inbox.accept(delivery(2))
    inbox.close()


def test_the_backlog_is_told_by_messages_bytes_and_age(stores: Stores) -> None:
    assert stores.inbox.backlog() == Backlog(0, 0, None)
    first = int(stores.clock() * 1000)
    stores.inbox.accept(delivery(1))
    stores.clock.forward(5)
    stores.inbox.accept(delivery(22))
    stores.inbox.accept(delivery(3, refusal=Refusal("malformed")))
    assert stores.inbox.backlog() == Backlog(2, len(b"MSH|1") + len(b"MSH|22"), first)


def test_a_list_is_filtered_by_what_a_person_knows(stores: Stores) -> None:
    for number, patient in ((1, "100^HOSP"), (2, "200^HOSP"), (3, "100^HOSP")):
        stores.inbox.accept(delivery(number, patient))
        stores.clock.forward(10)
    stores.inbox.accept(delivery(4, refusal=Refusal("malformed", "PID-7")))
    began = int(stores.clock() * 1000) - 30_000

    def numbers(**chosen: Any) -> list[str]:
        return [entry.control_id for entry in stores.inbox.list(InboxFilter(**chosen))]

    assert numbers(patient="100^HOSP") == ["c3", "c1"]
    assert numbers(patient="100") == []
    assert numbers(code="malformed") == ["c4"]
    assert numbers(control_id="c2", source="his") == ["c2"]
    assert numbers(since=began + 10_000) == ["c4", "c3", "c2"]
    assert numbers(since=began, until=began + 20_000) == ["c2", "c1"]
    assert numbers(event="ADT^A01", state="received", until=began + 1) == ["c1"]
    finish(stores, stores.inbox.claim("w1", 1)[0], subject="Patient/p1")
    assert numbers(subject="Patient/p1") == ["c1"]


def test_a_bulk_rerun_goes_in_portions_and_tells_how_far_it_is(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.storage.inbox_desk.CHUNK_ROWS", 2)
    for number in range(7):
        stores.inbox.accept(delivery(number, refusal=Refusal("unmappable" if number % 7 else "malformed")))
    progress = stores.inbox.rerun_all(InboxFilter(code="unmappable"))
    assert (progress.messages, progress.waiting) == (6, 6)
    first, second, third = stores.inbox.claim("w1", 3)
    finish(stores, first)
    stores.inbox.refuse(second, Refusal("unmappable"))
    progress = stores.inbox.rerun_progress(progress.id)
    assert progress.counts == {"received": 4, "stored": 1, "failed": 1, "dead": 0}
    again = stores.inbox.rerun_all(InboxFilter(code="unmappable"))
    assert (again.messages, again.id > progress.id) == (1, True)
    stores.inbox.release([third])
    assert stores.inbox.rerun_all(InboxFilter("failed")).messages == 1  # the malformed one
    with pytest.raises(NotFound):
        stores.inbox.rerun_progress(99)


def test_numbers_are_never_used_again(stores: Stores) -> None:
    last = stores.inbox.accept(delivery(1, refusal=Refusal("malformed"))).id
    stores.clock.forward(10)
    assert stores.inbox.purge(stores.clock(), ["failed"]) == 1
    assert stores.inbox.accept(delivery(2)).id > last


def test_what_was_stored_longest_ago_goes_first_when_room_is_short(stores: Stores) -> None:
    for number in range(1, 6):
        stores.inbox.accept(delivery(number))
        finish(stores, stores.inbox.claim("w1", 1)[0])
        stores.clock.forward(1)
    stores.inbox.accept(delivery(6))
    assert stores.inbox.purge_to_size(100) == 0
    assert stores.inbox.purge_to_size(2 * len(b"MSH|1")) == 3
    assert [entry.control_id for entry in stores.inbox.list()] == ["c6", "c5", "c4"]
    assert stores.inbox.purge_to_size(0) == 2


def test_the_outcome_of_what_no_longer_waits(stores: Stores) -> None:
    ids = [stores.inbox.accept(delivery(number)).id for number in (1, 2, 3)]
    one, two, _ = stores.inbox.claim("w1", 3)
    finish(stores, one)
    stores.inbox.refuse(two, Refusal("unmappable", "PID-8", "no map"))
    found = stores.inbox.finished(ids)
    assert {number: entry.state for number, entry in found.items()} == {ids[0]: "stored", ids[1]: "failed"}
    assert found[ids[1]].location == "PID-8"


def test_erased_content_is_gone_and_cannot_be_run_again(stores: Stores) -> None:
    accepted = stores.inbox.accept(delivery(1))
    finish(stores, stores.inbox.claim("w1", 1)[0], subject="Patient/p1")
    with write_transaction(stores.engine) as connection:
        assert stores.inbox.erase(connection, "Patient/p1") == 1
    with pytest.raises(Conflict):
        stores.inbox.rerun(accepted.id)
    assert stores.inbox.show(accepted.id).entry.digest == ""
    stores.run("UPDATE inbox SET state = 'received', finished = NULL")
    [claim] = stores.inbox.claim("w1", 1)
    with pytest.raises(KeyDestroyed):
        stores.inbox.raw(claim)


def _work(url: str, name: str, start: Any, log: Any) -> None:
    stores = Stores(url, open_database(url))
    start.wait()
    while claims := stores.inbox.claim(name, 3):
        for claim in claims:
            log.put((name, stores.inbox.raw(claim).decode()))
            finish(stores, claim)
    stores.engine.dispose()


def test_two_processes_share_the_work_and_keep_every_patients_order(stores: Stores) -> None:
    patients = "abcde"
    for number in range(60):
        stores.inbox.accept(delivery(number, patients[number % 5]))
    context = multiprocessing.get_context("spawn")
    start, log = context.Barrier(2), context.Manager().Queue()
    workers = [context.Process(target=_work, args=(stores.url, name, start, log)) for name in ("w1", "w2")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    # a worker may find every patient taken and stop early: what is left is done here
    _work(stores.url, "w3", threading.Barrier(1), log)
    done = [int(log.get()[1].removeprefix("MSH|")) for _ in range(log.qsize())]
    assert sorted(done) == list(range(60))
    for patient in range(5):
        assert (own := [number for number in done if number % 5 == patient]) == sorted(own)
    assert stores.inbox.counts()["stored"] == 60


def test_a_claim_takes_what_follows_directly_and_nothing_overtakes(stores: Stores) -> None:
    for number, patient in enumerate(["a", "a", "b", "a", "a"]):
        stores.inbox.accept(delivery(number, patient))
    stores.run("UPDATE inbox SET available = :late WHERE control_id = 'c3'", late=int(stores.clock() * 1000) + 5000)
    assert claimed(stores) == ["c0", "c1", "c2"], "c3 waits for its retry, and c4 must not overtake it"
    assert claimed(stores, worker="w2") == []


def test_a_message_that_ended_a_worker_is_not_taken_along(stores: Stores) -> None:
    for number, patient in enumerate(["a", "a", "a"]):
        stores.inbox.accept(delivery(number, patient))
    stores.run("UPDATE inbox SET crashes = 1 WHERE control_id = 'c1'")
    assert claimed(stores) == ["c0"]
