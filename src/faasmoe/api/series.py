"""Snapshots of orchestrator and platform as Prometheus series. Names follow vLLM's where it has the same thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from faasmoe.orchestrator.figures import Distribution, Figures
from faasmoe.orchestrator.fleet import Starts
from faasmoe.platforms.base import FunctionStatus, PoolStatus
from faasmoe.tenancy.office import Office

_ENGINE: dict[str, tuple[Callable[[str, str, float], Metric], str]] = {
    "kv_cache_tokens": (GaugeMetricFamily, "Tokens whose keys and values there is memory for"),
    "kv_cache_tokens_used": (GaugeMetricFamily, "Of them, those that running sequences have"),
    "kv_cache_tokens_kept": (GaugeMetricFamily, "Of them, those kept for prompts that begin alike"),
    "preemptions": (CounterMetricFamily, "Sequences that gave up their memory and began again"),
}


def tenancy_series(office: Office) -> Iterator[Metric]:
    """What becomes of keys and of records."""
    ledger = office.ledger
    yield CounterMetricFamily("faasmoe_wrong_keys", "Requests with a wrong key", office.authentication.wrong)
    yield CounterMetricFamily("faasmoe_ledger_written", "Records in the ledger", ledger.written)
    yield CounterMetricFamily("faasmoe_ledger_dropped", "Records that are lost", ledger.dropped)
    yield GaugeMetricFamily("faasmoe_ledger_waiting", "Records that wait for the database", ledger.waiting)
    failing = float(bool(ledger.failing))
    yield GaugeMetricFamily("faasmoe_ledger_failing", "1 while the database cannot be written", failing)
    failures = CounterMetricFamily(
        "faasmoe_background_failures", "Attempts of loops in the background that failed", labels=["loop"]
    )
    for name, outage in office.outages.items():
        failures.add_metric([name], outage.failures)
    yield failures


def orchestrator_series(figures: Figures) -> Iterator[Metric]:
    """What engines do, all of them together. Counts go on when an orchestrator ends."""
    yield GaugeMetricFamily("faasmoe_num_requests_running", "Requests running", figures.running)
    yield GaugeMetricFamily("faasmoe_num_requests_waiting", "Requests waiting", figures.waiting)
    yield _histogram("faasmoe_iteration_seconds", "Wall-clock time of a step", figures.step_seconds)
    yield _histogram("faasmoe_iteration_tokens_total", "Tokens that the model ran in a step", figures.step_tokens)
    yield _histogram("faasmoe_iteration_sequences", "Sequences that took part in a step", figures.step_sequences)
    yield _histogram("faasmoe_iteration_functions", "Functions that a step touched", figures.step_functions)
    phases = CounterMetricFamily("faasmoe_iteration_phase_seconds", "Time of steps by phase", labels=["phase"])
    for phase, seconds in figures.phases.items():
        phases.add_metric([phase], seconds)
    yield phases
    yield CounterMetricFamily(
        "faasmoe_cold_starts_met", "Invocations that waited for a cold start", figures.cold_starts
    )
    yield from _engine_series(figures.engine)


def fleet_series(running: int, starts: Starts) -> Iterator[Metric]:
    """How many orchestrators there are, and what it took to start them."""
    yield GaugeMetricFamily("faasmoe_orchestrators", "Orchestrators that take requests", running)
    yield CounterMetricFamily(
        "faasmoe_orchestrator_restarts", "Orchestrators started after one was lost", starts.again
    )
    yield _histogram(
        "faasmoe_orchestrator_start_seconds", "From the order to it until it takes requests", starts.seconds
    )


def _engine_series(figures: Mapping[str, float]) -> Iterator[Metric]:
    for name, (kind, text) in _ENGINE.items():
        if name in figures:
            yield kind(f"faasmoe_{name}", text, figures[name])
    if total := figures.get("kv_cache_tokens"):
        used = figures.get("kv_cache_tokens_used", 0) / total
        yield GaugeMetricFamily("faasmoe_kv_cache_usage_perc", "Share of it that sequences use; 1 is all", used)


def _histogram(name: str, text: str, values: Distribution) -> Metric:
    total, buckets = 0, []
    for bound, count in zip([*(f"{bound:g}" for bound in values.bounds), "+Inf"], values.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return HistogramMetricFamily(name, text, buckets, values.total)


def pool_series(pool: PoolStatus) -> Iterator[Metric]:
    """What the platform's pool holds."""
    yield GaugeMetricFamily("faasmoe_functions_deployed", "Functions deployed", len(pool.functions))
    yield GaugeMetricFamily("faasmoe_pool_memory_bytes", "Memory counted in the pool", pool.memory_used)
    if pool.memory_budget is not None:
        yield GaugeMetricFamily("faasmoe_pool_memory_budget_bytes", "Most it may take", pool.memory_budget)
    yield GaugeMetricFamily("faasmoe_activations_waiting", "Activations that wait for memory", pool.waiting)
    totals = pool.totals
    yield CounterMetricFamily(
        "faasmoe_instance_gb_seconds",
        "10^9 bytes of instances times their lives' seconds",
        totals.instance_gb_seconds,
    )
    yield CounterMetricFamily(
        "faasmoe_instance_busy_gb_seconds", "Of them, those on calls that were answered", totals.busy_gb_seconds
    )
    yield CounterMetricFamily(
        "faasmoe_instance_busy_seconds", "Instances' seconds on calls that were answered", totals.busy_seconds
    )
    total, buckets = 0, []
    for bound, count in pool.latency:
        total += count
        buckets.append((f"{bound:.6g}", total))
    seconds = sum(bound * count for bound, count in pool.latency)  # bounds, so too much by a tenth
    buckets.append(("+Inf", total))
    yield HistogramMetricFamily(
        "faasmoe_invocation_seconds", "From a call's arrival at an instance to its reply", buckets, seconds
    )
    phases = SummaryMetricFamily("faasmoe_cold_start_seconds", "Cold starts by phase", labels=["phase"])
    for phase, (count, seconds) in pool.cold_start_phases.items():
        phases.add_metric([phase], count, seconds)
    yield phases


def function_series(functions: Sequence[FunctionStatus]) -> Iterator[Metric]:
    """By function: as many series as functions, whoever calls them."""
    values: dict[str, tuple[type[Metric], str, Callable[[FunctionStatus], float]]] = {
        "instances": (GaugeMetricFamily, "Instances running", lambda f: len(f.instances)),
        "instance_memory_bytes": (GaugeMetricFamily, "Memory that its instances count for", lambda f: f.memory),
        "invocations": (CounterMetricFamily, "Calls answered by instances", lambda f: f.invocations),
        "cold_starts": (CounterMetricFamily, "Instances started", lambda f: f.cold_starts),
        "instance_deaths": (CounterMetricFamily, "Instances that died", lambda f: f.deaths),
        "evictions": (CounterMetricFamily, "Instances stopped to make room", lambda f: f.evictions),
    }
    yield _states(functions)
    yield _quantiles(functions)
    for name, (kind, text, value) in values.items():
        family = kind(f"faasmoe_{name}", text, labels=["function"])  # type: ignore[call-arg]
        for function in functions:
            family.add_metric([function.name], value(function))  # type: ignore[attr-defined]
        yield family


def _states(functions: Sequence[FunctionStatus]) -> Metric:
    family = GaugeMetricFamily("faasmoe_functions", "Functions deployed, by state", labels=["state"])
    for state in ("zero", "starting", "idle", "busy"):
        family.add_metric([state], sum(function.state == state for function in functions))
    return family


def _quantiles(functions: Sequence[FunctionStatus]) -> Metric:
    text = "From a call's arrival at an instance to its reply: as long at most for this share of the calls"
    family = GaugeMetricFamily("faasmoe_invocation_quantile_seconds", text, labels=["function", "quantile"])
    for function in functions:
        for quantile, seconds in (("0.5", function.p50), ("0.99", function.p99)):
            if seconds is not None:
                family.add_metric([function.name, quantile], seconds)
    return family
