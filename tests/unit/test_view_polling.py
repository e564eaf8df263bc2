"""Polling of a hospital's views: nothing missed, nothing doubled, nothing written, and bounded."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from bridge.app import create_app
from bridge.errors import IngestError, SettingsError
from bridge.metrics import render_metrics
from bridge.services.circuit_breaker import FAILURES, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from bridge.services.polling import Polled, ViewPoller
from bridge.services.source_connection import (
    SourceConnection,
    SourceUnavailable,
    ViewUnreadable,
    driver_arguments,
)
from bridge.settings import SourceSettings
from bridge.storage.database import read_transaction
from bridge.storage.source_health import SourceHealth, read_health
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
        self.control_ids: list[str] = []

    def receive_rows(
        self, source: str, view: str, rows: Any, patient: str = "", *, mapping: str = "", control_id: str = ""
    ) -> None:
        if self.fail_after is not None and len(self.deliveries) >= self.fail_after:
            raise IngestError("the inbox is full")
        assert source == "his"
        self.control_ids.append(control_id)
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
        connection.exec_driver_sql("DELETE FROM source_health")
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


@pytest.mark.parametrize(
    ("young", "late"),
    [
        pytest.param("2026-01-01 08:01:00", "2026-01-01 08:00:10", id="with dashes"),
        pytest.param("2026010108:01:00", "2026010108:00:10", id="char(16)"),
        pytest.param("20260101080100", "20260101080010", id="fourteen digits"),
        pytest.param("2026/01/01 08:01:00", "2026/01/01 08:00:10", id="with slashes"),
        pytest.param("2026-01-01T08:01:00.500", "2026-01-01T08:00:10.000", id="ISO with fractions"),
        pytest.param("2026-01-02", "2026-01-01", id="days"),
    ],
)
def test_late_rows_are_found_in_every_form_of_time(polling: Polling, his: His, young: str, late: str) -> None:
    his.patient("young", young)
    polling.poller.run()
    his.patient("late", late)
    polling.clock.now += 30
    polling.poller.run()
    assert polling.received.keys() == ["young", "late"]


def test_a_row_from_the_future_waits_and_carries_nothing_away(polling: Polling, his: His) -> None:
    his.patient("now", "2026-01-01 08:00:00")
    his.patient("typo", "2099-01-01 08:00:00")
    his.patient("ahead", "2027-01-15 16:30:00")  # half an hour ahead of START, which is 16:00 in Shanghai
    done = polling.poller.run()
    assert (polling.received.keys(), done.future) == (["now"], 2)
    assert health_of(polling).future_rows == 2
    his.patient("next", "2026-01-01 09:00:00")
    polling.clock.now += 1800
    polling.poller.run()
    assert sorted(polling.received.keys()) == ["ahead", "next", "now"]
    assert health_of(polling).future_rows == 1


def test_a_clock_that_is_a_little_ahead_is_no_matter(polling: Polling, his: His) -> None:
    his.patient("ahead", "2027-01-15 16:04:00")
    assert polling.poller.run().deliveries == 1


def test_what_came_later_than_the_overlap_is_found_by_reading_again(polling: Polling, his: His) -> None:
    his.patient("first", "2026-01-01 20:00:00")
    polling.poller.run()
    his.patient("very-late", "2026-01-01 10:00:00")
    polling.clock.now += 3600
    assert not polling.poller.run()
    polling.clock.now += 86400
    polling.poller.run()
    assert polling.received.keys() == ["first", "very-late"]
    polling.clock.now += 3600
    assert polling.poller.run().rows == 0


def test_reading_again_goes_on_in_portions(node: Node, his: His, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.services.polling.MAX_REREAD_QUERIES", 1)
    polling = Polling(node, his, batch=2)
    for number in range(6):
        his.patient(f"k{number}", f"2026-01-01 08:00:0{number}")
    while polling.poller.run():
        pass
    his.patient("late", "2026-01-01 07:00:00")
    polling.clock.now += 90_000
    rows = [polling.poller.run().rows for _ in range(6)]
    assert rows == [2, 2, 2, 1, 0, 0]
    assert polling.received.keys().count("late") == 1
    polling.poller.close()


def test_reading_again_can_be_switched_off(node: Node, his: His) -> None:
    polling = Polling(node, his, reread_seconds=0)
    his.patient("k", "2026-01-01 08:00:00")
    polling.poller.run()
    polling.clock.now += 90_000
    assert polling.poller.run().rows == 0
    polling.poller.close()


def test_a_view_that_cannot_be_read_does_not_keep_the_others_from_being_read(
    node: Node, his: His, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SQLite calls a missing table an operational error; the servers call it what it is
    monkeypatch.setattr("bridge.services.source_connection.ProgrammingError", OperationalError)
    polling = Polling(node, his, views=("V_IOP_ENCOUNTER", "V_IOP_PATIENT"))
    his.patient("k", "2026-01-01 08:00:00")
    with pytest.raises(ViewUnreadable, match="V_IOP_ENCOUNTER"):
        polling.poller.run()
    assert polling.received.keys() == ["k"]
    assert health_of(polling).failures == 0
    polling.poller.close()


def health_of(polling: Polling) -> SourceHealth:
    with read_transaction(polling.node.engine) as connection:
        return read_health(connection, "his")


class Trouble:
    """Makes the source fail, or not, and counts how often it is asked."""

    def __init__(self, polling: Polling, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing, self.asked = True, 0
        connect = SourceConnection._connected

        def connected(source: SourceConnection) -> Any:
            self.asked += 1
            if self.failing:
                raise OperationalError("SELECT 1", {}, Exception("gone"))
            return connect(source)

        monkeypatch.setattr(SourceConnection, "_connected", connected)


def test_a_source_in_trouble_is_left_alone_and_tried_again(
    polling: Polling, his: His, monkeypatch: pytest.MonkeyPatch
) -> None:
    his.patient("k", "2026-01-01 08:00:00")
    trouble = Trouble(polling, monkeypatch)
    for _ in range(FAILURES):
        with pytest.raises(SourceUnavailable):
            polling.poller.run()
    assert trouble.asked == FAILURES
    assert health_of(polling).circuit(polling.clock()) == "open"
    assert polling.poller.run() == Polled()
    assert trouble.asked == FAILURES

    polling.clock.now += FIRST_PAUSE_SECONDS
    assert health_of(polling).circuit(polling.clock()) == "half-open"
    with pytest.raises(SourceUnavailable):
        polling.poller.run()
    assert trouble.asked == FAILURES + 1
    polling.clock.now += FIRST_PAUSE_SECONDS
    assert not polling.poller.run()  # the pause has doubled
    assert trouble.asked == FAILURES + 1

    trouble.failing = False
    polling.clock.now += FIRST_PAUSE_SECONDS
    assert polling.poller.run().deliveries == 1
    healthy = health_of(polling)
    assert (healthy.circuit(polling.clock()), healthy.failures, healthy.openings) == ("closed", 0, 0)


def test_a_probe_is_not_enough_to_close_the_circuit(
    polling: Polling, his: His, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = Trouble(polling, monkeypatch)
    for _ in range(FAILURES):
        with pytest.raises(SourceUnavailable):
            polling.poller.run()
    trouble.failing = False
    his.run("DROP VIEW V_IOP_PATIENT")  # alive, and still of no use
    polling.clock.now += FIRST_PAUSE_SECONDS
    with pytest.raises(SourceUnavailable):
        polling.poller.run()
    assert health_of(polling).openings == 2


def test_pauses_have_a_longest(polling: Polling, monkeypatch: pytest.MonkeyPatch) -> None:
    Trouble(polling, monkeypatch)
    for _ in range(FAILURES + 12):
        with pytest.raises(SourceUnavailable):
            polling.poller.run()
        polling.clock.now = max(polling.clock.now, float(health_of(polling).retry_at))
    assert health_of(polling).retry_at - health_of(polling).last_failure == LONGEST_PAUSE_SECONDS


def test_a_full_inbox_is_no_trouble_of_the_source(polling: Polling, his: His) -> None:
    his.patient("k", "2026-01-01 08:00:00")
    polling.received.fail_after = 0
    for _ in range(FAILURES + 1):
        with pytest.raises(IngestError, match="full"):
            polling.poller.run()
    assert health_of(polling).failures == 0


def test_the_circuit_is_told_to_who_watches_the_node(his: His, tmp_path: Path) -> None:
    settings = make_home(tmp_path / "home", http_port=18081)
    watched = settings.model_copy(update={"sources": (source(his, url="sqlite:////nowhere/his.sqlite3"),)})
    with build_node(watched) as node:
        for _ in range(FAILURES):
            with pytest.raises(SourceUnavailable):
                node.pollers[0].run()
        client = create_app(node).test_client()
        answer = client.get("/readyz")
        assert answer.status_code == 200
        assert answer.json == {"status": "degraded", "sources": {"his": "open"}, "alarms": []}
        metrics = render_metrics(node).decode()
    assert 'yiqiao_source_circuit_open{source="his"} 1.0' in metrics
    assert f'yiqiao_source_failures{{source="his"}} {float(FAILURES)}' in metrics


MAPPED = SourceProfile.from_toml(
    """
    name = "mapped"
    [[views]]
    view = "V_IOP_DEPARTMENT"
    name = "wards"
    from = "ward"
    as = "w"
    key = ["w.id"]
    every = 60
    [views.columns]
    dept_code = "w.id"
    dept_name = "w.name"
    [[views]]
    view = "V_IOP_PATIENT"
    name = "people"
    from = "person"
    as = "p"
    key = ["p.id"]
    watermark = { latest = ["p.created", "p.changed"] }
    overlap = 0
    since = "2020-01-01 00:00:00"
    [views.columns]
    patient_no = "p.id"
    name = "p.name"
    """
)


class Mapped:
    """A poller of tables that a profile maps."""

    def __init__(self, node: Node, his: His, **changes: Any) -> None:
        his.run(
            "CREATE TABLE ward (id TEXT, name TEXT)",
            "CREATE TABLE person (id INTEGER, name TEXT, created TEXT, changed TEXT)",
        )
        self.clock, self.received = Clock(), Received()
        settings = source(his, **{"views": (), **changes})
        self.poller = ViewPoller(settings, MAPPED, node.engine, self.received, node.keyring.blind, self.clock)


@pytest.fixture
def mapped(node: Node, his: His) -> Iterator[Mapped]:
    with node.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM snapshot_mark")
    made = Mapped(node, his)
    yield made
    made.poller.close()


def test_a_table_without_times_is_read_whole_now_and_then(mapped: Mapped, his: His) -> None:
    his.run(*(f"INSERT INTO ward VALUES ('{number:02}', 'w{number}')" for number in range(7)))
    assert mapped.poller.run() == Polled(7, 7)
    assert mapped.poller.run() == Polled()
    mapped.clock.now += 61
    assert mapped.poller.run() == Polled(7, 0)
    his.run("UPDATE ward SET name = 'new' WHERE id = '03'")
    mapped.clock.now += 61
    assert mapped.poller.run() == Polled(7, 1)
    assert mapped.received.deliveries[-1][1] == [{"w.id": "03", "w.name": "new"}]


def test_a_record_that_returns_to_an_earlier_content_is_delivered_again(mapped: Mapped, his: His) -> None:
    his.run("INSERT INTO ward VALUES ('01', 'a')")
    for name in ("a", "b", "a"):
        his.run(f"UPDATE ward SET name = '{name}'")
        mapped.clock.now += 61
        mapped.poller.run()
    assert len(set(mapped.received.control_ids)) == len(mapped.received.control_ids) == 3


def test_a_whole_reading_that_broke_off_goes_on(mapped: Mapped, his: His, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.services.polling.MAX_QUERIES", 1)
    his.run(*(f"INSERT INTO ward VALUES ('{number:02}', 'w{number}')" for number in range(7)))
    seen = [mapped.poller.run().rows for _ in range(5)]
    assert sum(seen) == 7
    assert max(seen) <= 3
    assert sorted(row["w.id"] for _, rows in mapped.received.deliveries for row in rows) == [f"0{n}" for n in range(7)]


def test_the_latest_of_several_times_is_the_watermark(mapped: Mapped, his: His) -> None:
    his.run(
        "INSERT INTO person VALUES (1, 'a', '2025-01-01 08:00:00', NULL)",
        "INSERT INTO person VALUES (2, 'b', '2025-01-01 08:00:00', '2025-03-01 08:00:00')",
        "INSERT INTO person VALUES (3, 'c', NULL, '2025-02-01 08:00:00')",
        "INSERT INTO person VALUES (4, 'too old', '2019-02-01 08:00:00', NULL)",
        "INSERT INTO person VALUES (5, 'never', NULL, NULL)",
    )
    mapped.poller.run()
    assert sorted(row["p.id"] for _, rows in mapped.received.deliveries for row in rows) == [1, 2, 3]
    mapped.clock.now += 3600
    his.run("UPDATE person SET changed = '2025-04-01 08:00:00' WHERE id = 1")
    assert mapped.poller.run().deliveries == 1


def test_queries_are_chosen_by_their_names(node: Node, his: His) -> None:
    mapped = Mapped(node, his, views=("people",))
    his.run("INSERT INTO ward VALUES ('01', 'a')", "INSERT INTO person VALUES (1, 'a', '2025-01-01 08:00:00', NULL)")
    mapped.poller.run()
    assert [view for view, _ in mapped.received.deliveries] == ["V_IOP_PATIENT"]
    mapped.poller.close()


def test_a_source_that_reads_nothing_is_refused(node: Node, his: His) -> None:
    with pytest.raises(SettingsError, match="views is empty"):
        poller_of(node, source(his, views=()), Received())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("sqlite:///x", {}, id="SQLite cancels by itself"),
        pytest.param(
            "mysql+pymysql://a@b/c", {"connect_timeout": 10, "read_timeout": 25, "write_timeout": 25}, id="MariaDB"
        ),
        pytest.param("mysql+pymysql://a@b/c?read_timeout=3", {"connect_timeout": 10, "write_timeout": 25}, id="told"),
        pytest.param("mssql+pymssql://a@b/c", {"login_timeout": 10, "timeout": 25}, id="SQL Server"),
        pytest.param("oracle+oracledb://a@b/c", {"tcp_connect_timeout": 10}, id="Oracle"),
        pytest.param("postgresql+psycopg://a@b/c", {"connect_timeout": 10}, id="PostgreSQL"),
        pytest.param("nonsense", {}, id="no URL"),
    ],
)  # fmt: skip
def test_every_driver_is_given_its_limits(url: str, expected: dict[str, Any]) -> None:
    assert driver_arguments(url, 20.0) == expected


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        pytest.param("oracle+oracledb://reader:x@his:1521/?service_name=orcl", "oracledb", id="Oracle"),
        pytest.param("mssql+pymssql://reader:x@his:1433/THIS4?charset=utf8", "pymssql", id="SQL Server"),
        pytest.param("mysql+pymysql://reader:x@his/his?charset=utf8mb4", "pymysql", id="MySQL and MariaDB"),
        pytest.param("postgresql+psycopg://reader:x@his/his", "psycopg", id="PostgreSQL"),
    ],
)
def test_the_drivers_of_the_extras_are_the_ones_that_urls_name(url: str, driver: str) -> None:
    pytest.importorskip(driver)
    source = SourceConnection("his", url, 5)
    assert source._connected().dialect.driver == driver
    source.close()
