from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.cluster.placement.routing_table import RoutingTable

NODES = ("a", "b", "c")
LARGE = 1e9


def table_of(
    hosts: dict[str, tuple[str, ...]], speeds: dict[str, float] | None = None, frame: float = 100.0
) -> RoutingTable:
    table = RoutingTable(frame)
    table.route(hosts)
    for epoch, node in enumerate(NODES):
        table.take_in(node, epoch, (speeds or {}).get(node, 1.0))
    return table


def test_calls_go_to_their_hosts_in_one_frame_a_node() -> None:
    table = table_of({"f0": ("a",), "f1": ("b",), "f2": ("a",)})
    assert table.assign([("f0", 1.0), ("f1", 2.0), ("f2", 3.0)]) == ({"a": [0, 2], "b": [1]}, [])
    assert table.assign([]) == ({}, [])


def test_calls_without_a_host_are_told() -> None:
    table = table_of({"f0": ("a",), "f1": ("a", "b"), "f2": ("gone",)})
    table.leave_out("a")
    assert table.assign([("f0", 1.0), ("f1", 1.0), ("f2", 1.0), ("never heard of", 1.0)]) == (
        {"b": [1]},
        [0, 2, 3],
    )
    table.leave_out("b")
    assert table.assign([("f1", 1.0)]) == ({}, [0])
    table.leave_out("b")


def test_large_calls_spread_over_replicas() -> None:
    table = table_of({f"f{i}": NODES for i in range(6)})
    frames, unplaced = table.assign([(f"f{i}", LARGE) for i in range(6)])
    assert sorted(len(calls) for calls in frames.values()) == [2, 2, 2]
    assert unplaced == []


def test_small_calls_go_where_another_one_goes_anyhow() -> None:
    table = table_of({"fixed": ("c",), "f0": NODES, "f1": NODES})
    assert table.assign([("f0", 10.0), ("f1", 20.0), ("fixed", 10.0)]).frames == {"c": [2, 1, 0]}


def test_a_fast_node_gets_more() -> None:
    table = table_of({f"f{i}": ("a", "b") for i in range(8)}, {"b": 3.0})
    frames = table.assign([(f"f{i}", LARGE) for i in range(8)]).frames
    assert len(frames["a"]) == 2
    assert len(frames["b"]) == 6


def test_the_node_with_the_least_outstanding_is_called_until_it_has_replied() -> None:
    table = table_of({"f": ("a", "b")})
    first, second, third = (table.assign([("f", LARGE)]).frames for _ in range(3))
    assert first == {"a": [0]}
    assert second == {"b": [0]}
    assert third == {"a": [0]}
    assert table.replied("a", 0, 2 * LARGE)
    assert table.assign([("f", LARGE)]).frames == {"a": [0]}


def test_replies_of_an_old_epoch_are_refused() -> None:
    table = table_of({"f": ("a", "b")})
    table.assign([("f", LARGE)])
    assert table.epoch("a") == 0
    table.leave_out("a")
    assert not table.replied("a", 0, LARGE)
    with pytest.raises(KeyError):
        table.epoch("a")
    table.take_in("a", 7)
    assert not table.replied("a", 0, LARGE)
    assert table.assign([("f", LARGE)]).frames == {"a": [0]}  # what was outstanding counts no longer
    assert table.replied("a", 7, LARGE)


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(NODES), min_size=1), st.sampled_from([1.0, 50.0, 1e3, 1e6])), max_size=30
    ),
    st.sets(st.sampled_from(NODES), max_size=2),
)
def test_every_call_goes_to_one_host_that_is_there(calls: list[tuple[set[str], float]], out: set[str]) -> None:
    hosts = {f"f{i}": tuple(sorted(nodes)) for i, (nodes, _) in enumerate(calls)}
    table = table_of(hosts)
    for node in out:
        table.leave_out(node)
    works = [(f"f{i}", work) for i, (_, work) in enumerate(calls)]
    frames, unplaced = table.assign(works)
    count = Counter([index for indexes in frames.values() for index in indexes] + unplaced)
    assert count == Counter(range(len(calls)))
    assert all(node in calls[index][0] - out for node, indexes in frames.items() for index in indexes)
    assert all(calls[index][0] <= out for index in unplaced)
    assert all(indexes for indexes in frames.values())
    for node, indexes in frames.items():
        assert table.replied(node, table.epoch(node), sum(calls[index][1] for index in indexes))
    ends = [sum(calls[i][1] for i in frames.get(node, [])) for node in NODES if node not in out]
    if all(len(nodes) == 3 for nodes, _ in calls) and calls:  # all may go anywhere
        assert max(ends) - min(ends) <= max(work for _, work in calls) + 100.0
