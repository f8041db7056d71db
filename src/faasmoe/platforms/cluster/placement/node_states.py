"""States of nodes, by heartbeats and an injected clock.

    joining ─► ready ─► draining ─► (forgotten)
       └────────┴──────────┴─► lost ─► joining, of a later epoch

| to | asks for |
| --- | --- |
| ready | place: functions may come to it, those first that it has cached |
| draining | prewarm its functions elsewhere, then move them |
| lost | forget its copies; place functions that have no other |
| forgotten | nothing: it hosts nothing any more, or its deadline has come |
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
    LOST = "lost"


@dataclass(slots=True)
class NodeStatus:
    """A node in its present state."""

    node: Node
    epoch: int
    state: NodeState = NodeState.JOINING
    silent: int = 0  # ticks in a row without a sign of life
    deadline: float = 0.0  # instant by which a draining node must be empty


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

    def drain(self, name: str, seconds: float) -> None:
        """A node is to be empty in so many seconds. Raises `KeyError` for a node that is not there."""
        status = self.members[name]
        if status.state is not NodeState.LOST:
            status.state, status.deadline = NodeState.DRAINING, self._clock() + seconds

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

    def overdue(self) -> list[str]:
        """Draining nodes whose deadline has come."""
        now = self._clock()
        return [name for name, s in self.members.items() if s.state is NodeState.DRAINING and s.deadline <= now]

    def hosting(self) -> list[Node]:
        """Nodes to which functions may come."""
        return [status.node for status in self.members.values() if status.state is NodeState.READY]

    def _current(self, name: str, epoch: int) -> NodeStatus | None:
        status = self.members.get(name)
        return status if status and status.epoch == epoch and status.state is not NodeState.LOST else None
