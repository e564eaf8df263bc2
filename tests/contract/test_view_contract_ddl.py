"""The contract's DDL on every kind of database, and a poller that reads what stands in it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
from sqlalchemy import text

from bridge.services.ingest import IngestService
from bridge.services.polling import ViewPoller
from bridge.services.source_connection import SourceConnection, SourceUnavailable, ViewUnreadable
from bridge.settings import SourceSettings
from fhir_adapters import SourceProfile
from fhir_adapters.tabular import VIEWS
from tests.source_databases import SourceDatabase
from tests.stores import Clock, Stores

ROW = {"row_key": "1", "updated_at": "2026-01-01 08:00:00", "patient_no": "P1", "visit_no": "V1", "visit_class": "I"}


def install(database: SourceDatabase) -> None:
    ddl = files("fhir_adapters.tabular").joinpath("contract.sql").read_text("utf-8")
    plain = "\n".join(line for line in ddl.splitlines() if not line.startswith("--"))
    with database.engine.begin() as connection:
        for statement in filter(str.strip, plain.split(";")):
            connection.exec_driver_sql(statement)


def insert(database: SourceDatabase, view: str, row: dict[str, Any]) -> None:
    names = ", ".join(row)
    with database.engine.begin() as connection:
        values = ", ".join(f":{name}" for name in row)
        connection.execute(text(f"INSERT INTO {view} ({names}) VALUES ({values})"), row)


def complete_row(view: str) -> dict[str, Any]:
    """A row with every required column."""
    required = {name: "1" for name, column in VIEWS[view].columns.items() if column.required}
    return required | {name: value for name, value in ROW.items() if name in VIEWS[view].columns}


def test_a_dba_can_install_the_contract_and_every_view_is_read(
    source_database: SourceDatabase, sqlite_stores: Stores
) -> None:
    install(source_database)
    for view in VIEWS:
        insert(source_database, view, complete_row(view))
    ingest = IngestService(
        sqlite_stores.engine, sqlite_stores.inbox, sqlite_stores.records, {"his": SourceProfile()}, Clock()
    )
    settings = SourceSettings(name="his", kind="view", url=source_database.url, views=tuple(VIEWS))
    poller = ViewPoller(settings, SourceProfile(), sqlite_stores.engine, ingest, sqlite_stores.keyring.blind, Clock())
    assert poller.run().deliveries == len(VIEWS)
    assert poller.run().deliveries == 0
    while ingest.process(20):
        pass
    assert sqlite_stores.inbox.counts().get("failed", 0) == 0
    poller.close()


def test_the_session_cannot_write(source_database: SourceDatabase) -> None:
    install(source_database)
    insert(source_database, "V_IOP_PATIENT", complete_row("V_IOP_PATIENT"))
    source = SourceConnection("his", source_database.url, 5)
    with pytest.raises((SourceUnavailable, ViewUnreadable)), source.reading() as connection:
        connection.execute(text("DELETE FROM V_IOP_PATIENT"))
    source.close()
    with source_database.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM V_IOP_PATIENT")).scalar_one() == 1


def test_a_view_that_is_not_there_is_told_from_a_source_that_is_away(source_database: SourceDatabase) -> None:
    if source_database.kind == "sqlite":
        pytest.skip("SQLite has one kind of error for both")
    source = SourceConnection("his", source_database.url, 5)
    with pytest.raises(ViewUnreadable), source.reading() as connection:
        connection.execute(text("SELECT * FROM V_IOP_NOTHING"))
    source.close()


SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9e8) SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(30)",
    "mariadb": "SELECT SLEEP(30)",
}


def test_a_statement_that_takes_too_long_is_ended(source_database: SourceDatabase) -> None:
    source = SourceConnection("his", source_database.url, 0.5)
    with source.reading() as connection, pytest.raises(Exception) as ended:
        # MariaDB ends SLEEP by giving 1 back instead of an error
        assert connection.execute(text(SLOW[source_database.kind])).scalar_one() == 0
    assert ended.value is not None
    source.close()
