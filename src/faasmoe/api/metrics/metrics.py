"""Prometheus series of a server, in a registry of its own. Names follow vLLM's where it has the same thing.

docs/metrics.md lists all series.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics

from faasmoe.api.metrics.collectors import (
    fleet_series,
    function_series,
    orchestrator_series,
    pool_series,
    tenancy_series,
)
from faasmoe.errors import FaasmoeError, LimitExceeded, PlatformError
from faasmoe.fleet.fleet import Fleet
from faasmoe.fleet.starts import Starts
from faasmoe.fleet.stream import PieceStream
from faasmoe.platforms.base import PoolStatus
from faasmoe.protocol.request import GenerationRequest, Piece
from faasmoe.protocol.stats import EngineStats
from faasmoe.tenancy.service import TenancyService

log = logging.getLogger(__name__)

MOST_TENANTS = 50  # that have series of their own, the first ones; all others share one
_OTHERS = "other"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKEN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS = "application/openmetrics-text"


class Metrics:
    """All series of one server."""

    def __init__(self, fleet: Fleet, pool: Callable[[], PoolStatus], tenancy: TenancyService) -> None:
        self._fleet = fleet
        self._pool = pool
        self._registry = CollectorRegistry()
        self._snapshots = _Snapshots(tenancy)
        self._registry.register(self._snapshots)
        self._tenants: set[str] = set()
        disable_created_metrics()  # type: ignore[no-untyped-call] # when each series began: they double the page
        self.requests = self._counter("requests", "Ended requests, by outcome", "outcome")
        self.limited = self._counter("requests_limited", "Requests refused by a limit of their tenant", "limit")
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of requests")
        self.cached = self._counter("prompt_tokens_cached", "Prompt tokens served from the prefix cache")
        self.tokens = self._counter("generation_tokens", "Generated tokens")
        self.queue = self._histogram(
            "request_queue_time_seconds", "Seconds from the submission of a request to its first step", _SECONDS
        )
        self.first = self._histogram(
            "time_to_first_token_seconds", "Seconds from the submission of a request to its first token", _SECONDS
        )
        self.each = self._histogram(
            "time_per_output_token_seconds", "Seconds between consecutive output tokens", _TOKEN_SECONDS
        )
        self.duration = self._histogram(
            "e2e_request_latency_seconds", "Seconds from the submission of a request to its end", _SECONDS
        )
        self._use = self._use_counters()

    def _use_counters(self) -> dict[str, tuple[Counter, float]]:
        """Counters by field of `ResourceUsage`, each with the factor from the field's unit to the counter's."""
        counter = self._counter
        calls = "Function calls for requests; a call that serves several requests is split between them"
        seconds = "Seconds that functions computed for requests"
        memory = "Memory of instances in bytes, times their busy seconds for requests"
        return {
            "invocations": (counter("request_invocations", calls), 1),
            "expert_seconds": (counter("request_expert_seconds", seconds), 1),
            "gb_seconds": (counter("request_byte_seconds", memory), 1e9),
            "cold_starts": (counter("request_cold_starts", "Instances started for requests"), 1),
            "orchestrator_cpu_seconds": (
                counter("request_cpu_seconds", "CPU seconds of orchestrators for requests"),
                1,
            ),
        }

    @contextmanager
    def request(self, request: GenerationRequest, submitted: float) -> Iterator[RequestMetrics]:
        """Count and log a request when it ends, with or without an error. `submitted` is of `time.monotonic`."""
        watch = RequestMetrics(self, request, self.tenant(request.tenant), submitted)
        try:
            yield watch
        except Exception:
            watch.outcome = "error"
            raise
        finally:
            watch.end()

    def uses(self, requests: Sequence[GenerationRequest], streams: Sequence[PieceStream]) -> None:
        """Count the resource usage of requests as soon as it is known."""
        for request, stream in zip(requests, streams, strict=True):
            stream.final.add_done_callback(partial(self._count_use, self.tenant(request.tenant)))

    def _count_use(self, tenant: str, final: asyncio.Future[Piece | None]) -> None:
        piece = None if final.cancelled() else final.result()
        if piece is not None and piece.used is not None:
            for name, (counter, factor) in self._use.items():
                counter.labels(tenant).inc(factor * getattr(piece.used, name))

    @contextmanager
    def refusals(self, requests: Sequence[GenerationRequest]) -> Iterator[None]:
        """Count and log requests that an error in this context refuses."""
        submitted = time.monotonic()
        try:
            yield
        except FaasmoeError as error:
            if isinstance(error, LimitExceeded):
                self.limited.labels(error.limit, self.tenant(requests[0].tenant)).inc()
            for request in requests:
                watch = RequestMetrics(self, request, self.tenant(request.tenant), submitted)
                watch.outcome = "refused"
                watch.end()
            raise

    def turned_away(self, error: LimitExceeded, tenant: str) -> None:
        """Count a request that a tenant's limit refuses before its body is read."""
        self.requests.labels("refused", self.tenant(tenant)).inc()
        self.limited.labels(error.limit, self.tenant(tenant)).inc()

    def tenant(self, name: str) -> str:
        """The label for a tenant: its name, unless there are too many."""
        if name not in self._tenants and len(self._tenants) == MOST_TENANTS:
            return _OTHERS
        self._tenants.add(name)
        return name

    async def page(self, accept: str = "") -> tuple[bytes, str]:
        """The page for Prometheus and its media type: OpenMetrics if `accept` names it, else the older text format."""
        self._snapshots.stats = await self._fleet.stats()
        self._snapshots.running, self._snapshots.starts = self._fleet.running, self._fleet.starts
        try:
            self._snapshots.pool = await asyncio.to_thread(self._pool)
        except (PlatformError, OSError, RuntimeError) as error:  # the rest of the page is still true
            log.warning("metrics lack the platform's series: %s", error)
            self._snapshots.pool = None
        if any(kind.partition(";")[0].strip() == _OPENMETRICS for kind in accept.split(",")):
            text: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return text, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), _TEXT

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"faasmoe_{name}", text, [*labels, "tenant"], registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"faasmoe_{name}", text, ["tenant"], buckets=buckets, registry=self._registry)


def add_metrics(app: FastAPI, metrics: Metrics) -> None:
    """Add the route that Prometheus scrapes."""

    @app.get("/metrics")
    async def page(request: Request) -> Response:
        text, kind = await metrics.page(request.headers.get("accept", ""))
        return Response(text, media_type=kind)


class RequestMetrics:
    """Observes one request for the series and the log."""

    def __init__(self, metrics: Metrics, request: GenerationRequest, tenant: str, submitted: float) -> None:
        self._metrics = metrics
        self._request = request
        self._tenant = tenant  # as a label
        self._started = self._latest = submitted
        self._first: float | None = None  # seconds to the first piece
        self._cached = 0
        self._last: Piece | None = None
        self.outcome = "cancelled"  # until something else happens

    def piece(self, piece: Piece, new: int) -> None:
        """Observe a piece, and how many tokens have been generated since the piece before."""
        now = time.monotonic()
        if self._first is None:
            self._first = now - self._started
            self._metrics.first.labels(self._tenant).observe(self._first)
            self._metrics.queue.labels(self._tenant).observe(piece.queue_seconds)
            self._metrics.prompt_tokens.labels(self._tenant).inc(len(self._request.prompt))
            self._metrics.cached.labels(self._tenant).inc(piece.cached_tokens)
            self._cached = piece.cached_tokens
        else:
            each = self._metrics.each.labels(self._tenant)
            for _ in range(new):  # a piece may have several tokens, whose text was not certain before
                each.observe((now - self._latest) / new)
        self._metrics.tokens.labels(self._tenant).inc(new)
        self._last, self._latest = piece, now
        if piece.finish_reason:
            self.outcome = piece.finish_reason

    def end(self) -> None:
        """Count the request, and log it."""
        seconds = time.monotonic() - self._started
        self._metrics.requests.labels(self.outcome, self._tenant).inc()
        self._metrics.duration.labels(self._tenant).observe(seconds)
        facts = {
            "request": self._request.id,
            "tenant": self._request.tenant,
            "outcome": self.outcome,
            "prompt_tokens": len(self._request.prompt),
            "cached_tokens": self._cached,
            "generation_tokens": 0 if self._last is None else self._last.tokens,
            "first_token_seconds": None if self._first is None else round(self._first, 4),
            "seconds": round(seconds, 4),
        }
        log.info("request ended", extra=facts)


class _Snapshots:
    """Collects the newest stats that others have counted."""

    def __init__(self, tenancy: TenancyService) -> None:
        self._tenancy = tenancy
        self.stats = EngineStats()
        self.running = 0
        self.starts = Starts()
        self.pool: PoolStatus | None = None

    def collect(self) -> Iterable[Metric]:
        yield from orchestrator_series(self.stats)
        yield from fleet_series(self.running, self.starts)
        yield from tenancy_series(self._tenancy)
        if self.pool is not None:
            yield from pool_series(self.pool)
            yield from function_series(self.pool.functions)
