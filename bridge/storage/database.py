"""The node's database: SQLite or PostgreSQL, opened and migrated the same way.

Every transaction here is short and owned by one caller: ``write_transaction`` for work that writes,
``read_transaction`` for work that only reads, ``transact`` for work that two processes may do to the same rows at once.
Lower-level database errors leave as ``DatabaseUnavailable`` or ``StorageError`` and never carry statement parameters.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from bridge.errors import DatabaseUnavailable, SettingsError, StorageError, VersionConflict

SQLITE_BUSY_MILLISECONDS = 30_000
"""How long a writer waits for another process's transaction; ours take milliseconds, a bulk load up to seconds."""

SQLITE_FIRST_WAIT_SECONDS = 0.0003
SQLITE_LONGEST_WAIT_SECONDS = 0.002
"""Pauses of a writer that waits for another one's transaction. SQLite's own grow to 100 ms, which would make a sender
wait long after the database was free again."""

SQLITE_CHECKPOINT_PAGES = 8000
"""Pages of 4 KiB in the write-ahead log before it goes into the database: an index page is written once for many."""

SQLITE_LATE_CHECKPOINT_PAGES = 100_000
"""The same for a process that answers senders: it leaves moving pages to the workers, unless there is none (400 MB)."""

POOL_SIZE = 8
"""Connections kept per process: the web threads of one worker plus its scheduled jobs."""

POOL_OVERFLOW = 24
"""Connections opened beyond the pool under a burst, closed again afterwards."""

TRANSACTION_ATTEMPTS = 8
"""Attempts of a transaction that lost to another writer; losing eight times in a row means something else is wrong."""

RETRY_BASE_SECONDS = 0.005
"""First pause after a lost race; doubled each time, with jitter."""

READ_ONLY = "yiqiao_read_only"
_MIGRATIONS = Path(__file__).parent / "migrations"
_POSTGRES_LOST_RACE = frozenset({"40001", "40P01", "23505"})  # serialization failure, deadlock, unique violation

T = TypeVar("T")


def open_database(url: str, *, answers_senders: bool = False) -> Engine:
    """Open the node's database; ``url`` is ``sqlite:///PATH`` or ``postgresql+psycopg://...``.

    ``answers_senders``: a commit of this process is waited for, so others shall tidy up.

    SQLite runs in WAL mode with ``synchronous=FULL`` (a commit is on the disk before it returns) and foreign keys on.
    Raises ``SettingsError`` for any other kind of URL. Connects lazily: an unreachable server shows at first use.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsError("database.url is not a database URL") from error
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        if not parsed.database or parsed.database == ":memory:":
            raise SettingsError("database.url must name a SQLite file: one in memory does not survive a restart")
        engine = create_engine(
            parsed,
            connect_args={"timeout": SQLITE_BUSY_MILLISECONDS / 1000, "check_same_thread": False},
            pool_size=POOL_SIZE,
            max_overflow=POOL_OVERFLOW,
            hide_parameters=True,
        )
        _configure_sqlite(engine, SQLITE_LATE_CHECKPOINT_PAGES if answers_senders else SQLITE_CHECKPOINT_PAGES)
        return engine
    if parsed.drivername == "postgresql+psycopg":
        return create_engine(
            parsed, pool_size=POOL_SIZE, max_overflow=POOL_OVERFLOW, pool_pre_ping=True, hide_parameters=True
        )
    raise SettingsError("database.url must begin with sqlite:/// or postgresql+psycopg://")


def _configure_sqlite(engine: Engine, checkpoint_pages: int) -> None:
    """Take transaction control from the driver: a writer begins IMMEDIATE, so that it never fails half-way through."""

    @event.listens_for(engine, "connect")
    def _prepare(dbapi_connection: sqlite3.Connection, _record: object) -> None:
        dbapi_connection.isolation_level = None
        for pragma in (
            f"busy_timeout={SQLITE_BUSY_MILLISECONDS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"wal_autocheckpoint={checkpoint_pages}",
            "temp_store=MEMORY",
            "cache_size=-65536",  # 64 MiB a connection: search terms are spread over the whole index
        ):
            dbapi_connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get(READ_ONLY, False):
            connection.exec_driver_sql("BEGIN")
        else:
            _begin_writing(connection)


def _begin_writing(connection: Connection) -> None:
    """Begin IMMEDIATE, waiting for other writers in short steps."""
    raw: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    deadline = time.monotonic() + SQLITE_BUSY_MILLISECONDS / 1000
    pause = SQLITE_FIRST_WAIT_SECONDS
    raw.execute("PRAGMA busy_timeout=0")
    try:
        while _is_taken(raw) and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(2 * pause, SQLITE_LONGEST_WAIT_SECONDS)
        if not raw.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # fails as SQLAlchemy's own statements do
    finally:
        raw.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_MILLISECONDS}")


def _is_taken(raw: sqlite3.Connection) -> bool:
    """Try once to begin; True when another writer is at it."""
    try:
        raw.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
    return False


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """Give a connection inside a transaction that commits on leaving and rolls back on any error."""
    with _translated(), engine.begin() as connection:
        yield connection


@contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """Give a connection inside a transaction that only reads: it waits for no writer on SQLite."""
    with _translated(), engine.connect() as plain:
        connection = plain.execution_options(**{READ_ONLY: True})
        with connection.begin():
            yield connection


def transact(engine: Engine, work: Callable[[Connection], T], attempts: int = TRANSACTION_ATTEMPTS) -> T:
    """Run ``work`` in a write transaction, again from the start when another writer won; return what it returns.

    ``work`` must have no effect outside the database. Raises ``VersionConflict`` after ``attempts`` losses.
    """

    def once() -> T:
        with write_transaction(engine) as connection:
            return work(connection)

    return contested(once, attempts)


def contested(work: Callable[[], T], attempts: int = TRANSACTION_ATTEMPTS) -> T:
    """Run ``work``, again from the start while it raises ``VersionConflict``; the last one leaves."""
    for attempt in range(attempts):
        try:
            return work()
        except VersionConflict:
            if attempt + 1 == attempts:
                raise
        time.sleep(RETRY_BASE_SECONDS * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
    raise VersionConflict


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the driver's errors into this package's, without their statements and parameters."""
    try:
        yield
    except DBAPIError as error:
        raise _translate(error) from None
    except SQLAlchemyError as error:
        raise StorageError(cause=type(error).__name__) from None


def _translate(error: DBAPIError) -> StorageError | VersionConflict:
    state = str(getattr(error.orig, "sqlstate", "") or "")
    code = str(getattr(error.orig, "sqlite_errorname", "") or "")
    name = f"{type(error.orig).__name__} {state or code}".strip()
    if state in _POSTGRES_LOST_RACE or code in {"SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE"}:
        return VersionConflict(cause=name)
    if isinstance(error, OperationalError | InterfaceError) and not isinstance(error, IntegrityError):
        return DatabaseUnavailable(cause=name)
    return StorageError(cause=name)


def load_tables() -> None:
    """Import every module of ``bridge.storage``, so that ``SQLModel.metadata`` is the whole schema."""
    import bridge.storage

    for module in pkgutil.iter_modules(bridge.storage.__path__):
        if not module.ispkg:
            importlib.import_module(f"bridge.storage.{module.name}")


def migration_config(engine: Engine) -> Config:
    """Return Alembic's configuration for this engine (it takes its connection from here, not from a URL)."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["engine"] = engine
    return config


def migrate(engine: Engine) -> None:
    """Bring the schema to this version of the software; safe on every start and for several processes."""
    load_tables()
    with _translated():
        command.upgrade(migration_config(engine), "head")
