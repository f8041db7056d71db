"""The routing table: which replica to call now. In clients, on the path of every call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

FRAME = 1 << 19  # activated bytes that a core reads while one more frame is sent: 20 us at 25 GB/s


class RoutedCalls(NamedTuple):
    """A layer's calls by node, each as its index, one frame a node; and those whose function has no host now."""

    frames: dict[str, list[int]]
    unplaced: list[int]


@dataclass(slots=True)
class _Route:
    """A node that takes calls."""

    epoch: int
    speed: float
    outstanding: float = 0.0  # activated bytes of calls without a reply


@dataclass(slots=True)
class RoutingTable:
    """Assigns calls to nodes: of a function's replicas to the one that is through first.

    A node that is not touched yet by the layer's calls costs a frame, so small calls go where another one goes anyhow,
    and large ones spread. One thread uses it.
    """

    frame: float = FRAME  # activated bytes that weigh as much as one more frame
    _routes: dict[str, _Route] = field(default_factory=dict, init=False)
    _hosts: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False)

    def route(self, hosts: Mapping[str, Iterable[str]]) -> None:
        """From now on call these hosts of each function. They are ready; nodes that are out get no calls yet."""
        self._hosts = {function: tuple(nodes) for function, nodes in hosts.items()}

    def take_in(self, node: str, epoch: int, speed: float = 1.0) -> None:
        """Call a node from now on. Calls of an older epoch count no longer."""
        self._routes[node] = _Route(epoch, speed)

    def leave_out(self, node: str) -> None:
        """Call a node no longer: it is lost. What is outstanding there has to be assigned again."""
        self._routes.pop(node, None)

    def assign(self, calls: Sequence[tuple[str, float]]) -> RoutedCalls:
        """Assign a layer's calls, each a function's name and its activated bytes, and count them as outstanding.

        Calls with one host first; then the largest first, each to the replica whose node is through first.
        """
        routes, frames, unplaced, free = self._routes, dict[str, list[int]](), list[int](), list[int]()
        for index, (function, work) in enumerate(calls):
            hosts = self._hosts.get(function, ())
            if len(hosts) > 1:
                free.append(index)
            elif not hosts or (route := routes.get(hosts[0])) is None:
                unplaced.append(index)
            else:
                frames.setdefault(hosts[0], []).append(index)
                route.outstanding += work
        for index in sorted(free, key=lambda i: -calls[i][1]) if free else ():
            function, work = calls[index]
            best, soonest = None, 0.0
            for node in self._hosts[function]:
                if (route := routes.get(node)) is None:
                    continue
                end = (route.outstanding + work + (0.0 if node in frames else self.frame)) / route.speed
                if best is None or end < soonest:
                    best, soonest = node, end
            if best is None:
                unplaced.append(index)
                continue
            frames.setdefault(best, []).append(index)
            routes[best].outstanding += work
        return RoutedCalls(frames, unplaced)

    def epoch(self, node: str) -> int:
        """The epoch to send in a frame to a node that was assigned calls. Raises `KeyError` for a node that is out."""
        return self._routes[node].epoch

    def replied(self, node: str, epoch: int, work: float) -> bool:
        """Note a reply, or an error, to calls of `work` bytes together. False: it is late and must be dropped."""
        route = self._routes.get(node)
        if route is None or route.epoch != epoch:
            return False
        route.outstanding = max(0.0, route.outstanding - work)
        return True
