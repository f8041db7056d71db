"""`faasmoe nodes` and `faasmoe nodes drain`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from faasmoe.cli.cluster import tokens
from faasmoe.cli.cluster.options import ClusterFolderOption
from faasmoe.cli.numeric import real
from faasmoe.cli.options import Json
from faasmoe.cli.tables import WholeTable
from faasmoe.errors import OptionError, PlatformError

if TYPE_CHECKING:
    from faasmoe.platforms.cluster.client.node_facts import NodeFacts
    from faasmoe.platforms.cluster.client.platform import ClusterPlatform

_MIB = 1 << 20
_LONGEST_DEADLINE = 86400  # seconds
_LOOK_SECONDS = 0.2
_NAMED = 5  # functions in an error
_STYLES = {"ready": "green", "draining": "yellow", "drained": "yellow", "lost": "red", "refused": "red"}


app = typer.Typer(rich_markup_mode=None)
app.add_typer(tokens.app, name="token")

Pool = Annotated[
    str | None,
    typer.Option(help="Run folder of the server's pool; needed only if several servers run.", show_default=False),
]


@app.callback(invoke_without_command=True)
def nodes(context: typer.Context, pool: Pool = None, as_json: Json = False) -> None:
    """List the nodes of a running server: state, memory, functions, calls, bytes, round trip."""
    from faasmoe.platforms.cluster.client.node_facts import node_facts

    if context.invoked_subcommand is not None:
        context.obj = pool
        return
    with _connect(pool) as platform:
        facts = node_facts(platform)
    if as_json:
        typer.echo(json.dumps([asdict(node) for node in facts]))
        return
    console = Console()
    console.print(_picture(facts))
    for node in facts:
        if node.cause:
            console.print(Text(f"{node.name or node.address}: {node.cause}"), soft_wrap=True)


@app.command("drain")
def drain(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the node.")],
    pool: Pool = None,
    deadline: Annotated[
        float, real(0, _LONGEST_DEADLINE, help="Seconds within which the node must be empty.")
    ] = 60.0,
    cancel: Annotated[bool, typer.Option("--cancel", help="Let functions come to the node again.")] = False,
) -> None:
    """Empty a node, so that it may be ended.

    Its functions start on other nodes, then are called there, then end here; no request fails. Exit status 0: the node
    is empty and may be ended. It takes no functions until it is started again, or until --cancel.
    """
    with _connect(pool or context.obj) as platform:
        platform.orders.drain(name, not cancel)
        if cancel:
            return
        until = time.monotonic() + deadline
        while left := platform.orders.left_on(name):
            if time.monotonic() >= until:
                raise PlatformError(platform.membership.platform, "(all)", _unfinished(name, deadline, left))
            time.sleep(_LOOK_SECONDS)
    typer.echo(f"node {name} is empty")


def _unfinished(name: str, deadline: float, left: list[str]) -> str:
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    return (
        f"node {name} is not empty after {deadline:g} s: {', '.join(left[:_NAMED])}{more} are left. It goes on "
        f"draining; to have it take functions again: faasmoe nodes drain {name} --cancel"
    )


def _connect(pool: str | None) -> ClusterPlatform:
    """Raises `OptionError` if it is not clear which pool is meant, `PlatformError` if there is none."""
    from faasmoe.platforms.cluster.client.platform import ClusterPlatform
    from faasmoe.platforms.cluster.pool_file import pools

    return ClusterPlatform.of_pool(_choose(list(map(str, pools())), pool))


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Name of a node that has joined.")],
    cluster_folder: ClusterFolderOption = None,
) -> None:
    """Have a node that has joined no longer belong to the cluster. Run it on the server's machine."""
    from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
    from faasmoe.platforms.cluster.authority.members import MemberBook

    MemberBook(ClusterFolder.of(cluster_folder).path).remove(name)


@app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="Name of a node that has joined, or was removed.")],
    cluster_folder: ClusterFolderOption = None,
) -> None:
    """Remove a node at once, and refuse its certificate from now on, whoever has its key.

    Its functions are started elsewhere, as if it were lost. Run it on the server's machine.
    """
    from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
    from faasmoe.platforms.cluster.authority.members import MemberBook

    MemberBook(ClusterFolder.of(cluster_folder).path).revoke(name)


def _choose(found: list[str], asked: str | None) -> str:
    """Raises `OptionError` if it is not clear which pool is meant."""
    if asked is not None:
        if asked not in found:
            raise OptionError(f"--pool {asked}: no pool of a cluster runs there")
        return asked
    if len(found) == 1:
        return found[0]
    if not found:
        raise OptionError("no server of this user runs on nodes; start one with: faasmoe serve --platform nodes")
    raise OptionError(f"several pools are running, choose one by --pool: {', '.join(found)}")


def _picture(facts: list[NodeFacts]) -> WholeTable:
    """As narrow as 80 columns with figures of the usual size; then names have lines of their own."""
    table = Table(box=None, pad_edge=False)
    for name in ("node", "state"):
        table.add_column(name)
    for name in ("MiB", "of", "functions", "warm", "calls", "MiB in", "out", "RTT us"):
        table.add_column(name, justify="right")
    for node in facts:
        budget = "" if node.memory_budget is None else f"{node.memory_budget / _MIB:.0f}"
        table.add_row(
            f"{node.name} {node.address}".strip(),
            Text(node.state, style=_STYLES.get(node.state, "")),
            f"{node.memory_used / _MIB:.0f}",
            budget,
            *map(str, (node.functions, node.instances, node.calls)),
            f"{node.received / _MIB:.1f}",
            f"{node.sent / _MIB:.1f}",
            f"{node.round_trip * 1e6:.0f}",
        )
    return WholeTable(table)
