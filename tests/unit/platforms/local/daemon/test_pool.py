from __future__ import annotations

import math
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.daemon.pool import (
    INSTANCE_BYTES,
    FunctionState,
    InstanceState,
    Pool,
)
from tests.unit.platforms.local.daemon.pools import MIB, NOW, SECOND, answer, function_spec, pool_of, start

# duty


def test_an_instance_that_is_kept_for_ever_is_told_of_no_end() -> None:
    for keep_alive, kept, told in ((60.0, False, 60.0), (math.inf, False, None), (60.0, True, None)):
        pool = pool_of(None, function_spec(keep_alive=keep_alive))
        assert start(pool, pool.functions["f"], kept).duty(0).keep_alive == told


# choose


def test_a_function_without_instances_needs_one() -> None:
    pool = pool_of(None, function_spec())
    assert pool.choose(pool.functions["f"], NOW) is None


def test_an_idle_instance_comes_before_a_busy_one() -> None:
    pool = pool_of(None, function_spec(max_instances=3))
    function = pool.functions["f"]
    start(pool, function, in_flight=1)
    idle = start(pool, function)
    start(pool, function, in_flight=2)
    assert pool.choose(function, NOW) is idle


def test_a_busy_instance_with_room_comes_before_another_instance() -> None:
    pool = pool_of(None, function_spec(max_instances=3, concurrency=2))
    function = pool.functions["f"]
    busy = start(pool, function, in_flight=1)
    assert pool.choose(function, NOW) is busy
    busy.record.in_flight = 2
    assert pool.choose(function, NOW) is None


def test_callers_share_at_the_maximum_of_instances() -> None:
    pool = pool_of(None, function_spec(max_instances=2))
    function = pool.functions["f"]
    start(pool, function, in_flight=3)
    assert pool.choose(function, NOW) is None
    second = start(pool, function, in_flight=2)
    assert pool.choose(function, NOW) is second


def test_callers_share_when_there_is_no_memory_for_another_instance() -> None:
    charge = FunctionState(function_spec()).charge
    pool = pool_of(2 * charge - 1, function_spec(max_instances=2))
    function = pool.functions["f"]
    busy = start(pool, function, in_flight=1)
    assert pool.choose(function, NOW) is busy
    pool.budget = 2 * charge
    assert pool.choose(function, NOW) is None


def test_a_draining_instance_is_never_chosen() -> None:
    pool = pool_of(None, function_spec(max_instances=2))
    function = pool.functions["f"]
    draining, busy = start(pool, function), start(pool, function, in_flight=1)
    draining.draining = True
    assert function.live == [busy]
    assert pool.choose(function, NOW) is None  # one of two may be started
    busy.draining = True
    assert pool.choose(function, NOW) is None


def test_a_promise_counts_as_a_call_until_it_is_kept_or_too_old() -> None:
    pool = pool_of(None, function_spec(max_instances=2))
    function = pool.functions["f"]
    running = start(pool, function)
    assert pool.choose(function, NOW) is running
    running.promise(NOW)
    assert running.load(NOW) == 1
    assert not running.idle(NOW)
    assert pool.choose(function, NOW) is None
    assert running.idle(NOW + 2 * SECOND)  # nobody came
    answer(running, 100)
    assert running.idle(NOW)  # somebody came and went
    assert pool.choose(function, NOW) is running


# memory


def test_shortage_counts_instances_the_platform_itself_and_the_newcomer() -> None:
    charge = FunctionState(function_spec()).charge
    assert charge == 10 * MIB + INSTANCE_BYTES
    pool = pool_of(None, function_spec(max_instances=2))
    start(pool, pool.functions["f"])
    assert pool.shortage(1 << 60) == 0
    pool.budget, pool.own = 2 * charge + 100, 100
    assert pool.used == charge + 100
    assert pool.shortage(charge) == 0
    assert pool.shortage(charge + 7) == 7


def test_what_may_not_be_disturbed_is_not_evictable() -> None:
    changes: list[Callable[[InstanceState], None]] = [
        lambda running: setattr(running, "kept", True),
        lambda running: setattr(running.record, "in_flight", 1),
        lambda running: setattr(running.record, "mapped", 0),
        lambda running: running.promise(NOW),
    ]
    for change in changes:
        pool = pool_of(FunctionState(function_spec()).charge, function_spec())
        running = start(pool, pool.functions["f"])
        assert pool.evictable(1, NOW) == [running]
        change(running)
        assert pool.evictable(1, NOW) == []


def test_draining_instances_are_waited_for_before_others_go() -> None:
    charge = FunctionState(function_spec()).charge
    pool = pool_of(2 * charge, function_spec("a"), function_spec("b"))
    leaving, idle = (start(pool, function) for function in pool.functions.values())
    leaving.draining = True
    assert pool.evictable(charge, NOW) == []
    assert pool.evictable(charge + 1, NOW) == [idle]


def test_the_least_used_goes_first() -> None:
    pool = pool_of(2 * FunctionState(function_spec()).charge, function_spec("often"), function_spec("seldom"))
    often, seldom = (start(pool, function) for function in pool.functions.values())
    answer(often, *[100] * 20)
    answer(seldom, 100)
    assert pool.evictable(FunctionState(function_spec()).charge, NOW) == [seldom]


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    memories = draw(st.lists(st.integers(0, 50), min_size=1, max_size=5))
    kinds = [function_spec(f"f{i}", memory=m * MIB, max_instances=9) for i, m in enumerate(memories)]
    pool = pool_of(draw(st.integers(0, 400)) * MIB, *kinds)
    pool.own = draw(st.integers(0, 60)) * MIB
    for _ in range(draw(st.integers(0, 10))):
        function = pool.functions[f"f{draw(st.integers(0, len(kinds) - 1))}"]
        running = start(pool, function, kept=draw(st.booleans()), mapped=draw(st.integers(0, 4)) > 0)
        running.record.in_flight = draw(st.sampled_from([0, 0, 0, 1, 3]))
        running.record.last_used = NOW - draw(st.integers(0, 500)) * SECOND
        answer(running, *[100] * draw(st.integers(0, 5)))
        running.draining = draw(st.integers(0, 4)) == 0
        if draw(st.integers(0, 4)) == 0:
            running.promise(NOW)
    return pool


@given(pools(), st.integers(0, 80))
def test_with_the_evicted_and_the_draining_gone_the_newcomer_fits(pool: Pool, megabytes: int) -> None:
    charge = megabytes * MIB + INSTANCE_BYTES
    idle = [
        running
        for running in pool.instances.values()
        if running.idle(NOW) and not running.kept and not running.draining
    ]
    evicted = pool.evictable(charge, NOW)
    assert len(set(map(id, evicted))) == len(evicted)
    assert all(any(running is one for one in idle) for running in evicted)
    for running in [running for running in pool.instances.values() if running.draining]:
        pool.remove(running, "", NOW)
    enough_without = pool.shortage(charge) == 0
    assert not (enough_without and evicted)
    for running in evicted or idle:
        pool.remove(running, "", NOW)
    if evicted:
        assert pool.shortage(charge) == 0
    elif not enough_without:
        assert pool.shortage(charge) > 0  # not even all of the idle ones would do


@given(
    st.integers(0, 200),
    st.lists(
        st.tuples(st.sampled_from(["call", "call", "answer", "end"]), st.integers(0, 3), st.integers(0, 9)),
        max_size=40,
    ),
)
def test_the_budget_is_never_exceeded(budget: int, events: list[tuple[str, int, int]]) -> None:
    """Callers come and go; an instance is started only when nothing is missing for it."""
    kinds = [function_spec(f"f{i}", memory=(5 + 20 * i) * MIB, max_instances=1 + i) for i in range(4)]
    pool = pool_of(budget * MIB, *kinds)
    pool.own = min(10, budget) * MIB
    for number, (event, which, pick) in enumerate(events):
        now = NOW + number * SECOND
        function = pool.functions[f"f{which}"]
        charge = function.charge
        if event == "call":
            running = pool.choose(function, now)
            if running is None and pool.shortage(charge):
                victims = pool.evictable(charge, now)
                for victim in victims:
                    victim.evicted = True
                    pool.remove(victim, "", NOW)
                assert not victims or pool.shortage(charge) == 0
            if running is None and pool.shortage(charge) == 0:
                running = start(pool, function)
            if running is not None:
                running.record.in_flight += 1
        elif function.instances:
            running = function.instances[pick % len(function.instances)]
            if event == "end":
                pool.remove(running, "it died", NOW)
            elif running.record.in_flight:
                running.record.in_flight -= 1
                running.record.last_used = now
                answer(running, 100)
        assert pool.own <= pool.used <= pool.budget
        assert all(len(f.instances) <= f.spec.max_instances for f in pool.functions.values())
