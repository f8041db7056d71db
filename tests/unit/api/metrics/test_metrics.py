from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from faasmoe.api.metrics.metrics import MOST_TENANTS, Metrics
from faasmoe.errors import EngineBusy, LimitExceeded, PlatformError
from faasmoe.fleet.stream import Inbox, PieceStream
from faasmoe.platforms.base import FunctionStatus, Instance, PoolStatus, PoolTotals
from faasmoe.protocol.request import GenerationRequest, Piece, ResourceUsage
from faasmoe.protocol.stats import EngineStats
from tests.metrics import families, played, text


def no_pool() -> PoolStatus:
    raise PlatformError("local", "(all)", "gone")


def metrics(figures: EngineStats | None = None, pool: Callable[[], PoolStatus] = no_pool) -> Metrics:
    return played(figures or EngineStats(), pool)


def page(of: Metrics) -> dict[str, float]:
    """Samples by name and labels. The page must be one that Prometheus can read."""
    samples = [s for family in families(text(of)) for s in family.samples]
    found = {s.name + "".join(f",{k}={v}" for k, v in sorted(s.labels.items())): s.value for s in samples}
    assert len(found) == len(samples)
    return found


def ask(of: Metrics, *pieces: Piece, tenant: str = "t", prompt: int = 3) -> None:
    with of.request(GenerationRequest("id", (7,) * prompt, tenant=tenant), time.monotonic()) as watch:
        for before, piece in pairwise((Piece("", 0), *pieces)):
            watch.piece(piece, piece.tokens - before.tokens)


def test_requests_are_counted_by_tenant_and_outcome() -> None:
    made = metrics()
    ask(made, Piece("a", 1, cached_tokens=2, queue_seconds=0.3), Piece("b", 4), Piece("", 5, "stop"))
    ask(made, Piece("a", 2, "length"), tenant="u", prompt=10)
    ask(made, Piece("a", 1))
    with pytest.raises(ValueError, match="defect"), made.request(GenerationRequest("id", (1,)), 0):
        raise ValueError("defect")
    found = page(made)
    assert found["faasmoe_requests_total,outcome=stop,tenant=t"] == 1
    assert found["faasmoe_requests_total,outcome=length,tenant=u"] == 1
    assert found["faasmoe_requests_total,outcome=cancelled,tenant=t"] == 1
    assert found["faasmoe_requests_total,outcome=error,tenant="] == 1
    assert found["faasmoe_generation_tokens_total,tenant=t"] == 6
    assert found["faasmoe_prompt_tokens_total,tenant=u"] == 10
    assert found["faasmoe_prompt_tokens_cached_total,tenant=t"] == 2
    assert found["faasmoe_request_queue_time_seconds_sum,tenant=t"] == 0.3
    assert found["faasmoe_time_to_first_token_seconds_count,tenant=t"] == 2
    assert found["faasmoe_time_per_output_token_seconds_count,tenant=t"] == 4
    assert found["faasmoe_e2e_request_latency_seconds_count,tenant=t"] == 2


def test_what_requests_use_is_counted_when_it_is_known() -> None:
    made = metrics()

    async def test() -> None:
        streams = [PieceStream(Inbox(), lambda: None) for _ in range(3)]
        made.uses([GenerationRequest(i, (1,), tenant="acme") for i in "abc"], streams)
        await streams[0].aclose()  # it is told all the same
        for stream in streams[:2]:
            stream._inbox.settle(Piece("", 3, "cancelled", used=ResourceUsage(1.5, 2, 3, 0.5, 4)))
        streams[2]._inbox.settle(None)
        await asyncio.sleep(0)

    asyncio.run(test())
    found = {name.removesuffix(",tenant=acme"): value for name, value in page(made).items() if "acme" in name}
    assert {name: value for name, value in found.items() if name.endswith("_total")} == {
        "faasmoe_request_invocations_total": 3,
        "faasmoe_request_expert_seconds_total": 4,
        "faasmoe_request_byte_seconds_total": 6e9,
        "faasmoe_request_cold_starts_total": 1,
        "faasmoe_request_cpu_seconds_total": 8,
    }


def test_refused_requests_are_counted() -> None:
    made = metrics()
    with pytest.raises(EngineBusy), made.refusals([GenerationRequest("a", (1,)), GenerationRequest("b", (1,))]):
        raise EngineBusy("full")
    with made.refusals([GenerationRequest("c", (1,))]):
        pass
    assert page(made)["faasmoe_requests_total,outcome=refused,tenant="] == 2


def test_refusals_by_limits_are_counted_by_limit() -> None:
    made = metrics()
    error = LimitExceeded("too many", code="rate_limit_exceeded", limit="tokens", retry_after=1.0)
    with pytest.raises(LimitExceeded), made.refusals([GenerationRequest(i, (1,), tenant="acme") for i in "ab"]):
        raise error
    found = page(made)
    assert found["faasmoe_requests_limited_total,limit=tokens,tenant=acme"] == 1
    assert found["faasmoe_requests_total,outcome=refused,tenant=acme"] == 2


def test_the_ledger_is_shown() -> None:
    found = page(metrics())
    names = (
        "wrong_keys_total",
        "ledger_written_total",
        "ledger_dropped_total",
        "ledger_waiting",
        "ledger_failing",
    )
    assert [found[f"faasmoe_{name}"] for name in names] == [0, 5, 2, 3, 1]
    assert found["faasmoe_background_failures_total,loop=ledger"] == 4


def test_requests_that_are_turned_away_are_counted() -> None:
    made = metrics()
    made.turned_away(LimitExceeded("x", code="rate_limit_exceeded", limit="requests", retry_after=1.0), "acme")
    found = page(made)
    assert found["faasmoe_requests_limited_total,limit=requests,tenant=acme"] == 1
    assert found["faasmoe_requests_total,outcome=refused,tenant=acme"] == 1


def test_the_number_of_tenants_with_series_is_bounded() -> None:
    made = metrics()
    for i in range(MOST_TENANTS + 20):
        ask(made, Piece("", 1, "stop"), tenant=f"t{i}")
    ask(made, Piece("", 1, "stop"), tenant="t0")
    found = page(made)
    series = {name: value for name, value in found.items() if name.startswith("faasmoe_requests_total")}
    assert len(series) == MOST_TENANTS + 1
    assert series["faasmoe_requests_total,outcome=stop,tenant=other"] == 20
    assert series["faasmoe_requests_total,outcome=stop,tenant=t0"] == 2


def test_figures_of_the_orchestrator_are_shown() -> None:
    figures = EngineStats(running=2, waiting=1, cold_starts=5, phases={"forward": 1.5})
    figures.step_tokens.observe(3)
    figures.step_tokens.observe(9999)
    figures.engine = {"kv_cache_tokens": 200, "kv_cache_tokens_used": 50, "preemptions": 4, "unheard_of": 1,
                      "speculation_proposed": 9, "speculation_accepted": 7}  # fmt: skip
    found = page(metrics(figures))
    assert found["faasmoe_num_requests_running"] == 2
    assert found["faasmoe_num_requests_waiting"] == 1
    assert found["faasmoe_cold_starts_met_total"] == 5
    assert found["faasmoe_iteration_phase_seconds_total,phase=forward"] == 1.5
    assert found["faasmoe_iteration_tokens_bucket,le=2.0"] == 0
    assert found["faasmoe_iteration_tokens_bucket,le=4.0"] == 1
    assert found["faasmoe_iteration_tokens_bucket,le=+Inf"] == 2
    assert found["faasmoe_iteration_tokens_sum"] == 10002
    assert found["faasmoe_kv_cache_usage_perc"] == 0.25
    assert found["faasmoe_num_preemptions_total"] == 4
    assert found["faasmoe_speculation_proposed_tokens_total"] == 9
    assert found["faasmoe_speculation_accepted_tokens_total"] == 7
    assert found["faasmoe_orchestrator_restarts_total"] == 2
    assert found["faasmoe_orchestrators"] == 3
    assert found["faasmoe_orchestrator_start_seconds_count"] == 3
    assert not any("unheard" in name for name in found)


def test_figures_of_the_platform_are_shown() -> None:
    two = (Instance("1", "n"), Instance("2", "n"))
    pool = PoolStatus(
        functions=[FunctionStatus("f", instances=two, invocations=9)], memory_budget=100, memory_used=60, waiting=3,
        latency=[(0.1, 4), (1.0, 5)], totals=PoolTotals(8.0, 2.0, 0.5),
    )  # fmt: skip
    found = page(metrics(pool=lambda: pool))
    assert found["faasmoe_instances,function=f"] == 2
    assert found["faasmoe_invocations_total,function=f"] == 9
    assert found["faasmoe_pool_memory_bytes"] == 60
    assert found["faasmoe_instance_byte_seconds_total"] == 8e9
    assert found["faasmoe_instance_busy_byte_seconds_total"] == 2e9
    assert found["faasmoe_instance_busy_seconds_total"] == 0.5
    assert found["faasmoe_invocation_seconds_bucket,le=+Inf"] == 9


def test_a_platform_that_is_away_takes_only_its_own_series_along() -> None:
    found = page(metrics())
    assert "faasmoe_num_requests_running" in found
    assert not any(name.startswith("faasmoe_instances") for name in found)


def test_the_end_of_a_request_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "faasmoe"):
        ask(metrics(), Piece("SECRET", 1, cached_tokens=2), Piece("SECRET", 4, "stop"))
    (record,) = caplog.records
    said: dict[str, Any] = vars(record)
    assert (said["request"], said["tenant"], said["outcome"]) == ("id", "t", "stop")
    assert (said["prompt_tokens"], said["cached_tokens"], said["generation_tokens"]) == (3, 2, 4)
    assert 0 <= said["first_token_seconds"] <= said["seconds"]
    assert "SECRET" not in str(said)
