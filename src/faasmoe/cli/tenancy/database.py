"""`faasmoe database ...`."""

from __future__ import annotations

import json

import typer

from faasmoe.cli.options import Database, Json

app = typer.Typer(
    help="The database of tenants, keys and the ledger.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def callback() -> None:
    """The database of tenants, keys and the ledger."""


@app.command("upgrade")
def upgrade(database: Database = None, as_json: Json = False) -> None:
    """Bring a database's schema to this version. SQLite files are brought there when they are opened."""
    from faasmoe.tenancy.database import schema
    from faasmoe.tenancy.database.database import Database as Opened
    from faasmoe.tenancy.database.tables import SCHEMA

    with Opened(database) as opened:
        before = schema.upgrade(opened)
        facts = {"database": str(opened), "before": before, "schema": SCHEMA}
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo(f"{facts['database']}: schema {SCHEMA}, was {before or 'empty'}")
