"""Polling of a hospital's views: nothing missed, nothing doubled, nothing written, and bounded."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import IngestError, SettingsError
from bridge.services.polling import ViewPoller
from bridge.settings import SourceSettings
from bridge.storage.database import read_transaction
from bridge.storage.watermarks import read_watermark
from bridge.wiring import Node, build_node
from fhir_adapters import SourceProfile
from tests.node_home import make_home

START = 1_800_000_000.0
LAB_COLUMNS = "row_key, updated_at, report_no, patient_no, item_count, item_code, result"


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Received:
    """Stands for the inbox: keeps what is delivered, and fails when told to."""

    def __init__(self) -> None:
        self.deliveries: list[tuple[str, list[dict[str, Any]]]] = []
        self.fail_after: int | None = None

    def receive_rows(
        self, source: str, view: str, rows: Any, patient: str = "", *, mapping: str = "", control_id: str = ""
    ) -> None:
        if self.fail_after is not None and len(self.deliveries) >= self.fail_after:
            raise IngestError("the inbox is full")
        assert source == "his"
        self.deliveries.append((view, [dict(row) for row in rows]))

    def keys(self) -> list[str]:
        return [row["row_key"] for _, rows in self.deliveries for row in rows]


class His:
    """A source database with the patient and the laboratory view."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.run(
            "CREATE TABLE patients (row_key TEXT, updated_at TEXT, patient_no TEXT, name TEXT)",
            "CREATE VIEW V_IOP_PATIENT AS SELECT * FROM patients",
            f"CREATE TABLE results ({LAB_COLUMNS})",
            "CREATE VIEW V_IOP_LAB AS SELECT * FROM results",
        )

    def run(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.file)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def patient(self, key: str, updated_at: str, number: str = "") -> None:
        self.run(f"INSERT INTO patients VALUES ('{key}', '{updated_at}', '{number or key}', '测试')")

    def report(self, number: str, updated_at: str, items: int) -> None:
        for item in range(items):
            values = (f"{number}-{item}", updated_at, number, "p", str(items), f"i{item}", "1")
            self.run(f"INSERT INTO results VALUES {values}")


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with build_node(make_home(tmp_path_factory.mktemp("poll") / "home")) as node:
        yield node


@pytest.fixture
def node(shared_node: Node) -> Node:
    with shared_node.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM poll_watermark")
    return shared_node


@pytest.fixture
def his(tmp_path: Path) -> His:
    return His(tmp_path / "his.sqlite3")


def source(his: His, **changes: Any) -> SourceSettings:
    values = {"name": "his", "kind": "view", "url": f"sqlite:///{his.file}", "views": ("V_IOP_PATIENT",), "batch": 3}
    return SourceSettings(**{**values, **changes})


def poller_of(node: Node, settings: SourceSettings, receiver: Any, clock: Any = time.time) -> ViewPoller:
    return ViewPoller(settings, SourceProfile(), node.engine, receiver, node.keyring.blind, clock)


class Polling:
    """A poller with its parts, made again as after a restart."""

    def __init__(self, node: Node, his: His, **changes: Any) -> None:
        self.node, self.settings = node, source(his, **changes)
        self.clock, self.received = Clock(), Received()
        self.restart()

    def restart(self) -> None:
        if hasattr(self, "poller"):
            self.poller.close()
        self.poller = poller_of(self.node, self.settings, self.received, self.clock)


@pytest.fixture
def polling(node: Node, his: His) -> Iterator[Polling]:
    made = Polling(node, his)
    yield made
    made.poller.close()


def test_everything_is_read_once_over_several_batches(polling: Polling, his: His) -> None:
    for number in range(8):
        his.patient(f"k{number}", f"2026-01-01 08:00:0{number}")
    assert polling.poller.run().rows == 8
    assert not polling.poller.run()
    assert sorted(polling.received.keys()) == [f"k{number}" for number in range(8)]


def test_a_changed_row_is_read_again(polling: Polling, his: His) -> None:
    his.patient("k", "2026-01-01 08:00:00")
    polling.poller.run()
    his.run("UPDATE patients SET updated_at = '2026-01-01 09:00:00', name = '改名'")
    assert polling.poller.run().deliveries == 1
    assert polling.received.deliveries[-1][1][0]["name"] == "改名"


def test_rows_with_one_time_are_not_lost_at_a_batch_boundary(polling: Polling, his: His) -> None:
    for number in range(10):
        his.patient(f"k{number}", "2026-01-01 08:00:00")
    polling.poller.run()
    assert sorted(set(polling.received.keys())) == [f"k{number}" for number in range(10)]


def test_a_report_is_never_cut_by_a_batch(node: Node, his: His) -> None:
    polling = Polling(node, his, views=("V_IOP_LAB",), batch=3)
    for number in range(4):
        his.report(f"r{number}", f"2026-01-01 08:00:0{number}", 5)
    polling.poller.run()
    assert sorted(len(rows) for _, rows in polling.received.deliveries) == [5, 5, 5, 5]
    polling.poller.close()


def test_a_row_that_appears_late_is_found_within_the_overlap(polling: Polling, his: His) -> None:
    his.patient("young", "2026-01-01 08:01:00")
    polling.poller.run()
    his.patient("late", "2026-01-01 08:00:10")
    polling.clock.now += 30
    assert polling.poller.run().deliveries == 1
    assert polling.received.keys() == ["young", "late"]


def test_a_quiet_source_is_not_read_over_and_over(polling: Polling, his: His) -> None:
    his.patient("k", "2026-01-01 08:00:00")
    polling.poller.run()
    polling.clock.now += 10
    assert polling.poller.run().rows == 1
    polling.clock.now += 3600
    assert polling.poller.run().rows == 0


def test_after_a_restart_it_goes_on_where_it_was(polling: Polling, his: His) -> None:
    his.patient("a", "2026-01-01 08:00:00")
    polling.poller.run()
    polling.clock.now += 3600
    his.patient("b", "2026-01-01 09:00:00")
    polling.restart()
    polling.poller.run()
    assert polling.received.keys() == ["a", "b"]


def test_the_watermark_does_not_move_past_what_the_inbox_did_not_take(polling: Polling, his: His) -> None:
    for number in range(6):
        his.patient(f"k{number}", f"2026-01-01 08:00:0{number}")
    polling.received.fail_after = 3
    with pytest.raises(IngestError):
        polling.poller.run()
    polling.received.fail_after = None
    polling.restart()
    polling.poller.run()
    assert set(polling.received.keys()) == {f"k{number}" for number in range(6)}


def test_delivered_twice_is_kept_once_by_the_real_inbox(node: Node, his: His) -> None:
    his.patient("k", "2026-01-01 08:00:00", "777")
    before = sum(node.inbox.counts().values())
    for _ in range(2):
        poller = poller_of(node, source(his), node.ingest)
        poller.run()
        poller.close()
        with node.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM poll_watermark")
    assert sum(node.inbox.counts().values()) == before + 1


def test_rows_become_records(node: Node, his: His) -> None:
    his.patient("k", "2026-01-01 08:00:00", "778")
    poller = poller_of(node, source(his), node.ingest)
    poller.run()
    poller.close()
    while node.ingest.process(10):
        pass
    assert node.inbox.counts()["failed"] == 0
    assert node.identity.find("http://127.0.0.1:18080/fhir/NamingSystem/LOCAL", "778")


def test_one_run_is_bounded_and_the_next_goes_on(node: Node, his: His, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.services.polling.MAX_QUERIES", 2)
    polling = Polling(node, his, batch=2)
    for number in range(9):
        his.patient(f"k{number}", f"2026-01-01 08:00:0{number}")
    assert polling.poller.run().rows == 4
    with read_transaction(node.engine) as connection:
        mark = read_watermark(connection, "his", "V_IOP_PATIENT")
    assert mark is not None
    assert not mark.caught_up
    while polling.poller.run():
        pass
    assert sorted(polling.received.keys()) == [f"k{number}" for number in range(9)]
    polling.poller.close()


def test_the_session_cannot_write(polling: Polling, his: His) -> None:
    with polling.poller._source.reading() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("DELETE FROM patients")


def test_a_statement_that_takes_too_long_is_cancelled(node: Node, his: His) -> None:
    his.run(
        "DROP VIEW V_IOP_PATIENT",
        "CREATE VIEW V_IOP_PATIENT AS "
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000000) "
        "SELECT 'k' AS row_key, max(i) AS updated_at, 'p' AS patient_no FROM n",
    )
    polling = Polling(node, his, statement_seconds=0.2)
    with pytest.raises(IngestError, match="cannot be read"):
        polling.poller.run()
    polling.poller.close()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"url": "sqlite:////nowhere/his.sqlite3"}, id="no such database"),
        pytest.param({"url": "nonsense"}, id="no database URL"),
        pytest.param({"url": "oracle+nodriver://a@b/c"}, id="a driver that is not installed"),
        pytest.param({"views": ("V_IOP_ENCOUNTER",)}, id="a view that is not there"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(node: Node, his: His, changes: dict[str, Any]) -> None:
    polling = Polling(node, his, **changes)
    with pytest.raises(IngestError, match="his"):
        polling.poller.run()
    polling.poller.close()


@pytest.mark.parametrize("view", ["V_OTHER", "V_IOP_PATIENT; DROP TABLE x", "a.b.V_IOP_PATIENT", ""])
def test_a_view_outside_the_contract_is_refused(node: Node, his: His, view: str) -> None:
    with pytest.raises(SettingsError, match=r"sources\.his\.views"):
        poller_of(node, source(his, views=(view,)), Received())
