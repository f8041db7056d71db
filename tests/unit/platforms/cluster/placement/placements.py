"""Functions, nodes and placements for tests, and what holds of every plan."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hypothesis import strategies as st

from faasmoe.platforms.cluster.placement.placement import Function, Node, Placement


def layers_of(layers: int, experts: int, skew: float, seed: int = 0, memory: int = 10) -> list[Function]:
    """Functions with loads by Zipf's law, in a random order in each layer; a mean load of 1."""
    random, functions = Random(seed), []
    weights = [1 / (rank + 1) ** skew for rank in range(experts)]
    for layer in range(layers):
        random.shuffle(weights)
        loads = [weight * experts / sum(weights) for weight in weights]
        functions += [Function(f"layer{layer}.block{i}", layer, memory, load) for i, load in enumerate(loads)]
    return functions


def nodes_of(count: int, functions: Sequence[Function], room: float = 1.5) -> list[Node]:
    """Equal nodes with memory for all functions times `room`, and for one more each."""
    memory = sum(function.memory for function in functions) * room / count
    return [Node(f"node{i}", int(memory) + max(f.memory for f in functions)) for i in range(count)]


@st.composite
def functions_and_nodes(draw: st.DrawFn) -> tuple[list[Function], list[Node]]:
    """Functions of several sizes, and nodes in which any way to fill them ends well (`suffices`)."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=30))
    loads = draw(st.lists(st.one_of(st.just(0.0), st.floats(0.01, 100)), min_size=len(sizes), max_size=len(sizes)))
    functions = [
        Function(f"f{i}", i % 3, size, load) for i, (size, load) in enumerate(zip(sizes, loads, strict=True))
    ]
    count, speeds = draw(st.integers(1, 6)), st.sampled_from([0.5, 1.0, 1.0, 4.0])
    nodes = [Node(f"n{i}", draw(st.integers(0, 60)), draw(speeds)) for i in range(count)]
    while not suffices(functions, nodes):
        nodes.append(Node(f"n{len(nodes)}", 20, draw(speeds)))
    return functions, nodes


def suffices(functions: Sequence[Function], nodes: Sequence[Node]) -> bool:
    """Whether functions fit in whatever order they come: else all nodes would be full but for less than the largest."""
    largest = max((function.memory for function in functions), default=0)
    room = sum(max(0, node.memory - largest + 1) for node in nodes)
    return sum(function.memory for function in functions) <= room


def check(functions: Sequence[Function], nodes: Sequence[Node], before: Placement, after: Placement) -> None:
    """Budgets hold, at the end and after each move; no function has a node twice; moves lead to the placement."""
    budgets = {node.name: node.memory for node in nodes}
    memory = {function.name: function.memory for function in functions}
    hosts = {function.name: list(before.hosts.get(function.name, ())) for function in functions}
    used = {node: sum(memory[f] for f in hosts if node in hosts[f]) for node in budgets}
    for move in after.moves:
        if move.target is not None:
            assert move.target not in hosts[move.function]
            hosts[move.function].append(move.target)
            used[move.target] += memory[move.function]
            assert used[move.target] <= budgets[move.target], move
        if move.source is not None:
            hosts[move.function].remove(move.source)
            if move.source in used:
                used[move.source] -= memory[move.function]
        assert hosts[move.function], "the last copy never goes"
    assert {name: sorted(at) for name, at in hosts.items() if at} == {
        name: sorted(at) for name, at in after.hosts.items()
    }
    for function, at in after.hosts.items():
        assert len(set(at)) == len(at)
        assert set(at) <= budgets.keys() or function in after.unplaced
