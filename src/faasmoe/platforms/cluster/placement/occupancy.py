"""A placement while it is planned: loads and free memory of nodes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.placement.placement import Function, Move, Node, Placement


class Occupancy:
    """Functions on nodes, both by their index, and the moves made so far.

    A function's load is shared equally by its replicas. A node is judged by its *pressure* in a layer: its load in that
    layer and in all layers, by its speed. The layer's part spreads a layer's fan-out over all nodes, since a layer
    lasts as long as its slowest node; the other evens out what cannot be even within a layer, as where a layer has
    fewer functions than there are nodes.
    """

    def __init__(self, functions: Sequence[Function], nodes: Sequence[Node]) -> None:
        self.functions, self.nodes = functions, nodes
        self.hosts: list[list[int]] = [[] for _ in functions]
        self.free = [node.memory for node in nodes]
        self.total = [0.0] * len(nodes)
        self.layers: dict[int, list[int]] = {}  # functions of each layer
        for index, function in enumerate(functions):
            self.layers.setdefault(function.layer, []).append(index)
        self.by_layer = {layer: [0.0] * len(nodes) for layer in self.layers}
        self.moves: dict[
            tuple[int, int], int | None
        ] = {}  # (function, new host): the host that it leaves, in order
        self._dropped: list[tuple[int, int]] = []

    def pressure(self, layer: int, node: int) -> float:
        """See the class; in seconds, if loads and speeds are in bytes a second."""
        return (self.total[node] + self.by_layer[layer][node]) / self.nodes[node].speed

    def share(self, function: int) -> float:
        """The load of one of its replicas."""
        return self.functions[function].load / max(1, len(self.hosts[function]))

    def fits(self, function: int, node: int) -> bool:
        """Whether a further copy may come to the node."""
        return self.functions[function].memory <= self.free[node] and node not in self.hosts[function]

    def settle(self, function: int, node: int) -> None:
        """Count a copy that is there already."""
        self._count(function, -1)
        self.hosts[function].append(node)
        self.free[node] -= self.functions[function].memory
        self._count(function, 1)

    def add(self, function: int, node: int) -> None:
        """A further copy on a node."""
        self.settle(function, node)
        self.moves[function, node] = None

    def drop(self, function: int, node: int) -> None:
        """A copy goes."""
        self._remove(function, node)
        if (function, node) in self.moves:  # it was never there
            source = self.moves.pop((function, node))
            if source is not None:
                self._dropped.append((function, source))
        else:
            self._dropped.append((function, node))

    def move(self, function: int, source: int, target: int) -> None:
        """A copy goes from one node to another."""
        self._remove(function, source)
        self.settle(function, target)
        # a copy that is not there yet goes to the new target at once
        self.moves[function, target] = self.moves.pop((function, source), source)

    def placement(self) -> Placement:
        """What has come of it. Copies that go make room first."""
        names, nodes = [f.name for f in self.functions], [n.name for n in self.nodes]
        moves = [Move(names[function], None, nodes[source]) for function, source in self._dropped]
        for (function, target), source in self.moves.items():
            moves.append(Move(names[function], nodes[target], None if source is None else nodes[source]))
        hosts = {name: tuple(nodes[i] for i in at) for name, at in zip(names, self.hosts, strict=True) if at}
        return Placement(hosts, tuple(moves))

    def _remove(self, function: int, node: int) -> None:
        self._count(function, -1)
        self.hosts[function].remove(node)
        self.free[node] += self.functions[function].memory
        self._count(function, 1)

    def _count(self, function: int, sign: int) -> None:
        if not self.hosts[function]:
            return
        load, layer = sign * self.share(function), self.by_layer[self.functions[function].layer]
        for node in self.hosts[function]:
            self.total[node] += load
            layer[node] += load


def place(occupancy: Occupancy, layer: int, copies: Iterable[int]) -> list[int]:
    """Place a copy of each of these functions of one layer, and return those that fit nowhere.

    The most loaded first, each on the node of the least pressure that has room (longest processing time first, Graham
    1969, as in `balanced_packing` of DeepSeek's EPLB), or where its weights are cached.
    """
    heap = [(occupancy.pressure(layer, node), node) for node in range(len(occupancy.nodes))]
    heapq.heapify(heap)
    left = []
    for function in sorted(copies, key=lambda f: (-occupancy.functions[f].load, f)):
        node = _least(occupancy, heap, function)
        if node is None:
            left.append(function)
            continue
        occupancy.add(function, node)
        heapq.heappush(heap, (occupancy.pressure(layer, node), node))
    return left


def _least(occupancy: Occupancy, heap: list[tuple[float, int]], function: int) -> int | None:
    """Take the node of the least pressure that has room off the heap."""
    aside, found = [], None
    while heap and found is None:
        entry = heapq.heappop(heap)
        if occupancy.fits(function, entry[1]):
            found = entry[1]
        else:
            aside.append(entry)
    for entry in aside:
        heapq.heappush(heap, entry)
    return found


def no_room(function: Function, nodes: Sequence[Node], free: Sequence[int]) -> OptionError:
    """The error for a function that fits on no node."""
    if not nodes:
        return OptionError(
            f"function {function.name} takes {function.memory} bytes, and there is no node to host it"
        )
    rooms = sorted(zip(free, (node.name for node in nodes), strict=True), reverse=True)
    shown = ", ".join(f"{name} has {room} bytes left" for room, name in rooms[:4])
    more = f", and {len(rooms) - 4} other nodes less" if len(rooms) > 4 else ""
    return OptionError(
        f"function {function.name} takes {function.memory} bytes, which no node has: {shown}{more}; "
        "add a node, give nodes more memory, or take smaller blocks or fewer bits"
    )
