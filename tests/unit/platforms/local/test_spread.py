from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.local.spread import ANY, assign

CORES = st.lists(st.integers(0, 64), min_size=1, max_size=8, unique=True)


@given(st.lists(st.integers(-1, 64), max_size=40), CORES)
def test_every_core_gets_as_many_calls_as_the_others(current: list[int], cores: list[int]) -> None:
    assigned = assign(current, cores)
    counts = Counter(core for core in assigned if core != ANY)
    share = len(current) // len(cores) if len(current) > 1 else 0
    assert set(counts) <= set(cores)
    assert all(counts[core] == share for core in cores)
    assert len(assigned) == len(current)


@given(st.lists(st.integers(-1, 64), max_size=40), CORES)
def test_what_is_well_spread_is_left_alone(current: list[int], cores: list[int]) -> None:
    once = assign(current, cores)
    assert assign(once, cores) == once


def test_calls_stay_where_they_are_if_there_is_room() -> None:
    assert assign([1, 1, ANY, 0], [0, 1]) == [1, 1, 0, 0]
    assert sorted(assign([0, 0], [0, 1])) == [0, 1]
    assert assign([5], [0, 1]) == [ANY]
