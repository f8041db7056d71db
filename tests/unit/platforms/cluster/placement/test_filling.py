from __future__ import annotations

from dataclasses import replace

from faasmoe.platforms.cluster.placement.filling import fill, make_room
from faasmoe.platforms.cluster.placement.occupancy import Occupancy
from faasmoe.platforms.cluster.placement.placement import Function, Move, Node

FUNCTIONS = [Function(f"f{i}", 0, 10, float(i + 1)) for i in range(4)]


def occupancy_of(*memory: int, copies: tuple[int, ...] = (1, 1, 1, 1)) -> Occupancy:
    return Occupancy(FUNCTIONS, [Node(f"n{i}", each) for i, each in enumerate(memory)], copies)


def test_the_most_loaded_are_placed_first_and_the_rest_is_told() -> None:
    occupancy = occupancy_of(20, 10)
    assert fill(occupancy, 0, [0, 1, 2, 3]) == [0]
    assert occupancy.hosts == [[], [0], [1], [0]]


def test_replicas_give_way_the_coldest_first() -> None:
    occupancy = occupancy_of(20, 30, copies=(1, 2, 2, 1))
    for function, node in ((1, 0), (1, 1), (2, 0), (2, 1)):
        occupancy.settle(function, node)
    occupancy.settle(3, 1)
    assert make_room(occupancy, [0]) == []
    assert occupancy.hosts[0] == [0]
    assert len(occupancy.hosts[1]) == 1
    assert occupancy.placement().moves[0] == Move("f1", None, "n0")


def test_a_node_that_has_the_weights_is_taken_if_it_is_not_much_behind() -> None:
    has = Node("has", 100, cached=frozenset({"f0", "f3"}))
    occupancy = Occupancy(FUNCTIONS, [Node("other", 100), has], [1] * 4)
    assert fill(occupancy, 0, range(4)) == []
    assert occupancy.hosts[3] == [1]
    assert occupancy.hosts[2] == [0]
    behind = Occupancy(FUNCTIONS, [Node("other", 100), has], [1] * 4)
    behind.settle(3, 1)
    behind.settle(2, 1)
    assert fill(behind, 0, [0]) == []
    assert behind.hosts[0] == [0]


def test_a_small_fast_node_keeps_room_for_the_layers_to_come() -> None:
    functions = [replace(f, name=f"{layer}.{f.name}", layer=layer) for layer in range(3) for f in FUNCTIONS]
    occupancy = Occupancy(functions, [Node("fast", 60, 10.0), Node("large", 1000)], [1] * 12)
    for layer, members in occupancy.layers.items():
        assert fill(occupancy, layer, members) == []
        assert sum(0 in occupancy.hosts[function] for function in members) == 2


def test_where_shares_do_not_suffice_any_room_is_taken() -> None:
    functions = [replace(f, name=f"{layer}.{f.name}", layer=layer) for layer in range(2) for f in FUNCTIONS]
    occupancy = Occupancy(functions, [Node("only", 80)], [1] * 8)
    occupancy.settle(0, 0)
    assert [fill(occupancy, layer, its[layer == 0 :]) for layer, its in occupancy.layers.items()] == [[], []]
    assert occupancy.free == [0]
