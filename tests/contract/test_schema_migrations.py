"""The schema: migrated up and down, the same as the table classes say, and safe to migrate from many processes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlmodel import SQLModel

from bridge.errors import DatabaseUnavailable, SettingsError
from bridge.storage.database import migrate, migration_config, open_database, read_transaction, write_transaction
from tests.stores import Stores


def test_the_migrated_schema_is_what_the_classes_say(stores: Stores) -> None:
    with stores.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []
    names = set(inspect(stores.engine).get_table_names())
    assert {"inbox", "resource", "outbox", "subject_key", "job_lease", "evidence_entry"} <= names


def test_down_and_up_again(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/node.sqlite3")
    migrate(engine)
    migrate(engine)
    command.downgrade(migration_config(engine), "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    migrate(engine)
    assert "inbox" in inspect(engine).get_table_names()
    engine.dispose()


@pytest.mark.service
def test_down_and_up_again_on_postgresql(postgres_url: str) -> None:
    engine = open_database(postgres_url)
    migrate(engine)
    command.downgrade(migration_config(engine), "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    migrate(engine)
    assert "inbox" in inspect(engine).get_table_names()
    engine.dispose()


def _migrate(url: str) -> None:
    engine = open_database(url)
    migrate(engine)
    engine.dispose()


def test_processes_that_start_together_migrate_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    url = f"sqlite:///{tmp_path}/node.sqlite3"
    starters = [context.Process(target=_migrate, args=(url,)) for _ in range(3)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(60)
        assert starter.exitcode == 0


def test_sqlite_is_durable_and_shared(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/node.sqlite3")
    with read_transaction(engine) as connection:
        pragmas = {name: connection.execute(text(f"PRAGMA {name}")).scalar()
                   for name in ("journal_mode", "synchronous", "foreign_keys")}  # fmt: skip
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    engine.dispose()


def test_a_reader_does_not_wait_for_a_writer(stores: Stores) -> None:
    with write_transaction(stores.engine) as writer:
        writer.execute(text("INSERT INTO job_lease (name, holder, until) VALUES ('a', 'b', 1)"))
        with read_transaction(stores.engine) as reader:
            assert reader.execute(text("SELECT count(*) FROM job_lease")).scalar() == 0


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("mysql://localhost/x", id="another database"),
        pytest.param("postgresql://localhost/x", id="another driver"),
        pytest.param("sqlite://", id="memory"),
        pytest.param("sqlite:///:memory:", id="memory by name"),
        pytest.param("no url", id="no url"),
    ],
)
def test_other_urls_are_refused_by_name(url: str) -> None:
    with pytest.raises(SettingsError, match=r"database\.url"):
        open_database(url)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("sqlite:////nowhere/at/all/node.sqlite3", id="no directory"),
        pytest.param("postgresql+psycopg://127.0.0.1:1/x?connect_timeout=2", id="no server"),
    ],
)
def test_a_database_that_is_not_there_is_said_without_the_statement(url: str) -> None:
    engine = open_database(url)
    with pytest.raises(DatabaseUnavailable) as caught, read_transaction(engine) as connection:
        connection.execute(text("SELECT 'secret'"))
    assert "secret" not in repr(caught.value) + caught.value.cause
    engine.dispose()
