"""Collectors: stats of orchestrators, the platform and tenancy as Prometheus series."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.utils import floatToGoString

from faasmoe.fleet.starts import Starts
from faasmoe.platforms.base import FunctionStatus, PoolStatus, PoolTotals
from faasmoe.protocol.stats import Distribution, EngineStats
from faasmoe.tenancy.service import TenancyService

_Family = Callable[[str, str, float], Metric]

ENGINE: dict[str, tuple[str, _Family, str]] = {  # by the name of a gauge in `EngineStats.engine`
    "kv_cache_tokens": ("kv_cache_tokens", GaugeMetricFamily, "Tokens that the KV cache can hold"),
    "kv_cache_tokens_used": ("kv_cache_tokens_used", GaugeMetricFamily, "KV cache tokens of running sequences"),
    "kv_cache_tokens_kept": (
        "kv_cache_tokens_kept",
        GaugeMetricFamily,
        "KV cache tokens of the prefix cache",
    ),
    "preemptions": ("num_preemptions", CounterMetricFamily, "Sequences that were preempted"),
    "speculation_proposed": (
        "speculation_proposed_tokens",
        CounterMetricFamily,
        "Guessed tokens that steps verified",
    ),
    "speculation_accepted": (
        "speculation_accepted_tokens",
        CounterMetricFamily,
        "Guessed tokens that were right, so that no step had to be run for them",
    ),
}


def tenancy_series(tenancy: TenancyService) -> Iterator[Metric]:
    """Series of keys and of ledger records."""
    ledger = tenancy.ledger
    yield CounterMetricFamily("faasmoe_wrong_keys", "Requests with an invalid key", tenancy.authentication.wrong)
    yield CounterMetricFamily("faasmoe_ledger_written", "Records written to the ledger", ledger.written)
    yield CounterMetricFamily("faasmoe_ledger_dropped", "Ledger records that were lost", ledger.dropped)
    yield GaugeMetricFamily("faasmoe_ledger_waiting", "Ledger records that wait for the database", ledger.waiting)
    failing = float(bool(ledger.failing))
    yield GaugeMetricFamily("faasmoe_ledger_failing", "1 while the ledger cannot be written", failing)
    failures = CounterMetricFamily(
        "faasmoe_background_failures", "Failed attempts of background loops", labels=["loop"]
    )
    for name, log in tenancy.failures.items():
        failures.add_metric([name], log.count)
    yield failures


def orchestrator_series(stats: EngineStats) -> Iterator[Metric]:
    """Series of all engines together. Counters keep their values when an orchestrator ends."""
    yield GaugeMetricFamily("faasmoe_num_requests_running", "Running requests", stats.running)
    yield GaugeMetricFamily("faasmoe_num_requests_waiting", "Requests that wait to run", stats.waiting)
    yield _histogram("faasmoe_iteration_seconds", "Seconds of an engine step", stats.step_seconds)
    yield _histogram("faasmoe_iteration_tokens", "Tokens of an engine step", stats.step_tokens)
    yield _histogram("faasmoe_iteration_sequences", "Sequences of an engine step", stats.step_sequences)
    yield _histogram("faasmoe_iteration_functions", "Functions called in an engine step", stats.step_functions)
    phases = CounterMetricFamily(
        "faasmoe_iteration_phase_seconds", "Seconds of engine steps, by phase", labels=["phase"]
    )
    for phase, seconds in stats.phases.items():
        phases.add_metric([phase], seconds)
    yield phases
    yield CounterMetricFamily(
        "faasmoe_cold_starts_met", "Function calls that waited for a cold start", stats.cold_starts
    )
    yield from _engine_series(stats.engine)


def fleet_series(running: int, starts: Starts) -> Iterator[Metric]:
    """Series of orchestrators and their starts."""
    yield GaugeMetricFamily("faasmoe_orchestrators", "Orchestrators that take requests", running)
    yield CounterMetricFamily(
        "faasmoe_orchestrator_restarts", "Orchestrators started to replace a lost one", starts.again
    )
    yield _histogram(
        "faasmoe_orchestrator_start_seconds",
        "Seconds until a new orchestrator takes requests",
        starts.seconds,
    )


def _engine_series(gauges: Mapping[str, float]) -> Iterator[Metric]:
    for gauge, (name, kind, text) in ENGINE.items():
        if gauge in gauges:
            yield kind(f"faasmoe_{name}", text, gauges[gauge])
    if total := gauges.get("kv_cache_tokens"):
        used = gauges.get("kv_cache_tokens_used", 0) / total
        text = "Fraction of the KV cache in use (0 to 1)"
        yield GaugeMetricFamily("faasmoe_kv_cache_usage_perc", text, used)


def _histogram(name: str, text: str, values: Distribution) -> Metric:
    counts = zip([*values.bounds, math.inf], values.counts, strict=True)
    return HistogramMetricFamily(name, text, _cumulative(counts), values.total)


def _cumulative(counts: Iterable[tuple[float, int]]) -> list[tuple[str, int]]:
    """Cumulative buckets of a histogram, with bounds in OpenMetrics' notation."""
    total, buckets = 0, []
    for bound, count in counts:
        total += count
        text = floatToGoString(float(f"{bound:.6g}"))  # type: ignore[no-untyped-call]
        buckets.append((text, total))
    return buckets


def pool_series(pool: PoolStatus) -> Iterator[Metric]:
    """Series of the platform's pool."""
    yield GaugeMetricFamily("faasmoe_functions_deployed", "Deployed functions", len(pool.functions))
    yield GaugeMetricFamily(
        "faasmoe_pool_memory_bytes", "Bytes of memory of the pool of functions", pool.memory_used
    )
    if pool.memory_budget is not None:
        yield GaugeMetricFamily(
            "faasmoe_pool_memory_budget_bytes",
            "Memory budget of the pool of functions in bytes",
            pool.memory_budget,
        )
    yield GaugeMetricFamily(
        "faasmoe_activations_waiting", "Starts of instances that wait for memory", pool.waiting
    )
    yield from _totals(pool.totals)
    seconds = sum(bound * count for bound, count in pool.latency)  # of upper bounds, so up to a tenth too high
    buckets = _cumulative([*pool.latency, (math.inf, 0)])
    yield HistogramMetricFamily(
        "faasmoe_invocation_seconds",
        "Seconds from the arrival of a call at an instance to the reply",
        buckets,
        seconds,
    )
    phases = SummaryMetricFamily(
        "faasmoe_cold_start_seconds", "Seconds of cold starts, by phase", labels=["phase"]
    )
    for phase, (count, seconds) in pool.cold_start_phases.items():
        phases.add_metric([phase], count, seconds)
    yield phases


def _totals(totals: PoolTotals) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "faasmoe_instance_byte_seconds",
        "Memory of instances in bytes, times the seconds they lived",
        1e9 * totals.instance_gb_seconds,
    )
    yield CounterMetricFamily(
        "faasmoe_instance_busy_byte_seconds",
        "Memory of instances in bytes, times their seconds on answered calls",
        1e9 * totals.busy_gb_seconds,
    )
    yield CounterMetricFamily(
        "faasmoe_instance_busy_seconds", "Seconds of instances on answered calls", totals.busy_seconds
    )


def function_series(functions: Sequence[FunctionStatus]) -> Iterator[Metric]:
    """Series by function: their number depends on the model, not on who calls functions."""
    values: dict[str, tuple[type[Metric], str, Callable[[FunctionStatus], float]]] = {
        "instances": (GaugeMetricFamily, "Running instances of a function", lambda f: len(f.instances)),
        "instance_memory_bytes": (
            GaugeMetricFamily,
            "Bytes of memory of a function's instances",
            lambda f: f.memory,
        ),
        "invocations": (CounterMetricFamily, "Answered calls of a function", lambda f: f.invocations),
        "cold_starts": (CounterMetricFamily, "Started instances of a function", lambda f: f.cold_starts),
        "instance_deaths": (CounterMetricFamily, "Instances of a function that died", lambda f: f.deaths),
        "evictions": (CounterMetricFamily, "Evicted instances of a function", lambda f: f.evictions),
    }
    yield _states(functions)
    yield _quantiles(functions)
    for name, (kind, text, value) in values.items():
        family = kind(f"faasmoe_{name}", text, labels=["function"])  # type: ignore[call-arg]
        for function in functions:
            family.add_metric([function.name], value(function))  # type: ignore[attr-defined]
        yield family


def _states(functions: Sequence[FunctionStatus]) -> Metric:
    family = GaugeMetricFamily("faasmoe_functions", "Deployed functions, by state", labels=["state"])
    for state in ("zero", "starting", "idle", "busy"):
        family.add_metric([state], sum(function.state == state for function in functions))
    return family


def _quantiles(functions: Sequence[FunctionStatus]) -> Metric:
    """A summary with quantiles alone: `invocations` has the counts, and the platform sums up no seconds."""
    text = "Seconds from the arrival of a call at an instance to the reply, by function, as quantiles"
    family = SummaryMetricFamily("faasmoe_function_invocation_seconds", text)
    for function in functions:
        for quantile, seconds in (("0.5", function.p50), ("0.99", function.p99)):
            if seconds is not None:
                labels = {"function": function.name, "quantile": quantile}
                family.add_sample(family.name, labels, seconds)
    return family
