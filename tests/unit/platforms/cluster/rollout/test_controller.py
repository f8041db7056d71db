from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from faasmoe.platforms.cluster.placement.placement import Function, Node
from faasmoe.platforms.cluster.rollout.controller import LEAVE, Controller, ControllerOrders, View
from faasmoe.platforms.cluster.rollout.copies import CopyState
from tests.unit.clocks import Clock
from tests.unit.platforms.cluster.placement.placements import layers_of, nodes_of
from tests.unit.platforms.cluster.rollout.simulated_cluster import SimulatedCluster

FUNCTIONS = layers_of(4, 20, 0.5)
F = Function("f", 0, 10, 0.0)
A, B = Node("a", 100), Node("b", 100)


class Seen:
    """A controller that is shown one function on nodes a and b."""

    def __init__(self, *, warm: bool = True) -> None:
        self.clock = Clock()
        self.controller = Controller(self.clock)
        self.nodes, self.epochs = [A], {"a": 1, "b": 2}  # b is not there yet
        self.hosts: dict[str, tuple[str, ...]] = {"f": ("a",)}
        self.controller.note({"a": {"f"} if warm else set()})

    def orders(self) -> ControllerOrders:
        epochs = {name: self.epochs[name] for name in ("a", "b") if name == "a" or self.nodes != [A]}
        self.controller.see(View(functions=[F], nodes=self.nodes, epochs=epochs, hosts=self.hosts))
        orders = self.controller.orders()
        self.hosts = orders.hosts
        return orders

    def drain_a(self) -> ControllerOrders:
        """b has come, and a drains."""
        self.orders()
        self.nodes = [B]
        return self.orders()


def cluster_of(count: int, room: float = 2.0, functions: list[Function] = FUNCTIONS) -> SimulatedCluster:
    cluster = SimulatedCluster(functions)
    for node in nodes_of(count, functions, room):
        cluster.join(node)
    cluster.settle()
    assert cluster.routes.keys() == cluster.functions.keys()
    return cluster


def test_a_function_is_prewarmed_then_called_then_gone_from_where_it_was() -> None:
    seen = Seen()
    (copy,), _, hosts = seen.drain_a()
    assert (copy.function, copy.node, copy.epoch, hosts) == ("f", "b", 2, {"f": ("a",)})
    assert seen.orders() == ([], [], {"f": ("a",)})
    seen.controller.warmed(replace(copy, epoch=1))
    assert seen.orders() == ([], [], {"f": ("a",)})
    seen.controller.warmed(copy)
    assert seen.orders() == ([], [], {"f": ("b",)})
    assert seen.controller.copies.state("f", "a") is CopyState.STOPPING
    seen.clock.now += LEAVE
    seen.orders()
    assert seen.controller.copies.of("a") == {}


def test_what_has_no_instance_moves_without_being_prewarmed() -> None:
    seen = Seen(warm=False)
    assert seen.drain_a() == ([], [], {"f": ("b",)})


def test_what_the_new_node_has_an_instance_of_moves_at_once() -> None:
    seen = Seen()
    seen.controller.note({"a": {"f"}, "b": {"f"}})
    assert seen.drain_a() == ([], [], {"f": ("b",)})


def test_what_cannot_be_prewarmed_stays_until_loads_have_shifted() -> None:
    seen = Seen()
    (copy,), _, _ = seen.drain_a()
    seen.controller.refused(copy)
    for _ in range(3):
        assert seen.orders() == ([], [], {"f": ("a",)})
    seen.controller.set_loads({})
    assert [each.node for each in seen.orders().prewarms] == ["b"]


def test_a_function_that_lost_its_node_starts_elsewhere_at_once() -> None:
    seen = Seen()
    seen.orders()
    seen.nodes, seen.epochs, seen.hosts = [B], {"a": 1, "b": 2}, {"f": ("b",)}  # so have clients it
    orders = seen.orders()
    assert [(copy.function, copy.node) for copy in orders.prewarms] == [("f", "b")]
    assert orders.hosts == {"f": ("b",)}
    seen.controller.refused(orders.prewarms[0])  # it is called all the same
    assert seen.orders() == ([], [], {"f": ("b",)})


def test_a_node_that_has_joined_again_hosts_nothing_yet() -> None:
    seen = Seen()
    (copy,), _, _ = seen.drain_a()
    seen.epochs["b"] = 3
    (again,), _, _ = seen.orders()
    assert (again.function, again.node, again.epoch) == ("f", "b", 3)
    seen.controller.warmed(copy)
    assert seen.orders() == ([], [], {"f": ("a",)})


def test_removed_functions_are_forgotten() -> None:
    seen = Seen()
    seen.orders()
    seen.controller.see(View(functions=[], nodes=[A], epochs={"a": 1}))
    assert seen.controller.orders() == ([], [], {})
    assert seen.controller.copies.of("a") == {}


def test_functions_that_do_not_fit_at_once_take_turns_and_have_no_replicas() -> None:
    functions = [Function(f"f{i}", 0, 10, 50.0 if i == 0 else 1.0) for i in range(8)]
    cluster = SimulatedCluster(functions)
    for name in "ab":
        cluster.join(Node(name, 25))
    cluster.settle()
    assert cluster.routes.keys() == cluster.functions.keys()
    assert all(len(hosts) == 1 for hosts in cluster.routes.values())


def test_a_node_that_joins_gets_functions_and_none_lacks_a_host_meanwhile() -> None:
    cluster = cluster_of(4)
    cluster.join(replace(nodes_of(4, FUNCTIONS, 2.0)[0], name="new"))
    before = cluster.prewarms
    cluster.settle()
    assert len(cluster.nodes["new"].running) > 10
    assert cluster.prewarms - before < 0.5 * len(FUNCTIONS)


def test_a_lost_nodes_functions_run_elsewhere_at_once_and_little_else_moves() -> None:
    cluster = cluster_of(4)
    lost = {name for name, hosts in cluster.routes.items() if "node1" in hosts}
    before = cluster.prewarms
    cluster.kill("node1")
    assert cluster.routes.keys() == cluster.functions.keys()
    cluster.settle()
    assert cluster.prewarms - before <= 1.5 * len(lost)


def test_a_node_that_comes_back_gets_its_functions_without_loading_them() -> None:
    cluster = cluster_of(4)
    node = cluster.nodes["node1"]
    hosted = set(node.running)
    cluster.kill("node1")
    cluster.settle()
    before = cluster.prewarms
    cluster.join(node.node, hosted)
    cluster.settle()
    assert len(cluster.nodes["node1"].running & hosted) >= 0.8 * len(hosted)
    assert cluster.prewarms - before <= 0.6 * len(hosted)


def test_two_nodes_drain_at_once() -> None:
    cluster = cluster_of(6)
    for name in ("node0", "node5"):
        cluster.drain(name)
    cluster.settle()
    assert cluster.drained("node0")
    assert cluster.drained("node5")


def test_a_draining_node_is_not_called_for_functions_that_others_have() -> None:
    functions = [Function("hot", 0, 10, 50.0), *(Function(f"f{i}", 0, 10, 1.0) for i in range(9))]
    cluster = cluster_of(2, functions=functions)
    assert len(cluster.routes["hot"]) == 2
    cluster.drain("node0")
    cluster.step()
    assert cluster.routes["hot"] == ("node1",)
    cluster.settle()
    assert cluster.drained("node0")


def test_a_node_that_nobody_can_replace_keeps_its_functions() -> None:
    cluster = cluster_of(2, functions=[Function(f"f{i}", 0, 10, 1.0) for i in range(4)])
    cluster.nodes["node0"].node = replace(cluster.nodes["node0"].node, memory=0)
    for name in ("node0", "node1"):
        cluster.drain(name)
    for _ in range(20):
        cluster.step()
    assert cluster.routes.keys() == cluster.functions.keys()


def test_loads_that_shift_move_functions_once_the_last_moves_are_made() -> None:
    cluster = cluster_of(4)
    hot = {name: 40.0 if "node0" in hosts else 0.1 for name, hosts in cluster.routes.items()}
    before = cluster.prewarms
    cluster.set_loads(hot)
    cluster.settle()
    assert before < cluster.prewarms
    cluster.set_loads(hot)
    before = cluster.prewarms
    cluster.moved.clear()
    cluster.settle()
    assert cluster.prewarms == before
    assert cluster.moved == []


@pytest.mark.parametrize("seed", range(4))
def test_noise_in_the_loads_moves_next_to_nothing(seed: int) -> None:
    """Loads of 2,000 calls a function on average, counted anew each time."""
    cluster, random = cluster_of(4), Random(seed)
    for _ in range(2):
        cluster.set_loads({f.name: 2000 * f.load for f in FUNCTIONS})
        cluster.settle()
    cluster.moved.clear()
    for _ in range(5):
        counts = {f.name: max(0.0, random.gauss(2000 * f.load, (2000 * f.load) ** 0.5)) for f in FUNCTIONS}
        cluster.set_loads(counts)
        cluster.settle()
    assert len(cluster.moved) <= 0.1 * len(FUNCTIONS)
