"""`faasmoe tenants ...`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from faasmoe.cli.numeric import real, whole
from faasmoe.cli.options import Database, Json
from faasmoe.cli.parameters import grouped
from faasmoe.cli.tables import WholeTable
from faasmoe.errors import OptionError
from faasmoe.tenancy.ranges import MOST_LIMIT, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from faasmoe.tenancy.tenants import Tenant

app = typer.Typer(
    help="Manage tenants: their weights, limits and budgets.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(help="Letters and digits, with single '.', '_' or '-' between them.")]
Weight = Annotated[
    float | None,
    real(
        *WEIGHTS,
        help="Share of tokens beside other tenants' when they compete; 1 if never set.",
        show_default=False,
    ),
]
_NO_LIMIT = "Without it there is no such limit; 0 takes it away."
Rpm = Annotated[
    int | None, whole(0, MOST_LIMIT, help=f"Most requests in 60 seconds. {_NO_LIMIT}", show_default=False)
]
Tpm = Annotated[
    int | None,
    whole(
        0,
        MOST_LIMIT,
        help=f"Most tokens in 60 seconds, of prompts and completions. {_NO_LIMIT}",
        show_default=False,
    ),
]
Concurrency = Annotated[
    int | None, whole(0, MOST_LIMIT, help=f"Most requests at the same time. {_NO_LIMIT}", show_default=False)
]
BudgetText = Annotated[
    str | None,
    typer.Option(
        metavar="AMOUNT",
        help="Most of a calendar month (UTC): tokens, such as 5000000tokens, or money of the price table's "
        f"currency, such as 25.50USD. {_NO_LIMIT}",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class TenantParameters:
    """Weight, limits and budget of a tenant; None where an option is not given."""

    weight: Weight = None
    rpm: Rpm = None
    tpm: Tpm = None
    concurrency: Concurrency = None
    budget: BudgetText = None

    def given(self) -> dict[str, Any]:
        """The fields of a `Tenant` that are given. 0 is no limit."""
        from faasmoe.tenancy.budget import Budget

        limits = {"rpm": self.rpm, "tpm": self.tpm, "concurrency": self.concurrency}
        given: dict[str, Any] = {name: value or None for name, value in limits.items() if value is not None}
        if self.weight is not None:
            given["weight"] = self.weight
        if self.budget is not None:
            given["budget"] = None if self.budget == "0" else Budget.parse(self.budget)
        return given


@app.callback()
def callback() -> None:
    """Manage tenants: their weights, limits and budgets. A running server follows within a second."""


@app.command("add")
@grouped
def add(
    *,
    name: Name,
    terms: TenantParameters,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Add a tenant. It needs a key next: faasmoe keys create NAME."""
    from faasmoe.tenancy.database.schema import open_database
    from faasmoe.tenancy.tenants import Tenant, add_tenant

    tenant = Tenant(name, **terms.given())
    with open_database(database) as opened:
        _show([add_tenant(opened, tenant)], as_json, one=True)


@app.command("list")
def list_(database: Database = None, as_json: Json = False) -> None:
    """List all tenants."""
    from faasmoe.tenancy.database.schema import open_database
    from faasmoe.tenancy.tenants import list_tenants

    with open_database(database) as opened:
        _show(list_tenants(opened), as_json)


@app.command("show")
def show(name: Name, database: Database = None, as_json: Json = False) -> None:
    """Show one tenant."""
    from faasmoe.tenancy.database.schema import open_database
    from faasmoe.tenancy.tenants import show_tenant

    with open_database(database) as opened:
        _show([show_tenant(opened, name)], as_json, one=True)


@app.command("set")
@grouped
def set_(
    *,
    name: Name,
    terms: TenantParameters,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Change a tenant; what is not given stays as it is."""
    from faasmoe.tenancy.database.schema import open_database
    from faasmoe.tenancy.tenants import set_tenant

    changed = terms.given()
    if not changed:
        raise OptionError(f"tenants set {name}: give at least one of --weight --rpm --tpm --concurrency --budget")
    with open_database(database) as opened:
        _show([set_tenant(opened, name, changed)], as_json, one=True)


@app.command("remove")
def remove(name: Name, database: Database = None, as_json: Json = False) -> None:
    """Remove a tenant: its keys stop working for good. What it has used stays in the ledger, under its name."""
    from faasmoe.tenancy.database.schema import open_database
    from faasmoe.tenancy.tenants import remove_tenant

    with open_database(database) as opened:
        remove_tenant(opened, name)
    typer.echo(json.dumps({"removed": name}) if as_json else f"removed {name}; its keys do not work any more")


def _show(tenants: Sequence[Tenant], as_json: bool, one: bool = False) -> None:
    if as_json:
        facts = [tenant.facts() for tenant in tenants]
        typer.echo(json.dumps(facts[0] if one else facts))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("tenant", no_wrap=True)
    for name in ("weight", "rpm", "tpm", "concurrency", "budget"):
        table.add_column(name, justify="right", no_wrap=True)
    for tenant in tenants:
        limits = (tenant.rpm, tenant.tpm, tenant.concurrency, tenant.budget)
        cells = ("-" if limit is None else str(limit) for limit in limits)
        table.add_row(tenant.name, f"{tenant.weight:g}", *cells)
    Console().print(
        WholeTable(table) if tenants else "no tenants; add one with: faasmoe tenants add NAME", highlight=False
    )
