"""The driver against a Ray that is played by a test."""

from __future__ import annotations

import msgspec
import pytest

from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.ray.driver.cluster import RayNode
from faasmoe.platforms.ray.driver.driver import Driver
from faasmoe.platforms.ray.driver.scaling import Scaling
from faasmoe.platforms.ray.messages import (
    AgentFacts,
    AgentLoad,
    AgentOrder,
    AgentSettings,
    Certificate,
    DriverOrder,
    NodesReport,
    ScalingLimits,
)
from tests.unit.clocks import Clock

GIB = 1 << 30


def order(**more: object) -> DriverOrder:
    agents = AgentSettings(pool="p", namespace="n", local_options="{}", preload=(), log="text:info")
    given = {
        "address": "auto",
        "node_memory": None,
        "limits": ScalingLimits(min_nodes=1, max_nodes=0, idle_seconds=100.0),
        "cluster_folder": "w",
        "agents": agents,
    }
    return DriverOrder(**{**given, **more})


def node(name: str, **more: object) -> RayNode:
    return RayNode(
        **{"id": name, "name": name, "host": f"10.0.0.{ord(name)}", "cpus": 2, "memory": 10 * GIB, **more}
    )


class PlayedCluster:
    """Ray, with actors whose agents listen from the second look on."""

    def __init__(self, *nodes: RayNode) -> None:
        self.alive = list(nodes)
        self.actors: dict[str, AgentFacts | None] = {}
        self.orders: dict[str, AgentOrder] = {}
        self.drained: dict[str, float] = {}
        self.asked: list[list[dict[str, float]]] = []
        self.causes: dict[str, str] = {}

    @property
    def held(self) -> list[str]:
        return list(self.actors)

    def nodes(self) -> list[RayNode]:
        return self.alive

    def tend(self, node: str, order: AgentOrder) -> AgentFacts | None:
        self.orders[node] = order
        told = self.actors.setdefault(node, None)
        if told is None and node not in self.causes:
            self.actors[node] = AgentFacts(memory=order.memory, load=AgentLoad(port=7))
        return told

    def trouble(self, node: str) -> str:
        return self.causes.get(node, "")

    def drain(self, node: str, seconds: float) -> None:
        self.drained.setdefault(node, seconds)

    def forget(self, node: str) -> None:
        self.actors.pop(node, None)

    def ask(self, bundles: list[dict[str, float]]) -> None:
        self.asked.append(list(bundles))

    def tell(self, node: str, **more: object) -> None:
        facts = self.actors[node]
        assert facts is not None
        self.actors[node] = msgspec.structs.replace(facts, **more)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def driver(cluster: PlayedCluster, clock: Clock, **more: object) -> Driver:
    given = order(**more)
    return Driver(given, cluster, Scaling(given.limits, clock), certify, wall=clock)


def certify(request: bytes, name: str) -> Certificate:
    return Certificate(request=request, certificate=name.encode(), authority=b"a")


def settled(it: Driver) -> NodesReport:
    it.tick(woken=False)
    return it.tick(woken=False)


def test_each_node_has_an_agent(clock: Clock) -> None:
    cluster = PlayedCluster(node("a"), node("b"))
    it = driver(cluster, clock)
    assert not it.tick(woken=False).complete
    report = it.tick(woken=False)
    assert report == NodesReport(nodes=(NodeAddress("10.0.0.97", 7), NodeAddress("10.0.0.98", 7)), complete=True)
    assert {each.memory for each in cluster.orders.values()} == {8 * GIB}
    assert cluster.asked[-1] == [{"CPU": 2, "memory": 8.0 * GIB}] * 2


def test_nodes_without_cpus_or_memory_have_none(clock: Clock) -> None:
    cluster = PlayedCluster(node("a", cpus=0), node("b", memory=3 * GIB))
    report = settled(driver(cluster, clock, node_memory=4 * GIB))
    assert cluster.actors == {}
    assert report.trouble == "of 2 nodes none has CPUs and 4 GiB of memory by Ray's count"
    assert cluster.asked == [[{"CPU": 1.0}]]


def test_a_node_that_comes_is_used_and_one_that_goes_is_forgotten(clock: Clock) -> None:
    cluster = PlayedCluster(node("a"))
    it = driver(cluster, clock)
    settled(it)
    cluster.alive = [node("b")]
    report = settled(it)
    assert report.nodes == (NodeAddress("10.0.0.98", 7),)
    assert cluster.held == ["b"]


@pytest.mark.parametrize(("leaving", "seconds"), [(0.0, 10.0), (1005.0, 4.0), (1000.5, 1.0), (5000.0, 10.0)])
def test_a_node_that_ray_drains_is_drained_in_time(clock: Clock, leaving: float, seconds: float) -> None:
    cluster = PlayedCluster(node("a"), node("b"))
    it = driver(cluster, clock)
    settled(it)
    cluster.alive[0] = node("a", leaving=leaving)
    report = it.tick(woken=False)
    assert cluster.drained == {"a": seconds}
    assert len(report.nodes) == 2  # it finishes its calls
    cluster.tell("a", draining=True, load=AgentLoad())
    assert it.tick(woken=False).nodes == (NodeAddress("10.0.0.98", 7),)
    assert cluster.held == ["b"]
    assert it.tick(woken=False).nodes == (NodeAddress("10.0.0.98", 7),)
    assert cluster.held == ["b"]


def test_an_idle_node_is_drained_and_no_longer_asked_for(clock: Clock) -> None:
    cluster = PlayedCluster(node("a"), node("b"))
    it = driver(cluster, clock)
    settled(it)
    clock.now += 101
    it.tick(woken=False)
    it.tick(woken=False)
    assert len(cluster.drained) == 1
    assert cluster.asked[-1] == [{"CPU": 2, "memory": 8.0 * GIB}]


def test_work_that_waits_asks_for_nodes_like_the_largest(clock: Clock) -> None:
    cluster = PlayedCluster(node("a"), node("b", memory=20 * GIB))
    it = driver(cluster, clock)
    settled(it)
    for _ in range(2):
        cluster.tell("a", load=AgentLoad(port=7, waiting=1, instances=1, memory_used=GIB))
        it.tick(woken=False)
        clock.now += 5
    assert cluster.asked[-1] == [
        {"CPU": 2, "memory": 8.0 * GIB},
        {"CPU": 2, "memory": 16.0 * GIB},
        {"CPU": 2, "memory": 16.0 * GIB},
    ]


def test_a_node_that_has_no_room_is_told_and_holds_up_nothing(clock: Clock) -> None:
    cluster = PlayedCluster(node("a"), node("b"))
    cluster.causes["a"] = "is the memory taken?"
    report = settled(driver(cluster, clock))
    assert report.nodes == (NodeAddress("10.0.0.98", 7),)
    assert report.complete
    assert report.trouble == "node a: is the memory taken?"


def test_an_actor_that_reserves_other_memory_is_made_again(clock: Clock) -> None:
    cluster = PlayedCluster(node("a"))
    cluster.actors["a"] = AgentFacts(memory=GIB, load=AgentLoad(port=6))
    it = driver(cluster, clock)
    assert it.tick(woken=False).nodes == ()
    assert settled(it).nodes == (NodeAddress("10.0.0.97", 7),)


def test_the_agent_of_another_server_is_left_alone(clock: Clock) -> None:
    cluster = PlayedCluster(node("a"))
    cluster.actors["a"] = AgentFacts(memory=GIB, foreign=True, trouble="another server has it")
    report = settled(driver(cluster, clock))
    assert report.trouble == "node a: another server has it"
    assert cluster.held == ["a"]


def test_an_agent_that_asks_has_a_certificate_with_its_next_order(clock: Clock) -> None:
    cluster = PlayedCluster(node("a"))
    it = driver(cluster, clock)
    settled(it)
    assert cluster.orders["a"].certificate is None
    cluster.tell("a", load=AgentLoad(request=b"r"))
    assert it.tick(woken=False).nodes == ()
    it.tick(woken=False)
    assert cluster.orders["a"].certificate == certify(b"r", "a")


def test_a_certificate_is_renewed_for_the_same_request(clock: Clock) -> None:
    cluster, made = PlayedCluster(node("a")), []
    given = order()
    it = Driver(given, cluster, Scaling(given.limits, clock), lambda *of: made.append(of) or certify(*of), clock)
    settled(it)
    for after in (0, 1, 61):
        clock.now += after
        cluster.tell("a", load=AgentLoad(port=7, request=b"r"))
        it.tick(woken=False)
    assert made == [(b"r", "a")] * 2
