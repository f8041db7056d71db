from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.client.placement import ANY, SEND, WAKE, assign, relieve

CORES = st.lists(st.integers(0, 64), min_size=1, max_size=8, unique=True)
CALLS = st.lists(st.tuples(st.integers(-1, 64), st.sampled_from([1e-5, 1e-3, 2e-3, 3.5e-3, 0.04])), max_size=40)
LONG = 1e-3
SHORT = WAKE / 5


def ends_of(assigned: list[int], seconds: list[float], cores: list[int], own: int = ANY) -> dict[int, float]:
    ends = {core: SEND * len(assigned) if core == own else WAKE for core in cores}
    for core, its_seconds in zip(assigned, seconds, strict=True):
        if core != ANY:
            ends[core] += its_seconds
    return ends


@given(CALLS, CORES, st.booleans())
def test_no_core_has_a_call_that_another_could_have_begun_much_sooner(
    calls: list, cores: list, waits: bool
) -> None:
    current, seconds = [call[0] for call in calls], [call[1] for call in calls]
    own = cores[0] if waits else ANY
    assigned = assign(current, seconds, cores, own)
    ends = ends_of(assigned, seconds, cores, own)
    last = max(ends.values())
    assert len(assigned) == len(calls)
    for core, its_seconds in zip(assigned, seconds, strict=True):
        if core == ANY or assigned == current:  # which was good enough to be left
            continue
        assert ends[core] - its_seconds <= min(ends.values()) + 0.05 * last + 1e-12


@given(CALLS, CORES)
def test_calls_are_left_unbound_where_all_cores_are_about_equal(calls: list, cores: list[int]) -> None:
    seconds = [call[1] for call in calls]
    assigned = assign([call[0] for call in calls], seconds, cores)
    unbound = assigned.count(ANY)
    ends = ends_of(assigned, seconds, cores).values()
    assert unbound < len(cores)
    assert unbound == 0 or max(ends) - min(ends) <= WAKE


@given(CALLS, CORES, st.booleans())
def test_what_is_well_spread_is_left_alone(calls: list, cores: list[int], waits: bool) -> None:
    seconds, own = [call[1] for call in calls], cores[0] if waits else ANY
    once = assign([call[0] for call in calls], seconds, cores, own)
    if ANY not in once:
        assert assign(once, seconds, cores, own) == once


def test_calls_stay_where_they_are_if_that_is_as_good() -> None:
    assert assign([1, 0, 1, 0], [LONG, 1.03 * LONG, 1.02 * LONG, LONG], [0, 1], 0) == [1, 0, 1, 0]
    assert assign([1, 1, ANY], [2 * LONG, LONG, LONG], [0, 1]) == [0, 1, 1]
    assert sorted(assign([0, 0], [LONG] * 2, [0, 1])) == [0, 1]


def test_long_calls_have_a_core_for_themselves() -> None:
    assert assign([0, 0, 0], [LONG, 2 * LONG, LONG], [0, 1]) == [1, 0, 1]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_calls_wake_no_other_core_while_their_caller_waits(count: int) -> None:
    assert assign([0] * count, [SHORT] * count, [0, 1], 1) == [1] * count
    assert assign([ANY] * count, [SHORT] * count, [0, 1], 1) == [1] * count


def test_another_core_has_the_time_to_wake_while_many_calls_are_sent() -> None:
    assert sorted(assign([0] * 4, [WAKE / 2] * 4, [0, 1], 0)) == [0, 0, 1, 1]
    assert assign([0, 1, 0, 1], [WAKE / 2] * 4, [0, 1], 1) == [0, 1, 0, 1]


def test_a_call_alone_runs_where_its_caller_waits_or_where_the_kernel_likes() -> None:
    for seconds in (SHORT, LONG):
        assert assign([0], [seconds], [0, 1], 1) == [1]
        assert assign([5], [seconds], [0, 1]) == [ANY]


def test_the_last_of_long_calls_goes_where_a_core_falls_idle_first() -> None:
    assert sorted(assign([0, 1, 0], [LONG] * 3, [0, 1], 1)) == [ANY, 0, 1]
    assert assign([0, 1, 0], [SHORT] * 3, [0, 1], 1) == [1] * 3


@given(st.lists(st.integers(-1, 8), max_size=20), CORES)
def test_no_core_idles_while_another_holds_two_calls(current: list[int], cores: list[int]) -> None:
    moved = relieve(current, cores)
    held = [moved.count(core) for core in cores]
    waits_for_the_kernel = moved.count(ANY)
    assert held.count(0) <= waits_for_the_kernel or max(held) < 2
    # nobody is moved to a core that has something to do, nor away from one that would be left idle
    changed = [core for core, was in zip(moved, current, strict=True) if core != was]
    assert all(core in cores and core not in current for core in changed)
    assert all(moved.count(core) >= 1 for core in set(current) & set(cores))
    assert relieve(moved, cores) == moved


def test_the_last_of_the_fullest_core_moves() -> None:
    assert relieve([0, 0, 0], [0, 1]) == [0, 0, 1]
    assert relieve([0, 2, 2, 0, 2], [0, 1, 2]) == [0, 2, 2, 0, 1]
    assert relieve([0, 0], [0, 1, 2]) == [0, 1]
    assert relieve([0, 0, ANY], [0, 1]) == [0, 0, ANY]  # the one that is not bound is there already
    assert relieve([], [0, 1]) == []
