"""`faasmoe nodes`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from faasmoe.cli.options import Json
from faasmoe.cli.tables import WholeTable
from faasmoe.errors import OptionError

if TYPE_CHECKING:
    from faasmoe.platforms.cluster.client.node_facts import NodeFacts

_MIB = 1 << 20
_STYLES = {"ready": "green", "lost": "red", "refused": "red"}


def nodes(
    pool: Annotated[
        str | None,
        typer.Option(
            help="Run folder of the server's pool; needed only if several servers run.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the nodes of a running server: state, memory, functions, calls, bytes, round trip."""
    from faasmoe.platforms.cluster.client.node_facts import node_facts
    from faasmoe.platforms.cluster.client.platform import ClusterPlatform
    from faasmoe.platforms.cluster.client.pool_file import pools

    with ClusterPlatform.of_pool(_choose(list(map(str, pools())), pool)) as platform:
        facts = node_facts(platform)
    if as_json:
        typer.echo(json.dumps([asdict(node) for node in facts]))
    else:
        Console().print(_picture(facts))


def _choose(found: list[str], asked: str | None) -> str:
    """Raises `OptionError` if it is not clear which pool is meant."""
    if asked is not None:
        if asked not in found:
            raise OptionError(f"--pool {asked}: no pool of a cluster runs there")
        return asked
    if len(found) == 1:
        return found[0]
    if not found:
        raise OptionError("no server of this user runs functions on nodes; start one with: faasmoe serve")
    raise OptionError(f"several pools are running, choose one by --pool: {', '.join(found)}")


def _picture(facts: list[NodeFacts]) -> WholeTable:
    table = Table(box=None, pad_edge=False)
    for name in ("node", "address", "state"):
        table.add_column(name)
    for name in ("MiB", "of", "functions", "instances", "calls", "MiB in", "MiB out", "round trip us"):
        table.add_column(name, justify="right")
    table.add_column("cause")
    for node in facts:
        budget = "" if node.memory_budget is None else f"{node.memory_budget / _MIB:.0f}"
        table.add_row(
            node.name,
            node.address,
            Text(node.state, style=_STYLES.get(node.state, "")),
            f"{node.memory_used / _MIB:.0f}",
            budget,
            *map(str, (node.functions, node.instances, node.calls)),
            f"{node.received / _MIB:.1f}",
            f"{node.sent / _MIB:.1f}",
            f"{node.round_trip * 1e6:.0f}",
            node.cause,
        )
    return WholeTable(table)
