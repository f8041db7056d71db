from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.spread import ANY, assign

CORES = st.lists(st.integers(0, 64), min_size=1, max_size=8, unique=True)
CALLS = st.lists(st.tuples(st.integers(-1, 64), st.sampled_from([1.0, 2.0, 3.5, 40.0])), max_size=40)


def loads_of(assigned: list[int], work: list[float], cores: list[int]) -> dict[int, float]:
    loads = dict.fromkeys(cores, 0.0)
    for core, its_work in zip(assigned, work, strict=True):
        if core != ANY:
            loads[core] += its_work
    return loads


@given(CALLS, CORES)
def test_no_core_has_a_call_that_another_could_begin_sooner(calls: list, cores: list[int]) -> None:
    current, work = [call[0] for call in calls], [call[1] for call in calls]
    assigned = assign(current, work, cores)
    loads = loads_of(assigned, work, cores)
    assert len(assigned) == len(calls)
    for core, its_work in zip(assigned, work, strict=True):
        assert core == ANY or loads[core] - its_work <= min(loads.values())


@given(CALLS, CORES)
def test_calls_are_left_unbound_where_all_cores_are_equal(calls: list, cores: list[int]) -> None:
    work = [call[1] for call in calls]
    assigned = assign([call[0] for call in calls], work, cores)
    unbound = assigned.count(ANY)
    assert unbound < len(cores)
    assert unbound == 0 or len(set(loads_of(assigned, work, cores).values())) == 1


@given(CALLS, CORES)
def test_what_is_well_spread_is_left_alone(calls: list, cores: list[int]) -> None:
    work = [1.0] * len(calls)
    once = assign([call[0] for call in calls], work, cores)
    assert assign(once, work, cores) == once


def test_calls_stay_where_they_are_if_there_is_room() -> None:
    assert assign([1, 0, 1, 0], [1.0] * 4, [0, 1]) == [1, 0, 1, 0]
    assert assign([1, 1, ANY], [2.0, 1.0, 1.0], [0, 1]) == [1, 0, 0]
    assert sorted(assign([0, 0], [1.0] * 2, [0, 1])) == [0, 1]
    assert assign([5], [1.0], [0, 1]) == [ANY]


def test_long_calls_have_a_core_for_themselves() -> None:
    assert assign([0, 0, 0], [1.0, 2.0, 1.0], [0, 1]) == [1, 0, 1]
