"""What lost nodes have done."""

from __future__ import annotations

import pytest

from faasmoe.platforms.base import FunctionStatus, PoolStatus, PoolTotals
from faasmoe.platforms.cluster.client.reports.meters import Meters
from faasmoe.platforms.cluster.protocol.messages import NodeReport, Traffic
from tests.unit.clocks import Clock


def report(calls: int, lived: float) -> NodeReport:
    """Of a node with 2 GB of instances."""
    functions = [FunctionStatus("f", "idle", memory=int(15e8)), FunctionStatus("g", "busy", memory=int(5e8))]
    totals = PoolTotals(lived, 0.1 * calls, 0.2 * calls, calls, 2)
    pool = PoolStatus(functions=functions, memory_used=int(3e9), totals=totals)
    traffic = Traffic(calls, busy_seconds=0.2 * calls, busy_gb_seconds=0.1 * calls)
    return NodeReport(state="ready", pool=pool, traffic=traffic, work={})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meters(clock: Clock) -> Meters:
    return Meters(clock)


def test_a_lost_node_counts_until_its_last_heartbeat(meters: Meters, clock: Clock) -> None:
    meters.report("a1", report(10, 50.0))
    clock.now += 4.0
    meters.beat("a1", Traffic(13, busy_seconds=2.6, busy_gb_seconds=1.3))
    clock.now += 100.0
    assert meters.gone({"a1"}) == []
    (gone,) = meters.gone(set())
    assert gone.totals.instance_gb_seconds == pytest.approx(58.0)
    assert (gone.totals.busy_gb_seconds, gone.totals.busy_seconds) == pytest.approx((1.3, 2.6))
    assert (gone.totals.invocations, gone.totals.cold_starts) == (13, 2)


def test_a_report_holds_whatever_heartbeats_have_told_before(meters: Meters, clock: Clock) -> None:
    meters.beat("a1", Traffic(99))  # before the first report nothing is known of its instances
    meters.report("a1", report(10, 50.0))
    meters.beat("a1", Traffic(12))
    clock.now += 1.0
    meters.report("a1", report(20, 60.0))
    assert [each.totals for each in meters.gone(set())] == [report(20, 60.0).pool.totals]


def test_an_agent_that_is_started_again_counts_beside_what_it_was_before(meters: Meters) -> None:
    meters.report("a1", report(10, 50.0))
    meters.report("a2", report(1, 1.0))
    assert [each.totals.invocations for each in meters.gone({"a2"})] == [10]
    assert sum(each.totals.invocations for each in meters.gone(set())) == 11
