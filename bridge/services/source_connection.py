"""Connections to a hospital's database: read-only, one at a time, and every statement ends in time.

What each database offers differs, so the limits are set wherever it has them: in the session, in the driver, and by
cancelling what the driver is doing. An account that may only SELECT is the DBA's part of the bargain.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, literal, make_url, select, text
from sqlalchemy.exc import ArgumentError, ProgrammingError, SQLAlchemyError

from bridge.errors import IngestError

CONNECT_SECONDS = 10  # how long a source may take to answer the telephone
GRACE_SECONDS = 5  # a socket waits this much longer than the statement may take: the server's own limit comes first

#: what makes a session read-only and bounds its statements ({seconds}, {milliseconds}), by database
SESSION_STATEMENTS: Mapping[str, tuple[str, ...]] = {
    "sqlite": ("PRAGMA query_only=ON",),
    "postgresql": ("SET TRANSACTION READ ONLY", "SET LOCAL statement_timeout = {milliseconds}"),
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION max_execution_time = {milliseconds}"),
    "mariadb": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION max_statement_time = {seconds}"),
    "oracle": ("SET TRANSACTION READ ONLY",),
    # Locks of writers make a reader wait there; the statement's own limit is the driver's.
    "mssql": ("SET LOCK_TIMEOUT {milliseconds}", "SET DEADLOCK_PRIORITY LOW"),
}

#: arguments of connect() by driver: how long a connection and a statement may take
DRIVER_ARGUMENTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "pymysql": (("connect_timeout", "connect"), ("read_timeout", "statement"), ("write_timeout", "statement")),
    "pymssql": (("login_timeout", "connect"), ("timeout", "statement")),
    "oracledb": (("tcp_connect_timeout", "connect"),),
    "psycopg": (("connect_timeout", "connect"),),
}


class SourceUnavailable(IngestError):
    """A source that cannot be reached, takes too long, or breaks off."""


class ViewUnreadable(IngestError):
    """A statement that the source refuses to run: a view, a column or a privilege is missing. Its health is not bad."""


class SourceConnection:
    """The way to one source."""

    def __init__(self, source: str, url: str, statement_seconds: float) -> None:
        self._source = source
        self._url = url
        self._seconds = statement_seconds
        self._engine: Engine | None = None

    def close(self) -> None:
        """Close the connections."""
        if self._engine is not None:
            self._engine.dispose()

    @contextmanager
    def reading(self, what: str = "") -> Iterator[Connection]:
        """Give a connection whose statements only read and end in time; always rolled back.

        Raises ``ViewUnreadable`` when the source refuses the statement, ``SourceUnavailable`` for every other failure.
        """
        try:
            with self._connected().connect() as connection:
                for statement in SESSION_STATEMENTS.get(_database(connection), ()):
                    limits = {"seconds": self._seconds, "milliseconds": int(self._seconds * 1000)}
                    connection.execute(text(statement.format(**limits)))
                with _time_limit(connection, self._seconds):
                    yield connection
        except SQLAlchemyError as error:
            cause = type(getattr(error, "orig", None) or error).__name__
            kind = ViewUnreadable if isinstance(error, ProgrammingError) else SourceUnavailable
            raise kind(
                f"source {self._source} cannot be read{what and ' (' + what + ')'}; check sources.url, the views and "
                "their columns, and the account / 无法读取数据源",
                cause=cause,
            ) from None

    def probe(self) -> None:
        """Ask the source for a constant: the cheapest sign of life. Raises ``SourceUnavailable``."""
        with self.reading("a first sign of life") as connection:
            connection.execute(select(literal(1)))

    def _connected(self) -> Engine:
        if self._engine is None:
            try:
                self._engine = create_engine(
                    self._url,
                    pool_size=1,
                    max_overflow=0,
                    pool_pre_ping=True,
                    hide_parameters=True,
                    connect_args=driver_arguments(self._url, self._seconds),
                )
            except (SQLAlchemyError, ImportError) as error:
                raise IngestError(
                    f"sources.{self._source}.url cannot be used: not a database URL, or its driver is not installed / "
                    "数据源地址或驱动不可用",
                    cause=type(error).__name__,
                ) from None
        return self._engine


def driver_arguments(url: str, seconds: float) -> dict[str, Any]:
    """Return the limits that a driver takes when it connects; what the URL itself says is left alone."""
    try:
        parts = make_url(url)
        driver = parts.get_driver_name()
    except (ArgumentError, ImportError, SQLAlchemyError):
        return {}  # create_engine says what is wrong with it
    limits = {"connect": CONNECT_SECONDS, "statement": int(seconds) + GRACE_SECONDS}
    return {name: limits[kind] for name, kind in DRIVER_ARGUMENTS.get(driver, ()) if name not in parts.query}


def _database(connection: Connection) -> str:
    """Return the kind of database; a MariaDB may answer under a mysql:// URL too."""
    name = connection.dialect.name
    return "mariadb" if getattr(connection.dialect, "is_mariadb", False) else name


@contextmanager
def _time_limit(connection: Connection, seconds: float) -> Iterator[None]:
    """Cancel what the driver is doing after ``seconds``, for drivers that can; servers with a limit have their own."""
    driver: Any = connection.connection.driver_connection
    if hasattr(driver, "call_timeout"):  # oracledb: milliseconds for each round trip
        driver.call_timeout = int(seconds * 1000)
    cancel = getattr(driver, "interrupt", None) or getattr(driver, "cancel", None)
    timer = threading.Timer(seconds, cancel if cancel is not None else lambda: None)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
