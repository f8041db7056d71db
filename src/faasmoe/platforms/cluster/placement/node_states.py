"""States of nodes, by heartbeats and an injected clock.

    joining ─► ready ◄─► draining ─► drained
       └────────┴───────────┴───────────┴─► lost ─► joining, of a later epoch

| to | asks for |
| --- | --- |
| ready | place: functions may come to it, those first that it has cached |
| draining | prewarm its functions elsewhere, then move them; until then it is called |
| drained | call it no more; what it has begun it finishes |
| lost | forget its copies; place functions that have no other |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from faasmoe.platforms.cluster.placement.placement import Node

HEARTBEAT = 0.25  # seconds between heartbeats of a node, and between calls of `NodeStates.tick`
MISSED = 4  # heartbeats in a row, after which a node is lost


class NodeState(StrEnum):
    """See the module."""

    JOINING = "joining"
    READY = "ready"
    DRAINING = "draining"
    DRAINED = "drained"
    LOST = "lost"


@dataclass(slots=True)
class NodeStatus:
    """A node in its present state."""

    node: Node
    epoch: int
    state: NodeState = NodeState.JOINING
    silent: int = 0  # ticks in a row without a sign of life


class NodeStates:
    """All nodes of a cluster. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float], first_epoch: int = 1) -> None:
        """`first_epoch` is larger than any that an earlier process of this cluster gave."""
        self.members: dict[str, NodeStatus] = {}
        self._clock = clock
        self._next_epoch = first_epoch
        self._ticked = clock()

    def join(self, node: Node) -> int:
        """A node has connected. Returns its epoch; what it said or promised before, under another one, is void."""
        epoch, self._next_epoch = self._next_epoch, self._next_epoch + 1
        self.members[node.name] = NodeStatus(node, epoch)
        return epoch

    def ready(self, name: str, epoch: int) -> bool:
        """A node can take functions. False: the epoch is an old one."""
        status = self._current(name, epoch)
        if status and status.state is NodeState.JOINING:
            status.state = NodeState.READY
        return status is not None

    def heard(self, name: str, epoch: int) -> bool:
        """Note a heartbeat, or any other message. False: the epoch is an old one, and the message must be dropped."""
        status = self._current(name, epoch)
        if status:
            status.silent = 0
        return status is not None

    def turn(self, name: str, to: NodeState) -> bool:
        """A node that has joined is ready, draining or drained from now on. Returns whether it was not before."""
        status = self.members[name]
        if status.state in (to, NodeState.JOINING, NodeState.LOST):
            return False
        status.state = to
        return True

    def lose(self, name: str, epoch: int) -> bool:
        """The connection has ended. False: it was that of an old epoch."""
        status = self._current(name, epoch)
        if status:
            status.state = NodeState.LOST
        return status is not None

    def forget(self, name: str) -> None:
        """A node has left for good."""
        self.members.pop(name, None)

    def tick(self) -> list[str]:
        """Look for silent nodes, once a `HEARTBEAT`. Returns those that are lost by it.

        Silence is counted in ticks, so a process that was itself frozen, or slow, declares no node lost for that.
        """
        now = self._clock()
        if now - self._ticked < HEARTBEAT * 0.9:
            return []
        self._ticked = now
        lost = []
        for name, status in self.members.items():
            if status.state is NodeState.LOST:
                continue
            status.silent += 1
            if status.silent > MISSED:
                status.state = NodeState.LOST
                lost.append(name)
        return lost

    def hosting(self) -> list[Node]:
        """Nodes to which functions may come, by name."""
        ready = {name: s.node for name, s in self.members.items() if s.state is NodeState.READY}
        return [ready[name] for name in sorted(ready)]

    def callable(self) -> dict[str, int]:
        """Epochs of nodes whose functions may be called."""
        states = NodeState.READY, NodeState.DRAINING
        return {name: s.epoch for name, s in sorted(self.members.items()) if s.state in states}

    def _current(self, name: str, epoch: int) -> NodeStatus | None:
        status = self.members.get(name)
        return status if status and status.epoch == epoch and status.state is not NodeState.LOST else None
