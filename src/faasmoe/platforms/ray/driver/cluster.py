"""What the driver needs of Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from faasmoe.platforms.ray.messages import AgentFacts, AgentOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class RayNode:
    """A node that lives, as Ray knows it."""

    id: str  # of 56 hexadecimal digits
    name: str  # unique
    host: str  # address
    cpus: float
    memory: int  # bytes that Ray counts there
    leaving: float | None = None  # Ray drains it: instant of `time.time` when it will be gone; 0: unknown


class Cluster(Protocol):
    """For one thread. Nodes are named by their ids."""

    @property
    def held(self) -> Sequence[str]:
        """Nodes that have an actor of ours, or are getting one."""

    def nodes(self) -> Sequence[RayNode]:
        """All nodes that live. Waits for Ray's head. Raises an error of Ray's."""

    def tend(self, node: str, order: AgentOrder) -> AgentFacts | None:
        """Have the node's actor run an agent, and return what it has told last; None: nothing yet, see `trouble`.

        Makes the actor if there is none. Does not wait for it.
        """

    def trouble(self, node: str) -> str:
        """Why the node's actor does not answer; empty if it does, or may yet."""

    def drain(self, node: str, seconds: float) -> None:
        """Have the node's agent end when its calls are answered, so many seconds from now at most."""

    def forget(self, node: str) -> None:
        """End the node's actor, and with it its agent, unless it is another server's. Ray has the memory back."""

    def ask(self, bundles: Sequence[dict[str, float]]) -> None:
        """Tell Ray's autoscaler what nodes are needed: one for each bundle. What was told before no longer holds."""
