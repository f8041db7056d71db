"""Adds a request's end user and metadata, as the tenant names them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns, empty in requests of before, and an index for sums by user."""
    op.add_column("requests", sa.Column("user", sa.Text, nullable=False, server_default=""))
    op.add_column("requests", sa.Column("metadata", sa.Text, nullable=False, server_default=""))
    op.create_index("requests_by_user", "requests", ["tenant", "user", "ended"])
