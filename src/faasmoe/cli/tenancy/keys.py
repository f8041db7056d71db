"""`faasmoe keys ...`."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from faasmoe.cli.numeric import real
from faasmoe.cli.options import Database, Json
from faasmoe.cli.tables import WholeTable
from faasmoe.errors import OptionError

_MOST_DAYS = 36500

app = typer.Typer(help="API keys of tenants and of admins.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def callback() -> None:
    """API keys of tenants and of admins. A running server follows within a second."""


@app.command("create")
def create(
    tenant: Annotated[str | None, typer.Argument(help="Tenant of the key.", show_default=False)] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="A key for the admin API and for metrics, instead of a tenant's.")
    ] = False,
    expires_in: Annotated[
        float | None,
        real(0, _MOST_DAYS, above=True, metavar="DAYS", help="Days until the key expires.", show_default=False),
    ] = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Make a key and show it, this once: only a hash of it is kept."""
    from faasmoe.tenancy.database.schema import open_database
    from faasmoe.tenancy.keys import create_key

    if (tenant is None) != admin:
        raise OptionError("keys create: name a tenant, or give --admin, and not both")
    with open_database(database) as opened:
        text, key = create_key(opened, tenant, expires_in)
    if as_json:
        typer.echo(json.dumps({"key": text, **key.facts()}))
        return
    typer.echo(text)
    typer.echo(f"keep it: it is shown only now. It is listed and revoked as {key.id}", err=True)


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Argument(help="Only the keys of this tenant.", show_default=False)] = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """List keys by what they begin with."""
    from faasmoe.tenancy.database.schema import open_database
    from faasmoe.tenancy.keys import list_keys

    with open_database(database) as opened:
        keys = list_keys(opened, tenant)
    if as_json:
        typer.echo(json.dumps([key.facts() for key in keys]))
        return
    table = Table("key", "tenant", "created", "expires", "state", box=None, pad_edge=False)
    for key in keys:
        state = "revoked" if key.revoked else "good" if key.good(time.time()) else "expired"
        table.add_row(key.id, key.tenant or "(admin)", _day(key.created), _day(key.expires), state)
    Console().print(
        WholeTable(table) if keys else "no keys; make one with: faasmoe keys create TENANT", highlight=False
    )


@app.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, as keys list has it, or the whole key.")],
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Close a key for good."""
    from faasmoe.tenancy.database.schema import open_database
    from faasmoe.tenancy.keys import revoke_key

    with open_database(database) as opened:
        revoked = revoke_key(opened, key)
    typer.echo(json.dumps(revoked.facts()) if as_json else f"revoked {revoked.id}")


def _day(seconds: float | None) -> str:
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
