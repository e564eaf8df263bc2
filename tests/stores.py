"""A node's stores on a fresh database, for the tests that run on SQLite and on PostgreSQL alike.

PostgreSQL is used when YIQIAO_TEST_POSTGRES holds the URL of a server (``tests/start-postgres.sh`` starts one);
where YIQIAO_REQUIRE_SERVICES is set, its absence is a failure and not a skip.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, make_url, text
from sqlmodel import SQLModel

from bridge.storage.database import migrate, open_database, write_transaction
from bridge.storage.inbox import Inbox
from bridge.storage.keyring import KeyRing
from bridge.storage.leases import JobLeases
from bridge.storage.outbox import Outbox
from bridge.storage.records import Lineage, RecordStore

KEK = bytes(range(16))
INDEX_KEY = bytes(range(32))
LINEAGE = Lineage("his", b"\x5a" * 32, "hl7v2/1.0")
POSTGRES_URL = os.environ.get("YIQIAO_TEST_POSTGRES", "")
POSTGRES_MISSING = "YIQIAO_TEST_POSTGRES is not set: tests/start-postgres.sh DIR starts a server and prints its URL"


class Clock:
    """A clock that stands still until it is moved; Unix seconds."""

    def __init__(self, now: float = 1_790_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Stores:
    """The stores of one node."""

    url: str
    engine: Engine
    clock: Any = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.keyring = KeyRing(self.engine, KEK, INDEX_KEY, self.clock)
        self.records = RecordStore(self.engine, self.keyring, self.clock)
        self.inbox = Inbox(self.engine, self.keyring, self.clock)
        self.outbox = Outbox()
        self.leases = JobLeases(self.engine, self.clock)

    def put(self, *resources: dict[str, Any], subject: str = "Patient/p1") -> list[Any]:
        """Store resources in one transaction."""
        with write_transaction(self.engine) as connection:
            return [self.records.put(connection, each, LINEAGE, subject) for each in resources]

    def scalar(self, statement: str) -> Any:
        """Run one SQL statement and return its single value."""
        with self.engine.connect() as connection:
            return connection.execute(text(statement)).scalar()

    def run(self, statement: str, **values: Any) -> None:
        """Change something behind the stores' back."""
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "node.sqlite3"
    engine = open_database(f"sqlite:///{path}")
    migrate(engine)
    with engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.exec_driver_sql("BEGIN")
    engine.dispose()
    return path


@contextmanager
def new_postgres() -> Iterator[str]:
    """Give the URL of a database of its own on the server of YIQIAO_TEST_POSTGRES, without tables."""
    if not POSTGRES_URL:
        if os.environ.get("YIQIAO_REQUIRE_SERVICES"):
            pytest.fail(POSTGRES_MISSING)
        pytest.skip(POSTGRES_MISSING)
    name = f"yiqiao_test_{secrets.token_hex(6)}"
    administrator = open_database(POSTGRES_URL).execution_options(isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(POSTGRES_URL).set(database=name).render_as_string(hide_password=False)
    with administrator.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    administrator.dispose()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A database of this test session's own, without tables."""
    with new_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def _postgres_tables(postgres_url: str) -> str:
    engine = open_database(postgres_url)
    migrate(engine)
    engine.dispose()
    return postgres_url


def _emptied(url: str) -> Engine:
    engine = open_database(url)
    with engine.begin() as connection:
        for table in reversed(SQLModel.metadata.sorted_tables):
            connection.execute(table.delete())  # quicker than TRUNCATE where there are few rows
    return engine


@pytest.fixture(params=[pytest.param("sqlite"), pytest.param("postgresql", marks=pytest.mark.service)])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """The stores of a node on an empty, migrated database: each test runs on both kinds."""
    if request.param == "sqlite":
        path = tmp_path / "node.sqlite3"
        shutil.copy(request.getfixturevalue("_sqlite_template"), path)
        url = f"sqlite:///{path}"
        engine = open_database(url)
    else:
        url = request.getfixturevalue("_postgres_tables")
        engine = _emptied(url)
    node = Stores(url, engine)
    yield node
    node.inbox.close()
    engine.dispose()


@pytest.fixture
def sqlite_stores(_sqlite_template: Path, tmp_path: Path) -> Iterator[Stores]:
    """The stores of a node on SQLite, for tests whose matter is not the node's database."""
    path = tmp_path / "node.sqlite3"
    shutil.copy(_sqlite_template, path)
    url = f"sqlite:///{path}"
    node = Stores(url, open_database(url))
    yield node
    node.inbox.close()
    node.engine.dispose()


def patient(id: str = "p1", **elements: Any) -> dict[str, Any]:
    """A synthetic Patient."""
    return {
        "resourceType": "Patient",
        "id": id,
        "identifier": [{"system": "urn:test:mrn", "value": f"MRN-{id}"}],
        "name": [{"text": "张三丰", "family": "张", "given": ["三丰"]}],
        "gender": "male",
        "birthDate": "1990-05-17",
        "telecom": [{"system": "phone", "value": "13800000000"}, {"system": "email", "value": "zhang@example.org"}],
        **elements,
    }


def observation(id: str = "o1", subject: str = "p1", **elements: Any) -> dict[str, Any]:
    """A synthetic Observation."""
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "category": [{"coding": [{"system": "urn:test:category", "code": "laboratory"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7"}, {"system": "urn:local", "code": "GLU"}]},
        "subject": {"reference": f"Patient/{subject}"},
        "encounter": {"reference": "Encounter/e1"},
        "effectiveDateTime": "2026-05-01T08:30:00+08:00",
        **elements,
    }
