from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.pool import (
    INSTANCE_BYTES,
    Deployment,
    Function,
    Pool,
    Running,
    deployment_from,
    phases,
)
from faasmoe.platforms.local.record import BUCKETS, Record, bound_of

MIB = 1 << 20
SECOND = 1_000_000_000
NOW = 1000 * SECOND
RAW = {
    "name": "layer3.block1",
    "handler": "module:attribute",
    "artifact": "/weights",
    "memory": 10 * MIB,
    "files": [["/weights/a", 64, 4096]],
    "keep_alive": None,
    "min_instances": 0,
    "max_instances": 1,
    "concurrency": 1,
}


def deployment(name: str = "f", **changes: Any) -> Deployment:
    return deployment_from({**RAW, "name": name, **changes}, 60.0)


def pool_of(budget: int | None, *deployments: Deployment) -> Pool:
    pool = Pool(budget)
    pool.functions = {d.name: Function(d) for d in deployments}
    return pool


def start(pool: Pool, function: Function, kept: bool = False, mapped: bool = True, **figures: int) -> Running:
    """An instance that was activated two seconds ago."""
    record = Record(activated=NOW - 2 * SECOND, last_used=NOW - SECOND, **figures)
    if mapped:
        record.forked, record.mapped = NOW - 2 * SECOND + 5_000_000, NOW - SECOND
    running = Running(function, f"/{function.deployment.name}/{function.counts['cold_starts']}.sock", record, kept)
    pool.add(running)
    return running


def answer(running: Running, *nanoseconds: int) -> None:
    """The instance has answered calls."""
    for duration in nanoseconds:
        if not running.record.invocations:
            running.record.touched, running.record.first_call = NOW, duration
        running.record.invocations += 1
        running.record.latency[4] += 1  # as if they all took two times the shortest


# choose


def test_a_function_without_instances_needs_one() -> None:
    pool = pool_of(None, deployment())
    assert pool.choose(pool.functions["f"], NOW) is None


def test_an_idle_instance_comes_before_a_busy_one() -> None:
    pool = pool_of(None, deployment(max_instances=3))
    function = pool.functions["f"]
    start(pool, function, in_flight=1)
    idle = start(pool, function)
    start(pool, function, in_flight=2)
    assert pool.choose(function, NOW) is idle


def test_a_busy_instance_with_room_comes_before_another_instance() -> None:
    pool = pool_of(None, deployment(max_instances=3, concurrency=2))
    function = pool.functions["f"]
    busy = start(pool, function, in_flight=1)
    assert pool.choose(function, NOW) is busy
    busy.record.in_flight = 2
    assert pool.choose(function, NOW) is None


def test_callers_share_at_the_maximum_of_instances() -> None:
    pool = pool_of(None, deployment(max_instances=2))
    function = pool.functions["f"]
    start(pool, function, in_flight=3)
    assert pool.choose(function, NOW) is None
    second = start(pool, function, in_flight=2)
    assert pool.choose(function, NOW) is second


def test_callers_share_when_there_is_no_memory_for_another_instance() -> None:
    charge = deployment().charge
    pool = pool_of(2 * charge - 1, deployment(max_instances=2))
    function = pool.functions["f"]
    busy = start(pool, function, in_flight=1)
    assert pool.choose(function, NOW) is busy
    pool.budget = 2 * charge
    assert pool.choose(function, NOW) is None


def test_a_draining_instance_is_never_chosen() -> None:
    pool = pool_of(None, deployment(max_instances=2))
    function = pool.functions["f"]
    draining, busy = start(pool, function), start(pool, function, in_flight=1)
    draining.draining = True
    assert function.live == [busy]
    assert pool.choose(function, NOW) is None  # one of two may be started
    busy.draining = True
    assert pool.choose(function, NOW) is None


def test_a_promise_counts_as_a_call_until_it_is_kept_or_too_old() -> None:
    pool = pool_of(None, deployment(max_instances=2))
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
    charge = deployment().charge
    assert charge == 10 * MIB + INSTANCE_BYTES
    pool = pool_of(None, deployment(max_instances=2))
    start(pool, pool.functions["f"])
    assert pool.shortage(1 << 60) == 0
    pool.budget, pool.own = 2 * charge + 100, 100
    assert pool.used == charge + 100
    assert pool.shortage(charge) == 0
    assert pool.shortage(charge + 7) == 7


def test_what_may_not_be_disturbed_is_not_evictable() -> None:
    changes: list[Callable[[Running], None]] = [
        lambda running: setattr(running, "kept", True),
        lambda running: setattr(running.record, "in_flight", 1),
        lambda running: setattr(running.record, "mapped", 0),
        lambda running: running.promise(NOW),
    ]
    for change in changes:
        pool = pool_of(deployment().charge, deployment())
        running = start(pool, pool.functions["f"])
        assert pool.evictable(1, NOW) == [running]
        change(running)
        assert pool.evictable(1, NOW) == []


def test_draining_instances_are_waited_for_before_others_go() -> None:
    charge = deployment().charge
    pool = pool_of(2 * charge, deployment("a"), deployment("b"))
    leaving, idle = (start(pool, function) for function in pool.functions.values())
    leaving.draining = True
    assert pool.evictable(charge, NOW) == []
    assert pool.evictable(charge + 1, NOW) == [idle]


def test_the_least_used_goes_first() -> None:
    pool = pool_of(2 * deployment().charge, deployment("often"), deployment("seldom"))
    often, seldom = (start(pool, function) for function in pool.functions.values())
    answer(often, *[100] * 20)
    answer(seldom, 100)
    assert pool.evictable(deployment().charge, NOW) == [seldom]


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    memories = draw(st.lists(st.integers(0, 50), min_size=1, max_size=5))
    kinds = [deployment(f"f{i}", memory=m * MIB, max_instances=9) for i, m in enumerate(memories)]
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
    kinds = [deployment(f"f{i}", memory=(5 + 20 * i) * MIB, max_instances=1 + i) for i in range(4)]
    pool = pool_of(budget * MIB, *kinds)
    pool.own = min(10, budget) * MIB
    for number, (event, which, pick) in enumerate(events):
        now = NOW + number * SECOND
        function = pool.functions[f"f{which}"]
        charge = function.deployment.charge
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
        assert all(len(f.instances) <= f.deployment.max_instances for f in pool.functions.values())


def test_least_has_one_of_each_and_all_that_are_kept() -> None:
    small, large = deployment("small", memory=MIB), deployment("large", memory=100 * MIB)
    kept = deployment("kept", memory=7 * MIB, min_instances=2, max_instances=2)
    pool = pool_of(None, small, large, kept)
    pool.own = 13
    always = 13 + 2 * kept.charge
    assert pool.least([]) == always
    assert pool.least(["small"]) == always + small.charge
    assert pool.least(["large", "small", "large"]) == always + small.charge + large.charge
    assert pool.least(["kept"]) == always  # one of the two will do


def test_a_larger_function_takes_longer_to_start() -> None:
    pool = Pool(None)
    small, large = (pool.cold_start_seconds(deployment(memory=m * MIB)) for m in (1, 1000))
    assert 0 < small < 0.1 < large


# what those who look see


def test_states() -> None:
    pool = pool_of(None, deployment(max_instances=2))
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
    assert (status.state, status.instances) == ("busy", (4711, 4712))
    assert status.memory == 2 * function.deployment.charge
    pool.remove(running, "", NOW)
    pool.remove(second, "", NOW)
    assert function.status().state == "zero"
    assert function.status().memory == 0


def test_sums_survive_the_end_of_instances() -> None:
    pool = pool_of(None, deployment(max_instances=3), deployment("never"))
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
    assert after.memory_used == pool.used == function.deployment.charge
    assert pool.instances == {alive.path: alive}


@given(st.integers(0, 100), st.integers(0, 1000), st.booleans())
def test_totals_survive_the_end_of_instances_and_of_functions(idle: int, later: int, removed: bool) -> None:
    pool = pool_of(None, deployment(), deployment("g", memory=50 * MIB))
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
    pool = pool_of(500 * MIB, deployment())
    pool.own, pool.waiting = 3 * MIB, 2
    start(pool, pool.functions["f"])
    status = pool.status(NOW)
    assert (status.memory_budget, status.memory_used) == (500 * MIB, 3 * MIB + deployment().charge)
    assert status.waiting == 2


def test_cold_start_phases_are_those_that_are_over() -> None:
    record = Record(activated=5 * SECOND)
    assert list(phases(record)) == []
    record.forked = 6 * SECOND
    assert list(phases(record)) == [("fork", 1.0)]
    record.mapped = 8 * SECOND
    assert list(phases(record)) == [("fork", 1.0), ("map", 2.0)]
    record.touched, record.first_call = 20 * SECOND, SECOND // 2
    assert list(phases(record)) == [("fork", 1.0), ("map", 2.0), ("first_touch", 0.5)]


def test_cold_start_phases_of_living_and_ended_instances_add_up() -> None:
    pool = pool_of(None, deployment(max_instances=3))
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


# control messages


def test_a_deployment_is_what_the_message_says() -> None:
    given_ = deployment_from(
        {**RAW, "min_instances": 1, "max_instances": 4, "concurrency": 2, "keep_alive": 3}, 60.0
    )
    assert dataclasses.asdict(given_) == {
        **RAW,
        "files": (("/weights/a", 64, 4096),),
        "keep_alive": 3.0,
        "min_instances": 1,
        "max_instances": 4,
        "concurrency": 2,
    }
    assert deployment_from(RAW, 60.0).keep_alive == 60.0
    assert deployment_from({**RAW, "keep_alive": 0}, 60.0).keep_alive == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"handler": "module.attribute"}, "is not module:attribute"),
        ({"min_instances": 2, "max_instances": 1}, "from 2 to 1 instances"),
        ({"min_instances": -1}, "from -1 to 1 instances"),
        ({"max_instances": 0}, "from 0 to 0 instances"),
        ({"concurrency": 0}, "concurrency is at least 1"),
        ({"keep_alive": -0.5}, "keep-alive and memory at least 0"),
        ({"memory": -1}, "keep-alive and memory at least 0"),
    ],
)
def test_a_deployment_that_makes_no_sense_is_refused_by_name(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        deployment_from({**RAW, **changes}, 60.0)
    assert "layer3.block1" in str(caught.value)


@pytest.mark.parametrize("missing", RAW)
def test_a_deployment_without_a_field_is_refused(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        deployment_from({key: value for key, value in RAW.items() if key != missing}, 60.0)


@pytest.mark.parametrize(
    "changes", [{"memory": None}, {"memory": "much"}, {"concurrency": []}, {"files": 3}, {"files": [["/a", 1]]}]
)
def test_a_deployment_of_other_types_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        deployment_from({**RAW, **changes}, 60.0)
