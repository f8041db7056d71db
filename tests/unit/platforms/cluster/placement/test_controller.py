from __future__ import annotations

from dataclasses import replace

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.placement.controller import DrainedNode, NewRoutes, PrewarmCopy, StopCopy
from faasmoe.platforms.cluster.placement.node_states import HEARTBEAT, NodeState
from faasmoe.platforms.cluster.placement.placement import Function, Node
from tests.unit.platforms.cluster.placement.placements import layers_of, nodes_of
from tests.unit.platforms.cluster.placement.simulated_cluster import SimulatedCluster

FUNCTIONS = layers_of(4, 20, 0.5)


def cluster_of(count: int, room: float = 2.0, functions: list[Function] = FUNCTIONS) -> SimulatedCluster:
    cluster = SimulatedCluster(functions)
    for node in nodes_of(count, functions, room):
        cluster.join(node)
    cluster.settle()
    assert cluster.routes.keys() == cluster.functions.keys()
    return cluster


def test_functions_are_prewarmed_and_then_routed() -> None:
    cluster = SimulatedCluster(FUNCTIONS[:3])
    controller = cluster.controller
    assert controller.orders() == []
    epoch = controller.join(Node("a", 25))
    assert controller.orders() == []
    assert controller.ready("a", epoch)
    assert not controller.ready("a", epoch + 1)
    orders = controller.orders()
    assert [type(order) for order in orders] == [PrewarmCopy] * 2
    with pytest.raises(OptionError, match=r"takes 10 bytes.*a has 5 bytes left"):
        controller.check_placed()
    assert controller.warmed(orders[0].function, "a", epoch)
    assert controller.orders() == [NewRoutes({orders[0].function: ("a",)})]
    assert not controller.warmed(orders[1].function, "a", epoch - 1)
    assert controller.orders() == []


def test_functions_are_removed() -> None:
    cluster = cluster_of(2)
    names = [function.name for function in FUNCTIONS[:5]]
    cluster.controller.remove(names)
    orders = cluster.controller.orders()
    (routes,) = (order for order in orders if isinstance(order, NewRoutes))
    assert not routes.hosts.keys() & set(names)
    stops = [order for order in orders if isinstance(order, StopCopy)]
    assert {order.function for order in stops} >= set(names)
    assert orders.index(routes) < orders.index(stops[0])
    cluster.controller.remove(["never heard of"])


def test_a_function_never_lacks_a_host_while_others_move() -> None:
    cluster = cluster_of(4)
    cluster.join(replace(nodes_of(4, FUNCTIONS, 2.0)[0], name="new"))
    cluster.settle()
    assert cluster.gaps == set()
    assert len(cluster.nodes["new"].ready) > 10
    assert cluster.prewarms < 1.5 * 80 + 20


def test_a_lost_nodes_functions_are_placed_elsewhere() -> None:
    cluster = cluster_of(4)
    before = cluster.prewarms
    lost = set(cluster.nodes["node1"].ready)
    cluster.kill("node1")
    cluster.settle()
    assert cluster.routes.keys() == cluster.functions.keys()
    assert cluster.prewarms - before <= 1.5 * len(lost)


def test_a_node_cut_off_is_lost_after_four_heartbeats_and_its_late_messages_are_dropped() -> None:
    cluster = cluster_of(4)
    epoch = cluster.cut_off("node1").epoch
    began = cluster.now
    while cluster.controller.states.members["node1"].state is NodeState.READY:
        cluster.step()
    assert 4 * HEARTBEAT <= cluster.now - began <= 5 * HEARTBEAT
    assert all("node1" not in hosts for hosts in cluster.routes.values())
    assert not cluster.controller.heard("node1", epoch)
    assert not cluster.controller.warmed("layer0.block0", "node1", epoch)
    assert not cluster.controller.stopped("layer0.block0", "node1", epoch)
    assert not cluster.controller.lose("node1", epoch)


def test_a_node_that_comes_back_gets_its_functions_without_loading_them() -> None:
    cluster = cluster_of(4)
    node = cluster.cut_off("node1")
    hosted = set(node.ready)
    cluster.nodes.pop("node1")
    for _ in range(8):
        cluster.step()
    before = cluster.prewarms
    cluster.join(node.node, hosted)
    cluster.settle()
    assert len(cluster.nodes["node1"].ready & hosted) >= 0.8 * len(hosted)
    assert cluster.prewarms - before <= 0.4 * len(hosted)
    assert cluster.routes.keys() == cluster.functions.keys()


def test_routes_are_told_anew_to_clients_that_saw_a_connection_end() -> None:
    cluster = cluster_of(2)
    node = cluster.nodes["node1"]
    cluster.kill("node1")
    cluster.join(node.node, node.ready)  # before anybody has asked for orders
    cluster.settle()
    assert cluster.routes.keys() == cluster.functions.keys()


def test_a_node_that_comes_back_with_functions_that_are_gone_stops_them() -> None:
    cluster = cluster_of(2)
    epoch = cluster.controller.join(Node("back", 100), ["of another model"])
    assert StopCopy("of another model", "back", epoch) in cluster.controller.orders()


def test_a_drain_prewarms_elsewhere_and_loses_nothing() -> None:
    cluster = cluster_of(4)
    cluster.controller.drain("node2", 60.0)
    cluster.settle()
    assert cluster.drained == ["node2"]
    assert cluster.gaps == set()
    assert cluster.routes.keys() == cluster.functions.keys()
    with pytest.raises(KeyError):
        cluster.controller.drain("node2", 1.0)


def test_a_draining_node_is_not_called_for_functions_that_others_have() -> None:
    functions = [Function("hot", 0, 10, 50.0), *(Function(f"f{i}", 0, 10, 1.0) for i in range(9))]
    cluster = cluster_of(2, functions=functions)
    assert len(cluster.routes["hot"]) == 2
    cluster.controller.drain("node0", 60.0)
    cluster.step()
    assert cluster.routes["hot"] == ("node1",)
    assert "node0" in {node for nodes in cluster.routes.values() for node in nodes}
    cluster.settle()
    assert cluster.gaps == set()


def test_a_drain_ends_at_its_deadline_whatever_is_left() -> None:
    cluster = cluster_of(2, room=1.0)  # too little for one node
    began = cluster.now
    cluster.controller.drain("node1", 5.0)
    while cluster.now < began + 100 and not cluster.drained:
        cluster.step()
    assert cluster.drained == ["node1"]
    assert 5.0 <= cluster.now - began <= 5.0 + HEARTBEAT
    cluster.settle()
    assert set(cluster.controller.placement.unplaced) == cluster.functions.keys() - cluster.routes.keys()
    with pytest.raises(OptionError, match="other functions"):
        cluster.controller.check_placed()


def test_two_nodes_drain_at_once() -> None:
    cluster = cluster_of(6)
    cluster.controller.drain("node0", 60.0)
    cluster.controller.drain("node5", 60.0)
    cluster.settle()
    assert sorted(cluster.drained) == ["node0", "node5"]
    assert cluster.gaps == set()


def test_an_empty_node_drains_at_once() -> None:
    cluster = cluster_of(1, functions=FUNCTIONS[:2])
    cluster.join(Node("empty", 0))
    cluster.settle()
    cluster.controller.drain("empty", 60.0)
    assert cluster.controller.orders() == [DrainedNode("empty")]


def test_what_a_node_cannot_prewarm_goes_to_another() -> None:
    cluster = SimulatedCluster(FUNCTIONS[:1])
    controller = cluster.controller
    epochs = {name: controller.join(Node(name, 100)) for name in ("a", "b")}
    for name, epoch in epochs.items():
        controller.ready(name, epoch)
    (first,) = controller.orders()
    assert controller.refused(first.function, first.node, first.epoch)
    (second,) = controller.orders()
    assert second.node != first.node
    assert controller.refused(second.function, second.node, second.epoch)
    assert controller.orders() == []
    with pytest.raises(OptionError, match=first.function):
        controller.check_placed()


def test_loads_that_shift_move_functions_once_the_last_moves_are_made() -> None:
    cluster = cluster_of(4)
    hot = {name: 40.0 if "node0" in hosts else 0.1 for name, hosts in cluster.routes.items()}
    before = cluster.prewarms
    cluster.controller.set_loads(hot)
    cluster.settle()
    assert cluster.gaps == set()
    assert before < cluster.prewarms
    cluster.controller.set_loads(hot)
    before = cluster.prewarms
    cluster.settle()
    assert cluster.prewarms == before


def test_functions_wait_for_nodes() -> None:
    cluster = SimulatedCluster(FUNCTIONS)
    cluster.settle()
    with pytest.raises(OptionError, match="there is no node"):
        cluster.controller.check_placed()
    for node in nodes_of(2, FUNCTIONS):
        cluster.join(node)
    cluster.settle()
    cluster.controller.check_placed()
