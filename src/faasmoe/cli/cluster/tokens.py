"""`faasmoe nodes token ...`."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from faasmoe.cli.cluster.options import ClusterFolderOption
from faasmoe.cli.numeric import real
from faasmoe.cli.options import Json
from faasmoe.cli.tables import WholeTable

if TYPE_CHECKING:
    from faasmoe.platforms.cluster.authority.tokens import TokenBook

_MOST_HOURS = 24 * 366

app = typer.Typer(help="Tokens by which nodes join.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def callback() -> None:
    """Tokens by which nodes join. They are made on the server's machine; a running server knows them at once."""


@app.command("create")
def create(
    hours: Annotated[float, real(0, _MOST_HOURS, above=True, help="Hours until the token expires.")] = 24.0,
    node: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Have this node alone join by it, also if a node of that name has joined with another key or was "
            "removed.",
            show_default=False,
        ),
    ] = None,
    cluster_folder: ClusterFolderOption = None,
) -> None:
    """Make a token and show it, this once: only a hash of it is kept. Makes the cluster's keys if there are none."""
    from faasmoe.platforms.cluster.addresses import check_name
    from faasmoe.platforms.cluster.authority.authority import Authority
    from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
    from faasmoe.platforms.cluster.authority.tokens import TokenBook

    if node is not None:
        check_name(node)
    folder = ClusterFolder.of(cluster_folder).path
    pin = Authority(folder).pin
    text = TokenBook(folder).create(timedelta(hours=hours), pin, node or "")
    typer.echo(text)
    typer.echo(f"it is shown only now, and good for {hours:g} hours; keep it in a file of mode 600", err=True)


@app.command("list")
def list_(cluster_folder: ClusterFolderOption = None, as_json: Json = False) -> None:
    """List tokens by their ids: which node they are for, and whether they are good."""
    from faasmoe.platforms.cluster.authority.identity import utc_now

    records, now = _book(cluster_folder).records(), utc_now()
    facts = [
        {
            "token": id,
            "node": each.node,
            "created": f"{each.created:%Y-%m-%d %H:%M}",
            "expires": f"{each.expires:%Y-%m-%d %H:%M}",
            "state": each.state(now),
        }
        for id, each in records.items()
    ]
    if as_json:
        typer.echo(json.dumps(facts))
        return
    table = Table("token", "node", "created (UTC)", "expires (UTC)", "state", box=None, pad_edge=False)
    for fact in facts:
        table.add_row(*fact.values())
    Console().print(
        WholeTable(table) if facts else "no tokens; make one with: faasmoe nodes token create", highlight=False
    )


@app.command("revoke")
def revoke(
    token: Annotated[str, typer.Argument(help="The token's id, as token list has it.")],
    cluster_folder: ClusterFolderOption = None,
) -> None:
    """Have nobody join by a token any more. Nodes that have joined by it stay."""
    _book(cluster_folder).revoke(token)


def _book(cluster_folder: Path | None) -> TokenBook:
    from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
    from faasmoe.platforms.cluster.authority.tokens import TokenBook

    return TokenBook(ClusterFolder.of(cluster_folder).path)
