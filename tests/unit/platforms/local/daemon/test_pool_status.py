from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.latency import BUCKETS, bound_of
from faasmoe.platforms.local.daemon.pool import (
    FunctionState,
    Pool,
    phases,
)
from faasmoe.platforms.local.protocol.stats_page import InstanceStats
from tests.unit.platforms.local.daemon.pools import MIB, NOW, SECOND, answer, function_spec, pool_of, start


def test_least_has_one_of_each_and_all_that_are_kept() -> None:
    small, large = function_spec("small", memory=MIB), function_spec("large", memory=100 * MIB)
    kept = function_spec("kept", memory=7 * MIB, min_instances=2, max_instances=2)
    pool = pool_of(None, small, large, kept)
    pool.own = 13
    always = 13 + 2 * FunctionState(kept).charge
    assert pool.least([]) == always
    assert pool.least(["small"]) == always + FunctionState(small).charge
    assert (
        pool.least(["large", "small", "large"])
        == always + FunctionState(small).charge + FunctionState(large).charge
    )
    assert pool.least(["kept"]) == always  # one of the two will do


def test_a_larger_function_takes_longer_to_start() -> None:
    pool = Pool(None)
    small, large = (pool.cold_start_seconds(function_spec(memory=m * MIB)) for m in (1, 1000))
    assert 0 < small < 0.1 < large


# what those who look see


def test_states() -> None:
    pool = pool_of(None, function_spec(max_instances=2))
    function = pool.functions["f"]
    assert function.status().state == "zero"
    running = start(pool, function, mapped=False)
    running.promise(NOW)
    assert function.status().state == "starting"
    assert function.status().instances == ()
    running.record.forked, running.record.mapped, running.pid = NOW - 20, NOW - 10, 4711
    assert function.status().state == "idle"  # it is about to be called, but was not
    running.record.in_flight = 1
    assert function.status().state == "busy"
    second = start(pool, function, mapped=False)
    second.pid = 4712
    status = function.status()
    assert (status.state, [each.id for each in status.instances]) == ("busy", ["4711", "4712"])
    assert status.memory == 2 * function.charge
    pool.remove(running, "", NOW)
    pool.remove(second, "", NOW)
    assert function.status().state == "zero"
    assert function.status().memory == 0


def test_sums_survive_the_end_of_instances() -> None:
    pool = pool_of(None, function_spec(max_instances=3), function_spec("never"))
    function = pool.functions["f"]
    gone, evicted, alive = (start(pool, function) for _ in range(3))
    answer(gone, 100, 200, 300)
    answer(evicted, 100)
    answer(alive, 100, 100)
    before = pool.status(NOW)
    pool.remove(gone, "killed by SIGKILL", NOW)
    evicted.evicted = True
    pool.remove(evicted, "", NOW)
    after = pool.status(NOW)
    assert after.latency == before.latency
    assert len(after.latency) == BUCKETS
    assert after.latency[4] == (bound_of(4), 6)
    assert sum(count for _, count in after.latency) == 6
    status, never = after.functions
    assert (status.invocations, status.cold_starts, status.deaths, status.evictions) == (6, 3, 1, 1)
    assert (status.p50, status.p99) == (bound_of(4), bound_of(4))
    assert function.last_end == "killed by SIGKILL"
    assert (never.invocations, never.p50, never.p99, never.state) == (0, None, None, "zero")
    assert after.memory_used == pool.used == function.charge
    assert pool.instances == {alive.path: alive}


@given(st.integers(0, 100), st.integers(0, 1000), st.booleans())
def test_totals_survive_the_end_of_instances_and_of_functions(idle: int, later: int, removed: bool) -> None:
    pool = pool_of(None, function_spec(), function_spec("g", memory=50 * MIB))
    first, second = (start(pool, pool.functions[name]) for name in "fg")
    for running, busy in ((first, SECOND), (second, SECOND // 2)):
        answer(running, busy)
        running.record.busy = busy
    gb = [running.charge / 1e9 for running in (first, second)]
    pool.remove(first, "", NOW + idle)
    if removed:
        del pool.functions["f"]
    totals = pool.status(NOW + later).totals
    lived = [2 + idle / 1e9, 2 + later / 1e9]
    assert totals.instance_gb_seconds == pytest.approx(gb[0] * lived[0] + gb[1] * lived[1])
    assert totals.busy_gb_seconds == pytest.approx(gb[0] + gb[1] / 2)
    assert (totals.busy_seconds, totals.invocations, totals.cold_starts) == (1.5, 2, 2)


def test_pool_status_says_what_memory_is_there_and_who_waits() -> None:
    pool = pool_of(500 * MIB, function_spec())
    pool.own, pool.waiting = 3 * MIB, 2
    start(pool, pool.functions["f"])
    status = pool.status(NOW)
    assert (status.memory_budget, status.memory_used) == (
        500 * MIB,
        3 * MIB + FunctionState(function_spec()).charge,
    )
    assert status.waiting == 2


def test_cold_start_phases_are_those_that_are_over() -> None:
    record = InstanceStats(activated=5 * SECOND)
    assert list(phases(record)) == []
    record.forked = 6 * SECOND
    assert list(phases(record)) == [("fork", 1.0)]
    record.mapped = 8 * SECOND
    assert list(phases(record)) == [("fork", 1.0), ("map", 2.0)]
    record.touched, record.first_call = 20 * SECOND, SECOND // 2
    assert list(phases(record)) == [("fork", 1.0), ("map", 2.0), ("first_touch", 0.5)]


def test_cold_start_phases_of_living_and_ended_instances_add_up() -> None:
    pool = pool_of(None, function_spec(max_instances=3))
    function = pool.functions["f"]
    first, second, third = start(pool, function), start(pool, function), start(pool, function, mapped=False)
    answer(first, SECOND // 4)
    answer(second, SECOND // 2)
    expected = {"fork": (2, 0.01), "map": (2, 1.99), "first_touch": (2, 0.75)}
    for ending in (None, first, third, second):
        if ending:
            pool.remove(ending, "", NOW)
        found = pool.status(NOW).cold_start_phases
        assert found.keys() == expected.keys()
        for phase, (count, seconds) in expected.items():
            assert found[phase] == (count, pytest.approx(seconds))
