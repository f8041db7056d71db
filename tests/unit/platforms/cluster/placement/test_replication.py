from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from faasmoe.platforms.cluster.placement.placement import Function
from faasmoe.platforms.cluster.placement.policy import PlacementPolicy
from faasmoe.platforms.cluster.placement.replication import replicate


def functions_of(loads: list[float]) -> list[Function]:
    return [Function(f"f{i}", 0, 10, load) for i, load in enumerate(loads)]


def test_even_loads_have_no_replicas() -> None:
    assert replicate(functions_of([3.0] * 8), [0] * 8, 4, PlacementPolicy(replica_memory=1.0)) == [1] * 8
    assert replicate(functions_of([0.0] * 8), [0] * 8, 4, PlacementPolicy(replica_memory=1.0)) == [1] * 8


def test_replicas_are_as_many_as_keep_each_below_hot() -> None:
    functions = functions_of([10.0, *[1.0] * 9])  # a mean of 1.9, hot from 3.8 on
    assert replicate(functions, [0] * 10, 8, PlacementPolicy(replica_memory=1.0))[0] == 3
    assert replicate(functions, [0] * 10, 2, PlacementPolicy(replica_memory=1.0))[0] == 2


def test_the_hottest_come_first_where_memory_is_short() -> None:
    functions = functions_of([30.0, 40.0, *[1.0] * 18])
    assert replicate(functions, [0] * 20, 8, PlacementPolicy(replica_memory=0.1))[:2] == [2, 2]
    assert replicate(functions, [0] * 20, 8, PlacementPolicy(replica_memory=0.05))[:2] == [1, 2]
    assert replicate(functions, [0] * 20, 8, PlacementPolicy(replica_memory=0.0)) == [1] * 20


@example([5e-324, 0.0], 2, 1.0)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.integers(1, 9), st.floats(0, 1))
def test_counts_stay_as_they_are_while_loads_do(loads: list[float], nodes: int, memory: float) -> None:
    functions, policy = functions_of(loads), PlacementPolicy(replica_memory=memory)
    counts = replicate(functions, [0] * len(loads), nodes, policy)
    assert all(1 <= count <= nodes for count in counts)
    assert sum(counts) - len(counts) <= memory * len(counts)
    assert replicate(functions, counts, nodes, policy) == counts
