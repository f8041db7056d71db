"""The controller: brings what nodes host to what the plan wants, whatever happens to nodes.

As a controller of Kubernetes it compares what is there with what is wanted, again after each event. One for a cluster,
in the head of the pool: it is shown the cluster, and gives orders.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from faasmoe.platforms.cluster.placement.placement import UNLIMITED, Function, Node, Placement
from faasmoe.platforms.cluster.placement.plan import plan_what_fits
from faasmoe.platforms.cluster.placement.policy import PlacementPolicy
from faasmoe.platforms.cluster.rollout.copies import Copies, CopyState
from faasmoe.platforms.cluster.rollout.load_meter import FEW
from faasmoe.platforms.cluster.rollout.moves import Moves

LEAVE = 3.0  # seconds until a function that is called no longer has left a node: others learn of it, calls end


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A cluster as it is now."""

    functions: Sequence[Function]  # that are deployed; their loads are the controller's
    nodes: Sequence[Node]  # that may host
    epochs: Mapping[str, int]  # of these and of nodes that drain, by name: all that can be called
    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # that are called, of each function


@dataclass(frozen=True, slots=True)
class CopyOrder:
    """What a node is to do with a function."""

    function: str
    node: str
    epoch: int


class ControllerOrders(NamedTuple):
    """What is to be done now."""

    prewarms: list[CopyOrder]  # `Controller.warmed` or `refused` says how each has ended
    stops: list[
        CopyOrder
    ]  # of copies that were never called; nodes themselves stop those that are called no longer
    hosts: dict[str, tuple[str, ...]]  # that are to be called from now on; may be those of before


class Controller:
    """Copies of functions, and the orders that follow. `clock` gives seconds. One thread uses it."""

    def __init__(self, clock: Callable[[], float], policy: PlacementPolicy | None = None) -> None:
        self.copies = Copies()
        self.placement = Placement()  # what is wanted
        self._clock = clock
        self._policy = policy or PlacementPolicy()
        self._view = View(functions=(), nodes=(), epochs={})
        self._loads: Mapping[str, float] = {}
        self._warm: Mapping[str, Collection[str]] = {}  # functions with an instance, by node
        self._refuses: dict[str, set[str]] = {}  # by node
        self._budgets: dict[str, int] = {}
        self._leaving: dict[tuple[str, str], float] = {}  # copies that stop, and when they have stopped
        self._given: dict[str, tuple[str, ...]] = {}  # hosts of the last orders
        self._urgent: list[CopyOrder] = []  # of functions that are called already
        self._moves = Moves(self.placement)
        self._joined: set[str] = set()  # nodes, since the last plan
        self._stale = False  # a plan is needed now
        self._shifted = False  # one is needed when all moves of the last one are made

    @property
    def settled(self) -> bool:
        """Whether nodes host what the plan wants."""
        return not (self._stale or self._shifted) and self._moves.finished

    @property
    def at_rest(self) -> bool:
        """Whether there are no orders to give until the cluster changes."""
        return self.settled and not self._leaving

    def see(self, view: View) -> None:
        """The cluster is so now. To be told before each `orders`."""
        before, self._view = self._view, view
        self._stale |= (before.functions, before.nodes, before.epochs) != (view.functions, view.nodes, view.epochs)
        self.copies.memory = {function.name: function.memory for function in view.functions}
        self._joined |= {node for node in view.epochs if before.epochs.get(node) != view.epochs[node]}
        for node in self.copies.nodes():
            if before.epochs.get(node) != view.epochs.get(node):
                self.copies.forget(node)
                self._refuses.pop(node, None)
            for function in [name for name in self.copies.of(node) if name not in self.copies.memory]:
                self.copies.remove(function, node)
        self._take_over(view)

    def _take_over(self, view: View) -> None:
        """Know what is called: clients themselves give new hosts to functions that have lost theirs.

        Those that had an instance start at once, all side by side and not layer after layer as they are called.
        """
        warm = set[str]().union(*self._warm.values())
        for function in self.copies.memory:
            hosts, given = view.hosts.get(function, ()), self._given.get(function, ())
            for node in hosts:
                if node in view.epochs and self.copies.state(function, node) is not CopyState.READY:
                    self.copies.put(function, node, CopyState.READY)
                    self._stale = True
                    if function in warm and function not in self._warm.get(node, ()):
                        self._urgent.append(CopyOrder(function, node, view.epochs[node]))
            for node in given if given != hosts else ():
                if node not in hosts and self.copies.state(function, node) is CopyState.READY:
                    self._leave(function, node)
                    self._stale = True

    def note(self, warm: Mapping[str, Collection[str]]) -> None:
        """Which functions have an instance, by node. One that has none anywhere moves without being prewarmed."""
        self._warm = warm

    def set_loads(self, loads: Mapping[str, float]) -> None:
        """Plan by these (`LoadMeter.loads`), once the last moves are made. What is new counts as not called."""
        self._loads = loads
        self._refuses.clear()  # time has passed
        self._shifted = True

    def warmed(self, copy: CopyOrder) -> None:
        """A node has prewarmed a function."""
        if self._is_warming(copy):
            self.copies.put(copy.function, copy.node, CopyState.READY)

    def refused(self, copy: CopyOrder) -> None:
        """A node could not prewarm a function, and is not asked again before loads have shifted."""
        if self._is_warming(copy):
            self.copies.remove(copy.function, copy.node)
            self._refuses.setdefault(copy.node, set()).add(copy.function)
            self._stale = True

    def _is_warming(self, copy: CopyOrder) -> bool:
        current = self._view.epochs.get(copy.node) == copy.epoch
        return current and self.copies.state(copy.function, copy.node) is CopyState.WARMING

    def orders(self) -> ControllerOrders:
        """What is to be done now. Plans first, if anything has happened that asks for it."""
        now = self._clock()
        for (function, node), until in list(self._leaving.items()):
            if now >= until:
                del self._leaving[function, node]
                if self.copies.state(function, node) is CopyState.STOPPING:
                    self.copies.remove(function, node)
        if self._stale or (self._shifted and self._moves.finished):
            self._plan()
        prewarms = self._begin()
        stops = []
        for function, node in self._moves.stops(self.copies, self._ready()):
            self._leave(function, node)
            if node not in self._given.get(function, ()):
                stops.append(CopyOrder(function, node, self._view.epochs[node]))
        self._given = self._ready()
        return ControllerOrders(prewarms, stops, self._given)

    def _leave(self, function: str, node: str) -> None:
        self.copies.put(function, node, CopyState.STOPPING)
        self._leaving[function, node] = self._clock() + LEAVE

    def _plan(self) -> None:
        """Plan from what is there. What is being prewarmed counts as there, so that nothing is loaded in vain.

        If not all functions fit at once, nodes take turns with them, as one node does: their budgets do not count then,
        and there are no replicas.
        """
        view = self._view
        for node in self._joined & view.epochs.keys():  # what it has from before it was lost is as good as any
            for function in self._warm.get(node, ()):
                if function in self.copies.memory and self.copies.state(function, node) is None:
                    self.copies.put(function, node, CopyState.READY)
        self._joined.clear()
        functions = [replace(f, load=self._loads.get(f.name, FEW * float(f.memory))) for f in view.functions]
        present = Placement(self.copies.hosts((CopyState.READY, CopyState.WARMING), view.epochs))
        nodes = [
            replace(
                node,
                cached=frozenset(self._warm.get(node.name, ())),
                refuses=frozenset(self._refuses.get(node.name, ())),
            )
            for node in view.nodes
        ]
        self._budgets = {node.name: node.memory for node in nodes}
        self.placement = plan_what_fits(functions, nodes, present, self._policy)
        if self.placement.unplaced and sum(self._budgets.values()) < sum(each.memory for each in functions):
            roomy = [replace(node, memory=UNLIMITED) for node in nodes]
            self.placement = plan_what_fits(functions, roomy, present, replace(self._policy, replica_memory=0.0))
            self._budgets = dict.fromkeys(self._budgets, UNLIMITED)
        self._moves = Moves(self.placement)
        self._stale = False
        # what has no room may have it when others have left nodes that hold too much
        self._shifted = bool(self.placement.unplaced and self.placement.moves)

    def _begin(self) -> list[CopyOrder]:
        """Prewarm what there is room for. What has no instance is not called, and is ready as it is."""
        anywhere = set[str]().union(*self._warm.values())
        started, self._urgent = self._urgent, []
        while begun := self._moves.prewarms(self.copies, self._budgets):
            for function, node in begun:
                if function in anywhere and function not in self._warm.get(node, ()):
                    started.append(CopyOrder(function, node, self._view.epochs[node]))
                else:
                    self.copies.put(function, node, CopyState.READY)
        return started

    def _ready(self) -> dict[str, tuple[str, ...]]:
        """Ready hosts of each function: draining nodes only for those that have no other."""
        hosting = [node.name for node in self._view.nodes]
        draining = [node for node in self._view.epochs if node not in set(hosting)]
        ready = (CopyState.READY,)
        return self.copies.hosts(ready, draining) | self.copies.hosts(ready, hosting)
