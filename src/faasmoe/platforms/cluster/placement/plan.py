"""Planning: which nodes host which functions.

Replicas by load, then packing, as in DeepSeek's EPLB (github.com/deepseek-ai/EPLB; DeepSeek-V3, arXiv 2412.19437,
section 3.4), but from the present placement, within budgets of bytes, and for nodes of different speeds.
"""

from __future__ import annotations

from collections.abc import Sequence

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.placement.balancing import balance
from faasmoe.platforms.cluster.placement.filling import fill, make_room
from faasmoe.platforms.cluster.placement.occupancy import Occupancy
from faasmoe.platforms.cluster.placement.placement import UNLIMITED, Function, Node, Placement
from faasmoe.platforms.cluster.placement.policy import PlacementPolicy
from faasmoe.platforms.cluster.placement.replication import replicate


def plan(
    functions: Sequence[Function],
    nodes: Sequence[Node],
    present: Placement | None = None,
    policy: PlacementPolicy | None = None,
) -> Placement:
    """Choose the hosts of all functions.

    `nodes` are those that may host from now on: one that drains is not among them. `present` is what nodes host now,
    draining ones and copies that are being prewarmed included, lost ones not. Equal arguments give equal results.
    Raises `OptionError`, naming function, bytes and nodes, if a function fits nowhere.
    """
    placement = plan_what_fits(functions, nodes, present, policy)
    check_placed(placement, functions, nodes)
    return placement


def plan_what_fits(
    functions: Sequence[Function],
    nodes: Sequence[Node],
    present: Placement | None = None,
    policy: PlacementPolicy | None = None,
) -> Placement:
    """As `plan`, but functions that fit nowhere are `unplaced`."""
    policy, present = policy or PlacementPolicy(), present or Placement()
    there = {node.name for node in nodes}
    counts = [sum(host in there for host in present.hosts.get(f.name, ())) for f in functions]
    occupancy = Occupancy(functions, nodes, replicate(functions, counts, len(nodes), policy))
    _settle(occupancy, present)
    _fill(occupancy)
    if nodes:
        occupancy = balance(occupancy, policy)
    return occupancy.placement()


def place_missing(functions: Sequence[Function], nodes: Sequence[Node], present: Placement) -> Placement:
    """Hosts for functions that have none among `nodes`. All others stay where they are, whatever would be better.

    Those that fit nowhere share the nodes all the same: these take turns with them, as one node does. Equal arguments
    give equal results. There must be a node.
    """
    hosts = {function.name: present.hosts.get(function.name, ()) for function in functions}
    for given in (nodes, [Node(node.name, UNLIMITED, node.speed) for node in nodes]):
        missing = [index for index, function in enumerate(functions) if not hosts[function.name]]
        if not missing:
            break
        occupancy = Occupancy(functions, given, [max(1, len(hosts[function.name])) for function in functions])
        _settle(occupancy, Placement(hosts))
        for layer, members in occupancy.layers.items():
            fill(occupancy, layer, sorted(set(members) & set(missing)))
        for index in missing:
            hosts[functions[index].name] = tuple(given[node].name for node in occupancy.hosts[index])
    return Placement(hosts)


def check_placed(placement: Placement, functions: Sequence[Function], nodes: Sequence[Node]) -> None:
    """Raises `OptionError`, naming function, bytes and nodes, if a function fits nowhere."""
    if not placement.unplaced:
        return
    memory = {function.name: function.memory for function in functions}
    name, more = placement.unplaced[0], len(placement.unplaced) - 1
    used = placement.memory_of(functions)
    left = sorted(((node.memory - used.get(node.name, 0), node.name) for node in nodes), reverse=True)
    shown = ", ".join(f"{node} has {room} bytes left of its budget" for room, node in left[:4])
    others = f", {len(left) - 4} other nodes have no more than these" if len(left) > 4 else ""
    raise OptionError(
        f"function {name} takes {memory[name]} bytes, which no node has"
        + (f" (nor have they room for {more} other functions)" if more else "")
        + f": {shown or 'there is no node'}{others}; add nodes, give them more memory, or take fewer bits for weights"
    )


def _settle(occupancy: Occupancy, present: Placement) -> None:
    """What is hosted stays, as far as nodes may host it and have room. Of too many replicas the best placed stay."""
    named = {node.name: index for index, node in enumerate(occupancy.nodes)}
    too_many = []
    for index, function in enumerate(occupancy.functions):
        for name in present.hosts.get(function.name, ()):
            node = named.get(name)
            if node is not None and occupancy.fits(index, node):
                occupancy.settle(index, node)
            else:
                occupancy.leave(index, name)
        if len(occupancy.hosts[index]) > occupancy.copies[index]:
            too_many.append(index)
    for index in sorted(too_many, key=lambda f: (occupancy.share[f], f)):
        layer = occupancy.layer_of[index]
        while len(occupancy.hosts[index]) > occupancy.copies[index]:
            occupancy.drop(index, max(occupancy.hosts[index], key=lambda n: occupancy.pressure(layer, n)))


def _fill(occupancy: Occupancy) -> None:
    """Find nodes for copies that have none: the first of each function, then replicas as far as there is room."""
    left = list[int]()
    for layer, members in occupancy.layers.items():
        left += fill(occupancy, layer, [function for function in members if not occupancy.hosts[function]])
    if left:
        make_room(occupancy, left)
    for layer, members in occupancy.layers.items():
        missing = [f for f in members for _ in range(occupancy.copies[f] - len(occupancy.hosts[f]))]
        for function in fill(occupancy, layer, missing):
            if occupancy.copies[function] > 1:
                occupancy.forgo(function)
