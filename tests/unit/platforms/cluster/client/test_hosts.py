"""Hosts of a pool's functions."""

from __future__ import annotations

from pathlib import Path

from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.catalogue import Catalogue
from faasmoe.platforms.cluster.client.hosts import UNLIMITED, hosts_of
from faasmoe.platforms.cluster.placement.placement import Node

A, B = Node("a", UNLIMITED), Node("b", UNLIMITED)


def catalogue(memory: int = 10) -> Catalogue:
    """Eight functions of two layers."""
    made = Catalogue()
    specs = [FunctionSpec(f"f{i}", "m:a", Path("/a"), memory=memory, group=i % 2) for i in range(8)]
    made.merge(made.deployed([(spec, "") for spec in specs]))
    return made


def spread(hosts: dict[str, tuple[str, ...]], layer: int) -> list[int]:
    """How many functions of a layer each node hosts."""
    its = [hosts[f"f{i}"] for i in range(8) if i % 2 == layer]
    return sorted(its.count((node,)) for node in "ab")


def test_each_layer_is_spread_over_all_nodes() -> None:
    hosts = hosts_of(catalogue(), [A, B], even_out=False)
    assert [spread(hosts, layer) for layer in (0, 1)] == [[2, 2], [2, 2]]
    assert hosts == hosts_of(catalogue(), [A, B], even_out=False)


def test_functions_of_a_lost_node_come_to_the_others_and_all_else_stays() -> None:
    made = catalogue()
    before = hosts_of(made, [A, B], even_out=True)
    made.merge(made.hosted(before))
    assert set(hosts_of(made, [B], even_out=False).values()) == {("b",)}
    assert hosts_of(made, [A, B], even_out=False) == before


def test_a_node_that_comes_gets_functions_where_that_is_asked_for() -> None:
    made = catalogue()
    made.merge(made.hosted(hosts_of(made, [A], even_out=True)))
    assert set(hosts_of(made, [A, B], even_out=False).values()) == {("a",)}
    evened = hosts_of(made, [A, B], even_out=True)
    assert [spread(evened, layer) for layer in (0, 1)] == [[2, 2], [2, 2]]


def test_without_nodes_nothing_has_a_host() -> None:
    assert set(hosts_of(catalogue(), [], even_out=True).values()) == {()}
    assert hosts_of(Catalogue(), [A], even_out=True) == {}


def test_functions_that_do_not_fit_at_once_have_hosts_all_the_same() -> None:
    hosts = hosts_of(catalogue(10), [Node("a", 25), Node("b", 25)], even_out=True)
    assert len(hosts) == 8
    assert all(hosts.values())
