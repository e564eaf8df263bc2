"""Fixtures of the store suite (``tests.stores``)."""

from tests.stores import _postgres_tables, _sqlite_template, postgres_url, stores

__all__ = ["_postgres_tables", "_sqlite_template", "postgres_url", "stores"]
