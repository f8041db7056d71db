"""Who hosts what while a placement is planned: loads and free memory of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from statistics import fmean

from faasmoe.platforms.cluster.placement.placement import Function, Move, Node, Placement


class Occupancy:
    """Copies of functions on nodes, both by their index, and the moves made so far.

    A function's load is shared equally by `copies` replicas. A node is judged by its *pressure* in a layer: its load in
    that layer and in all layers, by its speed. The layer's part spreads a layer's fan-out over all nodes, since a layer
    lasts as long as its slowest node; the other evens out what cannot be even within a layer, as where a layer has
    fewer functions than there are nodes.
    """

    def __init__(self, functions: Sequence[Function], nodes: Sequence[Node], copies: Sequence[int]) -> None:
        """`copies` is how many replicas each function is to have."""
        self.functions, self.nodes = functions, nodes
        self.memory = [function.memory for function in functions]
        self.layer_of = [function.layer for function in functions]
        self.copies = list(copies)
        self.hosts: list[list[int]] = [[] for _ in functions]
        self.leaving: list[list[str]] = [[] for _ in functions]  # nodes that host it and should not
        self.free = [node.memory for node in nodes]
        self.total = [0.0] * len(nodes)
        self.layers: dict[int, list[int]] = {}  # functions of each layer
        for index, function in enumerate(functions):
            self.layers.setdefault(function.layer, []).append(index)
        self.by_layer = {layer: [0.0] * len(nodes) for layer in self.layers}
        self.share = [load / count for load, count in zip(effective_loads(functions), copies, strict=True)]
        self._layer_memory = {layer: sum(self.memory[f] for f in its) for layer, its in self.layers.items()}
        self._moved = dict.fromkeys(self.layers, 0)  # bytes that come from elsewhere, by layer
        self._speed = [node.speed for node in nodes]
        self._named = {node.name: index for index, node in enumerate(nodes)}
        self._moves: dict[tuple[int, int], str | None] = {}  # (function, new host): the node that it leaves
        self._gone: dict[tuple[int, int], None] = {}  # copies that nothing replaces, in order

    def copy(self) -> Occupancy:
        """Another one, to try moves in. It takes no more copies, and forgoes none."""
        other = copy(self)
        other.hosts = list(self.hosts)  # whose lists are never changed
        other.free, other.total = list(self.free), list(self.total)
        other.by_layer = {layer: list(loads) for layer, loads in self.by_layer.items()}
        other._moves, other._moved = dict(self._moves), dict(self._moved)
        return other

    def pressure(self, layer: int, node: int) -> float:
        """See the class; in seconds a second, if loads and speeds are in bytes a second."""
        return (self.total[node] + self.by_layer[layer][node]) / self._speed[node]

    def fits(self, function: int, node: int) -> bool:
        """Whether a further copy may come to the node, and has room there."""
        return self.memory[function] <= self.free[node] and self.may_come(function, node)

    def may_come(self, function: int, node: int) -> bool:
        """Whether the node has no copy, not even one that leaves it or goes, and does not refuse one."""
        its = self.nodes[node]
        return (
            node not in self.hosts[function]
            and (function, node) not in self._gone
            and its.name not in self.leaving[function]
            and self.functions[function].name not in its.refuses
        )

    def settle(self, function: int, node: int) -> None:
        """Count a copy that is there already."""
        self.hosts[function] = [*self.hosts[function], node]
        self._count(function, node, 1)

    def leave(self, function: int, node: str) -> None:
        """Note a copy that is on a node that should not have it. It takes memory until another one has come."""
        self.leaving[function].append(node)
        if (index := self._named.get(node)) is not None:
            self.free[index] -= self.memory[function]

    def add(self, function: int, node: int) -> None:
        """A further copy, in place of one that leaves if there is such a one."""
        self.settle(function, node)
        source = self.leaving[function].pop() if self.leaving[function] else None
        if source is not None and (index := self._named.get(source)) is not None:
            self.free[index] += self.memory[function]
        self._moves[function, node] = source

    def drop(self, function: int, node: int) -> None:
        """A copy goes that was there before. The caller sees to it that others stay."""
        self._remove(function, node)
        self._gone[function, node] = None

    def forgo(self, function: int) -> None:
        """Have one replica fewer than was wanted, so that each of the others gets more of the load."""
        layer, before, hosts = self.by_layer[self.layer_of[function]], self.share[function], self.hosts[function]
        self.share[function] = before * self.copies[function] / (self.copies[function] - 1)
        self.copies[function] -= 1
        for node in hosts:
            self.total[node] += self.share[function] - before
            layer[node] += self.share[function] - before

    def anything_settled(self) -> bool:
        """Whether there are copies already, which cost something to move."""
        return any(self.is_settled(function, node) for function, at in enumerate(self.hosts) for node in at)

    def is_settled(self, function: int, node: int) -> bool:
        """Whether a copy was there before."""
        return (function, node) not in self._moves

    def movable(self, function: int, node: int) -> bool:
        """Whether a copy may move: not twice, since the order of moves says when memory is free (see `placement`)."""
        return self._moves.get((function, node)) is None

    def is_new(self, function: int, node: int) -> bool:
        """Whether a copy is not there yet and leaves no node, so that it may as well come elsewhere."""
        return (function, node) in self._moves and self.movable(function, node)

    def move(self, function: int, source: int, target: int) -> None:
        """A copy that is `movable` goes from one node to another."""
        self._remove(function, source)
        self.settle(function, target)
        if (function, source) in self._moves:  # it is not there yet, and comes to the other one at once
            del self._moves[function, source]
            self._moves[function, target] = None
        else:
            self._moves[function, target] = self.nodes[source].name
            if self.functions[function].name not in self.nodes[target].cached:
                self._moved[self.layer_of[function]] += self.memory[function]

    def moved_share(self, layer: int | None = None) -> float:
        """Bytes of copies that were there before and go where nobody has them cached, over those of all functions.

        Of one layer, if one is given.
        """
        if layer is not None:
            return self._moved[layer] / max(1, self._layer_memory[layer])
        return sum(self._moved.values()) / max(1, sum(self._layer_memory.values()))

    def placement(self) -> Placement:
        """What has come of it.

        Copies go that nothing replaces, then all moves in the order in which they were made. A copy that was moved
        before it came has its place at the end: what was moved meanwhile counted on the memory of neither.
        """
        names, nodes = [f.name for f in self.functions], [n.name for n in self.nodes]
        moves = [Move(names[function], None, nodes[node]) for function, node in self._gone]
        for (function, target), source in self._moves.items():
            moves.append(Move(names[function], nodes[target], source))
        hosts, unplaced = {}, []
        for function, at in enumerate(self.hosts):
            if at:
                hosts[names[function]] = tuple(nodes[node] for node in at)
                moves += [Move(names[function], None, source) for source in self.leaving[function]]
            else:
                unplaced.append(names[function])
                if self.leaving[function]:  # it has to stay where it is
                    hosts[names[function]] = tuple(self.leaving[function])
        return Placement(hosts, tuple(moves), tuple(unplaced))

    def _remove(self, function: int, node: int) -> None:
        self.hosts[function] = [host for host in self.hosts[function] if host != node]
        self._count(function, node, -1)

    def _count(self, function: int, node: int, sign: int) -> None:
        load = sign * self.share[function]
        self.total[node] += load
        self.by_layer[self.layer_of[function]][node] += load
        self.free[node] -= sign * self.memory[function]


def effective_loads(functions: Sequence[Function]) -> list[float]:
    """Loads for planning: those that are given, or memory if none has any."""
    loads = [function.load for function in functions]
    return loads if any(loads) else [float(function.memory) for function in functions]


def layer_means(functions: Sequence[Function], loads: Sequence[float]) -> dict[int, float]:
    """The mean load of each layer's functions."""
    by_layer: dict[int, list[float]] = {}
    for function, load in zip(functions, loads, strict=True):
        by_layer.setdefault(function.layer, []).append(load)
    return {layer: fmean(its) for layer, its in by_layer.items()}
