"""The hosts of a pool's functions."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from faasmoe.platforms.cluster.catalogue import Catalogue
from faasmoe.platforms.cluster.placement.placement import Function, Node, Placement
from faasmoe.platforms.cluster.placement.plan import place_missing
from faasmoe.platforms.local.limits import INSTANCE_BYTES


def functions_of(catalogue: Catalogue) -> list[Function]:
    """The deployed functions, by name. No loads are known of them."""
    specs = [entry.spec for _, entry in sorted(catalogue.functions().items())]
    return [Function(spec.name, spec.group, spec.memory + INSTANCE_BYTES, 0.0) for spec in specs if spec]


def hosts_of(catalogue: Catalogue, nodes: Sequence[Node], draining: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Hosts of each deployed function: those of the catalogue among `nodes`, or else among those that drain.

    A function that has none is given one of `nodes`, and nothing else moves. Without nodes it has no host. Equal
    arguments give equal hosts, so clients need not ask each other when a node is lost.
    """
    names, hosts = {node.name for node in nodes}, {}
    for name, entry in catalogue.functions().items():
        its = tuple(host for host in entry.hosts if host in names)
        hosts[name] = its or tuple(host for host in entry.hosts if host in draining)
    if not nodes or all(hosts.values()):
        return hosts
    return dict(place_missing(functions_of(catalogue), nodes, Placement(hosts)).hosts)
