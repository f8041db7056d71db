"""Filling nodes: a node for each copy that has none."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from faasmoe.platforms.cluster.placement.occupancy import Occupancy

_Entry = tuple[float, int, int]  # pressure; free memory, negative; node


def fill(occupancy: Occupancy, layer: int, copies: Sequence[int]) -> list[int]:
    """Find a node for one more copy of each of these functions of one layer. Return those that fit nowhere.

    The most loaded first, each on the node of the least pressure that has room: longest processing time first (Graham
    1969), as in `balanced_packing` of DeepSeek's EPLB. A node that has the weights cached is taken if it is not much
    behind. No node takes more of a layer than its share of memory while others have room, lest one that is fast and
    small is full before the last layers come.
    """
    if not copies:
        return []
    quota = _quotas(occupancy, layer)
    cached = _cached(occupancy, copies)
    ordered = sorted(copies, key=lambda f: (-occupancy.share[f], f))
    within, left = _Nodes(occupancy, layer, quota), list[int]()
    for function in ordered:
        if not within.take(function, cached.get(function, ())):
            left.append(function)
    if not left:
        return []
    anywhere = _Nodes(occupancy, layer, None)
    return [function for function in left if not anywhere.take(function, cached.get(function, ()))]


class _Nodes:
    """Nodes in the order of their pressure in a layer; with `quota`, those that have some left."""

    def __init__(self, occupancy: Occupancy, layer: int, quota: list[float] | None) -> None:
        self._occupancy, self._layer, self._quota = occupancy, layer, quota
        self._smallest = min(occupancy.memory[function] for function in occupancy.layers[layer])
        self._heap = [self._entry(node) for node in range(len(occupancy.nodes))]
        heapq.heapify(self._heap)

    def take(self, function: int, cached: Sequence[int]) -> bool:
        """Add a copy where it is best. Returns whether there is room for it."""
        aside = list[_Entry]()
        while (least := self._least()) and not self._fits(function, least[2]):
            aside.append(heapq.heappop(self._heap))
        if least:
            node = self._prefer(function, least, cached)
            self._occupancy.add(function, node)
            if self._quota:
                self._quota[node] -= self._occupancy.memory[function]
        for entry in aside:
            heapq.heappush(self._heap, entry)
        return least is not None

    def _least(self) -> _Entry | None:
        """The entry of the least pressure. Those of nodes that got a copy since are put right."""
        while self._heap:
            entry = self._heap[0]
            if not self._room(entry[2], self._smallest):
                heapq.heappop(self._heap)
            elif entry == (now := self._entry(entry[2])):
                return entry
            else:
                heapq.heapreplace(self._heap, now)
        return None

    def _prefer(self, function: int, least: _Entry, cached: Sequence[int]) -> int:
        """A node that has the weights if it is behind by no more than the function; else that of the least pressure."""
        pressure, _, node = least
        limit = pressure + 2 * self._occupancy.share[function] / self._occupancy.nodes[node].speed
        for other in cached:
            if self._fits(function, other) and self._occupancy.pressure(self._layer, other) <= limit:
                return other
        return node

    def _entry(self, node: int) -> _Entry:
        return (self._occupancy.pressure(self._layer, node), -self._occupancy.free[node], node)

    def _room(self, node: int, memory: int) -> bool:
        return memory <= self._occupancy.free[node] and (self._quota is None or memory <= self._quota[node])

    def _fits(self, function: int, node: int) -> bool:
        return self._occupancy.fits(function, node) and self._room(node, self._occupancy.memory[function])


def _quotas(occupancy: Occupancy, layer: int) -> list[float]:
    """Bytes that each node may take of a layer: its budget by the layer's part of all functions, less what it has."""
    members = occupancy.layers[layer]
    mine = sum(occupancy.memory[function] for function in members)
    part = mine / max(1, sum(occupancy.memory))
    quotas = [node.memory * part + mine / len(members) / 2 for node in occupancy.nodes]
    for function in members:
        for node in occupancy.hosts[function]:
            quotas[node] -= occupancy.memory[function]
    return quotas


def _cached(occupancy: Occupancy, copies: Sequence[int]) -> dict[int, list[int]]:
    """Nodes that have the weights of each function."""
    wanted = {occupancy.functions[function].name: function for function in copies}
    found: dict[int, list[int]] = {}
    for index, node in enumerate(occupancy.nodes):
        for name in node.cached & wanted.keys() if node.cached else ():
            found.setdefault(wanted[name], []).append(index)
    return found


def make_room(occupancy: Occupancy, functions: Sequence[int]) -> list[int]:
    """Place functions that fit nowhere instead of replicas. Return those for which there is not enough room even so."""
    spare: list[list[int]] = [[] for _ in occupancy.nodes]
    for function in sorted(range(len(occupancy.functions)), key=lambda f: -occupancy.share[f]):
        if len(occupancy.hosts[function]) > 1:
            for node in occupancy.hosts[function]:
                if occupancy.is_settled(function, node):
                    spare[node].append(function)  # the coldest last
    return [function for function in functions if not _replace(occupancy, function, spare)]


def _replace(occupancy: Occupancy, function: int, spare: list[list[int]]) -> bool:
    """Place a function where replicas can give way to it."""
    needed = occupancy.memory[function]
    for node in sorted(range(len(occupancy.nodes)), key=lambda n: -occupancy.free[n]):
        if not occupancy.may_come(function, node):
            continue
        chosen, room = list[int](), occupancy.free[node]
        for replica in reversed(spare[node]):
            if room >= needed:
                break
            if len(occupancy.hosts[replica]) > 1:
                chosen.append(replica)
                room += occupancy.memory[replica]
        if room >= needed:
            for replica in chosen:
                occupancy.drop(replica, node)
                occupancy.forgo(replica)
                spare[node].remove(replica)
            occupancy.add(function, node)
            return True
    return False
