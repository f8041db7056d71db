"""Planning: which nodes host which functions.

Replicas by load, then occupancy, as in DeepSeek's EPLB (github.com/deepseek-ai/EPLB; DeepSeek-V3, arXiv 2412.19437,
section 3.4), but from the present placement, within budgets of bytes, and for nodes of different speeds.
"""

from __future__ import annotations

from collections.abc import Sequence

from faasmoe.platforms.cluster.placement.occupancy import Occupancy, no_room, place
from faasmoe.platforms.cluster.placement.placement import Function, Node, Placement
from faasmoe.platforms.cluster.placement.policy import PlacementPolicy


def plan(
    functions: Sequence[Function],
    nodes: Sequence[Node],
    present: Placement | None = None,
    policy: PlacementPolicy | None = None,
) -> Placement:
    """Choose the hosts of all functions.

    `nodes` are those that may host from now on: a node that drains or is lost is not among them. `present` is what they
    host now, copies that are being prewarmed included. Equal arguments give equal results. Raises `OptionError`, naming
    function, bytes and nodes, if a function fits nowhere.
    """
    policy = policy or PlacementPolicy()
    occupancy = Occupancy(functions, nodes)
    _settle(occupancy, present or Placement())
    for layer, members in occupancy.layers.items():
        homeless = [function for function in members if not occupancy.hosts[function]]
        if left := place(occupancy, layer, homeless):
            raise no_room(functions[left[0]], nodes, occupancy.free)
    return occupancy.placement()


def _settle(occupancy: Occupancy, present: Placement) -> None:
    """What is hosted already stays, as far as the nodes are there and have the room."""
    nodes = {node.name: index for index, node in enumerate(occupancy.nodes)}
    for index, function in enumerate(occupancy.functions):
        for name in present.hosts.get(function.name, ()):
            node = nodes.get(name)
            if node is not None and occupancy.fits(index, node):
                occupancy.settle(index, node)
