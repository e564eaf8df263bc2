"""What the exchange keeps, on SQLite and on PostgreSQL: nonces, the localisation index, registrations, disclosures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.errors import Gone, InvalidRequest, KeyDestroyed, NotFound, Overloaded, QuotaExceeded
from bridge.keys.store import KeyStore
from bridge.services.abuse import AbuseWatch, Alert, Limits
from bridge.services.audit import AuditService
from bridge.services.audit_event import Party
from bridge.services.localisation import LocalisationIndex, LocalisationRegistrar, LocalPatients
from bridge.services.pseudonyms import ID_CARD_SYSTEM, PseudonymService
from bridge.storage.asked_requests import AskedRequests
from bridge.storage.disclosures import DisclosureStore
from bridge.storage.nonces import NonceCache
from bridge.storage.pages import ArrivedPages, ReleasePages
from tests.stores import Stores, observation, patient

PID = "1." + "ab" * 32
RESIDENT = "11010519491231002X"
NODE = Party("12330000000000011D", "Authority")


def test_a_nonce_is_new_once_and_forgotten_in_time(stores: Stores) -> None:
    cache = NonceCache(stores.engine)
    assert cache.remember("B:one", 100, 50)
    assert not cache.remember("B:one", 100, 50)
    assert not NonceCache(stores.engine).remember("B:one", 200, 60)  # another worker
    assert cache.remember("C:one", 300, 50)
    assert cache.purge(101) == 1
    assert cache.remember("B:one", 100, 50)


def audit(stores: Stores) -> AuditService:
    return AuditService(stores.engine, stores.records, NODE, stores.clock)


def test_the_index_knows_who_and_which_categories(stores: Stores) -> None:
    index = LocalisationIndex(stores.engine, audit(stores), stores.clock)
    assert index.register("A", [{"pid": PID, "categories": ["observation", "encounter"]}]) == 1
    index.register("A", [{"pid": PID, "categories": ["observation"]}])
    index.register("C", [{"pid": PID, "categories": []}])
    assert index.locate("B", PID) == [{"org": "A", "categories": ["observation"]}, {"org": "C", "categories": []}]
    assert index.locate("A", PID) == [{"org": "C", "categories": []}]  # one does not need to be told of oneself
    assert index.withdraw("B", [PID]) == 0  # only one's own
    assert index.withdraw("A", [PID]) == 1
    assert [each["org"] for each in index.locate("B", PID)] == ["C"]
    trail = [version.resource() for version in stores.records.of_subject("node", ["AuditEvent"])]
    assert len(trail) == 8
    assert PID not in repr(trail)


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([], id="none"),
        pytest.param([{"pid": PID}], id="no categories"),
        pytest.param([{"pid": PID, "categories": ["gossip"]}], id="unknown category"),
        pytest.param([{"pid": "1.zz", "categories": []}], id="no pseudonym"),
        pytest.param(["x"], id="no entry"),
        pytest.param([{"pid": PID, "categories": []}] * 501, id="too many"),
    ],
)
def test_registrations_of_another_form_are_refused(stores: Stores, entries: list[Any]) -> None:
    index = LocalisationIndex(stores.engine, audit(stores), stores.clock)
    with pytest.raises(InvalidRequest):
        index.register("A", entries)


class Index:
    """An authority in memory."""

    def __init__(self) -> None:
        self.entries: dict[str, list[str]] = {}
        self.calls = 0

    def register(self, entries: Any) -> None:
        self.calls += 1
        self.entries |= {entry["pid"]: entry["categories"] for entry in entries}

    def withdraw(self, pids: Any) -> None:
        for pid in pids:
            del self.entries[pid]


class Pseudonyms:
    def pids(self, identifiers: Any) -> list[str]:
        return ["1." + value.lower().ljust(64, "0") for _, value in identifiers]


def shared(id: str = "p1", number: str = RESIDENT) -> dict[str, Any]:
    return patient(id, identifier=[{"system": ID_CARD_SYSTEM, "value": number}, {"system": "urn:mrn", "value": "1"}])


def test_the_registrar_registers_what_changed(stores: Stores) -> None:
    index = Index()
    registrar = LocalisationRegistrar(
        stores.engine,
        stores.records,
        stores.keyring,
        Pseudonyms(),
        index,
        stores.clock,  # type: ignore[arg-type]
    )
    stores.put(shared())
    stores.put(patient("p2"), subject="Patient/p2")  # no identifier that others share
    stores.clock.forward(5)
    assert registrar.run() == 2
    assert list(index.entries.values()) == [["demographics"]]
    assert registrar.run() == 0
    assert index.calls == 1

    stores.put(observation())
    stores.clock.forward(5)
    assert registrar.run() == 1
    assert list(index.entries.values()) == [["demographics", "observation"]]

    (pid,) = index.entries
    with stores.engine.connect() as connection:
        assert LocalPatients(stores.keyring).of(connection, pid) == ["p1"]
        assert LocalPatients(stores.keyring).of(connection, PID) == []

    stores.put(shared(number="110101199003074514"))  # the number was corrected: the old one is withdrawn
    stores.clock.forward(5)
    registrar.run()
    assert list(index.entries) == ["1." + "110101199003074514".ljust(64, "0")]


def test_an_authority_that_does_not_answer_loses_nothing(stores: Stores) -> None:
    index = Index()
    registrar = LocalisationRegistrar(
        stores.engine,
        stores.records,
        stores.keyring,
        Pseudonyms(),
        index,
        stores.clock,  # type: ignore[arg-type]
    )
    stores.put(shared())
    stores.clock.forward(5)
    register, index.register = index.register, _down  # type: ignore[method-assign]
    with pytest.raises(Overloaded):
        registrar.run()
    index.register = register  # type: ignore[method-assign]
    assert registrar.run() == 1
    assert len(index.entries) == 1


def _down(_: Any) -> None:
    raise Overloaded


def test_the_quota_holds_on_both_databases(stores: Stores, tmp_path: Path) -> None:
    service = PseudonymService(stores.engine, KeyStore(tmp_path), audit(stores), stores.clock, daily_quota=2)
    service.compute("B", "default", [(ID_CARD_SYSTEM, RESIDENT)] * 2)
    with pytest.raises(QuotaExceeded):
        service.compute("B", "default", [(ID_CARD_SYSTEM, RESIDENT)])


def test_quotas_and_alerts_hold_on_both_databases(stores: Stores) -> None:
    watch = AbuseWatch(stores.engine, stores.keyring, audit(stores), Limits(3, 2, 2), stores.clock)
    for _ in range(2):
        watch.charge("B", "x")
    with pytest.raises(QuotaExceeded):
        watch.charge("B", "x")
    for _ in range(3):
        watch.denied("B")
        with stores.engine.begin() as connection:
            watch.sought(connection, "C", found=False)
    assert watch.alerts() == (Alert("denials", "B", 3), Alert("unknown-patients", "C", 3))
    assert watch.watch() == 2


def test_a_disclosure_is_begun_once_and_kept_sealed(stores: Stores) -> None:
    store = DisclosureStore(stores.engine, stores.keyring)
    facts = {"requester": "B", "purpose": "TREAT", "digest": "d" * 64, "raw": b"{}"}
    for now, first in ((10, True), (11, False)):
        with stores.engine.begin() as connection:
            assert store.begin(connection, "r" * 32, **facts, now=now) is first
    assert not store.take_over("r" * 32, seen=9, now=12)
    assert store.take_over("r" * 32, seen=10, now=12)
    pages = ReleasePages(stores.engine, stores.keyring)
    with stores.engine.begin() as connection:
        for number in (0, 1):
            pages.add(connection, "r" * 32, number, "p1", b"sealed bytes %d" % number, f"e{number}", 1)
        store.add_records(connection, "r" * 32, 0, [("Patient/p1/_history/1", "a" * 64)])
        store.add_records(connection, "r" * 32, 1, [("Observation/o1/_history/1", "b" * 64)])
        store.set(connection, "r" * 32, 13, state="released", pages=2)
    assert pages.digests("r" * 32) == ("e0", "e1")
    assert pages.envelope("r" * 32, 1, "p1") == b"sealed bytes 1"
    with stores.engine.connect() as connection:
        assert b"sealed bytes" not in b"".join(
            bytes(row[0]) for row in connection.exec_driver_sql("SELECT envelope_sealed FROM release_page")
        )
    assert [ref for ref, _ in store.records("r" * 32)] == ["Patient/p1/_history/1", "Observation/o1/_history/1"]
    assert [row.request_id for row in store.with_pages(14)] == ["r" * 32]
    assert store.with_pages(13) == []
    with stores.engine.begin() as connection:
        stores.keyring.destroy(connection, "Patient/p1")
    with pytest.raises(KeyDestroyed):  # erasing the patient erases what was kept for repetitions
        pages.envelope("r" * 32, 0, "p1")
    with stores.engine.begin() as connection:
        pages.drop(connection, "r" * 32)
    with pytest.raises(Gone):
        pages.envelope("r" * 32, 0, "p1")


def test_pages_that_arrived_count_up_to_the_first_that_is_missing(stores: Stores) -> None:
    arrived = ArrivedPages(stores.engine)
    with stores.engine.begin() as connection:
        for number in (0, 1, 3):
            arrived.keep(connection, "r" * 32, number, b"page %d" % number, f"d{number}", 5)
        arrived.keep(connection, "r" * 32, 1, b"another", "d1b", 6)
    assert arrived.here("r" * 32) == [("d0", 5), ("d1b", 6)]
    assert arrived.envelope("r" * 32, 1) == b"another"
    with stores.engine.begin() as connection:
        arrived.drop(connection, "r" * 32)
    assert arrived.here("r" * 32) == []


def test_a_request_is_taken_up_by_one_process(stores: Stores) -> None:
    asked = AskedRequests(stores.engine, stores.keyring)
    statement = {"holder": "A", "purpose": "TREAT", "emergency": None, "grant": None}
    asked.note("r" * 32, b"signed", statement, now=10, due=20)
    assert asked.unfinished(19) == []
    (row,) = asked.unfinished(20)
    assert asked.raw(row) == b"signed"
    assert asked.claim(row, 140)
    assert not asked.claim(row, 150)
    asked.change("r" * 32, 21, state="verified", due=None)
    assert asked.unfinished() == []
    with pytest.raises(NotFound):
        asked.get("0" * 32)
