"""`faasmoe usage`."""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from faasmoe.cli.options import Database, Json, Prices
from faasmoe.cli.tables import WholeTable
from faasmoe.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH = 200  # of a table that is not shown on a terminal
_ANYBODY = "(no tenant)"
_NOBODY = {"key": "(idle)", "user": "(none)"}  # requests that name no user, and idle instances
_COLUMNS = {  # of the table for people; CSV and JSON have all
    "requests": "requests",
    "failed": "failed",
    "prompt_tokens": "prompt",
    "cached_tokens": "cached",
    "completion_tokens": "completion",
    "invocations": "calls",
    "cold_starts": "cold",
    "expert_seconds": "expert s",
    "gb_seconds": "GB-s",
    "idle_gb_seconds": "idle GB-s",
    "cost": "cost",
}


def usage(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.", show_default=False)] = None,
    first: Annotated[
        str | None,
        typer.Option("--from", metavar="DAY", help="First day, in UTC. Default: the 1st of the month of --to."),
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="DAY", help="Last day, included. Default: today.")
    ] = None,
    by: Annotated[
        Literal["day", "model", "key", "user"] | None,
        typer.Option(help="Print a line for each day, model, key, or end user that requests name."),
    ] = None,
    prices: Prices = None,
    database: Database = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for spreadsheets.")] = False,
    as_json: Json = False,
) -> None:
    """Print the usage of tenants, and its cost with a price table. A GB-second is 10^9 bytes for a second."""
    from faasmoe.tenancy.database.schema import open_database
    from faasmoe.tenancy.ledger.usage import Period, priced, total_of
    from faasmoe.tenancy.ledger.usage import usage as used
    from faasmoe.tenancy.prices import read_prices

    if as_csv and as_json:
        raise OptionError("--csv and --json: give one of them")
    table = None if prices is None else read_prices(prices)
    period = Period.parse(first, last)
    with open_database(database) as opened:
        lines = used(opened, period, tenant, by)
    facts = [line.facts(table, by) for line in lines]
    total = priced(total_of(lines), table)
    currency = None if table is None else table.currency
    if as_json:
        head = {"from": str(period.first), "to": str(period.last), "by": by, "currency": currency}
        typer.echo(json.dumps({**head, "lines": facts, "total": total}))
    elif as_csv:
        _write_csv(facts, ["tenant", *([by] if by else []), *total])
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = _WIDTH
        console.print(f"{period.first} to {period.last}, UTC" + (f"; cost in {currency}" if currency else ""))
        console.print(WholeTable(_picture(facts, total, by, currency)))


def _write_csv(facts: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    writer = csv.DictWriter(sys.stdout, names)
    writer.writeheader()
    writer.writerows(facts)


def _picture(
    facts: Sequence[dict[str, Any]], total: dict[str, Any], by: str | None, currency: str | None
) -> Table:
    shown = [name for name in _COLUMNS if name != "cost" or currency]
    table = Table(box=None, pad_edge=False)
    for title in ("tenant", *([by] if by else [])):
        table.add_column(title, no_wrap=True)
    for name in shown:
        table.add_column(_COLUMNS[name], justify="right", no_wrap=True)
    for line in facts:
        heads = [line["tenant"] or _ANYBODY, *([line[by] or _NOBODY[by]] if by else [])]
        table.add_row(*heads, *(_cell(line[name]) for name in shown))
    if len(facts) != 1:
        table.add_row("all", *([""] if by else []), *(_cell(total[name]) for name in shown), style="bold")
    return table


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"  # what a few requests use is small, and not nothing
