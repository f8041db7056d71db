"""`faasmoe evaluate ...`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from faasmoe.cli import results as reading
from faasmoe.cli.options import BlockSize, Dtype, Json, KeepAlive, MemoryBudget, Model, size_of
from faasmoe.errors import OptionError

if TYPE_CHECKING:
    from faasmoe.evaluation.experiment import Experiment
    from faasmoe.evaluation.results import Results
    from faasmoe.evaluation.workloads.ask import Ask

app = typer.Typer(help="Measure what serving takes, and read results.", no_args_is_help=True)

Workload = Literal["paper", "saturated", "poisson", "bursty"]

_AT_ONCE = 8  # requests of each tenant under `saturated`


@app.callback()
def callback() -> None:
    """Measure what serving takes, and read results."""


@app.command("strategies")
def strategies(
    out: Annotated[Path, typer.Option(help="Results. What is there already is not run again.")],
    model: Model = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="Those of docs/planning.md; may be repeated. Default: all.", show_default=False),
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
    reading.show(results, as_json)


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


app.command()(reading.claims)
app.command()(reading.compare)
