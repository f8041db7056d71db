"""The controller: brings what nodes host to what the plan wants, whatever happens to nodes.

As a controller of Kubernetes it compares what is there with what is wanted, again after each event, and keeps no other
memory. One for a cluster, in the process that accepts nodes; it is told what happens, and gives orders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from faasmoe.platforms.cluster.placement.copies import Copies, CopyState
from faasmoe.platforms.cluster.placement.node_states import NodeState, NodeStates
from faasmoe.platforms.cluster.placement.placement import Function, Node, Placement
from faasmoe.platforms.cluster.placement.plan import check_placed, plan_what_fits
from faasmoe.platforms.cluster.placement.policy import PlacementPolicy
from faasmoe.platforms.cluster.placement.rollout import Rollout


@dataclass(frozen=True, slots=True)
class PrewarmCopy:
    """Have a node prewarm a function. It answers by `Controller.warmed` or `refused`."""

    function: str
    node: str
    epoch: int


@dataclass(frozen=True, slots=True)
class NewRoutes:
    """Give these hosts of all functions to every `RoutingTable`, before any order that follows."""

    hosts: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class StopCopy:
    """Have a node stop a function when its running calls have ended. It answers by `Controller.stopped`."""

    function: str
    node: str
    epoch: int


@dataclass(frozen=True, slots=True)
class DrainedNode:
    """A node hosts nothing any more, or its deadline has come. It may go, and is forgotten."""

    node: str


Order = PrewarmCopy | NewRoutes | StopCopy | DrainedNode


class Controller:
    """Nodes, functions and copies of one cluster, and the orders that follow. `clock` gives seconds.

    Methods note what has happened; `orders` then plans and says what to do, once for all that came together. Call
    `tick` every `HEARTBEAT` seconds. Methods that take an epoch return False if it is not the node's present one: such
    a message must be dropped.
    """

    def __init__(
        self, clock: Callable[[], float], policy: PlacementPolicy | None = None, first_epoch: int = 1
    ) -> None:
        """`first_epoch` is larger than any that an earlier controller of this cluster gave."""
        self.states = NodeStates(clock, first_epoch)
        self.copies = Copies()
        self.placement = Placement()  # what is wanted
        self._policy = policy or PlacementPolicy()
        self._functions: dict[str, Function] = {}
        self._cached: dict[str, set[str]] = {}  # by node
        self._refuses: dict[str, set[str]] = {}
        self._rollout = Rollout(self.placement)
        self._routes: dict[str, tuple[str, ...]] = {}
        self._orders: list[Order] = []
        self._removed: set[str] = set()  # functions that have to stop everywhere
        self._stale = False  # a plan is needed now
        self._shifted = False  # and when all moves of the last one are made

    def deploy(self, functions: Iterable[Function]) -> None:
        """Place further functions. What fits nowhere waits for nodes (`check_placed`).

        A name stands for one artifact: given again, it has other figures, and its copies stay.
        """
        for function in functions:
            self._functions[function.name] = function
            self.copies.memory[function.name] = function.memory
            self._removed.discard(function.name)
        self._stale = True

    def remove(self, names: Iterable[str]) -> None:
        """Stop functions everywhere, and forget them."""
        for name in set(names) & self._functions.keys():
            del self._functions[name]
            self._removed.add(name)
        self._stale = True

    def check_placed(self) -> None:
        """Raises `OptionError`, naming function, bytes and nodes, if a function fits nowhere now."""
        check_placed(self.placement, list(self._functions.values()), self.states.hosting())

    @property
    def settled(self) -> bool:
        """Whether nodes host what the plan wants."""
        return self._rollout.finished

    def set_loads(self, loads: Mapping[str, float]) -> None:
        """Plan by these loads (`LoadMeter.loads`; others are 0), once all moves of the last plan are made."""
        for name, function in self._functions.items():
            self._functions[name] = replace(function, load=loads.get(name, 0.0))
        self._shifted = True

    def join(self, node: Node, hosted: Iterable[str] = ()) -> int:
        """A node has connected, and hosts these functions ready to be called. Returns its epoch."""
        self.copies.forget(node.name)
        self._routes = {}  # told anew: clients may have left the node out already
        epoch = self.states.join(node)
        self._cached[node.name] = {*node.cached, *hosted}
        self._refuses[node.name] = set(node.refuses)
        for name in hosted:
            if name in self._functions:
                self.copies.put(name, node.name, CopyState.READY)
            else:
                self._orders.append(StopCopy(name, node.name, epoch))
        self._stale = True
        return epoch

    def ready(self, node: str, epoch: int) -> bool:
        """A node takes functions from now on."""
        current = self.states.ready(node, epoch)
        self._stale |= current
        return current

    def heard(self, node: str, epoch: int) -> bool:
        """A heartbeat, or any other message of a node."""
        return self.states.heard(node, epoch)

    def lose(self, node: str, epoch: int) -> bool:
        """A node's connection has ended."""
        current = self.states.lose(node, epoch)
        if current:
            self.copies.forget(node)
            self._stale = True
        return current

    def drain(self, node: str, seconds: float) -> None:
        """Empty a node in so many seconds. Raises `KeyError` for one that is not there."""
        self.states.drain(node, seconds)
        self._stale = True

    def warmed(self, function: str, node: str, epoch: int) -> bool:
        """A node has prewarmed a function."""
        current = self.states.heard(node, epoch)
        if current and self.copies.state(function, node) is CopyState.WARMING:
            self.copies.put(function, node, CopyState.READY)
            self._cached[node].add(function)
        return current

    def refused(self, function: str, node: str, epoch: int) -> bool:
        """A node could not prewarm a function, and is not asked again in this epoch."""
        current = self.states.heard(node, epoch)
        if current and self.copies.state(function, node) is CopyState.WARMING:
            self.copies.remove(function, node)
            self._refuses[node].add(function)
            self._stale = True
        return current

    def stopped(self, function: str, node: str, epoch: int) -> bool:
        """A node has stopped a function, and its memory is free."""
        current = self.states.heard(node, epoch)
        if current and self.copies.state(function, node) is CopyState.STOPPING:
            self.copies.remove(function, node)
        return current

    def tick(self) -> None:
        """Look for nodes that are silent or whose deadline has come."""
        for node in [*self.states.tick(), *self.states.overdue()]:
            self.copies.forget(node)
            self._stale = True

    def orders(self) -> list[Order]:
        """Take what is to be done now, in this order. Plans first, if anything has happened that asks for it."""
        if self._stale or (self._shifted and self._rollout.finished):
            self._plan()
        self._begin()
        self._stop()
        self._release()
        orders, self._orders = self._orders, []
        return orders

    def _plan(self) -> None:
        """Plan from what is there. What is being prewarmed counts as there, so that nothing is loaded in vain."""
        present = self.copies.hosts((CopyState.READY, CopyState.WARMING), self._callable())
        nodes = [
            replace(node, cached=frozenset(self._cached[node.name]), refuses=frozenset(self._refuses[node.name]))
            for node in self.states.hosting()
        ]
        self.placement = plan_what_fits(list(self._functions.values()), nodes, Placement(present), self._policy)
        self._rollout = Rollout(self.placement)
        self._stale = self._shifted = False

    def _begin(self) -> None:
        """Prewarm what there is room for."""
        budgets = {node.name: node.memory for node in self.states.hosting()}
        for function, node in self._rollout.prewarms(self.copies, budgets):
            self._orders.append(PrewarmCopy(function, node, self._epoch(node)))

    def _stop(self) -> None:
        """Call what is ready, and no longer what has been replaced; then stop that."""
        ready = self._ready()
        stops = self._rollout.stops(self.copies, ready)
        for name in self._removed:
            for node in self._callable():
                if self.copies.state(name, node) in (CopyState.READY, CopyState.WARMING):
                    self.copies.put(name, node, CopyState.STOPPING)
                    stops.append((name, node))
        self._removed.clear()
        routes = self._ready() if stops else ready
        if routes != self._routes:
            self._routes = routes
            self._orders.append(NewRoutes(routes))
        for function, node in stops:
            self._orders.append(StopCopy(function, node, self._epoch(node)))

    def _release(self) -> None:
        """Let go draining nodes that are empty, or were overdue."""
        for name in self._in(NodeState.DRAINING):
            if not self.copies.of(name):
                self.states.forget(name)
                self._orders.append(DrainedNode(name))

    def _ready(self) -> dict[str, tuple[str, ...]]:
        """Ready hosts of each function: draining nodes only for those that have no other."""
        draining, others = (
            self.copies.hosts((CopyState.READY,), self._in(state))
            for state in (NodeState.DRAINING, NodeState.READY)
        )
        return draining | others

    def _callable(self) -> list[str]:
        """Nodes whose functions may be called."""
        return self._in(NodeState.READY) + self._in(NodeState.DRAINING)

    def _in(self, state: NodeState) -> list[str]:
        return [name for name, status in self.states.members.items() if status.state is state]

    def _epoch(self, node: str) -> int:
        return self.states.members[node].epoch
