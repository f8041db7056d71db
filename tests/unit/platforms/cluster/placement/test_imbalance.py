from __future__ import annotations

import pytest

from faasmoe.platforms.cluster.placement.imbalance import imbalance
from faasmoe.platforms.cluster.placement.placement import Function, Node, Placement

FUNCTIONS = [
    Function("a", 0, 1, 3.0),
    Function("b", 0, 1, 1.0),
    Function("c", 1, 1, 1.0),
    Function("d", 1, 1, 3.0),
]
NODES = [Node("x", 9), Node("y", 9)]


def test_layers_that_are_uneven_may_be_even_together() -> None:
    placed = Placement({"a": ("x",), "b": ("y",), "c": ("x",), "d": ("y",)})
    assert imbalance(FUNCTIONS, NODES, placed) == (1.0, 1.5)


def test_replicas_share_a_load() -> None:
    placed = Placement({"a": ("x", "y"), "b": ("y",), "c": ("x",), "d": ("x", "y")})
    assert imbalance(FUNCTIONS, NODES, placed) == (1.0, 1.25)


def test_a_fast_node_is_through_sooner() -> None:
    placed = Placement({"a": ("x",), "b": ("y",), "d": ("x",), "c": ("y",)})
    found = imbalance(FUNCTIONS, [Node("x", 9, 3.0), Node("y", 9)], placed)
    assert found == (1.0, 1.0)


def test_nodes_that_do_not_count_leave_their_load_out() -> None:
    placed = Placement({"a": ("x",), "b": ("gone",)})
    assert imbalance(FUNCTIONS, NODES, placed) == (2.0, 2.0)
    assert imbalance(FUNCTIONS, NODES, Placement()) == (1.0, 1.0)


def test_without_loads_memory_counts() -> None:
    functions = [Function("a", 0, 30, 0.0), Function("b", 0, 10, 0.0)]
    assert imbalance(functions, NODES, Placement({"a": ("x",), "b": ("y",)})).total == pytest.approx(1.5)
