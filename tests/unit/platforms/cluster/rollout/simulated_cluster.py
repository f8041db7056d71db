"""A cluster in simulated time: nodes that carry out a controller's orders, and fail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from faasmoe.platforms.cluster.placement.node_states import HEARTBEAT, NodeState, NodeStates
from faasmoe.platforms.cluster.placement.placement import Function, Node, Placement
from faasmoe.platforms.cluster.placement.plan import place_missing
from faasmoe.platforms.cluster.placement.policy import PlacementPolicy
from faasmoe.platforms.cluster.rollout.controller import LEAVE, Controller, CopyOrder, View

STEP = 1.0  # seconds


@dataclass
class SimulatedNode:
    """What a node agent would hold."""

    node: Node
    epoch: int
    running: set[str] = field(default_factory=set)  # functions with an instance: loading, called or stopping
    ending: dict[str, float] = field(default_factory=dict)  # those that are no longer called, and until when


class SimulatedCluster:
    """Checks at every order that budgets hold, and that no function with a copy is left without a route.

    All functions are called all the time. A function whose nodes are lost starts elsewhere at once, as clients have it.
    """

    def __init__(self, functions: Iterable[Function], policy: PlacementPolicy | None = None) -> None:
        self.now = 0.0
        self.functions = {function.name: function for function in functions}
        self.states = NodeStates(lambda: self.now)
        self.controller = Controller(lambda: self.now, policy)
        self.nodes: dict[str, SimulatedNode] = {}
        self.routes: dict[str, tuple[str, ...]] = {}
        self.prewarms = 0
        self.moved: list[str] = []  # functions whose hosts an order has changed
        self.exempt = False  # from budgets, until all is settled: nodes were lost, or cannot hold all functions
        self._warming: list[CopyOrder] = []
        self.set_loads({function.name: function.load for function in self.functions.values()})

    def set_loads(self, loads: dict[str, float]) -> None:
        self.controller.set_loads(loads)

    def join(self, node: Node, running: Iterable[str] = ()) -> None:
        epoch = self.states.join(node)
        self.states.ready(node.name, epoch)
        self.nodes[node.name] = SimulatedNode(node, epoch, set(running))
        for function in self.nodes[node.name].running:  # of before; the agent was told that they have left
            self.nodes[node.name].ending[function] = self.now + LEAVE
        self._rehost()

    def kill(self, name: str) -> None:
        """The connection ends, so that it is known at once."""
        self.states.lose(name, self.nodes.pop(name).epoch)
        self._rehost()

    def drain(self, name: str) -> None:
        self.states.turn(name, NodeState.DRAINING)

    def drained(self, name: str) -> bool:
        return not self.nodes[name].running and not any(name in hosts for hosts in self.routes.values())

    def _rehost(self) -> None:
        """What clients do when a function has no host."""
        self.exempt = True
        left = {f: tuple(node for node in at if node in self.nodes) for f, at in self.routes.items()}
        nodes = self.states.hosting()
        self.routes = {f: left.get(f, ()) for f in self.functions}
        if nodes:
            self.routes = dict(place_missing(list(self.functions.values()), nodes, Placement(self.routes)).hosts)
        for function, at in self.routes.items():
            for name in at:
                if name in self.nodes and function not in self.nodes[name].running:
                    self.nodes[name].running.add(function)
        self.routes = {f: at for f, at in self.routes.items() if at}

    def used(self, name: str) -> int:
        return sum(self.functions[each].memory for each in self.nodes[name].running)

    def step(self) -> None:
        """Nodes have carried out the orders of the last step, and get the next ones."""
        self.now += STEP
        self.states.tick()
        for name, node in self.nodes.items():
            self.states.heard(name, node.epoch)
            for function in [f for f, until in node.ending.items() if self.now >= until]:
                del node.ending[function]
                if name not in self.routes.get(function, ()):
                    node.running.discard(function)
        for copy in self._warming:
            self.controller.warmed(copy)
        self._warming.clear()
        self.give_orders()

    def give_orders(self) -> None:
        functions = list(self.functions.values())
        room = sum(node.memory for node in self.states.hosting())
        self.exempt |= room < sum(function.memory for function in functions)
        view = View(
            functions=functions,
            nodes=self.states.hosting(),
            epochs=self.states.callable(),
            hosts=dict(self.routes),
        )
        self.controller.see(view)
        self.controller.note({name: set(node.running) for name, node in self.nodes.items()})
        orders = self.controller.orders()
        for copy in orders.prewarms:
            self.prewarms += 1
            node = self.nodes[copy.node]
            assert node.epoch == copy.epoch
            node.running.add(copy.function)
            node.ending.pop(copy.function, None)
            assert self.exempt or self.used(copy.node) <= node.node.memory, f"{copy.node} is over its budget"
            self._warming.append(copy)
        for copy in orders.stops:
            self.nodes[copy.node].ending[copy.function] = self.now
        self._route(orders.hosts)

    def _route(self, hosts: dict[str, tuple[str, ...]]) -> None:
        assert hosts.keys() >= self.routes.keys(), "a function has lost its host"
        for function, at in hosts.items():
            for name in at:
                assert function in self.nodes[name].running, "called before it is ready"
            for name in set(self.routes.get(function, ())) - set(at):
                if name in self.nodes:
                    self.nodes[name].ending[function] = self.now + LEAVE - HEARTBEAT
            if function in self.routes and self.routes[function] != at:
                self.moved.append(function)
        self.routes = dict(hosts)

    def settle(self, steps: int = 4000) -> int:
        """Step until nothing is left to do. Returns the number of steps."""
        for count in range(steps):
            self.step()
            if self.controller.settled and not self._warming and not any(n.ending for n in self.nodes.values()):
                self.exempt = False
                return count
        raise AssertionError("the cluster does not settle")
