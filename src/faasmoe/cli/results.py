"""`faasmoe evaluate claims|compare`: what reads results."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from faasmoe.cli.options import Json
from faasmoe.errors import OptionError

if TYPE_CHECKING:
    from faasmoe.evaluation.results import Results
    from faasmoe.evaluation.statistics import Estimate

File = Annotated[Path, typer.Argument(help="Results of an evaluation.", show_default=False)]


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


def show(results: Results, as_json: bool) -> None:
    """Figures of each kind of run, as a table or as JSON."""
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
