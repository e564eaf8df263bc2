"""Alembic's entry point: runs the migrations on the engine that ``bridge.storage.database`` hands over."""

from alembic import context
from sqlalchemy import Connection, text
from sqlmodel import SQLModel

from bridge.storage.database import load_tables

MIGRATION_LOCK = 0x79697169616F
"""PostgreSQL advisory lock held while migrating, so that processes starting together do it once."""

load_tables()


def _run(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    context.configure(connection=connection, target_metadata=SQLModel.metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


with context.config.attributes["engine"].begin() as _connection:
    _run(_connection)
