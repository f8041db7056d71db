"""`faasmoe plan`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from faasmoe.cli.evaluation.workloads import Tenants
from faasmoe.cli.options import Dtype, Json, Quantize, Seed
from faasmoe.cli.parameters import grouped
from faasmoe.cli.planner.options import (
    ClusterParameters,
    Layers,
    MachineParameters,
    Memory,
    Model,
    PriceTable,
    RequestParameters,
    Routing,
    SettingParameters,
    TotalRate,
)
from faasmoe.cli.tables import WholeTable

if TYPE_CHECKING:
    from faasmoe.planner.activations import RecordedActivations
    from faasmoe.planner.cluster import ClusterShape
    from faasmoe.planner.conditions import Conditions
    from faasmoe.planner.plan import Plan
    from faasmoe.planner.prediction import Prediction
    from faasmoe.planner.shape import ModelShape
    from faasmoe.planner.simulation import SimulatedRequests
    from faasmoe.tenancy.prices import Prices

_SHOWN = 12  # settings in the table


class _Asked(NamedTuple):
    model: str | None
    layers: int | None
    quantize: str | None
    nodes: int | None


@grouped
def plan(
    *,
    model: Model = None,
    tenants: Tenants = 6,
    rate: TotalRate = 0.1,
    memory: Memory = 16 << 30,
    setting: SettingParameters,
    load: RequestParameters,
    routing: Routing = None,
    target: MachineParameters,
    nodes: ClusterParameters,
    prices: PriceTable = Path("aws-lambda"),
    layers: Layers = None,
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Predict memory, cost and latency for block sizes, keep-alives and strategies, and say which to use.

    Simulates requests, routing, and the life of instances. Starts nothing and loads nothing.
    """
    from faasmoe.model.config.facts import check_types
    from faasmoe.model.synthesis.geometries import facts_of
    from faasmoe.tenancy.prices import read_prices

    check_types(dtype, quantize)
    cluster = nodes.cluster(memory)
    facts = facts_of(model, layers)  # before torch, which takes seconds to import
    for each in setting.block_size or ():
        facts.check(each)
    table = read_prices(prices)
    from faasmoe.model.adapter.light_import import import_transformers

    import_transformers()
    from faasmoe.planner.plan import make_plan
    from faasmoe.planner.shape import shape_of

    shape = shape_of(model, dtype, layers, quantize=quantize)
    given = _conditions(shape, memory, routing, target, table, cluster)
    requests = load.requests(tenants, rate, seed, max(setting.keep_alives))
    with Console(stderr=True).status("simulating"):
        result = make_plan(requests, setting.settings(shape), given)
    if as_json:
        typer.echo(json.dumps(_facts(shape, requests, result, table.currency), allow_nan=False))
    else:
        _show(
            Console(highlight=False), shape, _Asked(model, layers, quantize, nodes.nodes), result, table.currency
        )


def _conditions(
    shape: ModelShape,
    memory: int,
    routing: Path | None,
    target: MachineParameters,
    prices: Prices,
    cluster: ClusterShape | None,
) -> Conditions:
    """What the plan cannot choose. Raises `OptionError` as `_activations` does."""
    from faasmoe.planner.conditions import Conditions
    from faasmoe.planner.machine import ProcessFootprint

    return Conditions(
        shape,
        memory,
        activations=_activations(routing, shape),
        machine=target.machine(),
        cluster=cluster,
        footprint=ProcessFootprint.here(),
        prices=prices,
    )


def _activations(file: Path | None, shape: ModelShape) -> RecordedActivations | None:
    """Recorded activations. Raises `OptionError` if they are those of another model."""
    from faasmoe.planner.activations import RecordedActivations

    if file is None:
        return None
    activations = RecordedActivations.load(file)
    activations.check([layer.experts for layer in shape.layers])
    return activations


def _facts(shape: ModelShape, requests: SimulatedRequests, result: Plan, currency: str) -> dict[str, Any]:
    return {
        "model": shape.name,
        "expert_layers": len(shape.layers),
        "experts": shape.layers[0].experts,
        "experts_per_token": shape.layers[0].top_k,
        "dense_bytes": shape.dense_bytes,
        "expert_bytes": shape.expert_bytes,
        "requests_simulated": len(requests.times),
        "seconds_simulated": float(requests.times[-1]),
        "recommended": None if result.best is None else _row(result.best),
        "reason": result.reason,
        "currency": currency,
        "predictions": [_row(prediction) for prediction in result.predictions],
    }


def _row(prediction: Prediction) -> dict[str, Any]:
    facts = asdict(prediction)
    return _known({**facts.pop("setting"), "possible": prediction.possible, **facts})


def _known(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts with null for numbers that JSON does not have: infinity and NaN."""
    return {
        name: _known(value) if isinstance(value, dict) else None if value in (math.inf, -math.inf) else value
        for name, value in facts.items()
    }


def _show(console: Console, shape: ModelShape, asked: _Asked, result: Plan, currency: str) -> None:
    size = (shape.dense_bytes + shape.expert_bytes) / 1e9
    table = Table(title=f"{shape.name}, {size:.{1 if size >= 1 else 2}f} GB", title_justify="left", box=None)
    for name in ("strategy", "block", "keep", "GB", "calls", "cold", "load", "p50 s", "p95 s", f"{currency}/hour"):
        table.add_column(name, justify="left" if name == "strategy" else "right", no_wrap=True)
    order = sorted(
        result.predictions, key=lambda one: (one is not result.best, not one.possible, one.cost_per_hour)
    )
    for one in order[:_SHOWN]:
        style = "bold green" if one is result.best else None if one.possible else "dim"
        table.add_row(*_cells(one), style=style)
    console.print(WholeTable(table))
    hidden = len(order) - _SHOWN
    console.print(
        "[dim]GB: memory on average; calls: invocations for each completion token; cold: cold starts for each "
        f"request; load: share of time with work.{f' {hidden} more are in --json.' if hidden > 0 else ''}[/]"
    )
    if result.best is None:
        console.print(f"[red]nothing of this is possible:[/] {result.reason}")
        return
    console.print(f"use this, which {result.reason}:")
    for command in _commands(asked, result.best):
        console.print(f"  {command}", soft_wrap=True, markup=False)


def _commands(asked: _Asked, best: Prediction) -> list[str]:
    """The commands that serve the model with these settings.

    A published geometry has no checkpoint: the first command makes one of random weights.
    """
    from faasmoe.model.synthesis.geometries import GEOMETRIES

    model, commands = asked.model, []
    if model in GEOMETRIES:
        some = f" --layers {asked.layers}" if asked.layers else ""
        make = f"faasmoe models make {model}{some} --out ./{model}"
        commands.append(f"{make}  # random weights; or take a folder of yours")
        model = f"./{model}"
    if asked.nodes:
        budget = f" --memory-budget {_mib(best.memory_budget)}" if best.memory_budget else ""
        commands.append(f"faasmoe node{budget}  # on each of {asked.nodes} nodes")
    return [*commands, _command(model, asked, best)]


def _command(model: str | None, asked: _Asked, best: Prediction) -> str:
    setting = best.setting
    words = ["faasmoe serve", *([model] if model else []), *(["--platform nodes"] if asked.nodes else [])]
    words += [f"--quantize {asked.quantize}"] if asked.quantize else []
    words += ["--strategy private"] if setting.strategy == "private" else []
    words += [f"--block-size {setting.block_size}", f"--keep-alive {setting.keep_alive:g}"]
    words += [f"--memory-budget {_mib(best.memory_budget)}"] if best.memory_budget and not asked.nodes else []
    return " ".join([*words, f"--kv-cache-memory {_mib(best.kv_cache)}"])


def _cells(one: Prediction) -> list[str]:
    setting, latency = one.setting, one.end_to_end
    choice = [setting.strategy, str(setting.block_size), f"{setting.keep_alive:g} s"]
    if not one.possible:
        return [*choice, "" if one.fits else "too much", "", "", f"{one.utilisation:.0%}" if one.fits else ""]
    return [
        *choice, f"{one.memory_mean / 1e9:.2f}", f"{one.invocations_per_token:.1f}",
        f"{one.cold_starts_per_request:.1f}", f"{one.utilisation:.0%}", _seconds(latency["p50"]),
        _seconds(latency["p95"]), f"{one.cost_per_hour:.4f}",
    ]  # fmt: skip


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def _mib(count: int) -> str:
    return f"{-(-count // 2**20)}MiB"
