"""Tenants, keys, the ledger of requests, and shares of idle time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "tenants",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("rpm", sa.BigInteger),
        sa.Column("tpm", sa.BigInteger),
        sa.Column("concurrency", sa.BigInteger),
        sa.Column("budget", sa.String(63)),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("removed", sa.BigInteger),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(31), primary_key=True),
        sa.Column("tenant", sa.String(63), sa.ForeignKey("tenants.name")),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger),
        sa.Column("revoked", sa.BigInteger),
    )
    op.create_index("ix_keys_tenant", "keys", ["tenant"])
    changes = op.create_table(
        "changes",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(changes, [{"id": 1, "number": 0}])
    _create_ledger()


def _create_ledger() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("key", sa.String(31), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("ended", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.String(31), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("first_token_seconds", sa.Float),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("invocations", sa.Float, nullable=False),
        sa.Column("expert_seconds", sa.Float, nullable=False),
        sa.Column("gb_seconds", sa.Float, nullable=False),
        sa.Column("cold_starts", sa.Float, nullable=False),
        sa.Column("orchestrator_cpu_seconds", sa.Float, nullable=False),
    )
    op.create_index("requests_by_tenant", "requests", ["tenant", "ended"])
    op.create_index("requests_by_time", "requests", ["ended"])
    op.create_table(
        "idle",
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("began", sa.BigInteger, nullable=False),
        sa.Column("ended", sa.BigInteger, nullable=False),
        sa.Column("gb_seconds", sa.Float, nullable=False),
    )
    op.create_index("idle_by_tenant", "idle", ["tenant", "ended"])
    op.create_index("idle_by_time", "idle", ["ended"])
