"""States of nodes, by heartbeats and an injected clock.

    joining ─► ready ─► draining ─► (forgotten)
       └────────┴──────────┴─► lost ─► joining, of a later epoch

| to | asks for |
| --- | --- |
| ready | place: functions may come to it, those first that it has cached |
| draining | prewarm its functions elsewhere, then move them |
| lost | forget its copies; place functions that have no other |
| forgotten | nothing: it hosts nothing any more |
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
        member = self._current(name, epoch)
        if member and member.state is NodeState.JOINING:
            member.state = NodeState.READY
        return member is not None

    def heard(self, name: str, epoch: int) -> bool:
        """Note a heartbeat, or any other message. False: the epoch is an old one, and the message must be dropped."""
        member = self._current(name, epoch)
        if member:
            member.silent = 0
        return member is not None

    def drain(self, name: str, seconds: float) -> None:
        """A node is to be empty in so many seconds. Raises `KeyError` for a node that is not there."""
        member = self.members[name]
        if member.state is not NodeState.LOST:
            member.state, member.deadline = NodeState.DRAINING, self._clock() + seconds

    def lose(self, name: str, epoch: int) -> bool:
        """The connection has ended. False: it was that of an old epoch."""
        member = self._current(name, epoch)
        if member:
            member.state = NodeState.LOST
        return member is not None

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
        for name, member in self.members.items():
            if member.state is NodeState.LOST:
                continue
            member.silent += 1
            if member.silent > MISSED:
                member.state = NodeState.LOST
                lost.append(name)
        return lost

    def hosting(self) -> list[Node]:
        """Nodes to which functions may come."""
        return [member.node for member in self.members.values() if member.state is NodeState.READY]

    def _current(self, name: str, epoch: int) -> NodeStatus | None:
        member = self.members.get(name)
        return member if member and member.epoch == epoch and member.state is not NodeState.LOST else None
