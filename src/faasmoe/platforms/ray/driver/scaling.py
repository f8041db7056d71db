"""Which nodes of Ray's are used, and how many Ray is asked for: a pure data structure with an injected clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from faasmoe.platforms.ray.messages import AgentLoad, ScalingLimits

PATIENCE = 3.0  # seconds that activations wait for memory before there should be more nodes


@dataclass(slots=True)
class _Use:
    calls: int = -1  # that the agent had answered at the last look
    since: float = 0.0  # when the node was last seen at work


class Scaling:
    """Uses every node that Ray has, up to a limit, but for those that were idle for long.

    - Activations that wait for memory for `PATIENCE` ask for as many more nodes as they would
      fill, released ones first.
    - A node without calls and instances for `idle_seconds` is released, as long as `min_nodes` are left.
    - A client that finds no node brings back as many as there were.
    """

    def __init__(self, limits: ScalingLimits, clock: Callable[[], float]) -> None:
        self.released: set[str] = set()  # nodes that are not to be used, though Ray may still have them
        self._limits = limits
        self._clock = clock
        self._uses: dict[str, _Use] = {}
        self._waits_since: float | None = None
        self._most = 1  # nodes that were used at once
        self._asked = max(1, limits.min_nodes)  # nodes that there should be; the server needs one to start with
        self._asked_at = clock()

    def used(self, present: Mapping[str, bool]) -> list[str]:
        """The nodes to use, of those that Ray has. The value: whether the node has an agent, which goes first."""
        for gone in self.released - set(present):
            self.released.discard(gone)
        ordered = sorted(set(present) - self.released, key=lambda node: (not present[node], node))
        return ordered[: self._limits.max_nodes or None]

    def wanted(self, used: int) -> int:
        """How many nodes Ray is to have for us, where so many are used."""
        return self._bounded(max(self._limits.min_nodes, self._asked, used))

    def observe(self, loads: Mapping[str, AgentLoad], memory: int, woken: bool) -> None:
        """Take a look at the agents of all nodes that are used, each of which has `memory` bytes at least."""
        now = self._clock()
        self._uses = {node: self._uses.get(node, _Use(since=now)) for node in loads}
        for node, load in loads.items():
            use = self._uses[node]
            if load.instances or load.waiting or load.calls != use.calls:
                use.calls, use.since = load.calls, now
        self._most = max(self._most, len(loads))
        if woken and not loads:
            self._grow(self._most)
        elif (lacking := self._lacking(loads, memory, now)) > 0:
            self._grow(len(loads) + lacking)
        elif loads and now >= self._asked_at + self._limits.idle_seconds:
            self._release(now)

    def _lacking(self, loads: Mapping[str, AgentLoad], memory: int, now: float) -> int:
        """How many nodes the activations would fill that have waited for long."""
        waiting = sum(load.waiting for load in loads.values())
        if not waiting:
            self._waits_since = None
            return 0
        if self._waits_since is None:
            self._waits_since = now
        if now < self._waits_since + PATIENCE:
            return 0
        instances = sum(load.instances for load in loads.values())
        each = sum(load.memory_used for load in loads.values()) / max(1, instances)
        return max(1, math.ceil(waiting * each / max(1, memory)))

    def _grow(self, nodes: int) -> None:
        self._asked, self._asked_at = self._bounded(max(self._asked, nodes)), self._clock()
        for _ in range(self._asked - len(self._uses)):
            if self.released:
                self.released.pop()

    def _release(self, now: float) -> None:
        idle = [node for node, use in self._uses.items() if now >= use.since + self._limits.idle_seconds]
        for node in idle[: max(0, len(self._uses) - self._limits.min_nodes)]:
            self.released.add(node)
            del self._uses[node]
        self._asked = len(self._uses)

    def _bounded(self, nodes: int) -> int:
        return min(nodes, self._limits.max_nodes or nodes)
