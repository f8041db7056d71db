"""The hosts of a pool's functions."""

from __future__ import annotations

from collections.abc import Sequence

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.catalogue import Catalogue
from faasmoe.platforms.cluster.placement.placement import Function, Node, Placement
from faasmoe.platforms.cluster.placement.plan import plan

UNLIMITED = 1 << 62  # bytes, of a node without a memory budget


def hosts_of(catalogue: Catalogue, nodes: Sequence[Node], even_out: bool) -> dict[str, tuple[str, ...]]:
    """Hosts of each deployed function among `nodes`: those of the catalogue, and planned ones where there is none.

    `even_out`: functions also move where that evens out the load. Without nodes no function has a host. Equal
    arguments give equal hosts.
    """
    functions, names = catalogue.functions(), {node.name for node in nodes}
    kept = {name: tuple(host for host in entry.hosts if host in names) for name, entry in functions.items()}
    if not nodes or (all(kept.values()) and not even_out):
        return kept
    wanted = [
        Function(name, entry.spec.group, entry.spec.memory, float(entry.spec.memory or 1))
        for name, entry in functions.items()
        if entry.spec is not None
    ]
    present = Placement({name: hosts for name, hosts in kept.items() if hosts})
    try:
        return dict(plan(wanted, nodes, present).hosts)
    except OptionError:  # they do not fit all at once: nodes take turns with them, as one node does
        roomy = [Node(node.name, UNLIMITED, node.speed) for node in nodes]
        return dict(plan(wanted, roomy, present).hosts)
