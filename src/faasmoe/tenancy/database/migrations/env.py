"""Alembic's entry point: runs the migrations over the connection that `tenancy.database.schema` passes."""

from __future__ import annotations

from alembic import context

from faasmoe.tenancy.database.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
