"""Prometheus series of a server, in a registry of its own. Names follow vLLM's where it has the same thing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from faasmoe.errors import PlatformError
from faasmoe.orchestrator.client import OrchestratorClient
from faasmoe.orchestrator.request import Piece
from faasmoe.platforms.base import FunctionStatus, PoolStatus

log = logging.getLogger(__name__)

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass
class RequestWatch:
    """What is measured of one request."""

    first: Histogram
    tokens: Counter
    started: float = field(default_factory=time.monotonic)
    seen: int = 0
    outcome: str = "cancelled"  # until something else happens

    def piece(self, piece: Piece) -> None:
        """Note a piece of text."""
        if self.seen == 0:
            self.first.observe(time.monotonic() - self.started)
        self.tokens.inc(piece.tokens - self.seen)
        self.seen = piece.tokens
        if piece.finish_reason:
            self.outcome = piece.finish_reason


class Metrics:
    """All series of one server."""

    def __init__(self, client: OrchestratorClient, pool: Callable[[], PoolStatus]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "faasmoe_requests", "Requests ended, by outcome", ["outcome"], registry=self._registry
        )
        self._tokens = Counter("faasmoe_generation_tokens", "Tokens generated", registry=self._registry)
        self._first = Histogram(
            "faasmoe_time_to_first_token_seconds",
            "From submission",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._duration = Histogram(
            "faasmoe_e2e_request_latency_seconds",
            "From submission",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_State(client, pool))

    @contextmanager
    def request(self) -> Iterator[RequestWatch]:
        """Counts a request when it ends, however it does."""
        watch = RequestWatch(self._first, self._tokens)
        try:
            yield watch
        except Exception:
            watch.outcome = "error"
            raise
        finally:
            self._requests.labels(watch.outcome).inc()
            self._duration.observe(time.monotonic() - watch.started)

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)


class _State:
    """Asks orchestrator and platform when a page is wanted."""

    def __init__(self, client: OrchestratorClient, pool: Callable[[], PoolStatus]) -> None:
        self._client = client
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        running, waiting = self._client.load()
        yield GaugeMetricFamily("faasmoe_num_requests_running", "Requests running", running)
        yield GaugeMetricFamily("faasmoe_num_requests_waiting", "Requests waiting", waiting)
        try:
            pool = self._pool()
        except PlatformError as error:  # the rest of the page is worth having
            log.warning("no figures of the platform: %s", error)
            return
        yield from _pool_series(pool)
        yield from _function_series(pool.functions)


def _pool_series(pool: PoolStatus) -> Iterator[Metric]:
    yield GaugeMetricFamily("faasmoe_functions_deployed", "Functions deployed", len(pool.functions))
    yield GaugeMetricFamily("faasmoe_pool_memory_bytes", "Memory counted in the pool", pool.memory_used)
    if pool.memory_budget is not None:
        yield GaugeMetricFamily("faasmoe_pool_memory_budget_bytes", "Most it may take", pool.memory_budget)
    yield GaugeMetricFamily("faasmoe_activations_waiting", "Activations that wait for memory", pool.waiting)
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


def _function_series(functions: Sequence[FunctionStatus]) -> Iterator[Metric]:
    """By function: as many series as functions, whoever calls them."""
    values: dict[str, tuple[type[Metric], str, Callable[[FunctionStatus], float]]] = {
        "instances": (GaugeMetricFamily, "Instances running", lambda f: len(f.instances)),
        "instance_memory_bytes": (GaugeMetricFamily, "Memory that its instances count for", lambda f: f.memory),
        "invocations": (CounterMetricFamily, "Calls answered by instances", lambda f: f.invocations),
        "cold_starts": (CounterMetricFamily, "Instances started", lambda f: f.cold_starts),
        "instance_deaths": (CounterMetricFamily, "Instances that died", lambda f: f.deaths),
        "evictions": (CounterMetricFamily, "Instances stopped to make room", lambda f: f.evictions),
    }
    for name, (kind, text, value) in values.items():
        family = kind(f"faasmoe_{name}", text, labels=["function"])  # type: ignore[call-arg]
        for function in functions:
            family.add_metric([function.name], value(function))  # type: ignore[attr-defined]
        yield family
