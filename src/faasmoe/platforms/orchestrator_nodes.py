"""The nodes of a platform on which a server's orchestrators may run: a contract."""

from __future__ import annotations

import socket
from concurrent.futures import Future
from typing import Protocol

from faasmoe.platforms.base import FunctionSpec


class RemoteOrchestrator(Protocol):
    """An orchestrator on a node."""

    node: str
    socket: socket.socket  # that stands for its own; whoever gets this object closes it
    ended: Future[str]  # why

    @property
    def leaves(self) -> bool:
        """Whether the node is about to leave, so that another orchestrator had better take its place."""

    def confirm(self) -> None:
        """It takes requests: it has not failed, if it goes on for a while."""

    def fail(self) -> None:
        """End it, as it cannot start: its node gets no other one for a while."""

    def cut(self) -> None:
        """End it. May be called twice."""


class OrchestratorNodes(Protocol):
    """For all threads."""

    def offer(self, start: bytes, dense: FunctionSpec) -> None:
        """Have nodes load a model, from now on. Does not wait.

        `start` are the orders of a template. `dense` names what that reads of the checkpoint: a function that is
        deployed nowhere.
        """

    @property
    def has_room(self) -> bool:
        """Whether a node could start an orchestrator now."""

    def start(self) -> RemoteOrchestrator | None:
        """Start one on the node with the fewest, and the most memory of these. None if no node can. Waits for it.

        Raises `OSError` or `RuntimeError` if this machine lacks what it takes.
        """
