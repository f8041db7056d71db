"""The status of a cluster: the sum of what its nodes report, and of what lost ones have reported last."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from faasmoe.platforms.base import FunctionStatus, Instance, PoolStatus, PoolTotals

_STATES = ("zero", "starting", "idle", "busy")  # the last that any node has is that of the function


def joined(live: Mapping[str, PoolStatus], gone: Sequence[PoolStatus], names: Sequence[str]) -> PoolStatus:
    """The status of functions `names` on `live` nodes, by the nodes' names.

    `gone` are the last reports of agents that are lost: what they have counted stays counted.
    """
    reports = [*live.values(), *gone]
    budgets = [report.memory_budget for report in live.values()]
    latency: Counter[float] = Counter()
    phases: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for report in reports:
        latency.update(dict(report.latency))
        for phase, (count, seconds) in report.cold_start_phases.items():
            phases[phase] = phases[phase][0] + count, phases[phase][1] + seconds
    return PoolStatus(
        functions=_functions(live, gone, names),
        memory_budget=None if None in budgets or not budgets else sum(filter(None, budgets)),
        memory_used=sum(report.memory_used for report in live.values()),
        waiting=sum(report.waiting for report in live.values()),
        latency=sorted(latency.items()),
        cold_start_phases=dict(phases),
        totals=sum((report.totals for report in reports), PoolTotals()),
    )


def _functions(
    live: Mapping[str, PoolStatus], gone: Sequence[PoolStatus], names: Sequence[str]
) -> list[FunctionStatus]:
    parts: dict[str, list[FunctionStatus]] = {name: [] for name in names}
    for node, report in live.items():
        for function in report.functions:
            if function.name in parts:
                parts[function.name].append(_on(node, function))
    for report in gone:
        for function in report.functions:
            if function.name in parts:
                parts[function.name].append(replace(function, state="zero", instances=(), memory=0))
    return [_sum(name, its) for name, its in parts.items()]


def _on(node: str, function: FunctionStatus) -> FunctionStatus:
    instances = tuple(Instance(f"{node}/{each.id}", node) for each in function.instances)
    return replace(function, instances=instances)


def _sum(name: str, parts: Sequence[FunctionStatus]) -> FunctionStatus:
    """Its p50 is the mean of its nodes', weighted by calls; its p99 the largest, as nothing finer is known."""
    timed = [(part.p50, part.invocations) for part in parts if part.p50 is not None and part.invocations]
    calls = sum(count for _, count in timed)
    return FunctionStatus(
        name,
        max((part.state for part in parts), key=_STATES.index, default="zero"),
        tuple(instance for part in parts for instance in part.instances),
        invocations=sum(part.invocations for part in parts),
        cold_starts=sum(part.cold_starts for part in parts),
        deaths=sum(part.deaths for part in parts),
        evictions=sum(part.evictions for part in parts),
        p50=sum(p50 * count for p50, count in timed) / calls if calls else None,
        p99=max((part.p99 for part in parts if part.p99 is not None), default=None),
        memory=sum(part.memory for part in parts),
    )
