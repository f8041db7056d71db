"""What a node is told of orchestrators, and how often, over a connection that is played."""

from __future__ import annotations

from typing import Any

from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.client.hosting.keeper import HostingKeeper
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.hosting_messages import (
    AskHosting,
    HostingReport,
    HostingState,
    PrepareOrchestrators,
    TellPool,
)
from tests.unit.clocks import Clock

WANTED = PrepareOrchestrators(start=b"start", content=FunctionContent(b""))
A, B = NodeAddress("10.0.0.1", 7000), NodeAddress("10.0.0.2", 7000)
HOURS = 3600


class Node:
    """A link, and its connection."""

    name, incarnation = "a", "1"

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.state: HostingState = "idle"
        self.untold = ""
        self.lane = ""
        self.dropped = False

    def open(self, lane: str) -> Node:
        self.lane = lane
        return self

    def drop(self, _: Node) -> None:
        self.dropped = True

    def send(self, asked: Any, _: float) -> None:
        self.asked.append(asked)

    def received(self, *_: object) -> HostingReport:
        return HostingReport(
            state=self.state, slots=1, running=0, available=1, request=b"request", untold=self.untold
        )

    def told(self) -> list[TellPool | PrepareOrchestrators]:
        told = [each for each in self.asked if not isinstance(each, AskHosting)]
        self.asked.clear()
        return told


def made(node: Node, clock: Clock) -> HostingKeeper:
    return HostingKeeper(node, "nodes", "p", lambda request, name: (request + name.encode(), b"authority"), clock)  # type: ignore[arg-type]


def test_a_node_is_told_what_it_does_not_know() -> None:
    node, clock = Node(), Clock()
    keeper = made(node, clock)
    assert node.lane == "hosting"
    keeper.tend(WANTED, (A,))
    pool, prepare = node.told()
    assert pool == TellPool(
        platform="nodes", pool="p", nodes=(("10.0.0.1", 7000),), certificate=b"requesta", authority=b"authority"
    )
    assert prepare is WANTED
    keeper.tend(WANTED, (A,))
    assert node.told() == []
    keeper.tend(WANTED, (A, B))
    assert node.told() == [TellPool(platform="nodes", pool="p", nodes=(("10.0.0.1", 7000), ("10.0.0.2", 7000)))]
    keeper.close()
    assert node.dropped


def test_its_certificate_is_renewed_in_time() -> None:
    node, clock = Node(), Clock()
    keeper = made(node, clock)
    keeper.tend(WANTED, (A,))
    node.told()
    clock.now += 7 * HOURS
    keeper.tend(WANTED, (A,))
    assert node.told() == []
    clock.now += 1 * HOURS
    keeper.tend(WANTED, (A,))
    (renewed,) = node.told()
    assert isinstance(renewed, TellPool)
    assert renewed.certificate == b"requesta"


def test_what_it_could_not_take_is_told_again_at_growing_intervals() -> None:
    node, clock = Node(), Clock()
    keeper = made(node, clock)
    node.untold = "the disk is full"
    told = 0
    for _ in range(600):  # a second each
        keeper.tend(WANTED, (A,))
        told += sum(isinstance(each, TellPool) for each in node.told())
        clock.now += 1
    assert 10 <= told <= 30
    node.untold = ""
    clock.now += 60
    keeper.tend(WANTED, (A,))
    (again,) = node.told()
    assert isinstance(again, TellPool)
    assert again.certificate == b"requesta"
    keeper.tend(WANTED, (A,))
    assert node.told() == []


def test_a_node_that_cannot_load_the_model_gets_no_other_certificate() -> None:
    node, clock = Node(), Clock()
    keeper = made(node, clock)
    node.state = "failed"
    keeper.tend(WANTED, (A,))
    node.told()
    clock.now += 60
    keeper.tend(WANTED, (A,))
    assert node.told() == []
