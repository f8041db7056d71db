"""The tables. `migrations/` makes them; a test holds the two against each other.

Times are milliseconds since the epoch, in UTC: integers mean the same in every database.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text

SCHEMA = "0003"  # the newest migration

metadata = MetaData()

tenants = Table(
    "tenants",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("weight", Float, nullable=False),
    Column("rpm", BigInteger),
    Column("tpm", BigInteger),
    Column("concurrency", BigInteger),
    Column("budget", String(63)),  # as `Budget` writes it
    Column("created", BigInteger, nullable=False),
    Column("removed", BigInteger),  # its name stays, with its records
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(31), primary_key=True),  # what a key begins with
    Column("tenant", String(63), ForeignKey("tenants.name"), index=True),  # null: an admin's
    Column("digest", String(64), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("revoked", BigInteger),
)

# One row. `number` grows with every change of tenants and keys: servers look at it. `added` grows with each tenant
# that is added and never shrinks: a server without tenants is open only while there never was one.
changes = Table(
    "changes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("added", BigInteger, nullable=False, server_default="0"),
)

# One row for each request that was run. No foreign keys: what was used is recorded, whatever happened to the tenant.
requests = Table(
    "requests",
    metadata,
    Column("id", String(63), primary_key=True),  # as clients see it
    Column("tenant", String(63), nullable=False),
    Column("key", String(31), nullable=False),
    Column("model", Text, nullable=False),
    Column("user", Text, nullable=False, server_default=""),  # the tenant's own end user, in its words
    Column("metadata", Text, nullable=False, server_default=""),  # JSON, in its words
    Column("ended", BigInteger, nullable=False),
    Column("outcome", String(31), nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),  # of those of the prompt
    Column("completion_tokens", BigInteger, nullable=False),
    Column("first_token_seconds", Float),
    Column("seconds", Float, nullable=False),
    Column("invocations", Float, nullable=False),
    Column("expert_seconds", Float, nullable=False),
    Column("gb_seconds", Float, nullable=False),
    Column("cold_starts", Float, nullable=False),
    Column("orchestrator_cpu_seconds", Float, nullable=False),
    Index("requests_by_tenant", "tenant", "ended"),
    Index("requests_by_user", "tenant", "user", "ended"),
    Index("requests_by_time", "ended"),
)

# A tenant's share of instances that were kept alive, for one period.
idle = Table(
    "idle",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("model", Text, nullable=False),
    Column("began", BigInteger, nullable=False),
    Column("ended", BigInteger, nullable=False),
    Column("gb_seconds", Float, nullable=False),
    Index("idle_by_tenant", "tenant", "ended"),
    Index("idle_by_time", "ended"),
)
