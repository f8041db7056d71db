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


def imbalance(functions: Sequence[Function], nodes: Sequence[Node], placement: Placement) -> Imbalance:
    """The imbalance of a placement. Copies on other nodes than these do not count; there must be at least one node."""
    named = {node.name: index for index, node in enumerate(nodes)}
    hosts = [[named[host] for host in placement.hosts.get(f.name, ()) if host in named] for f in functions]
    occupancy = Occupancy(functions, nodes, [max(1, len(at)) for at in hosts])
    for function, at in enumerate(hosts):
        for node in at:
            occupancy.settle(function, node)
    ideal = even(occupancy, occupancy.total)
    if ideal <= 0:
        return Imbalance(1.0, 1.0)
    layers = sum(slowest(occupancy, loads) for loads in occupancy.by_layer.values())
    return Imbalance(slowest(occupancy, occupancy.total) / ideal, layers / ideal)


def slowest(occupancy: Occupancy, loads: Sequence[float]) -> float:
    """The time of the node that is through last, given the load of each."""
    return max(load / node.speed for load, node in zip(loads, occupancy.nodes, strict=True))


def even(occupancy: Occupancy, loads: Sequence[float]) -> float:
    """The time of all nodes if each had a load in proportion to its speed."""
    return sum(loads) / sum(node.speed for node in occupancy.nodes)
