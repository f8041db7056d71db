"""Prometheus series of a server, in a registry of its own. Names follow vLLM's where it has the same thing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from faasmoe.orchestrator.client import OrchestratorClient
from faasmoe.orchestrator.request import Piece
from faasmoe.platforms.base import FunctionStatus

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

    def __init__(self, client: OrchestratorClient, functions: Callable[[], list[FunctionStatus]]) -> None:
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
        self._registry.register(_State(client, functions))

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

    def __init__(self, client: OrchestratorClient, functions: Callable[[], list[FunctionStatus]]) -> None:
        self._client = client
        self._functions = functions

    def collect(self) -> Iterable[Metric]:
        running, waiting = self._client.load()
        functions = self._functions()
        yield GaugeMetricFamily("faasmoe_num_requests_running", "Requests running", running)
        yield GaugeMetricFamily("faasmoe_num_requests_waiting", "Requests waiting", waiting)
        yield GaugeMetricFamily("faasmoe_functions_deployed", "Functions deployed", len(functions))
        instances = sum(len(f.instances) for f in functions)
        yield GaugeMetricFamily("faasmoe_instances", "Instances running", instances)
        invocations = sum(f.invocations for f in functions)
        yield CounterMetricFamily("faasmoe_invocations", "Calls answered by instances", invocations)
        cold = sum(f.cold_starts for f in functions)
        yield CounterMetricFamily("faasmoe_cold_starts", "Instances started", cold)
