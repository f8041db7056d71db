from __future__ import annotations

from faasmoe.platforms.cluster.placement.occupancy import Occupancy
from faasmoe.platforms.cluster.placement.placement import Function, Move, Node

FUNCTIONS = [Function(f"f{i}", 0, 10, float(i + 1)) for i in range(4)]


def occupancy_of(*memory: int, copies: tuple[int, ...] = (1, 1, 1, 1)) -> Occupancy:
    return Occupancy(FUNCTIONS, [Node(f"n{i}", each) for i, each in enumerate(memory)], copies)


def test_a_copy_that_is_moved_before_it_came_comes_to_its_last_node_at_once() -> None:
    occupancy = occupancy_of(20, 20)
    occupancy.settle(1, 0)
    occupancy.add(0, 0)
    occupancy.move(1, 0, 1)
    assert occupancy.is_new(0, 0)
    occupancy.move(0, 0, 1)
    placed = occupancy.placement()
    assert placed.hosts == {"f0": ("n1",), "f1": ("n1",)}
    assert placed.moves == (Move("f1", "n1", "n0"), Move("f0", "n1"))
    assert placed.unplaced == ("f2", "f3")
    assert occupancy.free == [20, 0]


def test_a_copy_moves_once() -> None:
    occupancy = occupancy_of(20, 20, 20)
    occupancy.settle(0, 0)
    assert occupancy.movable(0, 0)
    assert occupancy.is_settled(0, 0)
    occupancy.move(0, 0, 1)
    assert not occupancy.movable(0, 1)
    assert occupancy.moved_share() == occupancy.moved_share(0) == 0.25


def test_a_copy_that_leaves_takes_memory_until_another_one_has_come() -> None:
    occupancy = occupancy_of(10, 10)
    occupancy.leave(0, "n0")
    occupancy.leave(0, "elsewhere")
    assert occupancy.free == [0, 10]
    assert not occupancy.fits(0, 0)
    occupancy.add(0, 1)  # in place of the one elsewhere
    assert occupancy.free == [0, 0]
    assert occupancy.placement().moves == (Move("f0", "n1", "elsewhere"), Move("f0", None, "n0"))


def test_what_fits_nowhere_stays_where_it_should_not_be() -> None:
    occupancy = occupancy_of(5)
    occupancy.leave(0, "elsewhere")
    placed = occupancy.placement()
    assert placed.hosts == {"f0": ("elsewhere",)}
    assert placed.unplaced == ("f0", "f1", "f2", "f3")
    assert placed.moves == ()


def test_replicas_share_a_load_and_more_so_when_one_is_forgone() -> None:
    occupancy = occupancy_of(40, 40, copies=(1, 1, 1, 2))
    occupancy.settle(3, 0)
    assert occupancy.total == [2.0, 0.0]
    other = occupancy.copy()
    occupancy.forgo(3)
    assert occupancy.total == [4.0, 0.0]
    assert occupancy.by_layer[0] == [4.0, 0.0]
    assert other.total == [2.0, 0.0]
