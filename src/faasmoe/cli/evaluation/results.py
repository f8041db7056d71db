"""`faasmoe evaluate claims|compare|report`: what reads results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from faasmoe.cli.options import Json
from faasmoe.cli.tables import WholeTable
from faasmoe.errors import OptionError

if TYPE_CHECKING:
    from faasmoe.evaluation.claims import Verdict
    from faasmoe.evaluation.groups import Kind
    from faasmoe.evaluation.results import Results

File = Annotated[Path, typer.Argument(help="Results of an evaluation.", show_default=False)]
Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="RESULTS...", help="Results of evaluations; of claims, the first that tell.", show_default=False
    ),
]

_COLOURS = {True: "green", False: "red", None: "dim"}


def claims(files: Files, as_json: Json = False) -> None:
    """Hold results against what the project claims."""
    from faasmoe.evaluation.claims import judge
    from faasmoe.evaluation.report.tables import CLAIM_COLUMNS, claim_cells
    from faasmoe.evaluation.report.units import NOTE

    several = dict(zip(map(str, files), _load(files), strict=True))
    verdicts = judge(several)
    if as_json:
        typer.echo(json.dumps({one.claim.key: _facts(one) for one in verdicts}, allow_nan=False))
        return
    apart = len(several) > 1
    table = Table("key", *CLAIM_COLUMNS, *(["results"] if apart else []), box=None, pad_edge=False)
    for one in verdicts:
        word = f"[{_COLOURS[one.reached]}]{one.word}[/]"
        table.add_row(one.claim.key, *claim_cells(one), word, *([Path(one.file or "").stem] if apart else []))
    console = Console()
    console.print(WholeTable(table))
    if any(one.extrapolated for one in verdicts):
        console.print(f"[dim]{NOTE}[/]")
    for one in verdicts:
        if one.reached is None:
            console.print(f"[dim]{one.claim.key} is not measured: {one.why}[/]", highlight=False)
    _tell_cost(console, several)


def compare(before: File, after: File, as_json: Json = False) -> None:
    """Hold two results against each other: the ratio of AFTER to BEFORE, for each figure of what both have run."""
    from faasmoe.evaluation.compare import compare as differences
    from faasmoe.evaluation.groups import names
    from faasmoe.evaluation.report.units import EXTRAPOLATED, NOTE, interval

    found = differences(*_load([before, after]))
    if not found:
        raise OptionError(f"{before} and {after} have no run in common")
    if as_json:
        rows = [{**asdict(one), "kind": _kind(one.kind), "distinct": one.distinct} for one in found]
        typer.echo(json.dumps(_clean(rows), allow_nan=False))
        return
    table = Table("experiment", "figure", "before", "after", "ratio", "95 % interval", box=None, pad_edge=False)
    for one, name in zip(found, names([one.kind for one in found]), strict=True):
        mark = f" {EXTRAPOLATED}" if one.extrapolated else ""
        table.add_row(
            name + mark, one.figure, f"{one.before.value:.4g}", f"{one.after.value:.4g}",
            f"{one.ratio.value:.3f}" if one.ratio else "", interval(one.ratio),
            style="bold" if one.distinct else None,
        )  # fmt: skip
    console = Console()
    console.print(WholeTable(table))
    if any(one.extrapolated for one in found):
        console.print(f"[dim]{NOTE}[/]")


def report(
    files: Files,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for the page and its charts.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Write results as a page with charts (report.html), the charts as PNG, and the tables as Markdown (report.md).

    The page is one file that fetches nothing. Experiments that were not run are not in it.
    """
    from faasmoe.evaluation.report.page import write

    written = write(dict(zip(_names(files), _load(files), strict=True)), out)
    if as_json:
        typer.echo(json.dumps([str(file) for file in written]))
        return
    typer.echo(f"{written[0]}, with {len(written) - 2} charts as PNG and the tables in {written[1].name}")


def show(results: Results, as_json: bool) -> None:
    """Figures of each kind of run: some as a table, or all as JSON."""
    from faasmoe.evaluation.groups import groups_of, names
    from faasmoe.evaluation.report.tables import FEW, figures_table
    from faasmoe.evaluation.results import FIGURES

    groups = groups_of(results)
    if as_json:
        rows = [
            {"kind": _kind(one.kind), "figures": {name: found for name in FIGURES if (found := one.figure(name))}}
            for one in groups
        ]
        typer.echo(json.dumps(_clean(rows), allow_nan=False))
        return
    table = figures_table({"": names([one.kind for one in groups])}, groups, FEW)
    shown = Table(box=None, pad_edge=False)
    for column in table.columns:
        shown.add_column(column)
    for row in table.rows:
        shown.add_row(*row)
    console = Console()
    console.print(WholeTable(shown))
    console.print("\n".join(f"[dim]{note}[/]" for note in table.notes))
    _tell_cost(console, {"": results})


def _tell_cost(console: Console, several: Mapping[str, Results]) -> None:
    """Print the cost of measuring, for each file."""
    from faasmoe.evaluation.report.tables import cost_of_measuring

    for name, results in several.items():
        where = f"{Path(name).stem}: " if len(several) > 1 else ""
        console.print(f"[dim]{where}{cost_of_measuring(results.runs)}[/]", highlight=False)


def _load(files: Sequence[Path]) -> list[Results]:
    from faasmoe.evaluation.results import Results

    return [Results.load(file) for file in files]


def _names(files: Sequence[Path]) -> list[str]:
    """The name of each file in a report. Raises `OptionError` if two files have the same name."""
    names = [file.stem for file in files]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"two files of results are named {name}: rename one of them")
    return names


def _facts(one: Verdict) -> dict[str, Any]:
    found = one.estimate
    return {
        "value": found and found.value,
        "low": found and _number(found.low),
        "high": found and _number(found.high),
        "trials": found.trials if found else 0,
        "bound": one.claim.bound,
        "at_least": one.claim.at_least,
        "whole_interval": one.claim.whole_interval,
        "reached": one.reached,
        "extrapolated": one.extrapolated,
        "model": one.model,
        "results": one.file,
        "not_measured": one.why or None,
        "bound_source": one.claim.source,
        "meter_share": one.meter_share,
        "paper": one.claim.paper,
    }


def _kind(kind: Kind) -> list[Any]:
    return [*kind[:4], dict(kind.settings)]


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
