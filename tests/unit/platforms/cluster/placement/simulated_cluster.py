"""A cluster in simulated time: nodes that carry out a controller's orders, and fail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from faasmoe.platforms.cluster.placement.controller import (
    Controller,
    DrainedNode,
    NewRoutes,
    PrewarmCopy,
    StopCopy,
)
from faasmoe.platforms.cluster.placement.node_states import HEARTBEAT
from faasmoe.platforms.cluster.placement.placement import Function, Node
from faasmoe.platforms.cluster.placement.policy import PlacementPolicy


@dataclass
class SimulatedNode:
    """What a node agent would hold. Messages of a node that is cut off reach nobody."""

    node: Node
    epoch: int
    hosted: set[str] = field(default_factory=set)  # its weights take memory: loading, ready or stopping
    ready: set[str] = field(default_factory=set)
    cut_off: bool = False


class SimulatedCluster:
    """Checks at every order that budgets hold, and that no function with a ready copy is left without a route."""

    def __init__(self, functions: Iterable[Function], policy: PlacementPolicy | None = None) -> None:
        self.now = 0.0
        self.functions = {function.name: function for function in functions}
        self.controller = Controller(lambda: self.now, policy)
        self.nodes: dict[str, SimulatedNode] = {}
        self.routes: dict[str, tuple[str, ...]] = {}
        self.drained: list[str] = []
        self.prewarms = 0
        self.gaps: set[str] = set()  # functions that were routed, and then were not
        self._answers: list[PrewarmCopy | StopCopy] = []
        self.controller.deploy(self.functions.values())

    def join(self, node: Node, hosted: Iterable[str] = ()) -> None:
        epoch = self.controller.join(node, hosted)
        self.nodes[node.name] = SimulatedNode(node, epoch, set(hosted), set(hosted))
        assert self.controller.ready(node.name, epoch)

    def kill(self, name: str) -> None:
        """The connection ends, so that it is known at once."""
        node = self.nodes.pop(name)
        assert self.controller.lose(name, node.epoch)
        self._forget(name)

    def cut_off(self, name: str) -> SimulatedNode:
        """Packets are dropped, so that nobody knows."""
        node = self.nodes[name]
        node.cut_off = True
        return node

    def step(self) -> None:
        """One heartbeat: nodes answer the orders of the last one, and get the next ones."""
        self.now += HEARTBEAT
        for node in self.nodes.values():
            if not node.cut_off:
                self.controller.heard(node.node.name, node.epoch)
        for order in self._answers:
            self._answer(order)
        self._answers.clear()
        self.controller.tick()
        self._carry_out()

    def settle(self, steps: int = 4000) -> int:
        """Step until nothing is left to do. Returns the number of steps."""
        for count in range(steps):
            self.step()
            if self.controller.settled and not self._answers:
                return count
        raise AssertionError("the cluster does not settle")

    def _carry_out(self) -> None:
        for order in self.controller.orders():
            match order:
                case PrewarmCopy():
                    self.prewarms += 1
                    node = self._named(order)
                    if node:
                        assert order.function not in node.hosted
                        node.hosted.add(order.function)
                        used = sum(self.functions[name].memory for name in node.hosted)
                        assert used <= node.node.memory, f"{node.node.name} is over its budget"
                    self._answers.append(order)
                case StopCopy():
                    assert order.node not in self.routes.get(order.function, ()), "stopped while it is called"
                    node = self._named(order)
                    if node:
                        node.ready.discard(order.function)
                    self._answers.append(order)
                case NewRoutes():
                    self._route(dict(order.hosts))
                case DrainedNode():
                    self.drained.append(order.node)
                    self.nodes.pop(order.node, None)

    def _route(self, hosts: dict[str, tuple[str, ...]]) -> None:
        for function, at in hosts.items():
            assert at
            for node in at:
                assert function in self.nodes[node].ready, "called before it is ready"
        self.gaps |= self.routes.keys() - hosts.keys()
        self.routes = hosts

    def _named(self, order: PrewarmCopy | StopCopy) -> SimulatedNode | None:
        node = self.nodes.get(order.node)
        return node if node and node.epoch == order.epoch else None

    def _answer(self, order: PrewarmCopy | StopCopy) -> None:
        node = self._named(order)
        if node is None or node.cut_off:
            return
        if isinstance(order, StopCopy):
            node.hosted.discard(order.function)
            assert self.controller.stopped(order.function, order.node, order.epoch)
        else:
            node.ready.add(order.function)
            assert self.controller.warmed(order.function, order.node, order.epoch)

    def _forget(self, name: str) -> None:
        """What clients do when a connection ends: they do not wait to be told."""
        left = {function: tuple(node for node in at if node != name) for function, at in self.routes.items()}
        self.routes = {function: at for function, at in left.items() if at}
