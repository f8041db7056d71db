from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.placement.imbalance import imbalance
from faasmoe.platforms.cluster.placement.placement import Function, Node, Placement
from faasmoe.platforms.cluster.placement.plan import plan, plan_what_fits
from faasmoe.platforms.cluster.placement.policy import PlacementPolicy
from tests.unit.platforms.cluster.placement.placements import (
    check,
    functions_and_nodes,
    layers_of,
    nodes_of,
    suffices,
)


@given(functions_and_nodes())
def test_every_function_has_a_host_within_the_budgets(given: tuple[list[Function], list[Node]]) -> None:
    functions, nodes = given
    placed = plan(functions, nodes)
    check(functions, nodes, Placement(), placed)
    assert placed.unplaced == ()
    assert set(placed.hosts) == {function.name for function in functions}


@given(functions_and_nodes())
def test_nothing_moves_when_nothing_changes(given: tuple[list[Function], list[Node]]) -> None:
    functions, nodes = given
    first = plan(functions, nodes)
    second = plan(functions, nodes, first)
    check(functions, nodes, first, second)
    third = plan(functions, nodes, second)
    assert len(third.moves) == 0 or sum(imbalance(functions, nodes, third)) < sum(
        imbalance(functions, nodes, second)
    )


@given(functions_and_nodes(), st.data())
def test_any_change_leads_by_moves_that_fit_to_a_sound_placement(
    given: tuple[list[Function], list[Node]], data: st.DataObject
) -> None:
    functions, nodes = given
    before = plan(functions, nodes)
    lost = data.draw(st.sets(st.sampled_from([node.name for node in nodes])))
    draining = data.draw(st.sets(st.sampled_from([node.name for node in nodes])))
    loads = data.draw(st.lists(st.floats(0, 100), min_size=len(functions), max_size=len(functions)))
    shifted = [replace(function, load=load) for function, load in zip(functions, loads, strict=True)]
    left = {name: tuple(host for host in hosts if host not in lost) for name, hosts in before.hosts.items()}
    present = Placement({name: hosts for name, hosts in left.items() if hosts})
    there = [node for node in nodes if node.name not in lost]
    hosting = [node for node in there if node.name not in draining]
    hosting.append(Node("new", data.draw(st.integers(0, 60))))
    after = plan_what_fits(shifted, hosting, present)
    check(shifted, [*there, hosting[-1]], present, after)
    if suffices(functions, hosting):
        assert after.unplaced == ()
        assert not draining - lost & set().union(*after.hosts.values())
    for name in after.unplaced:
        assert set(after.hosts.get(name, ())) == set(present.hosts.get(name, ())) - {n.name for n in hosting}


def test_an_error_names_function_bytes_and_nodes() -> None:
    functions = [Function(f"f{i}", 0, 10, 1.0) for i in range(4)]
    nodes = [Node("a", 15), Node("b", 22)]
    with pytest.raises(
        OptionError, match=r"function f3 takes 10 bytes.*a has 5 bytes left.*b has 2 bytes"
    ) as raised:
        plan(functions, nodes)
    assert "other functions" not in str(raised.value)
    with pytest.raises(OptionError, match="there is no node"):
        plan(functions, [])
    assert plan_what_fits(functions, []).unplaced == ("f0", "f1", "f2", "f3")
    assert plan(functions[:3], nodes).unplaced == ()


@pytest.mark.parametrize(("layers", "experts", "count"), [(6, 60, 2), (6, 60, 3), (6, 60, 10), (4, 256, 16)])
@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0])
def test_nodes_share_the_load_of_each_layer_and_of_all(layers: int, experts: int, count: int, skew: float) -> None:
    functions = layers_of(layers, experts, skew)
    nodes = nodes_of(count, functions)
    total, by_layer = imbalance(functions, nodes, plan(functions, nodes))
    assert total <= 1.02
    assert by_layer <= 1.10


def test_more_nodes_than_a_layer_has_functions_share_all_layers() -> None:
    functions = layers_of(24, 60, 0.0)
    nodes = nodes_of(100, functions)
    placed = plan(functions, nodes)
    total, by_layer = imbalance(functions, nodes, placed)
    assert total <= 15 / 14.4 + 1e-9  # 1,440 functions of equal load
    assert by_layer == pytest.approx(100 / 60)  # none has two of a layer


def test_a_fast_node_gets_more_and_a_small_one_takes_part_in_every_layer() -> None:
    functions = layers_of(8, 20, 0.5)
    nodes = [Node("fast", 10_000, 3.0), Node("slow", 10_000), Node("small", 200, 3.0)]
    placed = plan(functions, nodes)
    memory = placed.memory_of(functions)
    assert memory["fast"] > 1.5 * memory["slow"]
    layers = {name.split(".")[0] for name in placed.functions_of("small")}
    assert len(layers) >= 6


def test_hot_functions_have_replicas_and_cold_ones_one_copy() -> None:
    functions = [Function(f"f{i}", 0, 10, load) for i, load in enumerate([50.0, *[1.0] * 19])]
    nodes = nodes_of(4, functions, room=2)
    placed = plan(functions, nodes, policy=PlacementPolicy(replica_memory=1.0))
    assert len(placed.hosts["f0"]) == 4
    assert all(len(placed.hosts[f"f{i}"]) == 1 for i in range(1, 20))
    few = plan(functions, nodes, policy=PlacementPolicy(replica_memory=0.06))  # for one
    assert len(few.hosts["f0"]) == 2
    tight = plan(functions, [Node("a", 100), Node("b", 100)])
    assert len(tight.hosts["f0"]) == 1
    assert tight.unplaced == ()


def test_a_replica_does_not_come_and_go_with_the_noise() -> None:
    def at(load: float) -> list[Function]:
        return [Function(f"f{i}", 0, 10, each) for i, each in enumerate([load, *[1.0] * 39])]

    nodes = nodes_of(4, at(1.0), room=2)
    placed = plan(at(1.9), nodes)
    assert len(placed.hosts["f0"]) == 1
    placed = plan(at(2.3), nodes, placed)
    assert len(placed.hosts["f0"]) == 2
    placed = plan(at(1.9), nodes, placed)
    assert len(placed.hosts["f0"]) == 2
    placed = plan(at(1.2), nodes, placed)
    assert len(placed.hosts["f0"]) == 1


def test_replicas_give_way_to_functions() -> None:
    functions = [Function(f"f{i}", 0, 10, load) for i, load in enumerate([9.0, 9.0, *[1.0] * 8])]
    nodes = [Node("a", 60), Node("b", 60)]
    policy = PlacementPolicy(replica_memory=0.2)
    placed = plan(functions, nodes, policy=policy)
    assert len(placed.hosts["f0"]) == len(placed.hosts["f1"]) == 2
    more = [*functions, Function("more0", 1, 10, 1.0), Function("more1", 1, 10, 1.0)]
    after = plan(more, nodes, placed, policy)
    check(more, nodes, placed, after)
    assert after.unplaced == ()


def test_a_drained_node_is_emptied_and_a_lost_ones_functions_come_back() -> None:
    functions = layers_of(4, 20, 0.5)
    nodes = nodes_of(4, functions, room=2)
    before = plan(functions, nodes)
    drained = plan(functions, nodes[1:], before)
    assert "node0" not in set().union(*drained.hosts.values())
    check(functions, nodes, before, drained)
    kept = {move.source for move in drained.moves if move.source is not None}
    assert "node0" in kept


def test_a_new_node_gets_its_part_and_few_others_move() -> None:
    functions = layers_of(8, 60, 0.5)
    nodes = nodes_of(9, functions, room=2)
    before = plan(functions, nodes[:8])
    after = plan(functions, nodes, before)
    check(functions, nodes, before, after)
    assert imbalance(functions, nodes, after).total <= 1.05
    copies = sum(len(hosts) for hosts in after.hosts.values())
    assert len(after.moves) <= 1.6 * copies / 9


def test_a_slight_shift_of_loads_moves_nothing() -> None:
    functions = layers_of(8, 60, 0.5)
    nodes = nodes_of(8, functions)
    before = plan(functions, nodes)
    shifted = [replace(f, load=f.load * (1.02 if i % 2 else 0.98)) for i, f in enumerate(functions)]
    assert plan(shifted, nodes, before).moves == ()


def test_a_node_gets_first_what_it_has_cached() -> None:
    functions = layers_of(6, 60, 0.5)
    nodes = nodes_of(6, functions, room=2)
    before = plan(functions, nodes)
    without = {n: tuple(h for h in hosts if h != "node5") for n, hosts in before.hosts.items()}
    healed = plan(functions, nodes[:5], Placement({n: h for n, h in without.items() if h}))
    back = replace(nodes[5], cached=frozenset(before.functions_of("node5")))
    after = plan(functions, [*nodes[:5], back], healed)
    got = set(after.functions_of("node5"))
    assert len(got) > 50
    assert len(got & back.cached) >= 0.7 * len(got)


def test_a_node_that_refuses_a_function_does_not_get_it() -> None:
    functions = [Function("f", 0, 10, 1.0)]
    nodes = [Node("a", 100, 4.0, refuses=frozenset({"f"})), Node("b", 100)]
    assert plan(functions, nodes).hosts == {"f": ("b",)}
    assert plan_what_fits(functions, nodes[:1]).unplaced == ("f",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Node("a", -1), "node a: a memory budget of -1"),
        (lambda: Node("a", 1, 0.0), "node a: a speed of 0.0"),
        (lambda: Function("f", 0, -1, 0.0), "function f: memory is -1"),
        (lambda: Function("f", 0, 1, float("inf")), "load inf"),
        (lambda: PlacementPolicy(hot=0.5), "hot is 0.5"),
        (lambda: PlacementPolicy(cold=0.0), "cold is 0.0"),
        (lambda: PlacementPolicy(gain=1.0), "gain is 1.0"),
        (lambda: PlacementPolicy(worth=-1.0), "worth -1.0"),
    ],
)
def test_impossible_values_are_refused(make: object, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()  # type: ignore[operator]
