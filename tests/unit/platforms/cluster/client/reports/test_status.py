"""The status of a cluster."""

from __future__ import annotations

from faasmoe.platforms.base import FunctionStatus, Instance, PoolStatus, PoolTotals
from faasmoe.platforms.cluster.client.reports.status import joined


def report(state: str, calls: int, budget: int | None = 100, p50: float = 1.0) -> PoolStatus:
    instances = (Instance("7", "machine"),) if state != "zero" else ()
    function = FunctionStatus(
        "f",
        state,
        instances,
        invocations=calls,
        cold_starts=1,
        deaths=1,
        evictions=1,
        p50=p50,
        p99=2 * p50,
        memory=10,
    )
    return PoolStatus(
        functions=[function, FunctionStatus("removed")],
        memory_budget=budget,
        memory_used=50,
        waiting=1,
        latency=[(1.0, calls), (2.0, 0)],
        cold_start_phases={"map": (1, 0.5)},
        totals=PoolTotals(1.0, 0.5, 0.25, calls, 1),
    )


def test_nodes_are_summed_up() -> None:
    status = joined({"a": report("idle", 30), "b": report("busy", 10, p50=2.0)}, [], ["f", "g"])
    function, other = status.functions
    assert function == FunctionStatus(
        "f", "busy", (Instance("a/7", "a"), Instance("b/7", "b")), invocations=40, cold_starts=2, deaths=2,
        evictions=2, p50=1.25, p99=4.0, memory=20,
    )  # fmt: skip
    assert other == FunctionStatus("g")
    assert (status.memory_budget, status.memory_used, status.waiting) == (200, 100, 2)
    assert status.latency == [(1.0, 40), (2.0, 0)]
    assert status.cold_start_phases == {"map": (2, 1.0)}
    assert status.totals == PoolTotals(2.0, 1.0, 0.5, 40, 2)


def test_what_a_lost_node_has_counted_stays_counted() -> None:
    status = joined({"a": report("idle", 30)}, [report("busy", 10)], ["f"])
    assert status.functions[0].invocations == 40
    assert (status.functions[0].state, status.functions[0].instances) == ("idle", (Instance("a/7", "a"),))
    assert (status.memory_budget, status.memory_used) == (100, 50)
    assert status.totals.invocations == 40


def test_a_budget_that_one_node_lacks_is_none() -> None:
    assert joined({"a": report("idle", 1), "b": report("idle", 1, None)}, [], []).memory_budget is None
    assert joined({}, [], ["f"]).memory_budget is None
