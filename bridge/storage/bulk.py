"""Many rows of one table handed to the driver as they are.

SQLAlchemy's work for each row (a dict, bind processors, parameter objects) costs more than the database's own where a
message becomes a hundred rows. Statements are built once per table and dialect; values are ``str``, ``int``, ``bool``,
``bytes`` or None, which both drivers store without conversion.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Table

KEYS_AT_ONCE = 400
"""Keys a query names at once: below SQLite's limit of bound variables on every build."""


def insert_rows(connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows whose values stand in the order of ``columns``."""
    if rows:
        connection.exec_driver_sql(_insert(table.name, tuple(columns), _mark(connection)), list(rows))


def execute_rows(connection: Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> int:
    """Run a statement of ours, written with ``?``, once for each row; return how many rows of the table it met."""
    if not rows:
        return 0
    mark = _mark(connection)
    return connection.exec_driver_sql(statement if mark == "?" else statement.replace("?", mark), list(rows)).rowcount


def select_by_keys(connection: Connection, statement: str, keys: Sequence[bytes]) -> list[Row[Any]]:
    """Return the rows of a statement of ours that ends in ``IN``, for keys in portions."""
    found: list[Row[Any]] = []
    for start in range(0, len(keys), KEYS_AT_ONCE):
        portion = tuple(keys[start : start + KEYS_AT_ONCE])
        marks = ", ".join([_mark(connection)] * len(portion))
        found += connection.exec_driver_sql(f"{statement}({marks})", portion).all()
    return found


def _mark(connection: Connection) -> str:
    """The driver's place holder (DB-API ``paramstyle``)."""
    return "%s" if connection.dialect.name == "postgresql" else "?"


@lru_cache(maxsize=64)
def _insert(table: str, columns: tuple[str, ...], mark: str) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"  # noqa: S608
