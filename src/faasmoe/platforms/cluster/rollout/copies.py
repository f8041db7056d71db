"""Copies of functions on nodes as they are, not as they are planned."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum


class CopyState(StrEnum):
    """A copy counts against its node's budget in each of them."""

    WARMING = "warming"  # ordered; its weights may be on their way
    READY = "ready"
    STOPPING = "stopping"  # not called any more; its calls end


class Copies:
    """The state of every copy, by node and function."""

    def __init__(self) -> None:
        self.memory: dict[str, int] = {}  # bytes of each function
        self._on: dict[str, dict[str, CopyState]] = {}

    def of(self, node: str) -> dict[str, CopyState]:
        """All copies on a node."""
        return self._on.get(node, {})

    def nodes(self) -> list[str]:
        """Nodes with copies."""
        return list(self._on)

    def state(self, function: str, node: str) -> CopyState | None:
        """The state of one copy, if there is one."""
        return self._on.get(node, {}).get(function)

    def put(self, function: str, node: str, state: CopyState) -> None:
        """There is a copy in this state."""
        self._on.setdefault(node, {})[function] = state

    def remove(self, function: str, node: str) -> None:
        """There is no copy any more."""
        self._on.get(node, {}).pop(function, None)

    def forget(self, node: str) -> None:
        """A node is gone with all that it hosted."""
        self._on.pop(node, None)

    def used(self, node: str) -> int:
        """Bytes of a node's budget that are taken."""
        return sum(self.memory[function] for function in self.of(node))

    def warming(self, node: str) -> int:
        """How many copies are being prewarmed on a node."""
        return sum(state is CopyState.WARMING for state in self.of(node).values())

    def hosts(self, states: Collection[CopyState], nodes: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """For each function those of the nodes that have a copy in one of the states."""
        found: dict[str, list[str]] = {}
        for node in nodes:
            for function, state in self.of(node).items():
                if state in states:
                    found.setdefault(function, []).append(node)
        return {function: tuple(hosts) for function, hosts in found.items()}
