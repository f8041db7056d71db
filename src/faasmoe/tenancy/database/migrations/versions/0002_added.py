"""Adds the number of tenants that were ever added."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the number, 0 only if there never was a tenant.

    Tenants that never used anything leave no row when they are removed. But each change of tenants and keys was
    counted, and rows of admins' keys stay: what was counted beyond these were changes of tenants.
    """
    op.add_column("changes", sa.Column("added", sa.BigInteger, nullable=False, server_default="0"))
    run = op.get_bind()
    there = run.execute(sa.text("SELECT count(*) FROM tenants")).scalar_one()
    changes = run.execute(sa.text("SELECT number FROM changes")).scalar_one()
    admins = run.execute(sa.text("SELECT count(*) + count(revoked) FROM keys WHERE tenant IS NULL")).scalar_one()
    run.execute(sa.text("UPDATE changes SET added = :added"), {"added": there or int(changes > admins)})
