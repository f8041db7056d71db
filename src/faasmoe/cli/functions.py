"""`faasmoe functions`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from faasmoe.cli.numeric import real
from faasmoe.cli.options import Json
from faasmoe.cli.platforms import PlatformName, PlatformOptions
from faasmoe.cli.tables import WholeTable
from faasmoe.errors import OptionError
from faasmoe.platforms import DEFAULT

if TYPE_CHECKING:
    from faasmoe.platforms.base import FunctionStatus, Platform, PoolStatus
    from faasmoe.platforms.registry import PlatformEntry

_MIB = 1 << 20
_LONGEST_INTERVAL = 86400  # seconds
_EDGE = 4  # lines of a terminal that are not for functions


def functions(
    platform: PlatformName = DEFAULT,
    platform_option: PlatformOptions = None,
    pool: Annotated[
        str | None,
        typer.Option(
            help="Address of the pool (local: its run folder); needed only if several run.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show functions that were never called, too.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    interval: Annotated[float, real(0.1, _LONGEST_INTERVAL, help="Seconds between refreshes.")] = 1.0,
    as_json: Json = False,
) -> None:
    """List the functions of a running server: state, instances, calls, cold starts, latency, memory.

    Memory is the proportional set size of a function's instances, weights included.
    """
    from faasmoe.platforms.registry import find

    entry = find(platform)
    connect = entry.require_connect("this command")
    with connect(_pool(entry, entry.parse(entry.read(platform_option or ())), pool)) as running:
        if as_json:
            typer.echo(json.dumps(_facts(entry, running.status())))
            return
        console = Console()
        if not watch:
            console.print(_picture(entry, running, every, None))
            return
        with Live(_picture(entry, running, every, console.height), console=console, screen=True) as live:
            while True:
                time.sleep(interval)  # a person looks
                live.update(_picture(entry, running, every, console.height))


def _pool(entry: PlatformEntry, options: Any, asked: str | None) -> str:
    """The address of the pool to connect to. Raises `OptionError` if it is not clear which."""
    if entry.running is None:
        if asked is None:
            raise OptionError(f"--platform {entry.name}: needs --pool, the address of the pool")
        return asked
    found = entry.running(options)
    if asked is not None:
        if asked not in found:
            raise OptionError(f"--pool {asked}: no pool of this user runs there")
        return asked
    if len(found) == 1:
        return found[0]
    if not found:
        raise OptionError("no server of this user is running; start one with: faasmoe serve")
    raise OptionError(f"several pools are running, choose one by --pool: {', '.join(found)}")


def _memory(entry: PlatformEntry, status: FunctionStatus) -> int:
    """Bytes of the instances: as they are, if they are processes of this machine, else as their pool counts them."""
    from faasmoe.evaluation.meters.processes import proportional_set_size

    if entry.process is None:
        return status.memory
    return sum(proportional_set_size(entry.process(instance)) for instance in status.instances)


def _facts(entry: PlatformEntry, status: PoolStatus) -> dict[str, object]:
    facts = asdict(status)
    facts.pop("latency")
    facts["functions"] = [
        {
            **asdict(function),
            "instances": [entry.process(each) if entry.process else each.id for each in function.instances],
            "nodes": [each.node for each in function.instances],
            "resident_bytes": _memory(entry, function),
        }
        for function in status.functions
    ]
    facts["cold_start_phases"] = {
        phase: {"count": count, "mean_seconds": seconds / max(1, count)}
        for phase, (count, seconds) in status.cold_start_phases.items()
    }
    return facts


def _picture(entry: PlatformEntry, platform: Platform, every: bool, height: int | None) -> RenderableType:
    status = platform.status()
    rows = [function for function in status.functions if every or function.cold_starts]
    rows.sort(key=lambda function: (-len(function.instances), -function.invocations))
    shown = rows if height is None else rows[: max(1, height - _EDGE - 3)]
    table = Table(box=None, pad_edge=False)
    for name in ("function", "state"):
        table.add_column(name)
    for name in ("instances", "calls", "cold", "died", "p50 ms", "p99 ms", "MiB"):
        table.add_column(name, justify="right")
    for function in shown:
        counts = [len(function.instances), function.invocations, function.cold_starts, function.deaths]
        table.add_row(
            function.name,
            Text(function.state, style={"busy": "yellow", "idle": "green"}.get(function.state, "dim")),
            *map(str, counts),
            _milliseconds(function.p50),
            _milliseconds(function.p99),
            f"{_memory(entry, function) / _MIB:.1f}" if function.instances else "",
        )
    return Group(WholeTable(table), Text(_summary(status, len(rows) - len(shown)), style="dim"))


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.2f}"


def _summary(status: PoolStatus, hidden: int) -> str:
    instances = sum(len(function.instances) for function in status.functions)
    budget = "no budget" if status.memory_budget is None else f"of {status.memory_budget / _MIB:.0f} MiB"
    text = (
        f"{len(status.functions)} functions, {instances} instances, {status.memory_used / _MIB:.0f} MiB {budget}"
    )
    phases = ", ".join(
        f"{phase.replace('_', ' ')} {1e3 * seconds / count:.1f} ms"
        for phase, (count, seconds) in status.cold_start_phases.items()
        if count
    )
    if phases:
        text += f"\nmean cold start: {phases}"
    return text + (f"\n{hidden} more do not fit here" if hidden else "")
