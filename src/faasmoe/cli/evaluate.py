"""`faasmoe evaluate ...`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from faasmoe.cli.options import BlockSize, Dtype, Json, KeepAlive, MemoryBudget, Model, size_of
from faasmoe.errors import OptionError

if TYPE_CHECKING:
    from faasmoe.evaluation.experiment import Experiment
    from faasmoe.evaluation.results import Results
    from faasmoe.evaluation.statistics import Estimate
    from faasmoe.evaluation.workloads.ask import Ask

app = typer.Typer(help="Measure what serving takes, and read results.", no_args_is_help=True)

Workload = Literal["paper", "saturated", "poisson", "bursty"]

_AT_ONCE = 8  # requests of each tenant under `saturated`
File = Annotated[Path, typer.Argument(help="Results of an evaluation.", show_default=False)]


@app.callback()
def callback() -> None:
    """Measure what serving takes, and read results."""


@app.command("strategies")
def strategies(
    out: Annotated[Path, typer.Option(help="Results. What is there already is not run again.")],
    model: Model = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="baseline, shared-full or faasmoe-shared; may be repeated. Default: all.", show_default=False
        ),
    ] = None,
    workload: Annotated[Workload, typer.Option(help="What is asked (docs/planning.md).")] = "paper",
    replay: Annotated[Path | None, typer.Option(help="Recorded requests instead.", show_default=False)] = None,
    tenants: Annotated[int, typer.Option(help="How many there are.", min=1)] = 6,
    trials: Annotated[int, typer.Option(help="Of each strategy; 10 for figures to be published.", min=1)] = 3,
    rounds: Annotated[int, typer.Option(help="Of `paper`, 5 requests of each tenant.", min=1)] = 1,
    rate: Annotated[float, typer.Option(help="Requests a second of the others.", min=1e-9)] = 0.5,
    seconds: Annotated[float, typer.Option(help="How long the others last.", min=1)] = 60.0,
    prompt_tokens: Annotated[int, typer.Option(help="Length of the others' prompts.", min=1)] = 64,
    max_tokens: Annotated[int, typer.Option(help="Length of answers.", min=1)] = 32,
    block_size: BlockSize = None,
    keep_alive: KeepAlive = 60.0,
    memory_budget: MemoryBudget = None,
    dtype: Dtype = "auto",
    seed: Annotated[int, typer.Option(help="The same seed gives the same requests and order.")] = 0,
    as_json: Json = False,
) -> None:
    """Run strategies over the same requests, one after the other in random order, and measure them.

    Every trial starts the strategy anew. An interrupted run goes on where it was when it is started again.
    """
    from faasmoe.evaluation.experiment import Experiment
    from faasmoe.evaluation.results import Results
    from faasmoe.evaluation.strategies.protocol import Orders
    from faasmoe.evaluation.strategies.registry import STRATEGIES
    from faasmoe.model.source import resolve

    source = resolve(model)

    settings: dict[str, str | int | float | None] = {
        "tenants": tenants, "rounds": rounds, "rate": rate, "seconds": seconds, "prompt_tokens": prompt_tokens,
        "max_tokens": max_tokens, "block_size": block_size, "keep_alive": keep_alive, "memory_budget": memory_budget,
        "dtype": dtype, "seed": seed,
    }  # fmt: skip

    def asks(trial_seed: int) -> Sequence[Ask]:
        return _asks(workload, replay, tenants, rounds, (rate, seconds), (prompt_tokens, max_tokens), trial_seed)

    names = tuple(dict.fromkeys(ask.tenant for ask in asks(seed)))
    budget = None if memory_budget is None else size_of("--memory-budget", memory_budget)
    orders = Orders("", str(source.folder), names, block_size, keep_alive, budget, dtype)
    chosen = strategy or STRATEGIES
    experiment = Experiment(orders, chosen, asks, str(replay or workload), settings, trials, seed)
    nbytes = sum(file.stat().st_size for file in source.folder.glob("*.safetensors"))
    results = Results.load(out) if out.exists() else Results(sys.argv, source.name, nbytes)
    if results.model != source.name:
        raise OptionError(f"--out {out}: holds results of {results.model}, not {source.name}")
    experiment.check_fits(nbytes)
    _run(experiment, results, out)
    _print_table(results, as_json)


def _run(experiment: Experiment, results: Results, out: Path) -> None:
    left = list(experiment.left(results))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(left))
        for trial, strategy in left:
            progress.update(task, description=f"trial {trial + 1}, {strategy}")
            results.runs.append(experiment.run(trial, strategy))
            results.save(out)
            progress.advance(task)


def _asks(
    workload: Workload, file: Path | None, tenants: int, rounds: int, pace: tuple[float, float],
    lengths: tuple[int, int], seed: int,
) -> Sequence[Ask]:  # fmt: skip
    from faasmoe.evaluation.workloads.arrivals import bursty, poisson
    from faasmoe.evaluation.workloads.ask import Lengths
    from faasmoe.evaluation.workloads.paper import paper
    from faasmoe.evaluation.workloads.replay import replay

    timed: dict[str, Callable[..., Any]] = {"poisson": poisson, "bursty": bursty}
    if file:
        found = list(replay(file))
    elif workload in ("paper", "saturated"):
        found = list(paper(rounds, tenants * (_AT_ONCE if workload == "saturated" else 1), lengths[1], seed))
    else:
        found = list(timed[workload](tenants, *pace, seed, Lengths(*lengths)))
    if not found:
        raise OptionError(
            f"--workload {workload}: has no request; take a longer time (--seconds) or a higher --rate"
        )
    return found


@app.command("claims")
def claims(file: File, as_json: Json = False) -> None:
    """Hold results against what the project claims."""
    from faasmoe.evaluation.claims import judge
    from faasmoe.evaluation.results import Results

    verdicts = judge(Results.load(file))
    if as_json:
        rows = {
            one.claim.key: {
                "value": one.estimate and one.estimate.value,
                "low": one.estimate and _number(one.estimate.low),
                "high": one.estimate and _number(one.estimate.high),
                "trials": one.estimate.trials if one.estimate else 0,
                "bound": one.claim.bound,
                "at_least": one.claim.at_least,
                "reached": one.reached,
                "extrapolated": one.extrapolated,
            }
            for one in verdicts
        }
        typer.echo(json.dumps(rows, allow_nan=False))
        return
    table = Table("key", "figure", "95 % interval", "must be", "", box=None, pad_edge=False)
    for one in verdicts:
        sign = "≥" if one.claim.at_least else "≤"
        word = {True: "[green]reached[/]", False: "[red]missed[/]", None: "[dim]not measured[/]"}[one.reached]
        value = f"{one.estimate.value:.3f}{' *' if one.extrapolated else ''}" if one.estimate else ""
        table.add_row(one.claim.key, value, _interval(one.estimate), f"{sign} {one.claim.bound:.3g}", word)
    console = Console()
    console.print(table)
    if any(one.extrapolated for one in verdicts):
        console.print("[dim]* extrapolated from fewer tenants[/]")


@app.command("compare")
def compare(before: File, after: File, as_json: Json = False) -> None:
    """Hold two results against each other: the ratio of AFTER to BEFORE, for each figure of what both have run."""
    from faasmoe.evaluation.compare import compare as differences
    from faasmoe.evaluation.results import Results

    found = differences(Results.load(before), Results.load(after))
    if not found:
        raise OptionError(f"{before} and {after} have no run in common")
    if as_json:
        rows = [{**asdict(one), "distinct": one.distinct} for one in found]
        typer.echo(json.dumps(_clean(rows), allow_nan=False))
        return
    table = Table("experiment", "figure", "before", "after", "ratio", "95 % interval", box=None, pad_edge=False)
    for one in found:
        experiment, workload, strategy, count, _ = one.kind
        table.add_row(
            f"{experiment}, {workload}, {strategy}, {count} tenants", one.figure, f"{one.before.value:.4g}",
            f"{one.after.value:.4g}", f"{one.ratio.value:.3f}" if one.ratio else "", _interval(one.ratio),
            style="bold" if one.distinct else None,
        )  # fmt: skip
    Console().print(table)


def _print_table(results: Results, as_json: bool) -> None:
    from faasmoe.evaluation.compare import figures_of

    rows = figures_of(results)
    if as_json:
        typer.echo(
            json.dumps(_clean([{"kind": kind, "figures": figures} for kind, figures in rows]), allow_nan=False)
        )
        return
    table = Table("figure", *(f"{kind[2]}, {kind[1]}" for kind, _ in rows), box=None, pad_edge=False)
    for name in rows[0][1]:
        cells = [_with_interval(figures.get(name)) for _, figures in rows]
        table.add_row(name, *cells)
    Console().print(table)


def _with_interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{estimate.value:.4g}" + ("" if math.isnan(estimate.low) else f" ± {estimate.half_width:.2g}")


def _interval(estimate: Estimate | None) -> str:
    if estimate is None or not math.isfinite(estimate.high - estimate.low):
        return ""
    return f"{estimate.low:.3f} to {estimate.high:.3f}"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _clean(value: Any) -> Any:
    """Without numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _clean(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(each) for each in value]
    if isinstance(value, float):
        return _number(value)
    return value if value is None or isinstance(value, (str, int)) else _clean(asdict(value))
