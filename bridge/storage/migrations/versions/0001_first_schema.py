"""The first schema: every table of the node, as the table classes define it.

Nothing has been released yet, so the classes are the one description of the schema and this migration follows them.
Once a version is released this file is replaced by the explicit statements of that version and never changes again.
"""

from alembic import op
from sqlmodel import SQLModel

from bridge.storage.database import load_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    load_tables()
    SQLModel.metadata.create_all(op.get_bind())


def downgrade() -> None:
    """Drop all tables."""
    load_tables()
    SQLModel.metadata.drop_all(op.get_bind())
