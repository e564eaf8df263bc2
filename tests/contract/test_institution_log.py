"""The institution's log in the database: found from the record version, each version once, one cost at any size."""

from __future__ import annotations

import secrets
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import event, insert, select

from bridge.errors import VersionConflict
from bridge.services.anchoring import AnchoringService
from bridge.storage import evidence
from bridge.storage.database import migrate, open_database, read_transaction, write_transaction
from bridge.storage.keyring import KeyRing
from bridge.storage.outbox import OUTBOX, Outbox
from bridge.storage.record_tables import near, select_versions
from bridge.storage.record_versions import version_place
from tests.stores import Stores, observation, patient

NOWHERE = cast(Any, None)
"""Draining asks neither the ledger nor the node's signing key."""


def anchoring(engine: Any, keyring: KeyRing, shard: str = "2026") -> AnchoringService:
    return AnchoringService(engine, keyring, NOWHERE, NOWHERE, "org", submitter=NOWHERE, shard=shard)


def test_an_entry_is_found_by_its_version(stores: Stores) -> None:
    same_id = [{"resourceType": kind, "id": "p1"} for kind in ("Observation", "Encounter")]
    puts = [*stores.put(patient(), observation(), *same_id), *stores.put(patient(gender="female"))]
    log = anchoring(stores.engine, stores.keyring)
    assert log.drain() == 5
    [waiting] = stores.put(observation("o2"))
    refs = [put.ref for put in puts]
    with read_transaction(stores.engine) as connection:
        found = evidence.find_entries(connection, [*refs, waiting.ref, "Checkpoint/2025/1", "Patient/p1/_history/3"])
        each = [evidence.find_entry(connection, ref) for ref in refs]
        assert evidence.find_entry(connection, waiting.ref) is None
        [last] = evidence.find_entries(connection, ["Patient/p1/_history/2"])
        logged = list(evidence.entries_from(connection, log.origin))
    assert list(found) == refs
    assert list(found.values()) == each
    assert last == "Patient/p1/_history/2"
    assert {entry.ref: entry.position for entry in logged} == {ref: entry.position for ref, entry in found.items()}


def test_an_outbox_that_was_emptied_goes_on_counting(stores: Stores) -> None:
    log, seen = anchoring(stores.engine, stores.keyring), []
    for number in range(3):
        stores.put(observation(f"o{number}"), patient(f"p{number}"))
        with read_transaction(stores.engine) as connection:
            seen += list(connection.execute(select(OUTBOX.c.id).order_by(OUTBOX.c.id)).scalars())
        assert log.drain() == 2
    assert len(seen) == len(set(seen)) == 6
    assert seen == sorted(seen)


def test_a_version_that_is_back_in_the_outbox_is_not_logged_again(stores: Stores) -> None:
    stores.put(patient(), observation())
    with read_transaction(stores.engine) as connection:
        rows = [dict(row._mapping) for row in connection.execute(select(OUTBOX))]
    log = anchoring(stores.engine, stores.keyring)
    log.drain()
    stores.put(observation("o2"))
    with write_transaction(stores.engine) as connection:
        connection.execute(insert(OUTBOX), rows)
    assert log.drain() == 3
    with read_transaction(stores.engine) as connection:
        logged = [entry.ref for entry in evidence.entries_from(connection, log.origin)]
    assert len(logged) == len(set(logged)) == 3
    assert stores.scalar("SELECT count(*) FROM outbox") == 0


def test_an_id_that_another_entry_has_logs_nothing_and_loses_nothing(stores: Stores) -> None:
    """As after a restore that set the numbers back: the version stays in the outbox until somebody has looked."""
    stores.put(patient())
    log = anchoring(stores.engine, stores.keyring)
    log.drain()
    stores.put(observation())
    with write_transaction(stores.engine) as connection:
        taken = connection.execute(select(evidence.ENTRY.c.outbox_id)).scalar_one()
        connection.execute(OUTBOX.update().values(id=taken))
    with pytest.raises(VersionConflict):
        log.drain()
    assert stores.scalar("SELECT count(*) FROM outbox") == 1
    assert stores.scalar("SELECT count(*) FROM evidence_entry") == 1
    assert stores.scalar("SELECT size FROM evidence_log") == 1


@pytest.mark.parametrize(
    ("ref", "place"),
    [
        ("Observation/o-1.x/_history/12", ("Observation", "o-1.x", 12)),
        ("Observation/o1/_history/", None),
        ("Observation/o1/_history/1\n", None),
        ("Observation/o1/_history/²", None),
        ("Observation/o1/_history/9999999999", None),
        ("Observation/o1/history/1", None),
        ("Checkpoint/2026/1", None),
        ("a/b/c/_history/1", None),
        ("", None),
    ],
)
def test_a_reference_names_a_version_or_nothing(ref: str, place: tuple[str, str, int] | None) -> None:
    assert version_place(ref) == place


@pytest.mark.parametrize("stores", ["sqlite"], indirect=True)  # PostgreSQL plans by how much there is
def test_versions_and_their_entries_are_looked_up_and_not_searched_for(stores: Stores) -> None:
    refs = [put.ref for put in stores.put(patient(), observation(), patient(gender="female"))]
    statements: list[tuple[str, Any]] = []

    @event.listens_for(stores.engine, "before_cursor_execute")
    def note(_c: Any, _u: Any, statement: str, parameters: Any, _x: Any, _m: bool) -> None:
        statements.append((statement, parameters))

    with read_transaction(stores.engine) as connection:
        evidence.find_entries(connection, refs)
        condition, values = near(place for ref in refs if (place := version_place(ref)) is not None)
        assert len(connection.execute(select_versions().where(condition), values).all()) == 3
        asked = [each for each in statements if "resource_version" in each[0]]
        assert len(asked) == 2
        for statement, parameters in asked:
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            assert plan
            assert all(step.startswith("SEARCH") for step in plan), plan


BATCH = 256
BATCHES = 24


def test_a_batch_writes_as_many_pages_in_a_large_log_as_in_a_small_one(tmp_path: Path) -> None:
    """Counted, not timed: an index in the order of the references would have every entry write a page of its own."""
    engine = open_database(f"sqlite:///{tmp_path}/node.sqlite3")
    migrate(engine)
    keyring = KeyRing(engine, b"k" * 16, b"i" * 32)
    outbox, log = Outbox(), anchoring(engine, keyring)
    engine.dispose()

    @event.listens_for(engine, "connect")
    def keep_all(dbapi_connection: Any, _record: object) -> None:
        dbapi_connection.execute("PRAGMA wal_autocheckpoint=0").close()

    with write_transaction(engine) as connection:
        ids = outbox.take_ids(connection, BATCH * BATCHES)
        refs = [f"Observation/{secrets.token_hex(16)}/_history/1" for _ in ids]
        outbox.add(connection, [(id, ref, "Patient/p1", b"d" * 32, b"s" * 32, "hl7v2/1.0", 1)
                                for id, ref in zip(ids, refs, strict=True)])  # fmt: skip
    sizes = [_bytes(tmp_path)]
    while log.drain(BATCH):
        sizes.append(_bytes(tmp_path))
    engine.dispose()
    written = [after - before for before, after in pairwise(sizes)]
    assert len(written) == BATCHES
    early, late = sum(written[2:8]), sum(written[-6:])
    assert late < 1.2 * early, written


def _bytes(folder: Path) -> int:
    return (folder / "node.sqlite3-wal").stat().st_size
