"""How far a placement is from an even one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from faasmoe.platforms.cluster.placement.occupancy import Occupancy
from faasmoe.platforms.cluster.placement.placement import Function, Node, Placement


class Imbalance(NamedTuple):
    """Figures of a placement over those of one whose loads are shared by all nodes in proportion to their speed.

    1 is the least of both, which need not be possible: no function is divided further than its replicas.
    """

    total: float  # time of the most loaded node, over all layers: what bounds throughput
    layers: float  # time of the most loaded node of each layer, summed over layers: what bounds one step

    @property
    def cost(self) -> float:
        """What planning makes small."""
        return self.total + self.layers


def imbalance(functions: Sequence[Function], nodes: Sequence[Node], placement: Placement) -> Imbalance:
    """The imbalance of a placement. Copies on other nodes than these do not count; there must be at least one node."""
    named = {node.name: index for index, node in enumerate(nodes)}
    hosts = [[named[host] for host in placement.hosts.get(f.name, ()) if host in named] for f in functions]
    occupancy = Occupancy(functions, nodes, [max(1, len(at)) for at in hosts])
    for function, at in enumerate(hosts):
        for node in at:
            occupancy.settle(function, node)
    return measure(occupancy)


def measure(occupancy: Occupancy) -> Imbalance:
    """The imbalance of what is being planned."""
    speeds = [node.speed for node in occupancy.nodes]
    whole = sum(occupancy.total)
    if whole <= 0:
        return Imbalance(1.0, 1.0)
    even = whole / sum(speeds)
    slowest = sum(_slowest(loads, speeds) for loads in occupancy.by_layer.values())
    return Imbalance(_slowest(occupancy.total, speeds) / even, slowest / even)


def _slowest(loads: Sequence[float], speeds: Sequence[float]) -> float:
    return max(load / speed for load, speed in zip(loads, speeds, strict=True))
