"""Charts and tables of each experiment. An experiment that was not run has no section."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from statistics import fmean

from faasmoe.evaluation.groups import RunGroup, groups_of
from faasmoe.evaluation.overhead import break_even, milliseconds_a_token
from faasmoe.evaluation.report import charts, plots
from faasmoe.evaluation.report.charts import Mark
from faasmoe.evaluation.report.plots import Chart, mark_of
from faasmoe.evaluation.report.tables import Table, figures_table
from faasmoe.evaluation.report.units import places_of
from faasmoe.evaluation.results import LeftOut, Results
from faasmoe.evaluation.strategies.registry import STRATEGIES

PRESSURE = "pressure"
_ORDER = {name: place for place, name in enumerate(STRATEGIES)}
_CURVES = ("cpu_seconds_per_token", "first_token_p95", "end_to_end_p95", "tokens_per_second")
_TIMED = ("tokens_per_second", "invocations_per_token", "cold_starts", "token_p50", "end_to_end_p95")
_KEPT = ("gb_seconds", "memory_mean_bytes", "cold_starts", "first_token_p95", "end_to_end_p50", "end_to_end_p95")
_LIMITED = ("tokens_per_second", "cpu_seconds_per_token", "end_to_end_p50", "cold_starts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One experiment under one workload."""

    name: str
    title: str
    lead: str
    charts: tuple[Chart, ...]
    tables: tuple[Table, ...]
    left_out: tuple[LeftOut, ...] = ()


def sections_of(results: Results) -> list[Section]:
    """In the order of `_EXPERIMENTS`."""
    groups = groups_of(results)
    return [
        replace(make(part), left_out=_left_out(part, results))
        for experiment, make in _EXPERIMENTS.items()
        for part in _parts(experiment, groups)
    ]


def _parts(experiment: str, groups: Sequence[RunGroup]) -> Iterator[list[RunGroup]]:
    """The groups of each section: those of one workload. The workloads of `pressure` are points of one curve."""
    its = [group for group in groups if group.kind.experiment == experiment]
    if experiment == PRESSURE:
        if its:
            yield its
        return
    for workload in dict.fromkeys(group.kind.workload for group in its):
        yield [group for group in its if group.kind.workload == workload]


def _left_out(part: Sequence[RunGroup], results: Results) -> tuple[LeftOut, ...]:
    experiment, workloads = part[0].kind.experiment, {group.kind.workload for group in part}
    its = [one for one in results.left_out if one.experiment == experiment]
    return tuple(one for one in its if experiment == PRESSURE or one.workload in workloads)


def _strategies(of: Sequence[RunGroup]) -> Section:
    groups = sorted(of, key=lambda group: (group.kind.tenants, _ORDER.get(group.kind.strategy, len(_ORDER))))
    names = _labels(groups)
    named = dict(zip(names, groups, strict=True))
    drawn = [
        *plots.bars("memory_mean_bytes", named), plots.roles(named), plots.over_time(named),
        *plots.bars("cpu_seconds_per_token", named), *plots.bars("end_to_end_p95", named),
        *plots.bars("tokens_per_second", named),
    ]  # fmt: skip
    counts = " or ".join(str(count) for count in sorted({group.kind.tenants for group in groups}))
    lead = f"The same requests of {counts} tenants, to one strategy after the other."
    return _section("Strategies", groups, lead, drawn, figures_table({"strategy": names}, groups))


def _blocks(groups: Sequence[RunGroup]) -> Section:
    lead = "How many experts one function holds: small ones leave memory sooner, large ones are called less often."
    figures = ("memory_mean_bytes", "invocations_per_token", *_CURVES)
    return _along("Block size", groups, "experts in a function", _setting("block_size"), lead, figures)


def _tenants(groups: Sequence[RunGroup]) -> Section:
    figures = ("memory_mean_bytes", "memory_peak_bytes", *_CURVES)
    lead = "What each further tenant adds, with a share of the same machine."
    return _along("Number of tenants", groups, "tenants", _count, lead, figures, doubling=True)


def _along(
    title: str, groups: Sequence[RunGroup], axis: str, where: plots.Where, lead: str, figures: Sequence[str],
    doubling: bool = False,
) -> Section:  # fmt: skip
    """An experiment that varies one number."""
    drawn = plots.along(axis, where, groups, figures, doubling)
    its = sorted(groups, key=lambda group: (group.kind.strategy, where(group)))
    labels = {"strategy": _strategy(its), axis: [f"{where(group):g}" for group in its]}
    return _section(title, groups, lead, drawn, figures_table(labels, its))


def _keepalive(groups: Sequence[RunGroup]) -> Section:
    keep = _setting("keep_alive")
    ours = sorted((group for group in groups if group.kind.strategy.startswith("faasmoe")), key=keep)
    its = [*ours, *(group for group in groups if group not in ours)]
    series: dict[str, list[tuple[str, Mark, Mark]]] = {}
    for group in its:
        memory, latency = mark_of(group, "gb_seconds"), mark_of(group, "end_to_end_p95")
        if memory and latency:
            label = f"{keep(group):g} s" if group in ours else ""
            series.setdefault(group.kind.strategy, []).append((label, memory, latency))
    drawn = plots.along("keep-alive, s", keep, ours, ("memory_mean_bytes", "end_to_end_p95"), doubling=True)
    if series:
        caption = (
            "A point for each keep-alive. To the left is cheaper, below is faster; what is neither is of no use."
        )
        draw = partial(charts.curve, "memory over time, GB s", "response p95, s", series)
        drawn.insert(0, Chart("curve", "memory against latency", draw, caption))
    lead = "What instances cost that wait for the next call, against starting them when it comes."
    kept = [f"{keep(group):g}" if group in ours else "always" for group in its]
    table = figures_table({"strategy": _strategy(its), "keep-alive, s": kept}, its, _KEPT)
    return _section("Keep-alive", groups, lead, drawn, table)


def _pressure(groups: Sequence[RunGroup]) -> Section:
    its = sorted(groups, key=lambda group: (group.kind.strategy, -_percent(group)))
    lead = (
        "Speed when the model does not fit: the whole system within a limit that counts the page cache too, so that "
        "nobody can hide memory in it."
    )
    caption = "One sequence. More is better; memory gets scarce to the left."
    series = plots.series_of("tokens_per_second", its, _percent)
    drawn = []
    if series:
        draw = partial(charts.lines, "memory limit, % of the checkpoint", "tokens/s", series)
        drawn = [Chart("tokens_per_second", "tokens/s under a limit", draw, caption)]
    charged = [max((run.memory_charged or 0 for run in group.runs), default=0) / 1e9 for group in its]
    labels = {
        "strategy": _strategy(its), "limit": [group.kind.workload for group in its],
        "charged, GB": [_number(most) if most else "" for most in charged],
    }  # fmt: skip
    return Section(
        name=PRESSURE,
        title="Memory pressure",
        lead=lead,
        charts=tuple(drawn),
        tables=(figures_table(labels, its, _LIMITED),),
    )


def _overhead(groups: Sequence[RunGroup]) -> Section:
    named = dict(zip(_labels(groups), groups, strict=True))
    tokens = {name: row for name, group in named.items() if (row := _milliseconds_a_token(group))}
    starts = {name: row for name, group in named.items() if (row := _milliseconds_of_starts(group))}
    drawn, tables = [], []
    if tokens:
        says = "Parts of the engine's steps, for each completion token."
        drawn.append(plots.parts("token", "where a token's time goes", "ms a token", tokens, says))
        tables.append(_parts_table("ms a token", tokens))
    if starts:
        says = "Parts of starting an instance for a call, on average."
        drawn.append(plots.parts("cold-start", "a cold start", "ms", starts, says))
        tables.append(_parts_table("ms of a cold start", starts))
    if starts:
        tables.append(_break_even_table(named))
    tables.append(figures_table({"strategy": list(named)}, groups, _TIMED))
    lead = "What serving experts as functions adds to computing them."
    return _section("Overhead", groups, lead, drawn, *tables)


def _milliseconds_a_token(group: RunGroup) -> dict[str, float]:
    runs = [milliseconds_a_token(run) for run in group.runs if run.tokens and run.phases]
    return {part: fmean(run.get(part, 0.0) for run in runs) for part in dict.fromkeys(chain(*runs))}


def _milliseconds_of_starts(group: RunGroup) -> dict[str, float]:
    totals: dict[str, list[float]] = {}
    for run in group.runs:
        for part, (count, seconds) in run.cold_start_phases.items():
            total = totals.setdefault(part, [0.0, 0.0])
            total[0], total[1] = total[0] + count, total[1] + seconds
    return {part: 1e3 * seconds / count for part, (count, seconds) in totals.items() if count}


def _break_even_table(named: Mapping[str, RunGroup]) -> Table:
    rows = []
    for label, group in named.items():
        known = [found for run in group.runs if (found := break_even(run))]
        if known:
            columns = (
                [1e3 * one.cold_start_seconds for one in known], [one.instance_bytes / 1e6 for one in known],
                [one.alone for one in known], [one.while_all_wait for one in known],
            )  # fmt: skip
            rows.append((label, *map(_number, map(fmean, columns))))
    headings = (
        "cold start, ms",
        "an instance, MB",
        "costs as much as idling for, s",
        "and if everything waits for it, s",
    )
    return Table(("strategy", *headings), tuple(rows))


def _number(value: float) -> str:
    return f"{value:,.{places_of(value)}f}"


def _parts_table(heading: str, rows: Mapping[str, Mapping[str, float]]) -> Table:
    names = list(dict.fromkeys(part for row in rows.values() for part in row))
    body = []
    for label, row in rows.items():
        values = [row.get(part) for part in names] + [sum(row.values())]
        body.append((label, *("" if value is None else _number(value) for value in values)))
    return Table((heading, *names, "all"), tuple(body))


def _section(title: str, groups: Sequence[RunGroup], lead: str, drawn: Sequence[Chart], *tables: Table) -> Section:
    kind = groups[0].kind
    name = f"{kind.experiment}-{kind.workload}"
    return Section(
        name=name, title=f"{title}, workload {kind.workload}", lead=lead, charts=tuple(drawn), tables=tables
    )


def _labels(groups: Sequence[RunGroup]) -> list[str]:
    """Strategies, with the number of tenants where that differs."""
    differ = len({group.kind.tenants for group in groups}) > 1
    names = _strategy(groups)
    return [f"{name}, {_count(group)}" if differ else name for name, group in zip(names, groups, strict=True)]


def _strategy(groups: Sequence[RunGroup]) -> list[str]:
    return [group.kind.strategy for group in groups]


def _count(group: RunGroup) -> int:
    return group.kind.tenants


def _percent(group: RunGroup) -> float:
    return float(group.kind.workload.removesuffix(" %"))


def _setting(name: str) -> plots.Where:
    return lambda group: float(group.kind.setting(name) or 0)


_EXPERIMENTS: dict[str, Callable[[Sequence[RunGroup]], Section]] = {
    "strategies": _strategies,
    "blocks": _blocks,
    "overhead": _overhead,
    "keepalive": _keepalive,
    "tenants": _tenants,
    PRESSURE: _pressure,
}
