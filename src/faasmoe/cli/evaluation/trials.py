"""Runs the trials of an experiment that its file of results does not have yet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from faasmoe.cli.evaluation import results as reading
from faasmoe.errors import OptionError

if TYPE_CHECKING:
    from faasmoe.evaluation.experiment import Experiment
    from faasmoe.evaluation.experiments import Base
    from faasmoe.evaluation.results import Results


def run(experiment: Experiment, base: Base, out: Path, as_json: bool) -> None:
    """Whatever of it is not in the file yet, and then print all that is."""
    from faasmoe.evaluation.results import Results

    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    results = (
        Results.load(out)
        if out.exists()
        else Results(command=command, model=base.name, model_bytes=base.model_bytes)
    )
    if results.model != base.name:
        raise OptionError(f"--out {out}: holds results of {results.model}, not {base.name}")
    results.check_origin(out)
    results.left_out += [one for one in experiment.left_out if one not in results.left_out]
    if command not in results.commands:
        results.commands.append(command)
    _add(experiment, results, out)
    reading.show(results, as_json)


def _add(experiment: Experiment, results: Results, out: Path) -> None:
    total = sum(1 for _ in experiment.left(results))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        for trial, case in experiment.left(results):
            progress.update(task, description=f"trial {trial + 1}, {case.name}")
            experiment.add(trial, case, results)
            results.save(out)
            progress.advance(task)
