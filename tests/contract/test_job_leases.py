"""Leases: one holder at a time, taken over after they end."""

from __future__ import annotations

import threading

from tests.stores import Stores


def test_one_holder_at_a_time(stores: Stores) -> None:
    leases = stores.leases
    assert leases.acquire("anchor", "a", 30)
    assert not leases.acquire("anchor", "b", 30)
    assert leases.acquire("witness", "b", 30)
    assert leases.acquire("anchor", "a", 30)
    assert (leases.holder("anchor"), leases.holder("nothing")) == ("a", None)


def test_a_lease_ends_by_time_and_can_be_prolonged_before(stores: Stores) -> None:
    leases = stores.leases
    leases.acquire("anchor", "a", 30)
    stores.clock.forward(29)
    assert leases.renew("anchor", "a", 30)
    stores.clock.forward(29)
    assert not leases.acquire("anchor", "b", 30)
    stores.clock.forward(2)
    assert leases.holder("anchor") is None
    assert not leases.renew("anchor", "a", 30)
    assert leases.acquire("anchor", "b", 30)
    assert not leases.renew("anchor", "a", 30)


def test_only_the_holder_gives_a_lease_back(stores: Stores) -> None:
    leases = stores.leases
    leases.acquire("anchor", "a", 30)
    leases.release("anchor", "b")
    assert not leases.acquire("anchor", "b", 30)
    leases.release("anchor", "a")
    assert leases.acquire("anchor", "b", 30)


def test_a_note_goes_to_the_next_holder_and_to_nobody_after_one_who_died_with_the_lease(stores: Stores) -> None:
    leases = stores.leases
    assert leases.take("anchor", "a", 30) == ""
    leases.release("anchor", "a", "7")
    assert leases.holder("anchor") is None
    assert leases.take("anchor", "b", 30) == "7"
    assert leases.take("anchor", "c", 30) is None
    leases.release("anchor", "a", "8")  # not its own any more
    assert leases.holder("anchor") == "b"
    stores.clock.forward(31)
    assert leases.take("anchor", "c", 30) == ""


def test_of_many_that_ask_at_once_one_gets_it(stores: Stores) -> None:
    got: list[bool] = []
    start = threading.Barrier(6)

    def ask(name: str) -> None:
        start.wait()
        got.append(stores.leases.acquire("anchor", name, 30))

    threads = [threading.Thread(target=ask, args=(f"h{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 5 + [True]
