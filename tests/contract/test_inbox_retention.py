"""Old messages go by state and age, and stored ones sooner where room is short; what waits never goes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.services.retention import SECONDS_PER_DAY, RetentionService, RetentionTerms
from bridge.storage.database import write_transaction
from bridge.storage.inbox import Delivery, Refusal
from tests.stores import Stores

TERMS = RetentionTerms(stored_days=30, failed_days=180, stored_max_bytes=0)


def fill(stores: Stores) -> None:
    """One message stored, one failed, one dead, one waiting."""
    for name in ("stored", "failed", "dead", "waiting"):
        refusal = Refusal("malformed") if name == "failed" else None
        stores.inbox.accept(Delivery(source="his", raw=name.encode(), control_id=name, refusal=refusal))
    [stored] = stores.inbox.claim("w", 1)
    with write_transaction(stores.engine) as connection:
        stores.inbox.finish(connection, stored)
    [dead] = stores.inbox.claim("w", 1)
    assert stores.inbox.retry(replace(dead, attempts=7), Refusal("unavailable")) == "dead"


def left(stores: Stores) -> set[str]:
    return {entry.control_id for entry in stores.inbox.list()}


def test_each_state_has_its_time(stores: Stores) -> None:
    fill(stores)
    retention = RetentionService(stores.inbox, TERMS, stores.clock)
    assert retention.run() == 0
    stores.clock.forward(31 * SECONDS_PER_DAY)
    assert retention.run() == 1
    assert left(stores) == {"failed", "dead", "waiting"}
    stores.clock.forward(150 * SECONDS_PER_DAY)
    assert retention.run() == 2
    assert left(stores) == {"waiting"}
    stores.clock.forward(10_000 * SECONDS_PER_DAY)
    assert retention.run() == 0


def test_stored_messages_go_sooner_where_room_is_short(stores: Stores) -> None:
    fill(stores)
    small = RetentionTerms(stored_days=30, failed_days=180, stored_max_bytes=3)
    assert RetentionService(stores.inbox, small, stores.clock).run() == 1
    assert left(stores) == {"failed", "dead", "waiting"}


def test_many_messages_go_in_portions(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.storage.inbox_desk.CHUNK_ROWS", 3)
    for number in range(10):
        stores.inbox.accept(
            Delivery(source="his", raw=b"%d" % number, control_id=f"{number}", refusal=Refusal("malformed"))
        )
    stores.clock.forward(200 * SECONDS_PER_DAY)
    assert RetentionService(stores.inbox, TERMS, stores.clock).run() == 10
