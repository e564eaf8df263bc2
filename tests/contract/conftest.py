"""Fixtures of the store suite (``tests.stores``) and of the sources that are read (``tests.source_databases``)."""

from tests.source_databases import source_database
from tests.stores import _postgres_tables, _sqlite_template, postgres_url, sqlite_stores, stores

__all__ = ["_postgres_tables", "_sqlite_template", "postgres_url", "source_database", "sqlite_stores", "stores"]
