"""Hosts of a pool's functions."""

from __future__ import annotations

from pathlib import Path

from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.catalogue import Catalogue
from faasmoe.platforms.cluster.client.hosts import functions_of, hosts_of
from faasmoe.platforms.cluster.placement.placement import UNLIMITED, Node
from faasmoe.platforms.local.limits import INSTANCE_BYTES

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


def test_a_function_takes_what_its_instance_counts_for() -> None:
    assert {function.memory for function in functions_of(catalogue(10))} == {10 + INSTANCE_BYTES}


def test_each_layer_is_spread_over_all_nodes() -> None:
    hosts = hosts_of(catalogue(), [A, B], ())
    assert [spread(hosts, layer) for layer in (0, 1)] == [[2, 2], [2, 2]]
    assert hosts == hosts_of(catalogue(), [A, B], ())


def test_functions_of_a_lost_node_come_to_the_others_and_all_else_stays() -> None:
    made = catalogue()
    before = hosts_of(made, [A, B], ())
    made.merge(made.hosted(before))
    assert set(hosts_of(made, [B], ()).values()) == {("b",)}
    assert hosts_of(made, [A, B], ()) == before
    without_a = hosts_of(made, [B, Node("c", UNLIMITED)], ())
    assert all(without_a[name] == hosts for name, hosts in before.items() if hosts == ("b",))


def test_the_order_in_which_functions_became_known_makes_no_difference() -> None:
    made, other = catalogue(), Catalogue()
    other.merge(reversed(list(made.entries.values())))
    assert hosts_of(made, [A, B], ()) == hosts_of(other, [A, B], ())


def test_a_draining_node_hosts_what_nobody_else_has() -> None:
    made = catalogue()
    hosts = {f"f{i}": ("a", "b") if i == 0 else ("a",) for i in range(8)}
    made.merge(made.hosted(hosts))
    assert hosts_of(made, [B], {"a": 1}) == {**hosts, "f0": ("b",)}


def test_without_nodes_nothing_has_a_host() -> None:
    assert set(hosts_of(catalogue(), [], ()).values()) == {()}
    assert hosts_of(Catalogue(), [A], ()) == {}


def test_functions_that_do_not_fit_at_once_have_hosts_all_the_same() -> None:
    budget = 2 * (10 + INSTANCE_BYTES)
    hosts = hosts_of(catalogue(10), [Node("a", budget), Node("b", budget)], ())
    assert len(hosts) == 8
    assert all(hosts.values())
