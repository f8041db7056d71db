"""What Alembic runs: the migrations over the connection that `tenancy.schema` gives it."""

from __future__ import annotations

from alembic import context

from faasmoe.tenancy.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
