"""Records: versions, canonical bytes, sealing, the outbox, and two writers at once."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection

from anchor import canonical
from anchor.gm import sm3
from bridge.errors import Gone, InvalidRequest, KeyDestroyed, NotFound, SealBroken
from bridge.storage.database import open_database, read_transaction, transact, write_transaction
from bridge.storage.erasure import erase_subject
from bridge.storage.keyring import NODE
from bridge.storage.records import RecordWrite
from bridge.storage.search_query import SearchQuery
from tests.stores import LINEAGE, Stores, observation, patient


def test_a_stored_version_is_the_bytes_that_were_hashed(stores: Stores) -> None:
    [result] = stores.put(patient())
    stored = stores.records.read("Patient", "p1")
    assert stored == result.stored
    assert stored.digest == sm3(stored.content)
    assert canonical.canonicalize(stored.content) == stored.content
    meta = json.loads(stored.content)["meta"]
    assert meta == {"versionId": "1", "lastUpdated": stored.updated, "source": "urn:yiqiao:source:his"}
    assert stored.updated == "2026-09-21T14:13:20.000Z"
    assert (stored.lineage, stored.subject, stored.ref) == (LINEAGE, "Patient/p1", "Patient/p1/_history/1")


def test_number_lexemes_survive(stores: Stores) -> None:
    value = canonical.load(b'{"value":0.40,"unit":"mmol/L"}')
    stores.put(observation(valueQuantity=value))
    assert b'"value":0.40' in stores.records.read("Observation", "o1").content


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(patient(), id="the same"),
        pytest.param(dict(reversed(patient().items())), id="another order of properties"),
        pytest.param(
            patient(meta={"versionId": "7", "lastUpdated": "2020-01-01T00:00:00Z"}), id="other version and time"
        ),
        pytest.param(json.dumps(patient(), indent=2).encode(), id="as JSON text"),
    ],
)
def test_writing_what_is_there_writes_nothing(stores: Stores, again: Any) -> None:
    stores.put(patient())
    stores.clock.forward(60)
    [result] = stores.put(again)
    assert (result.changed, result.version, result.stored) == (False, 1, None)
    assert stores.scalar("SELECT count(*) FROM outbox") == 1
    assert stores.records.history("Patient", "p1").total == 1


def test_a_change_makes_a_version_and_keeps_the_old_one(stores: Stores) -> None:
    stores.put(patient())
    stores.clock.forward(-3600)  # a clock set back does not make the new version older
    stores.put(patient(gender="female"))
    newest, oldest = stores.records.history("Patient", "p1").entries
    assert [newest.version, oldest.version] == [2, 1]
    assert newest.updated >= oldest.updated
    assert stores.records.vread("Patient", "p1", 1) == oldest
    assert stores.records.read("Patient", "p1") == newest
    assert stores.records.history("Patient", "p1", count=1, offset=1).entries == (oldest,)


def test_each_version_is_in_the_outbox_once_and_in_order(stores: Stores) -> None:
    stores.put(patient())
    stores.put(patient(gender="female"), observation())
    with write_transaction(stores.engine) as connection:
        pending = stores.outbox.pending(connection, 10)
        assert [each.ref for each in pending] == [
            "Patient/p1/_history/1",
            "Patient/p1/_history/2",
            "Observation/o1/_history/1",
        ]
        assert pending[0].digest == stores.records.vread("Patient", "p1", 1).digest
        assert {each.subject for each in pending} == {"Patient/p1"}
        stores.outbox.remove(connection, [pending[0].id, pending[2].id])
        assert (stores.outbox.count(connection), stores.outbox.oldest(connection)) == (1, pending[1].stored)


def test_an_undone_transaction_leaves_nothing(stores: Stores) -> None:
    def interrupted() -> None:
        with write_transaction(stores.engine) as connection:
            stores.records.put(connection, patient(), LINEAGE, "Patient/p1")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    with pytest.raises(NotFound):
        stores.records.read("Patient", "p1")
    for table in ("resource", "resource_version", "search_term", "search_date", "outbox", "subject_key"):
        assert stores.scalar(f"SELECT count(*) FROM {table}") == 0, table
    stores.put(patient())  # the key of the undone transaction must not have been remembered
    assert stores.records.read("Patient", "p1").version == 1


def test_one_resource_twice_in_one_write_goes_on_top_of_itself(stores: Stores) -> None:
    writes = [RecordWrite(patient(gender=gender), LINEAGE, "Patient/p1") for gender in ("male", "female", "female")]
    with write_transaction(stores.engine) as connection:
        results = stores.records.put_many(connection, [*writes, RecordWrite(observation(), LINEAGE, "Patient/p1")])
    assert [(each.type, each.version, each.changed) for each in results] == [
        ("Patient", 1, True),
        ("Patient", 2, True),
        ("Patient", 2, False),
        ("Observation", 1, True),
    ]


def test_a_deletion_is_a_version_and_can_be_undone_by_writing(stores: Stores) -> None:
    stores.put(patient())
    with write_transaction(stores.engine) as connection:
        assert stores.records.delete(connection, "Patient", "p1", LINEAGE).version == 2
        assert not stores.records.delete(connection, "Patient", "p1", LINEAGE).changed
    with pytest.raises(Gone):
        stores.records.read("Patient", "p1")
    assert stores.records.vread("Patient", "p1", 2).deleted
    assert stores.records.search(SearchQuery("Patient")).entries == ()
    assert stores.scalar("SELECT count(*) FROM search_term") == 0
    assert stores.put(patient())[0].version == 3
    assert stores.records.read("Patient", "p1").version == 3


@pytest.mark.parametrize(
    "resource",
    [
        pytest.param({"id": "x"}, id="no type"),
        pytest.param({"resourceType": "patient", "id": "x"}, id="no type name"),
        pytest.param({"resourceType": "Patient"}, id="no id"),
        pytest.param({"resourceType": "Patient", "id": "a/b"}, id="no FHIR id"),
        pytest.param({"resourceType": "Patient", "id": "x" * 65}, id="id too long"),
        pytest.param({"resourceType": "Patient", "id": "x", "meta": []}, id="meta no object"),
        pytest.param(b"[]", id="no object"),
    ],
)
def test_what_is_no_resource_is_refused(stores: Stores, resource: Any) -> None:
    with pytest.raises(InvalidRequest):
        stores.put(resource)


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda records: records.read("Patient", "nobody"), id="read"),
        pytest.param(lambda records: records.vread("Patient", "p1", 2), id="vread"),
        pytest.param(lambda records: records.history("Patient", "nobody"), id="history"),
    ],
)
def test_what_is_not_there_is_not_found(stores: Stores, read: Any) -> None:
    stores.put(patient())
    with pytest.raises(NotFound):
        read(stores.records)


def test_nothing_that_names_a_patient_lies_in_the_database(stores: Stores, request: pytest.FixtureRequest) -> None:
    stores.put(patient(), observation())
    stored = [str(value) for table in ("resource", "resource_version", "search_term", "outbox", "subject_key")
              for row in _rows(stores, table) for value in row]  # fmt: skip
    raw = b"".join(value for table in ("resource", "resource_version", "search_term") for row in _rows(stores, table)
                   for value in row if isinstance(value, bytes))  # fmt: skip
    for secret in ("张三丰", "MRN-p1", "13800000000", "1990-05-17", "2345-7"):
        assert not any(secret in each for each in stored)
        assert secret.encode() not in raw


def _rows(stores: Stores, table: str) -> list[Any]:
    with stores.engine.connect() as connection:
        return list(connection.exec_driver_sql(f"SELECT * FROM {table}").all())


def test_a_row_moved_or_altered_does_not_open(stores: Stores) -> None:
    stores.put(patient(), patient("p2"), observation(), subject="Patient/p1")
    stores.run("UPDATE resource_version SET id = 'p3' WHERE id = 'p2'")
    with pytest.raises(SealBroken):
        stores.records.vread("Patient", "p3", 1)
    sealed = bytearray(stores.scalar("SELECT sealed FROM resource_version WHERE id = 'p1'"))
    sealed[20] ^= 1
    stores.run("UPDATE resource_version SET sealed = :sealed WHERE id = 'p1'", sealed=bytes(sealed))
    with pytest.raises(SealBroken):
        stores.records.read("Patient", "p1")
    with read_transaction(stores.engine) as connection:
        opened = []
        for row in stores.records.walk(connection):
            try:
                opened.append(stores.records.open_row(row).ref)
            except SealBroken:
                opened.append("broken")
    assert opened == ["Observation/o1/_history/1", "broken", "broken"]


def test_destroying_a_key_ends_the_content_everywhere(stores: Stores) -> None:
    stores.put(patient(), observation())
    other = Stores(stores.url, open_database(stores.url))  # another process, with the key in its memory
    assert other.records.read("Patient", "p1").version == 1
    with write_transaction(stores.engine) as connection:
        assert stores.keyring.destroy(connection, "Patient/p1")
        assert not stores.keyring.destroy(connection, "Patient/p1")
    for node in (stores, other):
        with pytest.raises(KeyDestroyed):
            node.records.read("Patient", "p1")
    with pytest.raises(KeyDestroyed):
        stores.put(patient(gender="female"))
    other.engine.dispose()


def test_the_compartment_of_a_subject(stores: Stores) -> None:
    stores.put(patient(), observation(), observation("o2"))
    stores.put(patient("p2"), subject="Patient/p2")
    assert [each.ref for each in stores.records.of_subject("Patient/p1")] == [
        "Observation/o1/_history/1",
        "Observation/o2/_history/1",
        "Patient/p1/_history/1",
    ]
    assert [each.type for each in stores.records.of_subject("Patient/p1", ["Patient"])] == ["Patient"]
    assert stores.records.count() == 4
    assert stores.records.count("Observation") == 2


def _put(stores: Stores, resource: dict[str, Any], connection: Connection) -> None:
    stores.records.put(connection, resource, LINEAGE, "Patient/p1")


def _update_often(url: str, name: str, start: Any) -> None:
    stores = Stores(url, open_database(url))
    start.wait()
    for number in range(25):
        each = patient(gender="male" if name == "a" else "female", language=f"{name}{number}")
        transact(stores.engine, partial(_put, stores, each))
    stores.engine.dispose()


def test_two_processes_never_fork_a_resource(stores: Stores) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    writers = [context.Process(target=_update_often, args=(stores.url, name, start)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    page = stores.records.history("Patient", "p1", count=100)
    assert [each.version for each in page.entries] == list(range(50, 0, -1))
    assert len({each.resource()["language"] for each in page.entries}) == 50
    assert stores.scalar("SELECT count(*) FROM outbox") == 50
    assert stores.scalar("SELECT count(*) FROM search_term") * 16 == len(
        stores.scalar("SELECT terms FROM resource WHERE id = 'p1'")
    )


def test_an_erased_subject_leaves_only_that_it_was_there(stores: Stores) -> None:
    stores.put(patient(), observation())
    stores.put(patient("p2"), subject="Patient/p2")
    with write_transaction(stores.engine) as connection:
        assert erase_subject(connection, stores.keyring, stores.inbox, "Patient/p1") == 2
    for read in (lambda: stores.records.read("Patient", "p1"), lambda: stores.records.vread("Observation", "o1", 1)):
        with pytest.raises(KeyDestroyed):
            read()
    assert [each.id for each in stores.records.search(SearchQuery("Patient")).entries] == ["p2"]
    assert stores.scalar("SELECT count(*) FROM search_term WHERE id <> 'p2'") == 0
    assert stores.scalar("SELECT count(*) FROM search_date WHERE id <> 'p2'") == 0
    assert stores.scalar("SELECT count(*) FROM outbox") == 1
    assert stores.scalar("SELECT max(length(sealed) + length(digest)) FROM resource_version WHERE id <> 'p2'") == 0


def test_a_destroyed_key_takes_its_records_out_of_search_pages(stores: Stores) -> None:
    stores.put(patient())
    stores.put(patient("p2"), subject="Patient/p2")
    with write_transaction(stores.engine) as connection:
        stores.keyring.destroy(connection, "Patient/p1")
    assert [each.id for each in stores.records.search(SearchQuery("Patient")).entries] == ["p2"]


def test_what_is_prepared_again_keeps_to_its_own_message(stores: Stores) -> None:
    department = {"resourceType": "Organization", "id": "d1", "name": "心内科"}
    large = {"resourceType": "Binary", "id": "b1", "contentType": "text/plain", "data": "QUJD" * 4096}
    for resource in (department, large):
        writes = [RecordWrite(dict(resource), LINEAGE, NODE, arrival=number) for number in (1, 2)]
        first, second = (stores.records.prepare(write) for write in writes)
        assert (first.content_key, first.head, first.tail) == (second.content_key, second.head, second.tail)
        assert (first.arrival, second.arrival) == (1, 2)
        elsewhere = stores.records.prepare(RecordWrite(resource, replace(LINEAGE, source="lis"), NODE))
        assert elsewhere.meta["source"] != first.meta["source"]
    other = stores.records.prepare(RecordWrite({**department, "name": "呼吸科"}, LINEAGE, NODE))
    assert other.content_key != stores.records.prepare(RecordWrite(department, LINEAGE, NODE)).content_key
