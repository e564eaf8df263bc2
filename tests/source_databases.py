"""Databases to read from, for tests: SQLite always, PostgreSQL and MariaDB where a server is.

MariaDB is used when YIQIAO_TEST_MARIADB holds the URL of a server (``tests/start-mariadb.sh`` starts one); where
YIQIAO_REQUIRE_SERVICES is set, its absence is a failure and not a skip.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from tests.stores import POSTGRES_MISSING, POSTGRES_URL

MARIADB_URL = os.environ.get("YIQIAO_TEST_MARIADB", "")
MARIADB_MISSING = "YIQIAO_TEST_MARIADB is not set: tests/start-mariadb.sh DIR starts a server and prints its URL"
_SERVERS = {"postgresql": (POSTGRES_URL, POSTGRES_MISSING), "mariadb": (MARIADB_URL, MARIADB_MISSING)}


@dataclass
class SourceDatabase:
    """A database of the test's own: ``url`` for the node that reads it, ``engine`` for who plays the HIS."""

    kind: str
    name: str
    url: str
    engine: Engine


@pytest.fixture(
    params=[
        pytest.param("sqlite"),
        pytest.param("postgresql", marks=pytest.mark.service),
        pytest.param("mariadb", marks=pytest.mark.service),
    ]
)
def source_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SourceDatabase]:
    """An empty database of each kind."""
    yield from opened(request.param, tmp_path)


def opened(kind: str, folder: Path) -> Iterator[SourceDatabase]:
    """Make an empty database, give it, and drop it."""
    if kind == "sqlite":
        url = f"sqlite:///{folder / 'his.sqlite3'}"
        engine = create_engine(url)
        yield SourceDatabase(kind, "", url, engine)
        engine.dispose()
        return
    server, missing = _SERVERS[kind]
    if not server:
        if os.environ.get("YIQIAO_REQUIRE_SERVICES"):
            pytest.fail(missing)
        pytest.skip(missing)
    name = f"yiqiao_his_{secrets.token_hex(6)}"
    administrator = create_engine(server, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = make_url(server).set(database=name).render_as_string(hide_password=False)
    engine = create_engine(url)
    yield SourceDatabase(kind, name, url, engine)
    engine.dispose()
    with administrator.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name}" + (" WITH (FORCE)" if kind == "postgresql" else "")))
    administrator.dispose()
