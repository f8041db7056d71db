"""Charts of groups of runs, with captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from faasmoe.evaluation.groups import RunGroup
from faasmoe.evaluation.report import charts
from faasmoe.evaluation.report.charts import Drawing, Mark
from faasmoe.evaluation.report.units import SHOWN, places_of

_SAYS = {
    "memory_mean_bytes": "Of all processes, averaged over time.",
    "memory_peak_bytes": "Of all processes, when it was most.",
    "cpu_seconds_per_token": "CPU time of all processes for each completion token.",
    "end_to_end_p95": "From asking to the last token; one of twenty takes longer.",
    "first_token_p95": "From asking to the first token; one of twenty takes longer.",
    "tokens_per_second": "Completion tokens of all requests; more is better.",
    "invocations_per_token": "Calls of functions for each completion token.",
}

Where = Callable[[RunGroup], float]


@dataclass(frozen=True, slots=True)
class Chart:
    """Something to draw, with a name that is its own in a section, and what to see in it."""

    name: str
    title: str
    draw: Callable[[], Drawing]
    caption: str


def bars(figure: str, named: Mapping[str, RunGroup]) -> list[Chart]:
    """A figure of each; no chart if none has it."""
    marks = {label: mark for label, group in named.items() if (mark := mark_of(group, figure))}
    if not marks:
        return []
    shown = SHOWN[figure]
    caption = f"{_SAYS[figure]} {_extremes(marks, shown.unit)}".strip()
    return [Chart(figure, shown.title, partial(charts.bars, shown.heading, marks), caption)]


def along(
    axis: str, where: Where, groups: Sequence[RunGroup], figures: Sequence[str], doubling: bool
) -> list[Chart]:
    """A chart for each figure at points of an axis. Figures that no group has are left out."""
    drawn = []
    for figure in figures:
        if series := series_of(figure, groups, where):
            shown = SHOWN[figure]
            draw = partial(charts.lines, axis, shown.heading, series, doubling)
            drawn.append(Chart(figure, shown.title, draw, f"{_SAYS[figure]} {_trend(series, shown.unit)}"))
    return drawn


def roles(named: Mapping[str, RunGroup]) -> Chart:
    """Memory of each, by what processes are for."""
    rows = {}
    for label, group in named.items():
        means = [run.usage.mean for run in group.runs]
        growth = group.runs[0].growth
        rows[label] = {role: growth * fmean(mean.get(role, 0.0) for mean in means) / 1e9 for role in means[0]}
    draw = partial(charts.stacked, "memory, GB", rows)
    return Chart("roles", "memory by process", draw, "The same memory, by what the processes are for.")


def over_time(named: Mapping[str, RunGroup]) -> Chart:
    """Memory of each during one trial."""
    series = {}
    for label, group in named.items():
        run = min(group.runs, key=lambda run: run.trial)
        series[label] = run.usage.times, [run.growth * total / 1e9 for total in run.usage.total]
    draw = partial(charts.traces, "seconds", "memory, GB", series)
    caption = "The first trial, from its first request to its last response: the memory held over time."
    return Chart("over-time", "memory over time", draw, caption)


def parts(name: str, title: str, axis: str, rows: Mapping[str, Mapping[str, float]], says: str) -> Chart:
    """A chart of the parts of a whole."""
    largest = [f"{max(row, key=row.__getitem__)} ({label})" for label, row in rows.items()]
    return Chart(name, title, partial(charts.stacked, axis, rows), f"{says} Largest: {', '.join(largest)}.")


def mark_of(group: RunGroup, figure: str) -> Mark | None:
    """The figure in the unit in which it is shown; None if the group has none."""
    found, factor = group.figure(figure), SHOWN[figure].factor
    if found is None:
        return None
    return Mark(found.value / factor, found.low / factor, found.high / factor, group.extrapolated)


def series_of(figure: str, groups: Sequence[RunGroup], where: Where) -> dict[str, list[tuple[float, Mark]]]:
    """The series of each strategy, ordered by the place of their points."""
    series: dict[str, list[tuple[float, Mark]]] = {}
    for group in sorted(groups, key=where):
        if mark := mark_of(group, figure):
            series.setdefault(group.kind.strategy, []).append((where(group), mark))
    return series


def _extremes(marks: Mapping[str, Mark], unit: str) -> str:
    low, high = (choose(marks, key=lambda name: marks[name].value) for choose in (min, max))
    if not marks[low].value or (times := f"{marks[high].value / marks[low].value:.3g}") == "1":
        return ""
    return f"Lowest: {low}, {_with_unit(marks[low], unit)}; highest: {high}, {times} times as much."


def _trend(series: Mapping[str, Sequence[tuple[float, Mark]]], unit: str) -> str:
    """The change from the first point to the last, as text."""
    ends = [(name, points[0], points[-1]) for name, points in series.items()]
    return "; ".join(f"{name} from {_at(*first, unit)} to {_at(*last, unit)}" for name, first, last in ends) + "."


def _at(x: float, mark: Mark, unit: str) -> str:
    return f"{_with_unit(mark, unit)} at {x:g}"


def _with_unit(mark: Mark, unit: str) -> str:
    return f"{mark.value:,.{places_of(mark.value)}f}{' ' if unit else ''}{unit}"
